//! Putting hits into the order that a reranker gives them. Without it, for whatever reason, they keep the one that they have.

use std::{sync::Arc, time::Duration};

use super::{
    Service,
    breaker::{Breaker, Pass},
};
use crate::{
    domain::{Degraded, Hit, limits::RERANK_DEADLINE},
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

    /// Gives the hits the reranker's scores and order. When it cannot be had, they stay as they are, and the answer says why.
    pub(super) async fn rerank(&self, query: &str, hits: &mut [Hit]) -> Result<(), Degraded> {
        let texts: Vec<&str> = hits.iter().map(|hit| hit.chunk.text.as_str()).collect();
        let scores = self.rerank_texts(query, &texts).await?;
        for (hit, score) in hits.iter_mut().zip(scores) {
            hit.score = score;
        }
        // Of equal scores the one that stood first stays first.
        hits.sort_by(|a, b| b.score.total_cmp(&a.score));
        Ok(())
    }

    /// One score per text, in order.
    async fn rerank_texts(&self, query: &str, texts: &[&str]) -> Result<Vec<f64>, Degraded> {
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        let Some(reranking) = &self.reranking else { return Err(Degraded::RerankerUnavailable) };
        if reranking.breaker.pass() == Pass::Refused {
            return Err(Degraded::RerankerUnavailable);
        }
        let scores = tokio::time::timeout(RERANK_DEADLINE, reranking.reranker.rerank(query, texts))
            .await
            .unwrap_or_else(|_| Err(EmbedError::transient("the hits were not reranked in time")));
        match &scores {
            // It is well, and takes other texts.
            Ok(_) | Err(EmbedError::Permanent { .. }) => reranking.breaker.close(),
            Err(error) => {
                reranking.breaker.open(error.retry_after());
            }
        }
        scores.map_err(|error| {
            tracing::warn!(%error, "hits could not be reranked");
            Degraded::RerankerUnavailable
        })
    }
}
