//! Finding chunks by meaning, and reading what was found. Answers chunks, best first; what they mean together is the service's
//! business.

use pgvector::HalfVector;
use sqlx::{Postgres, QueryBuilder, Row, postgres::PgRow};
use uuid::Uuid;

use super::{
    Store,
    contexts::{Bounded, context_columns, from_row, read_bounded, visible},
    filter,
};
use crate::{
    domain::{Access, Context, ContextId, HitChunk, SearchScope, SpaceInfo, TenantId, Vector},
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
}

/// Every candidate, compared.
#[derive(Debug)]
pub struct Compared {
    pub hits: Vec<ChunkHit>,
    pub candidates: i64,
}

/// What was found, as it is answered.
#[derive(Debug)]
pub struct Found {
    pub context: Context,
    pub chunk: HitChunk,
    /// Its place among those that were asked for, from 0.
    pub place: usize,
}

impl AsRef<Context> for Found {
    fn as_ref(&self) -> &Context {
        &self.context
    }
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

/// The conditions on what contexts, chunks and embeddings alike have as columns. `table` is the row's name.
fn push_columns(query: &mut QueryBuilder<Postgres>, scope: &SearchScope, table: &'static str) {
    if let Some(user) = scope.user_id {
        query.push(format!(" and {table}.user_id = ")).push_bind(user.0);
    }
    if !scope.context_types.is_empty() {
        let types: Vec<String> = scope.context_types.iter().map(|t| t.as_str().to_owned()).collect();
        query.push(format!(" and {table}.context_type = any(")).push_bind(types).push(")");
    }
    query.push(format!(" and ({table}.expires_at is null or {table}.expires_at > now())"));
    for (column, sign) in [("valid_from", "<="), ("valid_to", ">")] {
        query.push(format!(" and ({table}.{column} is null or {table}.{column} {sign} "));
        match scope.valid_at {
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
struct Distance<'v> {
    element: Element,
    /// The dimension is part of the type that the index is on, and a number that the database gave us.
    value_type: String,
    vector: &'v Vector,
}

impl<'v> Distance<'v> {
    fn new(store: &Store, space: &SpaceInfo, vector: &'v Vector) -> Self {
        let element = if store.is_embedded() { Element::Single } else { Element::Half };
        let name = match element {
            Element::Half => "halfvec",
            Element::Single => "vector",
        };
        Self { element, value_type: format!("{name}({})", space.dims), vector }
    }

    /// Minus the cosine.
    fn push(&self, query: &mut QueryBuilder<Postgres>) {
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
fn push_embeddings(query: &mut QueryBuilder<Postgres>, tenant: TenantId, space: &SpaceInfo) {
    query.push(format!("k.space_id = {} and k.tenant_id = ", space.id)).push_bind(tenant.0);
}

const BEST_FIRST: &str = " order by score desc, context_id, chunk_no";

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
        let distance = Distance::new(self, space, vector);
        let mut query = QueryBuilder::new("with ");
        if let Some(filter) = &scope.filter {
            query.push(concat!("matched as materialized (select c.id from contexts c where ", visible!()));
            query.push(" and c.tenant_id = ").push_bind(tenant.0);
            push_columns(&mut query, scope, "c");
            query.push(" and ");
            filter::push(&mut query, filter, "c.id");
            query.push(" limit ").push_bind(cap.contexts + 1).push("), ");
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
            query.push(" limit ").push_bind(cap.chunks + 1);
            query.push("), counted as (select count(*) as candidates, count(*) <= ").push_bind(cap.chunks);
        }
        query.push(
            " as within_cap from candidates)
             select counted.candidates, counted.within_cap, n.*
             from counted left join lateral (select * from candidates where counted.within_cap",
        );
        query.push(BEST_FIRST).push(" limit ").push_bind(chunks_max).push(") n on true").push(BEST_FIRST);
        let mut connection = self.tenant(tenant).await?;
        let result = query.build().persistent(scope.filter.is_none()).fetch_all(connection.pg()).await;
        compared_from_rows(&connection.settle(result)?)
    }

    /// The chunks within the scope that are nearest to `vector` as far as the index of neighbours shows, at most `chunks_max`.
    /// Fewer when it gave up looking.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn search_nearest(
        &self,
        tenant: TenantId,
        space: &SpaceInfo,
        vector: &Vector,
        scope: &SearchScope,
        chunks_max: i64,
    ) -> Result<Vec<ChunkHit>> {
        let distance = Distance::new(self, space, vector);
        let mut query = QueryBuilder::new("select n.* from (select k.context_id, k.version, k.chunk_no, -");
        distance.push(&mut query);
        query.push(" as score from chunk_embeddings k where ");
        push_embeddings(&mut query, tenant, space);
        push_scope(&mut query, scope);
        query.push(" order by ");
        distance.push(&mut query);
        query.push(" limit ").push_bind(chunks_max).push(") n").push(BEST_FIRST);
        let mut connection = self.tenant(tenant).await?;
        let result = query.build().persistent(scope.filter.is_none()).fetch_all(connection.pg()).await;
        connection.settle(result)?.iter().map(hit_from_row).collect()
    }

    /// Reads the contexts of `hits` and their chunks, in their order. What was changed or has left the scope since it was
    /// found is left out.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn load_hits(
        &self,
        tenant: TenantId,
        scope: &SearchScope,
        hits: &[&ChunkHit],
    ) -> Result<Bounded<Found>> {
        let mut query = QueryBuilder::new(concat!(
            "select ",
            context_columns!(),
            ", w.place - 1 as place, t.chunk_no, t.text as chunk_text from "
        ));
        push_wanted(&mut query, hits);
        query.push(concat!(
            " join contexts c on c.id = w.context_id
              join chunks t on t.tenant_id = c.tenant_id and t.context_id = c.id and t.version = w.version
                           and t.chunk_no = w.chunk_no
              where ",
            visible!(),
            " and c.tenant_id = "
        ));
        query.push_bind(tenant.0);
        push_columns(&mut query, scope, "c");
        if let Some(filter) = &scope.filter {
            query.push(" and ");
            filter::push(&mut query, filter, "c.id");
        }
        query.push(" order by w.place");
        let mut connection = self.tenant(tenant).await?;
        let statement = query.build().persistent(scope.filter.is_none());
        read_bounded(&mut connection, statement, found_from_row).await
    }

    /// How many seconds ago each context was last written, in the order of `hits`; none for one that is gone.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn ages_of_hits(&self, tenant: TenantId, hits: &[&ChunkHit]) -> Result<Vec<Option<f64>>> {
        let mut query = QueryBuilder::new("select extract(epoch from now() - c.updated_at)::float8 from ");
        push_wanted(&mut query, hits);
        query.push(" left join contexts c on c.id = w.context_id and c.tenant_id = ").push_bind(tenant.0);
        query.push(" order by w.place");
        let mut connection = self.tenant(tenant).await?;
        let result = query.build_query_scalar().fetch_all(connection.pg()).await;
        connection.settle(result)
    }

    /// The embedding of each chunk, in the order of `hits`; none for one that has not been embedded.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn vectors_of_hits(
        &self,
        tenant: TenantId,
        space: &SpaceInfo,
        hits: &[&ChunkHit],
    ) -> Result<Vec<Option<Vec<f32>>>> {
        let mut query = QueryBuilder::new("select k.embedding::vector from ");
        push_wanted(&mut query, hits);
        query.push(
            " left join chunk_embeddings k on k.context_id = w.context_id and k.version = w.version
                                          and k.chunk_no = w.chunk_no and ",
        );
        push_embeddings(&mut query, tenant, space);
        query.push(" order by w.place");
        let mut connection = self.tenant(tenant).await?;
        let result = query.build_query_scalar::<Option<pgvector::Vector>>().fetch_all(connection.pg()).await;
        Ok(connection.settle(result)?.into_iter().map(|vector| vector.map(Vec::from)).collect())
    }
}

