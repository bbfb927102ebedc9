//! Who is served next. Jobs wait in two bounded lanes and are handed out in small units, so that a question never
//! waits behind a long backfill for more than the unit that is running. It knows nothing of the model.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use futures_channel::oneshot;

use crate::{Embedding, Error, Keep};

/// Which texts go first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Somebody waits for the answer: served before any backfill, even one that has begun.
    Query,
    /// Nobody waits: served when no query does.
    Backfill,
}

/// Embeddings in the order of the texts, or why there are none.
pub(crate) type Reply = Result<Vec<Embedding>, Error>;

/// Texts at a time, and their estimated tokens. Measured: a larger batch is no faster, since the activations of this
/// many tokens still fit the processor's cache; and it is what a query has to wait for at worst.
const UNIT_TEXTS_MAX: usize = crate::BATCH_TEXTS_MAX;
const UNIT_TOKENS_MAX: usize = crate::BATCH_TOKENS_MAX;

/// The texts of one call and what has become of them.
pub(crate) struct Job {
    pub(crate) texts: Vec<String>,
    pub(crate) keep: Option<Keep>,
    pub(crate) queued_at: Instant,
    progress: Mutex<Progress>,
}

struct Progress {
    embeddings: Vec<Embedding>,
    missing: usize,
    /// Taken when the reply is sent.
    sender: Option<oneshot::Sender<Reply>>,
}

impl Job {
    /// Nobody waits for it any more: the future was dropped, or a unit has failed.
    pub(crate) fn is_abandoned(&self) -> bool {
        lock(&self.progress).sender.as_ref().is_none_or(oneshot::Sender::is_canceled)
    }

    /// Puts the embeddings of a unit in their places and replies if they are the last ones.
    pub(crate) fn finish(&self, unit: &[usize], result: Reply) {
        let mut progress = lock(&self.progress);
        match result {
            Ok(embeddings) => {
                progress.missing = progress.missing.saturating_sub(unit.len());
                for (&place, embedding) in unit.iter().zip(embeddings) {
                    progress.embeddings[place] = embedding;
                }
                if progress.missing == 0 {
                    let embeddings = std::mem::take(&mut progress.embeddings);
                    progress.reply(Ok(embeddings));
                }
            }
            Err(error) => progress.reply(Err(error)),
        }
    }
}

impl Progress {
    fn reply(&mut self, reply: Reply) {
        if let Some(sender) = self.sender.take() {
            // The receiver may be gone; then nobody wants to know.
            drop(sender.send(reply));
        }
    }
}

/// Some texts of a job, by index, to be computed by one worker.
pub(crate) struct Unit {
    pub(crate) job: Arc<Job>,
    pub(crate) texts: Vec<usize>,
}

pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    waiting_texts_max: usize,
}

#[derive(Default)]
struct State {
    query: Waiting,
    backfill: Waiting,
    closed: bool,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<(Arc<Job>, VecDeque<Vec<usize>>)>,
    texts: usize,
}

impl Queue {
    pub(crate) fn new(waiting_texts_max: usize) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), waiting_texts_max }
    }

    /// Queues the texts as a whole or not at all. A call with more texts than may wait is taken if nothing else waits:
    /// otherwise it could never succeed.
    pub(crate) fn push(
        &self,
        texts: Vec<String>,
        keep: Option<Keep>,
        lane: Lane,
    ) -> Result<oneshot::Receiver<Reply>, Error> {
        let (sender, receiver) = oneshot::channel();
        let units = plan(&texts);
        let count = texts.len();
        let embeddings = vec![Embedding::default(); count];
        let progress = Mutex::new(Progress { embeddings, missing: count, sender: Some(sender) });
        let job = Arc::new(Job { texts, keep, queued_at: Instant::now(), progress });

        let mut state = lock(&self.state);
        if state.closed {
            return Err(Error::Closed);
        }
        let max = self.waiting_texts_max;
        let waiting = state.lane(lane);
        if waiting.texts + count > max {
            waiting.forget_abandoned();
        }
        if waiting.texts + count > max && waiting.texts > 0 {
            return Err(Error::Overloaded { waiting: waiting.texts, max });
        }
        waiting.texts += count;
        waiting.jobs.push_back((job, units));
        drop(state);
        self.changed.notify_all();
        Ok(receiver)
    }

    /// The next unit, waiting for one; none when the queue is closed.
    pub(crate) fn pop(&self) -> Option<Unit> {
        let mut state = lock(&self.state);
        loop {
            if state.closed {
                return None;
            }
            if let Some(unit) = state.query.pop().or_else(|| state.backfill.pop()) {
                return Some(unit);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Sends everybody who waits away and lets the workers end.
    pub(crate) fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        let left = [std::mem::take(&mut state.query), std::mem::take(&mut state.backfill)];
        drop(state);
        self.changed.notify_all();
        for (job, _) in left.into_iter().flat_map(|waiting| waiting.jobs) {
            job.finish(&[], Err(Error::Closed));
        }
    }

    pub(crate) fn waiting(&self, lane: Lane) -> usize {
        lock(&self.state).lane(lane).texts
    }
}

impl State {
    fn lane(&mut self, lane: Lane) -> &mut Waiting {
        match lane {
            Lane::Query => &mut self.query,
            Lane::Backfill => &mut self.backfill,
        }
    }
}

impl Waiting {
    fn pop(&mut self) -> Option<Unit> {
        while let Some((job, units)) = self.jobs.front_mut() {
            if !job.is_abandoned()
                && let Some(texts) = units.pop_front()
            {
                self.texts -= texts.len();
                return Some(Unit { job: Arc::clone(job), texts });
            }
            self.texts -= units.iter().map(Vec::len).sum::<usize>();
            self.jobs.pop_front();
        }
        None
    }

    fn forget_abandoned(&mut self) {
        self.jobs.retain(|(job, _)| !job.is_abandoned());
        self.texts = self.jobs.iter().flat_map(|(_, units)| units).map(Vec::len).sum();
    }
}

/// Splits texts into units of like length, shortest first. The length in bytes stands for that in tokens, which is
/// not known yet and too slow to find out on the caller's thread.
fn plan(texts: &[String]) -> VecDeque<Vec<usize>> {
    let mut order: Vec<usize> = (0..texts.len()).collect();
    order.sort_by_key(|&place| texts[place].len());
    let mut units = VecDeque::new();
    let mut unit = Vec::new();
    let mut tokens = 0;
    for place in order {
        let estimate = (texts[place].len() / 4 + 2).min(crate::TOKENS_MAX);
        if !unit.is_empty() && (unit.len() == UNIT_TEXTS_MAX || tokens + estimate > UNIT_TOKENS_MAX) {
            units.push_back(std::mem::take(&mut unit));
            tokens = 0;
        }
        unit.push(place);
        tokens += estimate;
    }
    if !unit.is_empty() {
        units.push_back(unit);
    }
    units
}

/// No code panics while it holds one of these locks, and if it did, the data would still be whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
