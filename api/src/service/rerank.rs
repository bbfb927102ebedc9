//! Asking a reranker how well texts answer a query, as long as it is worth being asked.

use std::{sync::Arc, time::Duration};

use super::{
    Service,
    breaker::{Breaker, Pass},
};
use crate::{
    domain::{Degraded, limits::RERANK_DEADLINE},
    embedding::{EmbedError, Reranker},
};

/// How long searches do without the reranker after it has failed one of them.
const PAUSE: Duration = Duration::from_secs(5);

/// The reranker, and whether it is worth being asked.
pub(super) struct Reranking {
    reranker: Reranker,
    breaker: Breaker,
}

impl Service {
    /// With a reranker for the searches that ask for it.
    #[must_use]
    pub fn with_reranker(mut self, reranker: Option<Reranker>) -> Self {
        self.reranking =
            reranker.map(|reranker| Arc::new(Reranking { reranker, breaker: Breaker::new(PAUSE) }));
        self
    }

    /// One score per text, in order; all of them within the deadline, or none.
    pub(super) async fn rerank_texts(&self, query: &str, texts: &[&str]) -> Result<Vec<f64>, Degraded> {
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        let Some(reranking) = &self.reranking else { return Err(Degraded::RerankerUnavailable) };
        if reranking.breaker.pass() == Pass::Refused {
            return Err(Degraded::RerankerUnavailable);
        }
        let mut scores = Vec::with_capacity(texts.len());
        let calls = reranking.reranker.rerank(query, texts, &mut scores);
        let outcome = tokio::time::timeout(RERANK_DEADLINE, calls)
            .await
            .unwrap_or_else(|_| Err(EmbedError::transient("the hits were not reranked in time")));
        match &outcome {
            Ok(()) | Err(EmbedError::Permanent { .. } | EmbedError::TooLong { .. }) => {
                reranking.breaker.close()
            }
            // It is well, and was asked for more than it can do in the time.
            Err(EmbedError::Transient { .. }) if !scores.is_empty() => reranking.breaker.close(),
            Err(error) => {
                reranking.breaker.open(error.retry_after());
            }
        }
        outcome.map(|()| scores).map_err(|error| {
            tracing::warn!(%error, "hits could not be reranked");
            Degraded::RerankerUnavailable
        })
    }
}