/// The chunks that are asked for, numbered.
fn push_wanted(query: &mut QueryBuilder<Postgres>, hits: &[&ChunkHit]) {
    let contexts: Vec<Uuid> = hits.iter().map(|hit| hit.context.0).collect();
    let versions: Vec<i64> = hits.iter().map(|hit| hit.version).collect();
    let chunk_nos: Vec<i32> = hits.iter().map(|hit| hit.chunk_no).collect();
    query.push("unnest(").push_bind(contexts).push("::uuid[], ").push_bind(versions).push("::bigint[], ");
    query
        .push_bind(chunk_nos)
        .push("::integer[]) with ordinality as w (context_id, version, chunk_no, place)");
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
fn compared_from_rows(rows: &[PgRow]) -> Result<Option<Compared>> {
    let first = rows.first().ok_or_else(|| Error::internal("a count without a row"))?;
    if !first.try_get::<bool, _>("within_cap").map_err(Error::internal)? {
        return Ok(None);
    }
    let candidates = first.try_get("candidates").map_err(Error::internal)?;
    let hits =
        if candidates == 0 { Vec::new() } else { rows.iter().map(hit_from_row).collect::<Result<_>>()? };
    Ok(Some(Compared { hits, candidates }))
}

fn hit_from_row(row: &PgRow) -> Result<ChunkHit> {
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

fn found_from_row(row: &PgRow) -> Result<Found> {
    let read = || {
        let place: i64 = row.try_get("place")?;
        let chunk = HitChunk { chunk_no: row.try_get("chunk_no")?, text: row.try_get("chunk_text")? };
        Ok::<_, sqlx::Error>((place as usize, chunk))
    };
    let (place, chunk) = read().map_err(Error::internal)?;
    Ok(Found { context: from_row(row)?, chunk, place })
}
