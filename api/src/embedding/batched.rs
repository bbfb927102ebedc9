//! Queries that come at the same moment go to the provider together: a model takes hardly longer for several than for one.
//! As long as the provider has room a query goes at once and alone, so this costs nothing when little is going on.
//! Documents come in batches already and pass.

use std::{
    collections::VecDeque,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::{
    StreamExt,
    future::{BoxFuture, Either, select},
    stream,
};
use tokio::{runtime::Handle, sync::oneshot, time::timeout};

use super::{EmbedError, Embedder, Model, Purpose};
use crate::{domain::Vector, telemetry::spans::Origin};

/// How long a query waits for company while as many calls are under way as keep the provider busy.
const WAIT_MAX: Duration = Duration::from_millis(5);
/// Calls beyond those, of queries that have waited so long. The next ones wait until one of all ends.
const LATE_CALLS_MAX: usize = 4;
/// Queries that may wait.
const WAITING_MAX: usize = 1_024;

type Answer = Result<Vec<Vector>, EmbedError>;

/// An embedder that puts queries together.
pub(super) struct Batched<E>(Arc<Queue<E>>);

struct Queue<E> {
    inner: E,
    /// Calls with queries that keep the provider busy.
    calls_busy: usize,
    wait_max: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Calls with queries that are under way.
    calls: usize,
    /// Those who wait for one, first come first.
    waiting: VecDeque<Waiting>,
    /// The number of the next one to wait.
    next: u64,
}

struct Waiting {
    number: u64,
    texts: Vec<String>,
    origin: Origin,
    /// Closed when nobody waits for it any more.
    answer: oneshot::Sender<Answer>,
}

/// A call under way. When it ends, in whatever way, those who wait are next.
struct Call<E: Embedder + 'static>(Arc<Queue<E>>);

/// How a query begins.
enum Begun<E: Embedder + 'static> {
    Call(Call<E>, Vec<String>),
    Waiting(u64, oneshot::Receiver<Answer>),
}

impl<E> Batched<E> {
    /// `calls_busy` calls with queries at the same time keep `inner` busy: only beyond those does a query wait.
    pub(super) fn new(inner: E, calls_busy: usize) -> Self {
        Self::waiting(inner, calls_busy, WAIT_MAX)
    }

    fn waiting(inner: E, calls_busy: usize, wait_max: Duration) -> Self {
        Self(Arc::new(Queue { inner, calls_busy, wait_max, state: Mutex::default() }))
    }
}

impl State {
    /// The first of those who wait, as many as have `texts_max` texts; at least one.
    fn take(&mut self, texts_max: usize) -> Vec<Waiting> {
        let (mut taken, mut texts) = (Vec::new(), 0);
        while let Some(first) = self.waiting.pop_front() {
            if first.answer.is_closed() {
                continue;
            }
            texts += first.texts.len();
            if texts > texts_max && !taken.is_empty() {
                self.waiting.push_front(first);
                break;
            }
            taken.push(first);
        }
        taken
    }
}

impl<E: Embedder + 'static> Queue<E> {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(self: &Arc<Self>, texts: Vec<String>) -> Result<Begun<E>, EmbedError> {
        let mut state = self.lock();
        if state.calls < self.calls_busy {
            state.calls += 1;
            return Ok(Begun::Call(Call(Arc::clone(self)), texts));
        }
        if state.waiting.len() >= WAITING_MAX {
            state.waiting.retain(|waiting| !waiting.answer.is_closed());
        }
        if state.waiting.len() >= WAITING_MAX {
            return Err(EmbedError::transient("too many queries wait for the embedding provider"));
        }
        let (answer, answered) = oneshot::channel();
        let number = state.next;
        state.next += 1;
        state.waiting.push_back(Waiting { number, texts, origin: Origin::here(), answer });
        Ok(Begun::Waiting(number, answered))
    }

    /// Sends those who wait, as many together as one call takes, if there are fewer calls than `calls_max`. In a task of its
    /// own: whoever makes room may go away while the others wait.
    fn send_waiting(self: &Arc<Self>, calls_max: usize) {
        let mut state = self.lock();
        if state.calls >= calls_max {
            return;
        }
        let together = state.take(self.inner.batch_texts_max());
        if together.is_empty() {
            return;
        }
        state.calls += 1;
        drop(state);
        let call = Call(Arc::clone(self));
        // A call is in one trace, whomever else it is for: in the first that is recorded.
        let origin = together.iter().map(|waiting| &waiting.origin).find(|origin| origin.is_recorded());
        let origin = origin.cloned().unwrap_or_default();
        // Without a runtime the process ends, and so does the call.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(origin.around(async move { call.0.answer(together).await }));
        }
    }

    /// Has the texts of all of them embedded, and gives each their own. What one of the texts is to blame for is not the
    /// others' fault: then each is tried alone.
    fn answer(&self, mut together: Vec<Waiting>) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let texts = together.iter().flat_map(|waiting| waiting.texts.iter().cloned()).collect();
            let work = self.inner.embed(Purpose::Query, texts);
            let all_gone = async {
                for waiting in &mut together {
                    waiting.answer.closed().await;
                }
            };
            let answer = match select(work, pin!(all_gone)).await {
                Either::Left((answer, _)) => answer,
                Either::Right(_) => return,
            };
            match answer {
                Ok(vectors) => {
                    let mut vectors = vectors.into_iter();
                    for Waiting { texts, answer, .. } in together {
                        // Who has gone does not mind.
                        answer.send(Ok(vectors.by_ref().take(texts.len()).collect())).ok();
                    }
                }
                Err(error) if together.len() == 1 || matches!(error, EmbedError::Transient { .. }) => {
                    for waiting in together {
                        waiting.answer.send(Err(error.clone())).ok();
                    }
                }
                Err(_) => {
                    stream::iter(together)
                        .for_each_concurrent(self.calls_busy, |one| self.answer(vec![one]))
                        .await;
                }
            }
        })
    }
}

impl<E: Embedder + 'static> Drop for Call<E> {
    fn drop(&mut self) {
        self.0.lock().calls -= 1;
        self.0.send_waiting(self.0.calls_busy);
    }
}

#[async_trait]
impl<E: Embedder + 'static> Embedder for Batched<E> {
    async fn embed(&self, purpose: Purpose, texts: Vec<String>) -> Answer {
        let queue = &self.0;
        if purpose != Purpose::Query {
            return queue.inner.embed(purpose, texts).await;
        }
        let (number, mut answered) = match queue.begin(texts)? {
            Begun::Call(call, texts) => return call.0.inner.embed(purpose, texts).await,
            Begun::Waiting(number, answered) => (number, answered),
        };
        let answer = if let Ok(answer) = timeout(queue.wait_max, &mut answered).await {
            answer
        } else {
            let is_first = queue.lock().waiting.front().is_some_and(|first| first.number <= number);
            if is_first {
                queue.send_waiting(queue.calls_busy + LATE_CALLS_MAX);
            }
            answered.await
        };
        answer.unwrap_or_else(|_| Err(EmbedError::transient("the query was given up")))
    }

    async fn model(&self) -> Result<Model, EmbedError> {
        self.0.inner.model().await
    }

    async fn probe(&self) -> Result<(), EmbedError> {
        self.0.inner.probe().await
    }

    fn batch_texts_max(&self) -> usize {
        self.0.inner.batch_texts_max()
    }

    fn calls_at_once(&self) -> usize {
        self.0.inner.calls_at_once()
    }
}

#[cfg(test)]
mod tests;
