//! The queues of embedding work, and its results: the contexts themselves are the active space's queue, and each other space
//! has one of its own. Workers claim from them for a while; one that dies loses its claim by the clock, so nothing is ever
//! stuck.

use std::time::Duration;

use pgvector::HalfVector;
use sqlx::{Row, postgres::PgRow};
use uuid::Uuid;

use super::{Store, embedding_work, embeddings};
use crate::{
    domain::{ContextId, SpaceId, TenantId, TraceLink, Vector},
    error::{Error, Result},
};

/// Where contexts wait for their embedding in a space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// Of the active space: `contexts.embedding_status`.
    Contexts,
    /// What another space lacks; perhaps only what was written since it was made.
    Work { fresh_only: bool },
}

/// A space, and a tenant's part of its queue.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    pub space: SpaceId,
    pub queue: Queue,
    pub tenant: TenantId,
}

/// Contexts that one turn takes from a tenant at most, and chunks, so that the next tenant's turn comes soon. One context with
/// more chunks is taken alone.
#[derive(Clone, Copy, Debug)]
pub struct TurnSize {
    pub contexts: i64,
    pub chunks: i64,
}

/// A context that waits for its embedding, claimed by the caller.
#[derive(Debug)]
pub struct PendingContext {
    pub id: ContextId,
    /// The version of the text that was read; results for any other are not written.
    pub version: i64,
    /// How often it was found to be the one text that the provider can do nothing with.
    pub attempts: i32,
    /// Whether an attempt has failed before, for whatever reason.
    pub has_failed: bool,
    /// In which the text was written, if that was recorded.
    pub trace: Option<TraceLink>,
    /// Empty when the context was written again in the moment of the claim, and in the work of a space also when nothing lacks.
    pub chunks: Vec<PendingChunk>,
}

#[derive(Debug)]
pub struct PendingChunk {
    pub chunk_no: i32,
    pub text: String,
}

/// The embedding of one chunk of one version of a context's text.
#[derive(Debug)]
pub struct ChunkVector {
    pub context: ContextId,
    pub version: i64,
    pub chunk_no: i32,
    pub vector: Vector,
}

/// What is said to a queue. Both take the same parameters in the same order; what only one takes comes last.
pub(super) struct Statements {
    /// $1 the tenant before them, or null, $2 tenants; $3 space, $4 whether only what was written since the space
    pub tenants: &'static str,
    /// $1 tenant, $2 contexts, $3 seconds of the claim, $4 chunks; $5 space, $6 whether only what was written since the space
    pub claim: &'static str,
    /// $1 tenant, $2 space, $3 and $4 the contexts and their versions; $5 contexts, $6 versions, $7 chunk numbers, $8 vectors
    pub save: &'static str,
    /// $1 tenant, $2 contexts, $3 seconds, $4 why; $5 their versions, or the space
    pub postpone: &'static str,
    /// $1 tenant, $2 space, $3 context, $4 version, $5 seconds, or null for never, $6 why
    pub refuse: &'static str,
}

impl Queue {
    fn statements(self) -> &'static Statements {
        match self {
            Self::Contexts => &embeddings::STATEMENTS,
            Self::Work { .. } => &embedding_work::STATEMENTS,
        }
    }
}

