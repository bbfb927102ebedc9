//! The queue of a space that is not the active one: what it lacks. Filled by every write of a text, and by a survey of what was
//! there before the space.

use sqlx::Row;
use uuid::Uuid;

use super::{Store, embedding_queue::Statements};
use crate::{
    domain::{ContextId, SpaceId, TenantId},
    error::{Error, Result},
};

pub(super) const STATEMENTS: Statements = Statements {
    tenants: "select tenants_with_embedding_work($3, $4, $1, $2)",
    claim: CLAIM,
    save: SAVE,
    postpone: POSTPONE,
    refuse: REFUSE,
};

/// What a survey saw of a tenant.
#[derive(Clone, Copy, Debug)]
pub struct Surveyed {
    /// Contexts that were looked at; fewer than asked for at the end.
    pub seen: i64,
    pub last: Option<ContextId>,
}

/// The chunks of `$context`, in its version `$version`, that the space `$space` does not have.
macro_rules! lacking_chunks {
    ($space:literal, $context:literal, $version:literal) => {
        concat!(
            "chunks k where k.tenant_id = $1 and k.context_id = ",
            $context,
            " and k.version = ",
            $version,
            " and not exists (
                 select from chunk_embeddings e
                 where e.tenant_id = $1 and e.space_id = ",
            $space,
            " and e.context_id = k.context_id and e.version = k.version and e.chunk_no = k.chunk_no)"
        )
    };
}

/// What is written now comes first, and alone belongs to a trace. A context that lacks nothing is answered without chunks: it is to be saved as it is.
const CLAIM: &str = concat!(
    "with due as (
         select w.context_id, w.is_fresh, w.due_at from embedding_work w
         where w.tenant_id = $1 and w.space_id = $5 and w.status = 'pending' and w.due_at <= now()
           and (w.is_fresh or not $6)
         order by w.is_fresh desc, w.due_at
         limit $2
         for update skip locked
     ), lacking as materialized (
         select due.*, c.text_version as version, case when due.is_fresh then c.embedding_trace end as embedding_trace,
                l.chunk_no
         from due join contexts c on c.tenant_id = $1 and c.id = due.context_id
         left join lateral (select k.chunk_no from ",
    lacking_chunks!("$5", "c.id", "c.text_version"),
    ") l on c.is_active
     ), counted as (
         select context_id, version, count(chunk_no) as chunks,
                sum(count(chunk_no)) over (order by is_fresh desc, due_at, context_id) as chunks_so_far
         from lacking group by context_id, version, is_fresh, due_at
     ), claimed as (
         update embedding_work w
         set due_at = now() + make_interval(secs => $3)
         from counted
         where w.tenant_id = $1 and w.space_id = $5 and w.context_id = counted.context_id
           and (counted.chunks_so_far <= $4 or counted.chunks_so_far = counted.chunks)
         returning w.context_id, w.attempts, w.error is not null as has_failed
     )
     select l.context_id as id, l.version, claimed.attempts as embedding_attempts, claimed.has_failed, l.embedding_trace,
            k.chunk_no, k.text
     from claimed join lacking l on l.context_id = claimed.context_id
     left join chunks k on k.tenant_id = $1 and k.context_id = l.context_id and k.version = l.version and k.chunk_no = l.chunk_no
     order by l.context_id, l.chunk_no"
);

/// Keeps the embeddings of what is still of the version that was read, and takes it from the queue, also what was deleted. The
/// contexts are locked in the order of their ids, as by every write, and what the chunks carry along is taken from them then.
const SAVE: &str = "
    with finished as (
        select * from unnest($3::uuid[], $4::bigint[]) as f (context_id, version)
    ), locked as materialized (
        select c.id, c.is_active, c.text_version, c.user_id, c.context_type, c.expires_at, c.valid_from, c.valid_to
        from contexts c join finished f on f.context_id = c.id
        where c.tenant_id = $1 and (c.text_version = f.version or not c.is_active)
        order by c.id
        for no key update of c
    ), kept as (
        insert into chunk_embeddings (tenant_id, space_id, context_id, version, chunk_no, user_id, context_type,
                                      expires_at, valid_from, valid_to, embedding)
        select $1, $2, k.context_id, k.version, k.chunk_no, locked.user_id, locked.context_type, locked.expires_at,
               locked.valid_from, locked.valid_to, v.embedding
        from unnest($5::uuid[], $6::bigint[], $7::integer[], $8::halfvec[]) as v (context_id, version, chunk_no, embedding)
        join locked on locked.id = v.context_id and locked.text_version = v.version and locked.is_active
        join chunks k on k.tenant_id = $1 and k.context_id = v.context_id and k.version = v.version
                     and k.chunk_no = v.chunk_no
        where exists (select from embedding_spaces s where s.id = $2 and s.status <> 'retired')
        on conflict do nothing
    ), done as (
        delete from embedding_work w using locked
        where w.tenant_id = $1 and w.space_id = $2 and w.context_id = locked.id
        returning 1
    )
    select count(*) from done";

