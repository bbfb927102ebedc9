//! Packing: a search, and as much of what it found as fits into a budget of tokens, as one text. Counting tokens is work
//! for a processor, so it is done aside, by as many packs at once as there are cores.

mod excerpt;
mod render;
mod select;
mod similar;
#[cfg(test)]
mod tests;
mod tokens;

use std::{sync::Arc, thread, time::Instant};

use tokio::{sync::Semaphore, task::spawn_blocking};

use self::{select::Packed, tokens::Tokenizers};
use super::Service;
use crate::{
    domain::{Access, Hit, Included, PackRequest, PackResponse, SearchRequest},
    error::{Error, Result},
};

/// Where packing is done.
#[derive(Clone)]
pub(super) struct Packing {
    turns: Arc<Semaphore>,
    tokenizers: Arc<Tokenizers>,
}

impl Packing {
    pub(super) fn new() -> Self {
        let cores = thread::available_parallelism().map_or(1, Into::into);
        Self { turns: Arc::new(Semaphore::new(cores)), tokenizers: Arc::default() }
    }

    async fn pack(&self, hits: Vec<Hit>, request: PackRequest) -> Result<Packed> {
        // Bounded by the request's deadline.
        let turn = self.turns.clone().acquire_owned().await.map_err(Error::internal)?;
        let tokenizers = self.tokenizers.clone();
        let work = move || {
            // Not before the work is done, also when nobody waits for it any more.
            let _turn = turn;
            let budget = request.budget;
            let meter = tokenizers.meter(budget.tokenizer, budget.max_tokens)?;
            Ok(select::pack(&hits, &request, meter))
        };
        spawn_blocking(work).await.map_err(Error::internal)?
    }
}

impl Service {
    /// # Errors
    /// As [`Service::search`].
    pub async fn pack(
        &self,
        access: Access,
        mut search: SearchRequest,
        request: PackRequest,
    ) -> Result<PackResponse> {
        let started = Instant::now();
        search.include = Included { content: false, metadata: false, text: true };
        let found = self.search(access, &search).await?;
        let Packed { text, tokens, citations, dropped } = self.packing.pack(found.data, request).await?;
        Ok(PackResponse {
            text,
            tokens,
            citations,
            dropped,
            degraded: found.degraded,
            plan: found.plan,
            candidates: found.candidates,
            complete: found.complete,
            space: found.space,
            took_ms: started.elapsed().as_secs_f64() * 1000.0,
            timings: found.timings,
        })
    }
}