impl Store {
    /// Tenants of which something waits in the queue, in the order of their ids, those after `after`, at most `tenants_max`.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn tenants_in_queue(
        &self,
        space: SpaceId,
        queue: Queue,
        after: Option<TenantId>,
        tenants_max: i32,
    ) -> Result<Vec<TenantId>> {
        let mut query = sqlx::query_scalar::<_, Uuid>(queue.statements().tenants)
            .bind(after.map(|tenant| tenant.0))
            .bind(tenants_max);
        if let Queue::Work { fresh_only } = queue {
            query = query.bind(space.0).bind(fresh_only);
        }
        let mut connection = self.connection().await?;
        let result = query.fetch_all(connection.pg()).await;
        Ok(connection.settle(result)?.into_iter().map(TenantId).collect())
    }

    /// Claims contexts that are due, longest waiting first, for the time of `claim`: no more than `size` says. They come with
    /// the chunks that the space does not have yet.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn claim_from_queue(
        &self,
        line: Line,
        size: TurnSize,
        claim: Duration,
    ) -> Result<Vec<PendingContext>> {
        let mut query = sqlx::query(line.queue.statements().claim)
            .bind(line.tenant.0)
            .bind(size.contexts)
            .bind(claim.as_secs_f64())
            .bind(size.chunks);
        if let Queue::Work { fresh_only } = line.queue {
            query = query.bind(line.space.0).bind(fresh_only);
        }
        let mut connection = self.tenant(line.tenant).await?;
        let result = query.fetch_all(connection.pg()).await;
        pending_from_rows(&connection.settle(result)?)
    }

    /// Keeps the embeddings of contexts that have all of theirs; answers of how many. The others were written again, or the
    /// space is not the one of this queue any more.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn save_embeddings(
        &self,
        line: Line,
        contexts: &[(ContextId, i64)],
        vectors: &[ChunkVector],
    ) -> Result<u64> {
        let (ids, versions) = columns(contexts);
        let halves: Vec<HalfVector> =
            vectors.iter().map(|v| HalfVector::from_f32_slice(v.vector.as_slice())).collect();
        let mut writing = self.write(line.tenant).await?;
        let result = sqlx::query_scalar::<_, i64>(line.queue.statements().save)
            .bind(line.tenant.0)
            .bind(line.space.0)
            .bind(ids)
            .bind(versions)
            .bind(vectors.iter().map(|v| v.context.0).collect::<Vec<Uuid>>())
            .bind(vectors.iter().map(|v| v.version).collect::<Vec<i64>>())
            .bind(vectors.iter().map(|v| v.chunk_no).collect::<Vec<i32>>())
            .bind(halves)
            .fetch_one(writing.pg())
            .await;
        let saved = writing.settle(result);
        writing.finish(saved).await.map(i64::unsigned_abs)
    }

    /// Makes claimed contexts, in the versions that were claimed, due again after `delay`, and notes why. In the queue of a
    /// space also one that was written since.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn postpone(
        &self,
        line: Line,
        contexts: &[(ContextId, i64)],
        delay: Duration,
        reason: Option<&str>,
    ) -> Result<()> {
        if contexts.is_empty() {
            return Ok(());
        }
        let (ids, versions) = columns(contexts);
        let mut query = sqlx::query(line.queue.statements().postpone)
            .bind(line.tenant.0)
            .bind(ids)
            .bind(delay.as_secs_f64())
            .bind(reason);
        query = match line.queue {
            Queue::Contexts => query.bind(versions),
            Queue::Work { .. } => query.bind(line.space.0),
        };
        let mut writing = self.write(line.tenant).await?;
        let result = query.execute(writing.pg()).await;
        let postponed = writing.settle(result).map(|_| ());
        if reason.is_none() {
            writing.changes_nothing_visible();
        }
        writing.finish(postponed).await
    }

    /// Notes that the model could do nothing with the text of this version: it is tried again after `delay`, or with none
    /// never. Nothing, if it was written since, or if the space is not the one of this queue any more.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn refuse(
        &self,
        line: Line,
        (context, version): (ContextId, i64),
        delay: Option<Duration>,
        reason: &str,
    ) -> Result<()> {
        let mut writing = self.write(line.tenant).await?;
        let result = sqlx::query(line.queue.statements().refuse)
            .bind(line.tenant.0)
            .bind(line.space.0)
            .bind(context.0)
            .bind(version)
            .bind(delay.map(|delay| delay.as_secs_f64()))
            .bind(reason)
            .execute(writing.pg())
            .await;
        let refused = writing.settle(result).map(|_| ());
        writing.finish(refused).await
    }
}

fn columns(contexts: &[(ContextId, i64)]) -> (Vec<Uuid>, Vec<i64>) {
    contexts.iter().map(|(id, version)| (id.0, *version)).unzip()
}

/// Rows of a claim: one for each chunk, ordered by context.
fn pending_from_rows(rows: &[PgRow]) -> Result<Vec<PendingContext>> {
    let mut contexts: Vec<PendingContext> = Vec::new();
    for row in rows {
        let id = ContextId(row.try_get("id").map_err(Error::internal)?);
        if contexts.last().is_none_or(|last| last.id != id) {
            let trace: Option<&[u8]> = row.try_get("embedding_trace").map_err(Error::internal)?;
            contexts.push(PendingContext {
                id,
                version: row.try_get("version").map_err(Error::internal)?,
                attempts: row.try_get("embedding_attempts").map_err(Error::internal)?,
                has_failed: row.try_get("has_failed").map_err(Error::internal)?,
                trace: trace.and_then(TraceLink::from_bytes),
                chunks: Vec::new(),
            });
        }
        let chunk_no: Option<i32> = row.try_get("chunk_no").map_err(Error::internal)?;
        if let (Some(chunk_no), Some(context)) = (chunk_no, contexts.last_mut()) {
            let text = row.try_get("text").map_err(Error::internal)?;
            context.chunks.push(PendingChunk { chunk_no, text });
        }
    }
    Ok(contexts)
}
