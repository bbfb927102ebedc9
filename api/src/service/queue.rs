//! The two queues of embedding work: the contexts themselves are the active space's, and each other space has one of its own.

use std::time::Duration;

use super::Service;
use crate::{
    domain::{ContextId, SpaceId, TenantId},
    error::Result,
    store::{ChunkVector, PendingContext},
};

/// Contexts that one turn takes from a tenant at most, and chunks with which it has enough, so that the next tenant's turn
/// comes soon.
#[derive(Clone, Copy, Debug)]
pub(super) struct TurnSize {
    pub contexts: i64,
    pub chunks: i64,
}

/// Where contexts wait for their embedding in a space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queue {
    /// Of the active space: `contexts.embedding_status`.
    Contexts,
    /// What another space lacks; perhaps only what was written since it was made.
    Work { fresh_only: bool },
}

/// A space, and a tenant's part of its queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    pub space: SpaceId,
    pub queue: Queue,
    pub tenant: TenantId,
}

impl Service {
    pub(super) async fn tenants_in_queue(
        &self,
        space: SpaceId,
        queue: Queue,
        after: Option<TenantId>,
        tenants_max: i32,
    ) -> Result<Vec<TenantId>> {
        match queue {
            Queue::Contexts => self.store.tenants_with_pending(after, tenants_max).await,
            Queue::Work { fresh_only } => {
                self.store.tenants_with_work(space, fresh_only, after, tenants_max).await
            }
        }
    }

    pub(super) async fn claim_from_queue(
        &self,
        line: Line,
        size: TurnSize,
        claim: Duration,
    ) -> Result<Vec<PendingContext>> {
        let Line { space, queue, tenant } = line;
        match queue {
            Queue::Contexts => self.store.claim_pending(tenant, size.contexts, size.chunks, claim).await,
            Queue::Work { fresh_only } => {
                self.store.claim_work(tenant, space, fresh_only, size.contexts, size.chunks, claim).await
            }
        }
    }

    /// Makes claimed contexts due again after `delay`.
    pub(super) async fn postpone(
        &self,
        line: Line,
        contexts: &[(ContextId, i64)],
        delay: Duration,
        reason: Option<&str>,
    ) -> Result<()> {
        if contexts.is_empty() {
            return Ok(());
        }
        match line.queue {
            Queue::Contexts => self.store.postpone_pending(line.tenant, contexts, delay, reason).await,
            Queue::Work { .. } => {
                let ids: Vec<ContextId> = contexts.iter().map(|(id, _)| *id).collect();
                self.store.postpone_work(line.tenant, line.space, &ids, delay, reason).await
            }
        }
    }

    /// Keeps the embeddings of contexts that have all of theirs; answers of how many. The others were written again, or the
    /// space is not the active one any more.
    pub(super) async fn save(
        &self,
        line: Line,
        contexts: &[(ContextId, i64)],
        vectors: &[ChunkVector],
    ) -> Result<u64> {
        let Line { space, queue, tenant } = line;
        match queue {
            Queue::Contexts => self.store.save_embeddings(tenant, space, vectors).await,
            Queue::Work { .. } => self.store.save_work(tenant, space, contexts, vectors).await,
        }
    }

    /// Notes that the model could do nothing with this text: it is tried again after `delay`, or with none never.
    pub(super) async fn refuse(
        &self,
        line: Line,
        (context, version): (ContextId, i64),
        delay: Option<Duration>,
        reason: &str,
    ) -> Result<()> {
        let Line { space, queue, tenant } = line;
        match queue {
            Queue::Contexts => {
                self.store.refuse_pending(tenant, space, context, version, delay, reason).await
            }
            Queue::Work { .. } => {
                self.store.refuse_work(tenant, space, context, version, delay, reason).await
            }
        }
    }
}
