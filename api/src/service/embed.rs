//! The embedding work: takes what waits, has it embedded, and writes the result down. Called in loops by any number of
//! workers; each step may be cut off at any point and is simply done again.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::sync::SemaphorePermit;

use super::{
    Provider, ProviderState, Service,
    batches::{Claims, Piece},
    breaker::Pass,
    provider::Unserved,
};
use crate::{
    domain::{Space, SpaceId, SpaceInfo, SpaceStatus, TenantId},
    embedding::{EmbedError, Purpose},
    error::{Error, Result},
    store::{Line, PendingContext, Queue, TurnSize},
    telemetry::spans,
};

/// Tenants that are looked up at once.
const TENANTS_MAX: i32 = 100;
/// Two full calls of a provider that takes 32 texts at once: what is left over would make a third with hardly any.
const TURN: TurnSize = TurnSize { contexts: 64, chunks: 64 };
/// Contexts by which a provider that has failed is tried: two, because one may be the text that it cannot do anything with.
const PROBE_CONTEXTS: i64 = 2;
/// A backfill with a pace takes turns of about so many a second, so that it is even.
const PACED_TURNS_PER_SECOND: i32 = 4;
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
    /// The provider was not up when it was last looked at, or nobody has looked yet.
    Away,
}

/// Whose turn is next. The loops of a process share it, so that they do not serve the same tenant at once while others wait.
#[derive(Default)]
pub(super) struct Rotation {
    waiting: VecDeque<TenantId>,
    last: Option<TenantId>,
}

/// Some of what a tenant waits for, and who does it.
pub(super) struct Turn<'a> {
    pub provider: &'a Provider,
    pub space: &'a SpaceInfo,
    pub line: Line,
}

