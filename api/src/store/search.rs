//! Finding chunks by meaning. Answers chunks, best first; what they mean together is the service's business.

use pgvector::HalfVector;
use sqlx::{Postgres, QueryBuilder, Row, postgres::PgRow};
use time::OffsetDateTime;

use super::{Store, connection::Plans, contexts::visible, filter, past_search::Then};
use crate::{
    domain::{Access, ContextId, Effort, SearchScope, SpaceInfo, TenantId, Vector},
    error::{Error, Result},
};

/// A chunk that was found.
#[derive(Clone, Debug)]
pub struct ChunkHit {
    pub context: ContextId,
    /// The version in which the text was written.
    pub version: i64,
    pub chunk_no: i32,
    pub score: f64,
}

/// How many are compared one by one, at most.
#[derive(Clone, Copy, Debug)]
pub struct ExactCap {
    /// Chunks, when no filter has to be looked up.
    pub chunks: i64,
    /// Contexts that pass the filter, when there is one.
    pub contexts: i64,
}

impl ExactCap {
    /// However many there are.
    pub const NONE: Self = Self { chunks: i64::MAX - 1, contexts: i64::MAX - 1 };

    /// The one of the two that counts in this scope.
    pub fn counted(self, scope: &SearchScope) -> i64 {
        if scope.filter.is_some() || scope.as_of.is_some() { self.contexts } else { self.chunks }
    }
}

/// Every candidate, compared.
#[derive(Debug)]
pub struct Compared {
    pub hits: Vec<ChunkHit>,
    pub candidates: i64,
}

/// What the index of neighbours showed.
#[derive(Debug)]
pub struct Nearby {
    pub hits: Vec<ChunkHit>,
    /// False when it gave up before it had found as many as were wanted.
    pub saw_all: bool,
}

/// What a filter or a time leaves is best found in another way for each. Else there is one way.
pub(super) fn plans_of(scope: &SearchScope) -> Plans {
    if scope.filter.is_some() || scope.as_of.is_some() { Plans::Fitted } else { Plans::Kept }
}

/// Confines the chunks `k` to the scope.
pub(super) fn push_scope(query: &mut QueryBuilder<Postgres>, scope: &SearchScope) {
    push_columns(query, scope, "k");
    if let Some(filter) = &scope.filter {
        // A subquery of its own, which is asked about each row that is found: what could be made a join of might be made
        // the beginning of the plan.
        query.push(" and (select ");
        filter::push(query, filter, "c.id");
        query.push(" from contexts c where c.tenant_id = k.tenant_id and c.id = k.context_id)");
    }
}

/// A part of a `with`: the contexts within the scope, at most so many. For scopes with a filter, which looks at contexts.
pub(super) fn push_matched(
    query: &mut QueryBuilder<Postgres>,
    tenant: TenantId,
    scope: &SearchScope,
    contexts_max: i64,
) {
    query.push(concat!("matched as materialized (select c.id from contexts c where ", visible!()));
    query.push(" and c.tenant_id = ").push_bind(tenant.0);
    push_columns(query, scope, "c");
    if let Some(filter) = &scope.filter {
        query.push(" and ");
        filter::push(query, filter, "c.id");
    }
    query.push(" limit ").push_bind(contexts_max).push(")");
}

/// The conditions on what contexts, chunks and embeddings alike have as columns. `table` is the row's name.
pub(super) fn push_columns(query: &mut QueryBuilder<Postgres>, scope: &SearchScope, table: &'static str) {
    push_owner(query, scope, table);
    query.push(format!(" and ({table}.expires_at is null or {table}.expires_at > now())"));
    push_validity(query, scope.valid_at, table);
}

/// Whose they are, and of which types.
pub(super) fn push_owner(query: &mut QueryBuilder<Postgres>, scope: &SearchScope, table: &'static str) {
    if let Some(user) = scope.user_id {
        query.push(format!(" and {table}.user_id = ")).push_bind(user.0);
    }
    if !scope.context_types.is_empty() {
        let types: Vec<String> = scope.context_types.iter().map(|t| t.as_str().to_owned()).collect();
        query.push(format!(" and {table}.context_type = any(")).push_bind(types).push(")");
    }
}

/// That what they say holds at a time, or now.
pub(super) fn push_validity(
    query: &mut QueryBuilder<Postgres>,
    at: Option<OffsetDateTime>,
    table: &'static str,
) {
    for (column, sign) in [("valid_from", "<="), ("valid_to", ">")] {
        query.push(format!(" and ({table}.{column} is null or {table}.{column} {sign} "));
        match at {
            Some(at) => query.push_bind(at),
            None => query.push("now()"),
        };
        query.push(")");
    }
}

/// In what precision embeddings are kept: see `migrations/0002_contexts.sql`.
#[derive(Clone, Copy)]
enum Element {
    Half,
    Single,
}

