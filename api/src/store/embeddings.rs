//! The queue of embedding work, which is a column of `contexts`, and its results. Workers claim rows for a while; one
//! that dies loses its claim by the clock, so no row is ever stuck.

use std::time::Duration;

use pgvector::HalfVector;
use sqlx::{QueryBuilder, Row, postgres::PgRow};
use uuid::Uuid;

use super::{
    Store, Unit,
    contexts::{push_selection, visible},
};
use crate::{
    domain::{ContextId, Selection, SpaceId, TenantId, Vector},
    error::{Error, Result},
};

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

/// Stops at the context with which there are enough chunks, so that one with hundreds does not bring a crowd along.
///
/// $1 tenant, $2 contexts, $3 seconds of the claim, $4 chunks
const CLAIM: &str = "
    with due as (
        select c.id, c.text_version, c.embedding_due_at from contexts c
        where c.tenant_id = $1 and c.embedding_status = 'pending' and c.is_active and c.embedding_due_at <= now()
        order by c.embedding_due_at
        limit $2
        for update skip locked
    ), counted as (
        select due.*, k.chunks, sum(k.chunks) over (order by due.embedding_due_at, due.id) as chunks_so_far
        from due cross join lateral (
            select count(*) as chunks from chunks k
            where k.tenant_id = $1 and k.context_id = due.id and k.version = due.text_version
        ) k
    ), claimed as (
        update contexts c
        set embedding_due_at = now() + make_interval(secs => $3)
        from counted
        where c.tenant_id = $1 and c.id = counted.id and counted.chunks_so_far - counted.chunks < $4
        returning c.id, c.text_version as version, c.embedding_attempts, c.embedding_error is not null as has_failed
    )
    select claimed.id, claimed.version, claimed.embedding_attempts, claimed.has_failed, k.chunk_no, k.text
    from claimed
    left join chunks k on k.tenant_id = $1 and k.context_id = claimed.id and k.version = claimed.version
    order by claimed.id, k.chunk_no";

/// Marks what is still of the version that was read, and keeps the embeddings of just that, if search still reads the space. What the chunks carry along is
/// taken from the context as it is once it is locked: it may have changed since this statement began. Locked in the order of
/// the ids, as by every write: in any other, a batch of a client and this would wait for each other.
///
/// $1 tenant, $2 space, $3 contexts, $4 versions, $5 chunk numbers, $6 vectors
const SAVE: &str = "
    with v as (
        select * from unnest($3::uuid[], $4::bigint[], $5::integer[], $6::halfvec[])
            as v (context_id, version, chunk_no, embedding)
    ), locked as materialized (
        select c.id from contexts c join (select distinct context_id, version from v) d on d.context_id = c.id
        where c.tenant_id = $1 and c.text_version = d.version and c.is_active and c.embedding_status = 'pending'
          and exists (select from embedding_spaces s where s.id = $2 and s.status = 'active')
        order by c.id
        for no key update of c
    ), done as (
        update contexts c
        set embedding_status = 'ready', embedding_error = null
        from locked where c.tenant_id = $1 and c.id = locked.id
        returning c.id, c.text_version as version, c.user_id, c.context_type, c.expires_at, c.valid_from, c.valid_to
    ), kept as (
        insert into chunk_embeddings (tenant_id, space_id, context_id, version, chunk_no, user_id, context_type,
                                      expires_at, valid_from, valid_to, embedding)
        select $1, $2, k.context_id, k.version, k.chunk_no, done.user_id, done.context_type, done.expires_at,
               done.valid_from, done.valid_to, v.embedding
        from v
        join done on done.id = v.context_id and done.version = v.version
        join chunks k on k.tenant_id = $1 and k.context_id = v.context_id and k.version = v.version
                     and k.chunk_no = v.chunk_no
        on conflict do nothing
    )
    select count(*) from done";

