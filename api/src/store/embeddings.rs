//! The queue of the active embedding space, which is a column of `contexts`, and what failed in it.

use sqlx::QueryBuilder;

use super::{
    Store, Unit,
    contexts::{push_selection, visible},
    embedding_queue::Statements,
};
use crate::{domain::Selection, error::Result};

pub(super) const STATEMENTS: Statements = Statements {
    tenants: "select tenants_with_pending_embeddings($1, $2)",
    claim: CLAIM,
    save: SAVE,
    postpone: POSTPONE,
    refuse: REFUSE,
};

/// Stops before the context with which there would be too many chunks, so that calls of the provider are full, and one with hundreds
/// goes alone.
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
        where c.tenant_id = $1 and c.id = counted.id
          and (counted.chunks_so_far <= $4 or counted.chunks_so_far = counted.chunks)
        returning c.id, c.text_version as version, c.embedding_attempts, c.embedding_error is not null as has_failed,
                  c.embedding_trace
    )
    select claimed.id, claimed.version, claimed.embedding_attempts, claimed.has_failed, claimed.embedding_trace, k.chunk_no,
           k.text
    from claimed
    left join chunks k on k.tenant_id = $1 and k.context_id = claimed.id and k.version = claimed.version
    order by claimed.id, k.chunk_no";

/// Marks what is still of the version that was read, and keeps the embeddings of just that, if search still reads the space. What the chunks carry along is
/// taken from the context as it is once it is locked: it may have changed since this statement began. Locked in the order of
/// the ids, as by every write: in any other, a batch of a client and this would wait for each other.
const SAVE: &str = "
    with locked as materialized (
        select c.id from contexts c join unnest($3::uuid[], $4::bigint[]) as f (id, version) on f.id = c.id
        where c.tenant_id = $1 and c.text_version = f.version and c.is_active and c.embedding_status = 'pending'
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
        from unnest($5::uuid[], $6::bigint[], $7::integer[], $8::halfvec[]) as v (context_id, version, chunk_no, embedding)
        join done on done.id = v.context_id and done.version = v.version
        join chunks k on k.tenant_id = $1 and k.context_id = v.context_id and k.version = v.version
                     and k.chunk_no = v.chunk_no
        on conflict do nothing
    )
    select count(*) from done";

const POSTPONE: &str = "
    with locked as materialized (
        select c.id from contexts c
        join unnest($2::uuid[], $5::bigint[]) as claimed (id, version) on claimed.id = c.id
        where c.tenant_id = $1 and c.text_version = claimed.version and c.embedding_status = 'pending'
        order by c.id
        for no key update of c
    )
    update contexts c
    set embedding_due_at = now() + make_interval(secs => $3), embedding_error = $4
    from locked where c.tenant_id = $1 and c.id = locked.id";

/// What failed for good its reader sees with the reason.
const REFUSE: &str = "
    update contexts
    set embedding_status = case when $5::float8 is null then 'failed' else 'pending' end, embedding_error = $6,
        embedding_due_at = now() + make_interval(secs => coalesce($5, 0)), embedding_attempts = embedding_attempts + 1
    where tenant_id = $1 and id = $3 and text_version = $4 and embedding_status = 'pending'
      and exists (select from embedding_spaces s where s.id = $2 and s.status = 'active')";

impl Store {
    /// Whether any context waits for its embedding in the active space.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn has_pending(&self) -> Result<bool> {
        let mut connection = self.connection().await?;
        let result = sqlx::query_scalar("select exists (select tenants_with_pending_embeddings(null, 1))")
            .fetch_one(connection.pg())
            .await;
        connection.settle(result)
    }
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