/// The distance of `k.embedding` from a vector.
pub(super) struct Distance<'v> {
    element: Element,
    /// The dimension is part of the type that the index is on, and a number that the database gave us.
    value_type: String,
    vector: &'v Vector,
}

impl<'v> Distance<'v> {
    pub(super) fn new(store: &Store, space: &SpaceInfo, vector: &'v Vector) -> Self {
        let element = if store.is_embedded() { Element::Single } else { Element::Half };
        let name = match element {
            Element::Half => "halfvec",
            Element::Single => "vector",
        };
        Self { element, value_type: format!("{name}({})", space.dims), vector }
    }

    /// Minus the cosine.
    pub(super) fn push(&self, query: &mut QueryBuilder<Postgres>) {
        let value_type = &self.value_type;
        query.push(format!("(k.embedding::{value_type} <#> "));
        match self.element {
            Element::Half => query.push_bind(HalfVector::from_f32_slice(self.vector.as_slice())),
            Element::Single => query.push_bind(pgvector::Vector::from(self.vector.as_slice().to_vec())),
        };
        query.push(format!("::{value_type})"));
    }
}

/// The embeddings of the tenant in the space. The space's number is part of the text, so that the plan is made for one
/// partition alone.
pub(super) fn push_embeddings(query: &mut QueryBuilder<Postgres>, tenant: TenantId, space: &SpaceInfo) {
    query.push(format!("k.space_id = {} and k.tenant_id = ", space.id)).push_bind(tenant.0);
}

/// How far the index of neighbours looks.
#[derive(Clone, Copy, Debug)]
pub struct Reach {
    /// Chunks wanted.
    pub chunks_max: i64,
    /// About how many entries the index has, of all tenants together.
    pub indexed: i64,
    pub effort: Effort,
}

/// How many entries the index keeps in view (`ef_search`): the more, the surer are the nearest among them, and the longer it takes.
struct View {
    min: i64,
    /// For each chunk that is wanted.
    per_chunk: i64,
    /// The same when most of them are outside the scope. Going on when too few are left costs more than to look far at once.
    per_chunk_narrow: i64,
}

const NORMAL_VIEW: View = View { min: 400, per_chunk: 4, per_chunk_narrow: 25 };
const LOW_VIEW: View = View { min: 40, per_chunk: 2, per_chunk_narrow: 8 };
/// Of pgvector.
const IN_VIEW_MAX: i64 = 1_000;

/// A condition that always holds, and for this one statement sets how far the index looks. It is asked before the index is: it
/// depends on no row.
pub(super) fn push_view(
    query: &mut QueryBuilder<Postgres>,
    tenant: TenantId,
    scope: &SearchScope,
    reach: Reach,
) {
    let view = if reach.effort == Effort::Low { LOW_VIEW } else { NORMAL_VIEW };
    let in_view = |per_chunk: i64| (reach.chunks_max * per_chunk).clamp(view.min, IN_VIEW_MAX);
    query.push(" and (select set_config('hnsw.ef_search', (case when ");
    query.push_bind(!scope.is_whole_tenant() || scope.as_of.is_some());
    query.push(" or 2 * coalesce((select sum(t.chunks) from keyword_totals t where t.tenant_id = ");
    query.push_bind(tenant.0).push("), 0) < ").push_bind(reach.indexed);
    query.push(" then ").push_bind(in_view(view.per_chunk_narrow));
    query.push(" else ").push_bind(in_view(view.per_chunk));
    query.push(" end)::text, true)) is not null");
}

pub(super) const BEST_FIRST: &str = " order by score desc, context_id, chunk_no";

