//! One batch of texts. When the provider cannot do it because of one of them, the batch is halved until that text stands
//! alone; it is put off or given up, and the others are embedded.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use super::{Service, breaker::jitter, embed::Turn, provider::is_of};
use crate::{
    domain::{ContextId, TraceLink, Vector},
    embedding::{EmbedError, Purpose},
    error::Result,
    store::{ChunkVector, Line, PendingContext},
    telemetry::spans::{self, Span},
};

/// How often a text that spoils the provider's answer is tried.
const ATTEMPTS_MAX: i32 = 5;
/// Until it is tried again: doubles from the first time on.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// A text that any model takes.
const HARMLESS: &str = "hello";

/// One chunk of a claimed context.
pub(super) struct Piece {
    context: ContextId,
    chunk_no: i32,
    pub(super) text: String,
}

/// A claimed context that is not written yet.
struct Open {
    version: i64,
    attempts: i32,
    has_failed: bool,
    trace: Option<TraceLink>,
    /// Chunks that are not embedded yet.
    missing: usize,
    vectors: Vec<ChunkVector>,
}

/// What a worker has claimed of one tenant, and knows of it.
#[derive(Default)]
pub(super) struct Claims {
    open: HashMap<ContextId, Open>,
    /// Whether the provider has failed just before: then an answer of no use is no passing fault.
    is_probe: bool,
    /// Whether the provider has embedded something in this turn.
    provider_works: bool,
}

impl Claims {
    pub(super) fn new(is_probe: bool) -> Self {
        Self { is_probe, ..Self::default() }
    }

    /// Takes a context in; answers its chunks.
    pub(super) fn add(&mut self, context: PendingContext) -> impl Iterator<Item = Piece> + use<> {
        let PendingContext { id, version, attempts, has_failed, trace, chunks } = context;
        let missing = chunks.len();
        self.open.insert(id, Open { version, attempts, has_failed, trace, missing, vectors: Vec::new() });
        chunks.into_iter().map(move |chunk| Piece { context: id, chunk_no: chunk.chunk_no, text: chunk.text })
    }

    /// Those that are not written yet.
    pub(super) fn waiting(&self) -> Vec<(ContextId, i64)> {
        self.open.iter().map(|(id, open)| (*id, open.version)).collect()
    }

    /// The span of a batch, if one of its texts was written in a trace.
    pub(super) fn span(&self, batch: &[Piece]) -> Span {
        let contexts: HashSet<ContextId> = batch.iter().map(|piece| piece.context).collect();
        let trace = |context| self.open.get(context).and_then(|open| open.trace);
        let traces: HashSet<TraceLink> = contexts.iter().filter_map(trace).collect();
        spans::batch(traces, contexts.len(), batch.len())
    }

    /// The contexts, with their versions and vectors, of which none is missing; closes those.
    pub(super) fn take_finished(&mut self) -> (Vec<(ContextId, i64)>, Vec<ChunkVector>) {
        let (mut contexts, mut vectors) = (Vec::new(), Vec::new());
        for (id, open) in self.open.extract_if(|_, open| open.missing == 0) {
            contexts.push((id, open.version));
            vectors.extend(open.vectors);
        }
        (contexts, vectors)
    }

    fn keep(&mut self, batch: Vec<Piece>, vectors: Vec<Vector>) {
        for (piece, vector) in batch.into_iter().zip(vectors) {
            let Some(open) = self.open.get_mut(&piece.context) else { continue };
            open.missing -= 1;
            let (context, version, chunk_no) = (piece.context, open.version, piece.chunk_no);
            open.vectors.push(ChunkVector { context, version, chunk_no, vector });
        }
    }

    /// Whether one of the texts may be to blame for an answer of no use. The first time it is taken for a passing fault.
    fn may_be_to_blame(&self, batch: &[Piece]) -> bool {
        self.is_probe
            || batch.iter().any(|piece| self.open.get(&piece.context).is_some_and(|open| open.has_failed))
    }
}

