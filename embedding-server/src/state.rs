//! What all requests share: the model, the options, and what is left of the limits.

use std::{sync::Arc, time::Duration};

use embedder::Embedder;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{
    options::Options,
    problem::{Kind, Problem},
};

/// The loaded model, ready to be asked.
pub(crate) struct State {
    pub(crate) options: Options,
    pub(crate) embedder: Embedder,
    texts: Semaphore,
    tokenizing: Arc<Semaphore>,
}

/// From the parsed request to its answer. Only a machine that is far too slow for what is asked of it gets here.
const ANSWER_DEADLINE: Duration = Duration::from_secs(120);

impl State {
    /// Loads the model.
    ///
    /// # Errors
    /// When it cannot be loaded.
    pub(crate) fn load(options: Options) -> Result<Self, embedder::Error> {
        // The permits are the limit: whoever has one also finds a place in the queue.
        let waiting_texts_max = options.concurrent_texts_max;
        let embedder = Embedder::new(embedder::Options { threads: options.threads, waiting_texts_max })?;
        Ok(Self {
            embedder,
            texts: Semaphore::new(options.concurrent_texts_max),
            tokenizing: Arc::new(Semaphore::new(options.threads.get())),
            options,
        })
    }

    /// One permit for each text, at once or not at all: a queue that only grows helps nobody.
    pub(crate) fn admit(&self, texts: usize) -> Result<SemaphorePermit<'_>, Problem> {
        let overloaded = || Problem::new(Kind::Overloaded, "Model is overloaded").counted_as("overloaded");
        let permits = u32::try_from(texts).map_err(|_| overloaded())?;
        self.texts.try_acquire_many(permits).map_err(|_| overloaded())
    }

    /// Runs `work`, which tokenizes, where it holds no other request up, and not more of it at once than the model has
    /// threads.
    pub(crate) async fn tokenizing<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Embedder) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let permit = Arc::clone(&self.tokenizing).acquire_owned().await.map_err(|_| Problem::stopping())?;
        let embedder = self.embedder.clone();
        let work = move || {
            let result = work(&embedder);
            // Here and not outside: the work goes on when its client has gone.
            drop(permit);
            result
        };
        actix_web::web::block(work).await.map_err(|error| {
            tracing::error!(%error, "tokenizing failed");
            Problem::new(Kind::Tokenizer, "Tokenizer error: tokenizing failed")
        })?
    }
}

/// `work` with a deadline.
pub(crate) async fn in_time<T>(work: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
    tokio::time::timeout(ANSWER_DEADLINE, work).await.unwrap_or_else(|_| {
        let text = format!("no answer within {} s", ANSWER_DEADLINE.as_secs());
        Err(Problem::new(Kind::Unhealthy, text).counted_as("inference"))
    })
}
