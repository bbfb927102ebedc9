//! The work behind `embedding_status`: takes what is pending, has it embedded, and writes the result down. Called in a
//! loop by any number of workers; each step may be cut off at any point and is simply done again.

use std::{collections::HashMap, time::Duration};

use super::{ProviderState, Service};
use crate::{
    domain::{ContextId, SpaceId, SpaceInfo, TenantId, Vector},
    embedding::{EmbedError, Purpose},
    error::Result,
    store::{ChunkVector, PendingContext},
};

/// Tenants that one round looks at.
const TENANTS_MAX: i32 = 100;
/// Contexts that one round takes from a tenant, so that the next tenant's turn comes soon.
const CONTEXTS_MAX: i64 = 32;
/// How long a claim lasts; it is renewed after each batch. One that has to be halved may outlast it: then another worker
/// may embed the same rows, and the first to finish writes them.
const CLAIM: Duration = Duration::from_secs(30);
/// Back-off after a transient failure: doubles from the first to the last.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LAST: Duration = Duration::from_secs(60);
/// How often a text that spoils the provider's answer is tried.
const ATTEMPTS_MAX: i32 = 10;

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

/// One chunk of a claimed context.
struct Piece {
    context: ContextId,
    chunk_no: i32,
    text: String,
}

/// A claimed context that is not written yet.
struct Open {
    version: i64,
    attempts: i32,
    /// Chunks that are not embedded yet.
    missing: usize,
    vectors: Vec<ChunkVector>,
}

impl Service {
    /// Embeds some of what is pending, of each tenant in turn.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn embed_pending(&self) -> Result<Round> {
        let tenants = self.store.tenants_with_pending(TENANTS_MAX).await?;
        if tenants.is_empty() {
            return Ok(Round::Idle);
        }
        let Some(space) = self.space_to_write().await? else { return Ok(Round::Blocked) };
        for tenant in tenants {
            let claimed = self.store.claim_pending(tenant, CONTEXTS_MAX, CLAIM).await?;
            if !self.embed_claimed(tenant, &space, claimed).await? {
                // The provider is away: the others' turn would end the same.
                self.look_at_provider().await;
                return Ok(Round::Blocked);
            }
        }
        Ok(Round::Worked)
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
            self.store.create_first_space(model.provider, &model.name, dims).await?;
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

    /// Answers whether the provider did its part.
    async fn embed_claimed(
        &self,
        tenant: TenantId,
        space: &SpaceInfo,
        claimed: Vec<PendingContext>,
    ) -> Result<bool> {
        // Written again in the very moment of the claim: due at once, in their new version.
        let (raced, claimed): (Vec<_>, Vec<_>) =
            claimed.into_iter().partition(|context| context.chunks.is_empty());
        if !raced.is_empty() {
            let raced: Vec<_> = raced.iter().map(|context| (context.id, context.version)).collect();
            self.store.postpone_pending(tenant, &raced, Duration::ZERO, None).await?;
        }
        let mut open = HashMap::new();
        let mut pieces = Vec::new();
        for context in claimed {
            let PendingContext { id, version, attempts, chunks } = context;
            open.insert(id, Open { version, attempts, missing: chunks.len(), vectors: Vec::new() });
            pieces.extend(chunks.into_iter().map(|chunk| Piece {
                context: id,
                chunk_no: chunk.chunk_no,
                text: chunk.text,
            }));
        }
        let mut pieces = pieces.into_iter().peekable();
        while pieces.peek().is_some() {
            let batch: Vec<Piece> = pieces.by_ref().take(self.embedder.batch_texts_max()).collect();
            if let Err(error) = self.embed_batch(tenant, space, batch, &mut open).await? {
                self.postpone_all(tenant, &open, &error).await?;
                return Ok(false);
            }
            self.save_finished(tenant, space, &mut open).await?;
            let waiting: Vec<_> = open.iter().map(|(id, claim)| (*id, claim.version)).collect();
            if !waiting.is_empty() {
                self.store.postpone_pending(tenant, &waiting, CLAIM, None).await?;
            }
        }
        Ok(true)
    }

    async fn postpone_all(
        &self,
        tenant: TenantId,
        open: &HashMap<ContextId, Open>,
        error: &EmbedError,
    ) -> Result<()> {
        // Together, so that they are one batch again; after the one that waited least.
        let attempts = open.values().map(|claim| claim.attempts).min().unwrap_or(1);
        let delay = retry_delay(attempts, error);
        tracing::warn!(%error, contexts = open.len(), ?delay, "embedding failed and will be tried again");
        metrics::counter!("embedding_failures_total", "kind" => "transient").increment(1);
        let waiting: Vec<_> = open.iter().map(|(id, claim)| (*id, claim.version)).collect();
        self.store.postpone_pending(tenant, &waiting, delay, Some(error.public_reason())).await
    }

    /// Writes the contexts of which all chunks are embedded, and closes them.
    async fn save_finished(
        &self,
        tenant: TenantId,
        space: &SpaceInfo,
        open: &mut HashMap<ContextId, Open>,
    ) -> Result<()> {
        let finished = open.extract_if(|_, claim| claim.missing == 0);
        let vectors: Vec<ChunkVector> = finished.flat_map(|(_, claim)| claim.vectors).collect();
        if vectors.is_empty() {
            return Ok(());
        }
        let ready = self.store.save_embeddings(tenant, SpaceId(space.id), &vectors).await?;
        self.embedded.notify_waiters();
        metrics::counter!("contexts_embedded_total").increment(ready);
        metrics::counter!("chunks_embedded_total").increment(vectors.len() as u64);
        Ok(())
    }