impl Service {
    /// Embeds a batch into `claims`. The inner error is about the provider, not about a text.
    pub(super) async fn embed_batch(
        &self,
        turn: &Turn<'_>,
        claims: &mut Claims,
        batch: Vec<Piece>,
    ) -> Result<Result<(), EmbedError>> {
        let mut todo = vec![batch];
        while let Some(mut batch) = todo.pop() {
            let texts = batch.iter().map(|piece| piece.text.clone()).collect();
            let error = match turn.call(texts).await {
                Ok(vectors) => {
                    claims.provider_works = true;
                    claims.keep(batch, vectors);
                    continue;
                }
                Err(error) => error,
            };
            let is_about_the_provider = match error {
                EmbedError::Transient { .. } => true,
                EmbedError::Unusable { .. } => !claims.may_be_to_blame(&batch),
                EmbedError::Permanent { .. } | EmbedError::TooLong { .. } => false,
            };
            if is_about_the_provider {
                return Ok(Err(error));
            }
            if batch.len() > 1 {
                let rest = batch.split_off(batch.len() / 2);
                todo.push(rest);
                todo.push(batch);
                continue;
            }
            // It is this text, if the provider takes any other.
            if !claims.provider_works && turn.call(vec![HARMLESS.to_owned()]).await.is_err() {
                // Its words are then about the configuration, and not the tenant's to read.
                return Ok(Err(EmbedError::Unusable { detail: error.to_string() }));
            }
            claims.provider_works = true;
            if let Some((id, open)) = claims.open.remove_entry(&batch[0].context) {
                self.give_up_or_put_off(turn.line, id, &open, &error).await?;
            }
        }
        Ok(Ok(()))
    }

    /// What becomes of a context with a text that the provider cannot do anything with.
    async fn give_up_or_put_off(
        &self,
        line: Line,
        id: ContextId,
        open: &Open,
        error: &EmbedError,
    ) -> Result<()> {
        let (reason, attempts) = (error.public_reason(), open.attempts + 1);
        if matches!(error, EmbedError::Permanent { .. }) || attempts >= ATTEMPTS_MAX {
            metrics::counter!("embedding_failures_total", "kind" => "permanent").increment(1);
            tracing::warn!(context.id = %id, %error, "a text is given up: the provider does not take it");
            self.store.refuse(line, (id, open.version), None, reason).await?;
            self.embedded.notify_waiters();
            return Ok(());
        }
        let delay = jitter(RETRY_FIRST * (1 << open.attempts.clamp(0, ATTEMPTS_MAX)));
        tracing::warn!(context.id = %id, %error, ?delay, "a text spoils the provider's answer and is put off");
        self.store.refuse(line, (id, open.version), Some(delay), reason).await
    }
}

impl Turn<'_> {
    /// One call of the provider, whose answer has to fit the space.
    async fn call(&self, texts: Vec<String>) -> Result<Vec<Vector>, EmbedError> {
        let started = std::time::Instant::now();
        let result = self.provider.embedder.embed(Purpose::Document, texts).await;
        metrics::histogram!("embedding_batch_duration_seconds").record(started.elapsed().as_secs_f64());
        let vectors = result?;
        if let Some(vector) = vectors.iter().find(|vector| vector.dimensions() != self.space.dims as usize) {
            let (found, wanted) = (vector.dimensions(), self.space.dims);
            let detail = format!("the provider sent {found} dimensions for a space of {wanted}");
            return Err(EmbedError::transient(detail));
        }
        // A server may come back with another model of the same dimension, before anybody has looked.
        let model = self.provider.embedder.model().await?;
        if !is_of(&model, self.space) {
            return Err(EmbedError::transient(format!("the provider has another model now: {}", model.name)));
        }
        self.provider.document_breaker.close();
        Ok(vectors)
    }
}
