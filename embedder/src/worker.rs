//! The threads that do the work: take a unit from the queue, tokenize, run the model, hand the embeddings back.

use std::any::Any;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rten::ThreadPool;

use crate::model::Model;
use crate::queue::{Queue, Reply, Unit};
use crate::tokenizer::Tokenizer;
use crate::{BATCH_TOKENS_MAX, Embedding, Error};

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

/// A text as the model reads it, and where its embedding goes.
struct Read {
    place: usize,
    ids: Vec<i32>,
    is_whole: bool,
    tokenizing: Duration,
}

impl Engine {
    fn work(&self, threads: &Arc<ThreadPool>) {
        while let Some(unit) = self.queue.pop() {
            // A defect in a dependency must not take the thread away and leave the callers waiting.
            let result = catch_unwind(AssertUnwindSafe(|| self.embed(&unit, threads)))
                .unwrap_or_else(|panic| Err(Error::Model(message(&*panic).to_owned())));
            unit.job.finish(&unit.texts, result);
        }
    }

    /// Embeddings in the order of the unit. Like lengths are computed together, because padding costs as much as text.
    fn embed(&self, unit: &Unit, threads: &Arc<ThreadPool>) -> Reply {
        let waiting = unit.job.queued_at.elapsed();
        let read = |(place, &text): (usize, &usize)| {
            let begin = Instant::now();
            let (ids, is_whole) =
                self.tokenizer.encode(&unit.job.texts[text], unit.job.keep.unwrap_or_default())?;
            if !is_whole && unit.job.keep.is_none() {
                return Err(Error::TooLong);
            }
            Ok(Read { place, ids, is_whole, tokenizing: begin.elapsed() })
        };
        let mut texts: Vec<Read> = unit.texts.iter().enumerate().map(read).collect::<Result<_, Error>>()?;
        texts.sort_by_key(|text| text.ids.len());
        let mut embeddings = vec![Embedding::default(); texts.len()];
        let mut rest = texts.as_slice();
        while !rest.is_empty() {
            let fitting = |count: &usize| rest[count - 1].ids.len() * count <= BATCH_TOKENS_MAX;
            let (batch, after) = rest.split_at((2..=rest.len()).take_while(fitting).last().unwrap_or(1));
            let ids: Vec<&[i32]> = batch.iter().map(|text| text.ids.as_slice()).collect();
            let begin = Instant::now();
            let means = self.model.embed(&ids, threads)?;
            let computing = begin.elapsed();
            for (text, mean) in batch.iter().zip(means) {
                let (tokens, is_whole, tokenizing) = (text.ids.len(), text.is_whole, text.tokenizing);
                embeddings[text.place] = Embedding { mean, tokens, is_whole, waiting, tokenizing, computing };
            }
            rest = after;
        }
        Ok(embeddings)
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("panicked")
}
