//! How much is stored, and how far its embedding is.

use super::{Once, Service, unit::once};
use crate::{
    domain::{
        Access, Actor, EmbeddingBacklog, IdempotentRequest, KeptAnswer, Retried, Selection, SpaceId,
        SpaceStatus, SpaceWork, Stored, Usage,
    },
    error::{Code, Result},
    store::Unit,
};

/// Contexts that one request puts back into the queue.
const RETRIED_MAX: u32 = 10_000;

impl Service {
    /// # Errors
    /// [`Code::DatabaseUnavailable`].
    pub async fn usage(&self, access: Access) -> Result<Usage> {
        let backlog = self.store.backlog(access).await?;
        let stored = match self.store.count_stored(access).await {
            // It is the tenant's, and says nothing about one of its users.
            Ok(stored) if access.user.is_none() => Some(Stored { bytes_max: self.quota.bytes_max, ..stored }),
            Ok(stored) => Some(stored),
            // Whoever has too much to be counted wants to see the backlog all the more.
            Err(error) if error.code == Code::DeadlineExceeded => None,
            Err(error) => return Err(error),
        };
        let embedding = EmbeddingBacklog {
            space: self.active_space().await?,
            pending: backlog.pending,
            oldest_pending_since: backlog.oldest_requested_at,
            oldest_pending_seconds: backlog.oldest_seconds,
            failed: backlog.failed,
        };
        Ok(Usage { stored, embedding })
    }

    /// Puts contexts whose embedding failed back into the queue, at most [`RETRIED_MAX`] at once.
    ///
    /// # Errors
    /// What `Idempotency-Key` brings; [`Code::DatabaseUnavailable`].
    pub async fn retry_embeddings(
        &self,
        actor: &Actor,
        selection: &Selection,
        request: Option<&IdempotentRequest>,
        answer: impl Fn(&Retried) -> Result<KeptAnswer>,
    ) -> Result<KeptAnswer> {
        let work = async |unit: &mut Unit| {
            let retried = unit.retry_failed(selection, i64::from(RETRIED_MAX)).await?;
            Ok(Retried { retried, has_more: retried == u64::from(RETRIED_MAX) })
        };
        let answered = once(&self.store, actor, request, answer, work).await.map(Once::answer);
        self.notice_pending();
        answered
    }

    /// Measures the backlog of all tenants.
    ///
    /// # Errors
    /// [`Code::DatabaseUnavailable`].
    pub async fn measure_backlog(&self) -> Result<()> {
        let backlog = self.store.backlog_of_all().await?;
        metrics::gauge!("embedding_pending_contexts").set(backlog.pending as f64);
        metrics::gauge!("embedding_oldest_pending_seconds").set(backlog.oldest_seconds);
        metrics::gauge!("embedding_failed_contexts").set(backlog.failed as f64);
        for space in self.store.list_spaces().await? {
            let work = match space.status {
                SpaceStatus::Retired => SpaceWork::default(),
                _ => self.store.space_work(SpaceId(space.info.id)).await?,
            };
            for (kind, contexts) in
                [("backfill", work.backfill), ("fresh", work.fresh), ("failed", work.failed)]
            {
                let space = space.info.id.to_string();
                metrics::gauge!("embedding_space_contexts", "space" => space, "kind" => kind)
                    .set(contexts as f64);
            }
        }
        Ok(())
    }
}