    /// Embeds a batch into `open`. When the provider cannot do it because of one of the texts, the batch is halved until
    /// that text stands alone; its context is given up or put off, and the others are embedded. The inner error is
    /// about the provider, not about a text.
    async fn embed_batch(
        &self,
        tenant: TenantId,
        space: &SpaceInfo,
        batch: Vec<Piece>,
        open: &mut HashMap<ContextId, Open>,
    ) -> Result<Result<(), EmbedError>> {
        let (mut embedded, mut spoiled) = (0, 0);
        let mut todo = vec![batch];
        while let Some(mut batch) = todo.pop() {
            // The first time, an answer that is of no use is taken for a passing fault.
            let seasoned =
                batch.iter().any(|piece| open.get(&piece.context).is_some_and(|claim| claim.attempts > 1));
            match self.call(space, &batch).await {
                Ok(vectors) => {
                    embedded += batch.len();
                    for (piece, vector) in batch.into_iter().zip(vectors) {
                        let Some(claim) = open.get_mut(&piece.context) else { continue };
                        claim.missing -= 1;
                        let (context, version) = (piece.context, claim.version);
                        claim.vectors.push(ChunkVector {
                            context,
                            version,
                            chunk_no: piece.chunk_no,
                            vector,
                        });
                    }
                }
                Err(error @ EmbedError::Transient { .. }) => return Ok(Err(error)),
                Err(error @ EmbedError::Unusable { .. }) if !seasoned => return Ok(Err(error)),
                // Two texts alone, and nothing that worked: it is not the texts.
                Err(error @ EmbedError::Unusable { .. })
                    if batch.len() == 1 && embedded == 0 && spoiled > 0 =>
                {
                    return Ok(Err(error));
                }
                Err(error) if batch.len() == 1 => {
                    spoiled += 1;
                    if let Some((id, claim)) = open.remove_entry(&batch[0].context) {
                        self.give_up_or_put_off(tenant, id, &claim, &error).await?;
                    }
                }
                Err(_) => {
                    let rest = batch.split_off(batch.len() / 2);
                    todo.push(rest);
                    todo.push(batch);
                }
            }
        }
        Ok(Ok(()))
    }

    /// One call of the provider, whose answer has to fit the space.
    async fn call(&self, space: &SpaceInfo, batch: &[Piece]) -> Result<Vec<Vector>, EmbedError> {
        let texts = batch.iter().map(|piece| piece.text.clone()).collect();
        let started = std::time::Instant::now();
        let result = self.embedder.embed(Purpose::Document, texts).await;
        metrics::histogram!("embedding_batch_duration_seconds").record(started.elapsed().as_secs_f64());
        let vectors = result?;
        match vectors.iter().find(|vector| vector.dimensions() != space.dims as usize) {
            Some(vector) => Err(EmbedError::transient(format!(
                "the provider sent {} dimensions for a space of {}",
                vector.dimensions(),
                space.dims
            ))),
            None => Ok(vectors),
        }
    }

    /// What becomes of a context with a text that the provider cannot do anything with.
    async fn give_up_or_put_off(
        &self,
        tenant: TenantId,
        id: ContextId,
        claim: &Open,
        error: &EmbedError,
    ) -> Result<()> {
        let reason = error.public_reason();
        if matches!(error, EmbedError::Permanent { .. }) || claim.attempts >= ATTEMPTS_MAX {
            metrics::counter!("embedding_failures_total", "kind" => "permanent").increment(1);
            tracing::warn!(context.id = %id, %error, "a text is given up: the provider does not take it");
            self.store.fail_pending(tenant, id, claim.version, reason).await?;
            self.embedded.notify_waiters();
            return Ok(());
        }
        let delay = retry_delay(claim.attempts, error);
        tracing::warn!(context.id = %id, %error, ?delay, "a text spoils the provider's answer and is put off");
        self.store.postpone_pending(tenant, &[(id, claim.version)], delay, Some(reason)).await
    }
}

/// What the provider asks for, or exponential with jitter, so that workers that failed together do not return together.
fn retry_delay(attempts: i32, error: &EmbedError) -> Duration {
    if let EmbedError::Transient { retry_after: Some(after), .. } = error {
        return (*after).min(RETRY_LAST);
    }
    let doublings = attempts.saturating_sub(1).clamp(0, 10).unsigned_abs();
    let delay = RETRY_FIRST.saturating_mul(1 << doublings).min(RETRY_LAST);
    let mut byte = [0_u8; 1];
    // Without randomness there is no jitter; that is not worth failing for.
    getrandom::fill(&mut byte).ok();
    delay.mul_f64(0.75 + f64::from(byte[0]) / 255.0 * 0.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_back_off_within_bounds_and_obey_the_provider() {
        let error = EmbedError::transient("down");
        for attempts in [0, 1, 2, 5, 30, i32::MAX] {
            let delay = retry_delay(attempts, &error);
            assert!(
                delay >= RETRY_FIRST.mul_f64(0.74) && delay <= RETRY_LAST.mul_f64(1.26),
                "{attempts}: {delay:?}"
            );
        }
        assert!(retry_delay(5, &error) > retry_delay(1, &error));
        let asked =
            EmbedError::Transient { detail: String::new(), retry_after: Some(Duration::from_secs(7)) };
        assert_eq!(retry_delay(9, &asked), Duration::from_secs(7));
        let endless =
            EmbedError::Transient { detail: String::new(), retry_after: Some(Duration::from_secs(9_999)) };
        assert_eq!(retry_delay(1, &endless), RETRY_LAST);
    }
}