impl Store {
    /// Compares every chunk within the scope with `vector` and answers the nearest, at most `chunks_max`. None when there are
    /// more than `cap` says.
    ///
    /// # Errors
    /// When the database cannot be reached, or takes too long.
    pub async fn search_exact(
        &self,
        tenant: TenantId,
        space: &SpaceInfo,
        vector: &Vector,
        scope: &SearchScope,
        cap: ExactCap,
        chunks_max: i64,
    ) -> Result<Option<Compared>> {
        if let Some(then) = Then::of(tenant, scope) {
            return self.search_exact_as_of(&then, space, vector, cap, chunks_max).await;
        }
        let distance = Distance::new(self, space, vector);
        let mut query = QueryBuilder::new("with ");
        if scope.filter.is_some() {
            push_matched(&mut query, tenant, scope, cap.contexts + 1);
            query.push(", ");
        }
        query.push("candidates as materialized (select k.context_id, k.version, k.chunk_no, -");
        distance.push(&mut query);
        query.push(" as score from chunk_embeddings k ");
        if scope.filter.is_some() {
            query.push("join matched on matched.id = k.context_id where ");
            push_embeddings(&mut query, tenant, space);
            query.push(" and (select count(*) from matched) <= ").push_bind(cap.contexts);
            query.push("), counted as (select count(*) as candidates, (select count(*) from matched) <= ");
            query.push_bind(cap.contexts);
        } else {
            query.push("where ");
            push_embeddings(&mut query, tenant, space);
            push_columns(&mut query, scope, "k");
            query.push(format!(" limit {}", cap.chunks + 1));
            query.push("), counted as (select count(*) as candidates, count(*) <= ").push_bind(cap.chunks);
        }
        query.push(
            " as within_cap from candidates)
             select counted.candidates, counted.within_cap, n.*
             from counted left join lateral (select * from candidates where counted.within_cap",
        );
        query.push(BEST_FIRST).push(format!(" limit {chunks_max}) n on true")).push(BEST_FIRST);
        let mut connection = self.tenant_with(tenant, plans_of(scope)).await?;
        let result = query.build().persistent(scope.filter.is_none()).fetch_all(connection.pg()).await;
        compared_from_rows(&connection.settle(result)?)
    }

    /// The chunks within the scope that are nearest to `vector` as far as the index of neighbours shows, at most as many as are
    /// wanted, of more within the scope.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn search_nearest(
        &self,
        tenant: TenantId,
        space: &SpaceInfo,
        vector: &Vector,
        scope: &SearchScope,
        reach: Reach,
    ) -> Result<Nearby> {
        if let Some(then) = Then::of(tenant, scope) {
            return self.search_nearest_as_of(&then, space, vector, reach).await;
        }
        let chunks_max = reach.chunks_max;
        let mut query = QueryBuilder::new("select n.* from (");
        self.push_nearest(&mut query, tenant, (space, vector), scope, reach);
        query.push(") n").push(BEST_FIRST);
        let mut connection = self.tenant_with(tenant, plans_of(scope)).await?;
        let result = query.build().persistent(scope.filter.is_none()).fetch_all(connection.pg()).await;
        let hits: Vec<ChunkHit> =
            connection.settle(result)?.iter().map(hit_from_row).collect::<Result<_>>()?;
        // Otherwise it gave up: it is shared by all tenants, and met too many of others.
        let saw_all = hits.len() as i64 >= chunks_max;
        Ok(Nearby { hits, saw_all })
    }

    pub(super) fn push_nearest(
        &self,
        query: &mut QueryBuilder<Postgres>,
        tenant: TenantId,
        (space, vector): (&SpaceInfo, &Vector),
        scope: &SearchScope,
        reach: Reach,
    ) {
        query.push("select k.context_id, k.version, k.chunk_no, -k.distance as score from (");
        query.push("select k.context_id, k.version, k.chunk_no, ");
        Distance::new(self, space, vector).push(query);
        query.push(" as distance from chunk_embeddings k where ");
        push_embeddings(query, tenant, space);
        push_scope(query, scope);
        push_view(query, tenant, scope, reach);
        // A number of ours, and one of a few. Of a parameter PostgreSQL would believe that it is a tenth of all rows.
        query.push(format!(" order by distance limit {}) k", reach.chunks_max));
    }
}

impl Store {
    /// The beginnings of what was written last.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn newest_texts(&self, access: Access, contexts_max: i64) -> Result<Vec<String>> {
        let mut connection = self.tenant(access.tenant).await?;
        let result = sqlx::query_scalar(concat!(
            "select left(c.text, 1000) from contexts c where c.tenant_id = $1 and ($2::uuid is null or c.user_id = $2)
             and c.text ~ '\\S' and ",
            visible!(),
            " order by c.id desc limit $3"
        ))
        .bind(access.tenant.0)
        .bind(access.user.map(|user| user.0))
        .bind(contexts_max)
        .fetch_all(connection.pg())
        .await;
        connection.settle(result)
    }
}

/// The first columns are the same in all rows, of which there is at least one.
pub(super) fn compared_from_rows(rows: &[PgRow]) -> Result<Option<Compared>> {
    let first = rows.first().ok_or_else(|| Error::internal("a count without a row"))?;
    if !first.try_get::<bool, _>("within_cap").map_err(Error::internal)? {
        return Ok(None);
    }
    let candidates = first.try_get("candidates").map_err(Error::internal)?;
    let hits =
        if candidates == 0 { Vec::new() } else { rows.iter().map(hit_from_row).collect::<Result<_>>()? };
    Ok(Some(Compared { hits, candidates }))
}

pub(super) fn hit_from_row(row: &PgRow) -> Result<ChunkHit> {
    let read = || {
        Ok::<_, sqlx::Error>(ChunkHit {
            context: ContextId(row.try_get("context_id")?),
            version: row.try_get("version")?,
            chunk_no: row.try_get("chunk_no")?,
            score: row.try_get("score")?,
        })
    };
    read().map_err(Error::internal)
}
