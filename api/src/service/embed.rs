//! The work behind `embedding_status`: takes what is pending, has it embedded, and writes the result down. Called in
//! loops by any number of workers; each step may be cut off at any point and is simply done again.

use std::{collections::VecDeque, time::Duration};

use super::{
    ProviderState, Service,
    batches::{Claims, Piece},
    provider::Pass,
};
use crate::{
    domain::{ContextId, SpaceId, SpaceInfo, TenantId},
    embedding::{EmbedError, Purpose},
    error::Result,
    store::{ChunkVector, PendingContext},
};

/// Tenants that are looked up at once.
const TENANTS_MAX: i32 = 100;
/// Contexts that one turn takes from a tenant, and chunks with which it has enough, so that the next tenant's turn comes
/// soon.
const CONTEXTS_MAX: i64 = 32;
const CHUNKS_MAX: i64 = 64;
/// Contexts by which a provider that has failed is tried: two, because one may be the text that it cannot do anything with.
const PROBE_CONTEXTS: i64 = 2;
/// How long a claim lasts; it is renewed after each batch. One that has to be halved may outlast it: then another worker
/// may embed the same rows, and the first to finish writes them.
const CLAIM: Duration = Duration::from_secs(30);

/// How a round of work went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    /// There was nothing to do.
    Idle,
    /// Something was done, and there may be more.
    Worked,
    /// There is work, but the provider cannot do it now.
    Blocked,
}

/// Whose turn is next. The loops of a process share it, so that they do not serve the same tenant at once while others wait.
#[derive(Default)]
pub(super) struct Rotation {
    waiting: VecDeque<TenantId>,
    last: Option<TenantId>,
}

impl Service {
    /// How many loops keep the provider busy: while one writes down, another has its texts embedded.
    pub fn embedding_loops(&self) -> usize {
        self.embedder.calls_at_once()
    }

    /// One turn: embeds some of what is pending, of the tenant that comes next.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn embed_pending(&self) -> Result<Round> {
        let Some(tenant) = self.next_tenant().await? else { return Ok(Round::Idle) };
        let Some(space) = self.space_to_write().await? else { return Ok(Round::Blocked) };
        let (is_probe, contexts_max) = match self.document_breaker.pass() {
            Pass::Free => (false, CONTEXTS_MAX),
            Pass::Probe => (true, PROBE_CONTEXTS),
            Pass::Refused => return Ok(Round::Blocked),
        };
        let claimed = self.store.claim_pending(tenant, contexts_max, CHUNKS_MAX, CLAIM).await?;
        let mut claims = Claims::new(tenant, is_probe);
        let pieces = self.open(&mut claims, claimed).await?;
        if let Err(error) = self.embed_claimed(&space, &mut claims, pieces).await? {
            // Not about a text: the others' turn would end the same.
            self.postpone_all(&claims, &error).await?;
            self.look_at_provider().await;
            return Ok(Round::Blocked);
        }
        Ok(Round::Worked)
    }

    /// Those with work, in the order of their ids, round and round.
    async fn next_tenant(&self) -> Result<Option<TenantId>> {
        let mut rotation = self.rotation.lock().await;
        if rotation.waiting.is_empty() {
            let mut tenants = self.store.tenants_with_pending(rotation.last, TENANTS_MAX).await?;
            if tenants.is_empty() && rotation.last.is_some() {
                tenants = self.store.tenants_with_pending(None, TENANTS_MAX).await?;
            }
            rotation.waiting = tenants.into();
        }
        rotation.last = rotation.waiting.pop_front();
        Ok(rotation.last)
    }

    /// The space of the provider's model: the active one, or the first one, made now. None while the provider is away
    /// or its model is another than that of the active space.
    pub(super) async fn space_to_write(&self) -> Result<Option<SpaceInfo>> {
        let ProviderState::Up(model) = self.provider_state() else { return Ok(None) };
        let space = if let Some(space) = self.active_space().await? {
            space
        } else {
            // The dimension is a property of what comes back, not of any configuration.
            let probe = self.embedder.embed(Purpose::Document, vec!["dimension".to_owned()]).await;
            let Some(dims) = probe.ok().and_then(|vectors| vectors.first().map(|v| v.dimensions())) else {
                self.look_at_provider().await;
                return Ok(None);
            };
            self.store.create_first_space(model.provider, &model.name, dims, model.tokens_max).await?;
            let Some(space) = self.active_space().await? else { return Ok(None) };
            space
        };
        if space.provider == model.provider && space.model == model.name {
            Ok(Some(space))
        } else {
            tracing::error!(
                space.provider,
                space.model,
                model.provider,
                model.name,
                "the configured embedding model is not the active space's; nothing is embedded until it is"
            );
            Ok(None)
        }
    }

    async fn open(&self, claims: &mut Claims, claimed: Vec<PendingContext>) -> Result<Vec<Piece>> {
        // Written again in the very moment of the claim: due at once, in their new version.
        let (raced, claimed): (Vec<_>, Vec<_>) =
            claimed.into_iter().partition(|context| context.chunks.is_empty());
        if !raced.is_empty() {
            let raced: Vec<_> = raced.iter().map(|context| (context.id, context.version)).collect();
            self.store.postpone_pending(claims.tenant, &raced, Duration::ZERO, None).await?;
        }
        Ok(claimed.into_iter().flat_map(|context| claims.add(context)).collect())
    }

    /// The inner error is about the provider, not about a text.
    async fn embed_claimed(
        &self,
        space: &SpaceInfo,
        claims: &mut Claims,
        pieces: Vec<Piece>,
    ) -> Result<Result<(), EmbedError>> {
        let mut pieces = pieces.into_iter().peekable();
        while pieces.peek().is_some() {
            let batch: Vec<Piece> = pieces.by_ref().take(self.embedder.batch_texts_max()).collect();
            let outcome = self.embed_batch(space, claims, batch).await?;
            self.save_finished(space, claims).await?;
            if outcome.is_err() {
                return Ok(outcome);
            }
            let waiting = claims.waiting();
            if !waiting.is_empty() {
                self.store.postpone_pending(claims.tenant, &waiting, CLAIM, None).await?;
            }
        }
        Ok(Ok(()))
    }

    /// Puts what is claimed back, for a moment: the breaker keeps the provider from being asked in vain, so that all of it is
    /// embedded at once when it is back.
    async fn postpone_all(&self, claims: &Claims, error: &EmbedError) -> Result<()> {
        let waiting: Vec<(ContextId, i64)> = claims.waiting();
        let delay = self.document_breaker.open(error.retry_after());
        tracing::warn!(%error, contexts = waiting.len(), ?delay, "embedding failed and will be tried again");
        metrics::counter!("embedding_failures_total", "kind" => "transient").increment(1);
        self.store.postpone_pending(claims.tenant, &waiting, delay, Some(error.public_reason())).await
    }

    /// Writes the contexts of which all chunks are embedded.
    async fn save_finished(&self, space: &SpaceInfo, claims: &mut Claims) -> Result<()> {
        let vectors: Vec<ChunkVector> = claims.take_finished();
        if vectors.is_empty() {
            return Ok(());
        }
        let ready = self.store.save_embeddings(claims.tenant, SpaceId(space.id), &vectors).await?;
        self.embedded.notify_waiters();
        metrics::counter!("contexts_embedded_total").increment(ready);
        metrics::counter!("chunks_embedded_total").increment(vectors.len() as u64);
        Ok(())
    }
}
