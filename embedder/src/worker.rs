//! The threads that do the work: take a unit from the queue, tokenize, run the model, hand the vectors back.

use std::any::Any;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use rten::ThreadPool;

use crate::model::Model;
use crate::queue::{Queue, Reply};
use crate::tokenizer::Tokenizer;
use crate::{BATCH_TOKENS_MAX, Error};

/// What all workers share.
pub(crate) struct Engine {
    pub(crate) tokenizer: Tokenizer,
    pub(crate) model: Model,
    pub(crate) queue: Queue,
}

/// Starts the threads. They end when the queue is closed.
pub(crate) fn start(engine: &Arc<Engine>, threads: NonZeroUsize) -> Result<(), Error> {
    for number in 0..threads.get() {
        let engine = Arc::clone(engine);
        // One text at a time on each thread scales better than all threads on one text.
        let single = Arc::new(ThreadPool::with_num_threads(1));
        thread::Builder::new()
            .name(format!("embedder-{number}"))
            .spawn(move || engine.work(&single))
            .map_err(Error::Thread)?;
    }
    Ok(())
}

impl Engine {
    fn work(&self, threads: &Arc<ThreadPool>) {
        while let Some(unit) = self.queue.pop() {
            let texts = || unit.texts.iter().map(|&place| unit.job.texts[place].as_str());
            // A defect in a dependency must not take the thread away and leave the callers waiting.
            let result = catch_unwind(AssertUnwindSafe(|| self.embed(texts(), threads)))
                .unwrap_or_else(|panic| Err(Error::Model(message(&*panic).to_owned())));
            unit.job.finish(&unit.texts, result);
        }
    }

    /// Vectors in the order of the texts. Like lengths are computed together, because padding costs as much as text.
    fn embed<'a>(&self, texts: impl Iterator<Item = &'a str>, threads: &Arc<ThreadPool>) -> Reply {
        let mut texts: Vec<(usize, Vec<i32>)> = texts
            .map(|text| self.tokenizer.encode(text))
            .collect::<Result<Vec<_>, _>>()?
            .into_iter()
            .enumerate()
            .collect();
        texts.sort_by_key(|(_, ids)| ids.len());
        let (order, texts): (Vec<usize>, Vec<Vec<i32>>) = texts.into_iter().unzip();
        let mut vectors = vec![Vec::new(); order.len()];
        let mut begin = 0;
        while begin < texts.len() {
            let mut end = begin + 1;
            while end < texts.len() && texts[end].len() * (end + 1 - begin) <= BATCH_TOKENS_MAX {
                end += 1;
            }
            for (&place, vector) in
                order[begin..end].iter().zip(self.model.embed(&texts[begin..end], threads)?)
            {
                vectors[place] = vector;
            }
            begin = end;
        }
        Ok(vectors)
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("panicked")
}