impl Store {
    /// Tenants that have rows to embed, in the order of their ids, those after `after`, at most `tenants_max`.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn tenants_with_pending(
        &self,
        after: Option<TenantId>,
        tenants_max: i32,
    ) -> Result<Vec<TenantId>> {
        let mut connection = self.connection().await?;
        let result = sqlx::query_scalar::<_, Uuid>("select tenants_with_pending_embeddings($1, $2)")
            .bind(after.map(|tenant| tenant.0))
            .bind(tenants_max)
            .fetch_all(connection.pg())
            .await;
        Ok(connection.settle(result)?.into_iter().map(TenantId).collect())
    }

    /// Claims rows that are due, longest waiting first, for the time of `claim`: up to `contexts_max`, and no more once they
    /// have `chunks_max` chunks.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn claim_pending(
        &self,
        tenant: TenantId,
        contexts_max: i64,
        chunks_max: i64,
        claim: Duration,
    ) -> Result<Vec<PendingContext>> {
        let mut connection = self.tenant(tenant).await?;
        let result = sqlx::query(CLAIM)
            .bind(tenant.0)
            .bind(contexts_max)
            .bind(claim.as_secs_f64())
            .bind(chunks_max)
            .fetch_all(connection.pg())
            .await;
        pending_from_rows(&connection.settle(result)?)
    }

    /// Keeps embeddings; answers how many contexts became ready. What was written again or deleted meanwhile is
    /// skipped.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn save_embeddings(
        &self,
        tenant: TenantId,
        space: SpaceId,
        vectors: &[ChunkVector],
    ) -> Result<u64> {
        let ids: Vec<Uuid> = vectors.iter().map(|v| v.context.0).collect();
        let versions: Vec<i64> = vectors.iter().map(|v| v.version).collect();
        let chunk_nos: Vec<i32> = vectors.iter().map(|v| v.chunk_no).collect();
        let halves: Vec<HalfVector> =
            vectors.iter().map(|v| HalfVector::from_f32_slice(v.vector.as_slice())).collect();
        let mut connection = self.tenant(tenant).await?;
        let result = sqlx::query_scalar::<_, i64>(SAVE)
            .bind(tenant.0)
            .bind(space.0)
            .bind(ids)
            .bind(versions)
            .bind(chunk_nos)
            .bind(halves)
            .fetch_one(connection.pg())
            .await;
        Ok(connection.settle(result)?.unsigned_abs())
    }

    /// Makes claimed rows, in the versions that were claimed, due again after `delay`, and notes why.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn postpone_pending(
        &self,
        tenant: TenantId,
        contexts: &[(ContextId, i64)],
        delay: Duration,
        reason: Option<&str>,
    ) -> Result<()> {
        let (ids, versions): (Vec<Uuid>, Vec<i64>) =
            contexts.iter().map(|(id, version)| (id.0, *version)).unzip();
        let mut connection = self.tenant(tenant).await?;
        let result = sqlx::query(
            "with locked as materialized (
                 select c.id from contexts c
                 join unnest($2::uuid[], $5::bigint[]) as claimed (id, version) on claimed.id = c.id
                 where c.tenant_id = $1 and c.text_version = claimed.version and c.embedding_status = 'pending'
                 order by c.id
                 for no key update of c
             )
             update contexts c
             set embedding_due_at = now() + make_interval(secs => $3), embedding_error = $4
             from locked where c.tenant_id = $1 and c.id = locked.id",
        )
        .bind(tenant.0)
        .bind(ids)
        .bind(delay.as_secs_f64())
        .bind(reason)
        .bind(versions)
        .execute(connection.pg())
        .await;
        connection.settle(result).map(|_| ())
    }

    /// Notes that the model could do nothing with the text of this version: it is tried again after `delay`, or with none
    /// never, and then its reader sees the reason. Nothing, if search reads another space by now.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn refuse_pending(
        &self,
        tenant: TenantId,
        space: SpaceId,
        context: ContextId,
        version: i64,
        delay: Option<Duration>,
        reason: &str,
    ) -> Result<()> {
        let mut connection = self.tenant(tenant).await?;
        let result = sqlx::query(
            "update contexts
             set embedding_status = case when $4::float8 is null then 'failed' else 'pending' end, embedding_error = $5,
                 embedding_due_at = now() + make_interval(secs => coalesce($4, 0)),
                 embedding_attempts = embedding_attempts + 1
             where tenant_id = $1 and id = $2 and text_version = $3 and embedding_status = 'pending'
               and exists (select from embedding_spaces s where s.id = $6 and s.status = 'active')",
        )
        .bind(tenant.0)
        .bind(context.0)
        .bind(version)
        .bind(delay.map(|delay| delay.as_secs_f64()))
        .bind(reason)
        .bind(space.0)
        .execute(connection.pg())
        .await;
        connection.settle(result).map(|_| ())
    }
}

/// Rows of a claim: one for each chunk, ordered by context.
pub(super) fn pending_from_rows(rows: &[PgRow]) -> Result<Vec<PendingContext>> {
    let mut contexts: Vec<PendingContext> = Vec::new();
    for row in rows {
        let id = ContextId(row.try_get("id").map_err(Error::internal)?);
        if contexts.last().is_none_or(|last| last.id != id) {
            contexts.push(PendingContext {
                id,
                version: row.try_get("version").map_err(Error::internal)?,
                attempts: row.try_get("embedding_attempts").map_err(Error::internal)?,
                has_failed: row.try_get("has_failed").map_err(Error::internal)?,
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

impl Unit {
    /// Puts up to `contexts_max` contexts whose embedding failed back into the queue, as if they had just been written; answers
    /// how many. [`Selection::as_of`] is not looked at here.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn retry_failed(&mut self, selection: &Selection, contexts_max: i64) -> Result<u64> {
        let tenant = self.access.tenant;
        let mut query = QueryBuilder::new(concat!(
            "with failed as (select c.id from contexts c where c.embedding_status = 'failed' and ",
            visible!()
        ));
        push_selection(&mut query, tenant, selection, "c.id");
        query.push(" order by c.id limit ").push_bind(contexts_max);
        query.push(
            " for update skip locked)
             update contexts c
             set embedding_status = 'pending', embedding_error = null, embedding_attempts = 0,
                 embedding_due_at = now(), embedding_requested_at = now()
             from failed where c.id = failed.id and c.tenant_id = ",
        );
        query.push_bind(tenant.0);
        let connection = self.connection();
        let result = query.build().persistent(false).execute(connection.pg()).await;
        connection.settle(result).map(|done| done.rows_affected())
    }
}
