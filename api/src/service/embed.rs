//! The work behind `embedding_status`: takes what is pending, has it embedded, and writes the result down. Called in a
//! loop by any number of workers; each step may be cut off at any point and is simply done again.

use std::{collections::HashMap, time::Duration};

use super::{ProviderState, Service};
use crate::{
    domain::{ContextId, SpaceId, SpaceInfo, TenantId},
    embedding::{EmbedError, Purpose},
    error::{Error, Result},
    store::{ChunkVector, PendingContext},
};

/// Tenants that one round looks at.
const TENANTS_MAX: i32 = 100;
/// Contexts that one round takes from a tenant, so that the next tenant's turn comes soon.
const CONTEXTS_MAX: i64 = 32;
/// How long a claim lasts; it is renewed before each call of the provider, whose deadline is shorter.
const CLAIM: Duration = Duration::from_secs(30);
/// Back-off after a transient failure: doubles from the first to the last.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LAST: Duration = Duration::from_secs(60);

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
    version: i64,
    chunk_no: i32,
    text: String,
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
    async fn space_to_write(&self) -> Result<Option<SpaceInfo>> {
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
        let attempts = claimed.iter().map(|context| context.attempts).max().unwrap_or(1);
        let mut open: HashMap<ContextId, usize> = HashMap::new();
        let mut pieces = Vec::new();
        let mut raced = Vec::new();
        for context in claimed {
            if context.chunks.is_empty() {
                raced.push(context.id);
            }
            open.insert(context.id, context.chunks.len());
            pieces.extend(context.chunks.into_iter().map(|chunk| Piece {
                context: context.id,
                version: context.version,
                chunk_no: chunk.chunk_no,
                text: chunk.text,
            }));
        }
        // Written again in the very moment of the claim: due at once, in their new version.
        if !raced.is_empty() {
            self.store.postpone_pending(tenant, &raced, Duration::ZERO, None).await?;
        }
        let mut done: HashMap<ContextId, Vec<ChunkVector>> = HashMap::new();
        let mut pieces = pieces.into_iter().peekable();
        while pieces.peek().is_some() {
            let batch: Vec<Piece> = pieces.by_ref().take(self.embedder.batch_texts_max()).collect();
            let waiting: Vec<ContextId> = open.keys().copied().collect();
            match self.embed_batch(tenant, batch).await? {
                Ok(vectors) => {
                    for vector in vectors {
                        done.entry(vector.context).or_default().push(vector);
                    }
                    self.save_finished(tenant, space, &mut open, &mut done).await?;
                    let waiting: Vec<ContextId> = open.keys().copied().collect();
                    if !waiting.is_empty() {
                        self.store.postpone_pending(tenant, &waiting, CLAIM, None).await?;
                    }
                }
                Err(error) => {
                    let delay = retry_delay(attempts, &error);
                    tracing::warn!(%error, contexts = waiting.len(), ?delay, "embedding failed and will be tried again");
                    metrics::counter!("embedding_failures_total", "kind" => "transient").increment(1);
                    self.store.postpone_pending(tenant, &waiting, delay, Some(&error.to_string())).await?;
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Writes the contexts of which all chunks are embedded, and takes them off both lists.
    async fn save_finished(
        &self,
        tenant: TenantId,
        space: &SpaceInfo,
        open: &mut HashMap<ContextId, usize>,
        done: &mut HashMap<ContextId, Vec<ChunkVector>>,
    ) -> Result<()> {
        let finished: Vec<ContextId> = done
            .iter()
            .filter(|(context, vectors)| open.get(context) == Some(&vectors.len()))
            .map(|(context, _)| *context)
            .collect();
        let vectors: Vec<ChunkVector> =
            finished.iter().filter_map(|context| done.remove(context)).flatten().collect();
        for context in &finished {
            open.remove(context);
        }
        if vectors.is_empty() {
            return Ok(());
        }
        if let Some(vector) = vectors.iter().find(|v| v.vector.dimensions() != space.dims as usize) {
            return Err(Error::internal(format!(
                "the provider sent {} dimensions for a space of {}",
                vector.vector.dimensions(),
                space.dims
            )));
        }
        let ready = self.store.save_embeddings(tenant, SpaceId(space.id), &vectors).await?;
        metrics::counter!("contexts_embedded_total").increment(ready);
        metrics::counter!("chunks_embedded_total").increment(vectors.len() as u64);
        Ok(())
    }

    /// Embeds a batch. When the provider refuses it for good, it is halved until the text at fault stands alone; that
    /// text's context fails, and the others are embedded. The inner error is a transient one.
    async fn embed_batch(
        &self,
        tenant: TenantId,
        batch: Vec<Piece>,
    ) -> Result<Result<Vec<ChunkVector>, EmbedError>> {
        let mut vectors = Vec::with_capacity(batch.len());
        let mut todo = vec![batch];
        while let Some(mut batch) = todo.pop() {
            let texts = batch.iter().map(|piece| piece.text.clone()).collect();
            let started = std::time::Instant::now();
            let result = self.embedder.embed(Purpose::Document, texts).await;
            metrics::histogram!("embedding_batch_duration_seconds").record(started.elapsed().as_secs_f64());
            match result {
                Ok(embedded) => {
                    vectors.extend(batch.into_iter().zip(embedded).map(|(piece, vector)| ChunkVector {
                        context: piece.context,
                        version: piece.version,
                        chunk_no: piece.chunk_no,
                        vector,
                    }))
                }
                Err(error @ EmbedError::Transient { .. }) => return Ok(Err(error)),
                Err(EmbedError::Permanent { detail }) if batch.len() == 1 => {
                    let piece = &batch[0];
                    metrics::counter!("embedding_failures_total", "kind" => "permanent").increment(1);
                    tracing::warn!(context.id = %piece.context, reason = detail, "a text was refused by the provider");
                    self.store.fail_pending(tenant, piece.context, piece.version, &detail).await?;
                }
                Err(EmbedError::Permanent { .. }) => {
                    let rest = batch.split_off(batch.len() / 2);
                    todo.push(rest);
                    todo.push(batch);
                }
            }
        }
        Ok(Ok(vectors))
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