impl Service {
    /// One turn of a provider: embeds some of what waits for it, of the tenant that comes next. What search reads comes
    /// before what other spaces lack.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn embed_pending(&self, provider: &Arc<Provider>) -> Result<Round> {
        let ProviderState::Up(model) = provider.state() else { return Ok(Round::Away) };
        let spaces = self.spaces().await?;
        let is_mine = |space: &&Space| {
            space.info.provider == model.provider
                && space.info.model == model.name
                && space.status != SpaceStatus::Retired
        };
        let Some(space) = spaces.iter().find(is_mine) else { return self.without_space(provider).await };
        if space.status == SpaceStatus::Active {
            let round = self.take_turn(provider, space, Queue::Contexts, TURN.contexts).await?;
            if round != Round::Idle {
                return Ok(round);
            }
        }
        let (contexts, fresh_only) = match space.contexts_per_second {
            _ if space.is_paused => (TURN.contexts, true),
            None => (TURN.contexts, false),
            Some(pace) => {
                let contexts = (pace / PACED_TURNS_PER_SECOND).clamp(1, TURN.contexts as i32);
                let is_due = self.store.keep_pace(SpaceId(space.info.id), contexts).await?;
                if is_due { (i64::from(contexts), false) } else { (TURN.contexts, true) }
            }
        };
        self.take_turn(provider, space, Queue::Work { fresh_only }, contexts).await
    }

    /// The first provider makes the first space as soon as there is something for it.
    async fn without_space(&self, provider: &Arc<Provider>) -> Result<Round> {
        if let Some(active) = self.active_space().await? {
            if self.provider_of(&active).is_err_and(|unserved| unserved == Unserved::OtherModels) {
                tracing::error!(
                    active.provider,
                    active.model,
                    "no configured embedding model is the active space's; nothing is embedded until one is"
                );
                return Ok(Round::Blocked);
            }
            return Ok(Round::Idle);
        }
        let is_first = self.providers().first().is_some_and(|first| Arc::ptr_eq(first, provider));
        if !is_first || !self.store.has_pending().await? {
            return Ok(Round::Idle);
        }
        let _caller = provider.caller().await;
        if self.active_space().await?.is_some() {
            return Ok(Round::Worked);
        }
        let made = self.create_first_space(provider).await?;
        Ok(if made.is_some() { Round::Worked } else { Round::Blocked })
    }

    /// None while the provider is away.
    pub(super) async fn create_first_space(&self, provider: &Provider) -> Result<Option<SpaceInfo>> {
        let ProviderState::Up(model) = provider.state() else { return Ok(None) };
        let Some(dims) = self.learn_dimension(provider).await else { return Ok(None) };
        self.store.create_first_space(model.provider, &model.name, dims, model.tokens_max).await?;
        self.active_space().await
    }

    /// The dimension is a property of what comes back, not of any configuration.
    pub(super) async fn learn_dimension(&self, provider: &Provider) -> Option<i32> {
        let probe = provider.embedder.embed(Purpose::Document, vec!["dimension".to_owned()]).await;
        let dims = probe.ok().and_then(|vectors| vectors.first().map(|vector| vector.dimensions()));
        if dims.is_none() {
            provider.look().await;
        }
        dims.and_then(|dims| i32::try_from(dims).ok())
    }

    async fn take_turn(
        &self,
        provider: &Provider,
        space: &Space,
        queue: Queue,
        contexts_max: i64,
    ) -> Result<Round> {
        let (space, id) = (&space.info, SpaceId(space.info.id));
        let Some(tenant) = self.next_tenant(provider, id, queue).await? else { return Ok(Round::Idle) };
        // Before the claim, which does not last for ever, and before the look at how the calls of others went.
        let mut caller = provider.caller().await;
        let (is_probe, contexts) = match provider.document_breaker.pass() {
            Pass::Free => (false, contexts_max),
            Pass::Probe => (true, PROBE_CONTEXTS.min(contexts_max)),
            Pass::Refused => return Ok(Round::Blocked),
        };
        let turn = Turn { provider, space, line: Line { space: id, queue, tenant } };
        let claimed = self.store.claim_from_queue(turn.line, TurnSize { contexts, ..TURN }, CLAIM).await?;
        let mut claims = Claims::new(is_probe);
        let pieces = self.open(&turn, &mut claims, claimed).await?;
        if let Err(error) = self.embed_claimed(&turn, &mut claims, pieces, &mut caller).await? {
            // Not about a text: the others' turn would end the same.
            self.postpone_all(&turn, &claims, &error).await?;
            provider.look().await;
            return Ok(Round::Blocked);
        }
        Ok(Round::Worked)
    }

    /// Those with work, in the order of their ids, round and round.
    async fn next_tenant(
        &self,
        provider: &Provider,
        space: SpaceId,
        queue: Queue,
    ) -> Result<Option<TenantId>> {
        let rotation = match queue {
            Queue::Contexts => &provider.pending_rotation,
            Queue::Work { .. } => &provider.work_rotation,
        };
        let mut rotation = rotation.lock().await;
        if rotation.waiting.is_empty() {
            let mut tenants = self.store.tenants_in_queue(space, queue, rotation.last, TENANTS_MAX).await?;
            if tenants.is_empty() && rotation.last.is_some() {
                tenants = self.store.tenants_in_queue(space, queue, None, TENANTS_MAX).await?;
            }
            rotation.waiting = tenants.into();
        }
        rotation.last = rotation.waiting.pop_front();
        Ok(rotation.last)
    }

    async fn open(
        &self,
        turn: &Turn<'_>,
        claims: &mut Claims,
        mut claimed: Vec<PendingContext>,
    ) -> Result<Vec<Piece>> {
        if turn.line.queue == Queue::Contexts {
            // Written again in the very moment of the claim: due at once, in their new version.
            let raced: Vec<_> = claimed
                .extract_if(.., |context| context.chunks.is_empty())
                .map(|context| (context.id, context.version))
                .collect();
            self.store.postpone(turn.line, &raced, Duration::ZERO, None).await?;
        }
        Ok(claimed.into_iter().flat_map(|context| claims.add(context)).collect())
    }

    /// The inner error is about the provider, not about a text. While this writes down, another loop may be the caller.
    async fn embed_claimed<'p>(
        &self,
        turn: &Turn<'p>,
        claims: &mut Claims,
        mut pieces: Vec<Piece>,
        caller: &mut Option<SemaphorePermit<'p>>,
    ) -> Result<Result<(), EmbedError>> {
        // Like lengths together: models pad the texts of a call to the longest.
        pieces.sort_by_key(|piece| piece.text.len());
        let mut pieces = pieces.into_iter().peekable();
        // Those that lack nothing.
        self.save_finished(turn, claims).await?;
        while pieces.peek().is_some() {
            if caller.is_none() {
                *caller = turn.provider.caller().await;
            }
            let batch: Vec<Piece> = pieces.by_ref().take(turn.provider.embedder.batch_texts_max()).collect();
            let span = claims.span(&batch);
            let embed = async {
                let outcome = self.embed_batch(turn, claims, batch).await?;
                if outcome.is_ok() {
                    *caller = None;
                }
                self.save_finished(turn, claims).await?;
                Ok::<_, Error>(outcome)
            };
            let outcome = span.around(embed).await?;
            if outcome.is_err() {
                span.fail("provider_unavailable");
            }
            drop(span);
            if outcome.is_err() {
                return Ok(outcome);
            }
            self.store.postpone(turn.line, &claims.waiting(), CLAIM, None).await?;
        }
        Ok(Ok(()))
    }

    /// Puts what is claimed back, for a moment: the breaker keeps the provider from being asked in vain, so that all of it is
    /// embedded at once when it is back.
    async fn postpone_all(&self, turn: &Turn<'_>, claims: &Claims, error: &EmbedError) -> Result<()> {
        let waiting = claims.waiting();
        let delay = turn.provider.document_breaker.open(error.retry_after());
        tracing::warn!(%error, contexts = waiting.len(), ?delay, "embedding failed and will be tried again");
        metrics::counter!("embedding_failures_total", "kind" => "transient").increment(1);
        self.store.postpone(turn.line, &waiting, delay, Some(error.public_reason())).await
    }

    /// Writes the contexts of which all chunks are embedded.
    async fn save_finished(&self, turn: &Turn<'_>, claims: &mut Claims) -> Result<()> {
        let (contexts, vectors) = claims.take_finished();
        if contexts.is_empty() {
            return Ok(());
        }
        let save = self.store.save_embeddings(turn.line, &contexts, &vectors);
        let saved = spans::database("save embeddings", save).await?;
        if saved < contexts.len() as u64 {
            // Written again, or meant for a space that is another's turn now: whoever comes next finds them at once.
            self.store.postpone(turn.line, &contexts, Duration::ZERO, None).await?;
        }
        self.embedded.notify_waiters();
        metrics::counter!("contexts_embedded_total").increment(saved);
        metrics::counter!("chunks_embedded_total").increment(vectors.len() as u64);
        Ok(())
    }
}