const POSTPONE: &str = "
    with locked as materialized (
        select w.context_id from embedding_work w
        where w.tenant_id = $1 and w.space_id = $5 and w.context_id = any($2) and w.status = 'pending'
        order by w.context_id
        for update
    )
    update embedding_work w
    set due_at = clock_timestamp() + make_interval(secs => $3), error = $4
    from locked where w.tenant_id = $1 and w.space_id = $5 and w.context_id = locked.context_id";

const REFUSE: &str = "
    with locked as materialized (
        select c.id from contexts c where c.tenant_id = $1 and c.id = $3 and c.text_version = $4
        for no key update
    )
    update embedding_work w
    set status = case when $5::float8 is null then 'failed' else 'pending' end, error = $6,
        due_at = clock_timestamp() + make_interval(secs => coalesce($5, 0)), attempts = w.attempts + 1
    from locked
    where w.tenant_id = $1 and w.space_id = $2 and w.context_id = locked.id and w.status = 'pending'";

/// The next contexts by id, and whether each lacks something. Asked for one by one, in the list of what is selected: as a
/// condition it becomes a join, and the planner, which knows nothing of a space that has just been made, may take hours.
///
/// $1 tenant, $2 space, $3 the one before them, or null, $4 contexts
macro_rules! page {
    () => {
        concat!(
            "with next as materialized (
                 select c.id, c.text_version, c.is_active from contexts c
                 where c.tenant_id = $1 and ($3::uuid is null or c.id > $3)
                 order by c.id limit $4
             ), page as materialized (
                 select n.id, n.text_version, n.is_active and exists (select from ",
            lacking_chunks!("$2", "n.id", "n.text_version"),
            ") as lacks from next n
             ), "
        )
    };
}

/// Locked, because one that is purged meanwhile cannot be queued. What failed is tried once more.
const SURVEY: &str = concat!(
    page!(),
    "lacking as materialized (
         select c.id from contexts c join page on page.id = c.id
         where c.tenant_id = $1 and page.lacks
         order by c.id
         for key share of c
     ), queued as (
         insert into embedding_work (tenant_id, space_id, context_id, is_fresh)
         select $1, $2, lacking.id, false from lacking
         on conflict (tenant_id, space_id, context_id) do update
             set status = 'pending', attempts = 0, error = null, due_at = clock_timestamp()
             where embedding_work.status = 'failed'
     )
     select count(*) as seen, (select id from page order by id desc limit 1) as last from page"
);

/// Of the active space, whose queue the contexts themselves are.
const SURVEY_ACTIVE: &str = concat!(
    page!(),
    "lacking as materialized (
         select c.id from contexts c join page on page.id = c.id
         where c.tenant_id = $1 and c.is_active and c.text_version = page.text_version
           and (c.embedding_status = 'failed' or (c.embedding_status = 'ready' and page.lacks))
         order by c.id
         for no key update of c
     ), queued as (
         update contexts c
         set embedding_status = 'pending', embedding_error = null, embedding_attempts = 0, embedding_due_at = now(),
             embedding_requested_at = now()
         from lacking where c.tenant_id = $1 and c.id = lacking.id
     )
     select count(*) as seen, (select id from page order by id desc limit 1) as last from page"
);

impl Store {
    /// Looks at the contexts after `after`, at most `contexts_max`, and queues those that lack something in the space; in the
    /// active one also those that failed.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn survey(
        &self,
        tenant: TenantId,
        space: SpaceId,
        is_active: bool,
        after: Option<ContextId>,
        contexts_max: i64,
    ) -> Result<Surveyed> {
        let mut writing = self.write(tenant).await?;
        let result = sqlx::query(if is_active { SURVEY_ACTIVE } else { SURVEY })
            .bind(tenant.0)
            .bind(space.0)
            .bind(after.map(|id| id.0))
            .bind(contexts_max)
            .fetch_one(writing.pg())
            .await;
        let surveyed = writing.settle(result).and_then(|row| {
            let last: Option<Uuid> = row.try_get("last").map_err(Error::internal)?;
            Ok(Surveyed { seen: row.try_get("seen").map_err(Error::internal)?, last: last.map(ContextId) })
        });
        if !is_active {
            // Readers do not see what is queued for another space.
            writing.changes_nothing_visible();
        }
        writing.finish(surveyed).await
    }
}
