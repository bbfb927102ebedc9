//! The two legs of a search. Each answers chunks, best first; what they mean together is the service's business.

use pgvector::HalfVector;
use sqlx::{Postgres, QueryBuilder, Row, postgres::PgRow};

use super::{Store, contexts::visible};
use crate::{
    domain::{Access, ContextId, ContextType, Plan, SpaceInfo, TenantId, UserId, Vector},
    error::{Error, Result},
};

/// What a search is confined to, besides its tenant.
#[derive(Clone, Debug)]
pub struct Scope {
    pub user_id: Option<UserId>,
    /// Empty means all.
    pub context_types: Vec<ContextType>,
}

/// A chunk that was found.
#[derive(Debug)]
pub struct ChunkHit {
    pub context: ContextId,
    pub chunk_no: i32,
    pub text: String,
    pub score: f64,
    /// Keyword leg: the share of the query's words that it has, above 0 to 1. Semantic leg: always 1.
    pub coverage: f64,
}

/// What the semantic leg found, and how.
#[derive(Debug)]
pub struct Semantic {
    pub hits: Vec<ChunkHit>,
    pub plan: Plan,
    /// Chunks within the scope, counted up to [`EXACT_CANDIDATES_MAX`] + 1.
    pub candidates: i64,
}

/// Up to so many candidates, comparing each is both faster than the index and exactly right: about half a microsecond
/// a chunk at 384 dimensions, while an index scan under a narrow filter throws most of what it finds away.
pub const EXACT_CANDIDATES_MAX: i64 = 5_000;

impl Scope {
    /// Whether it takes any chunk that is valid.
    pub(super) fn is_whole_tenant(&self) -> bool {
        self.user_id.is_none() && self.context_types.is_empty()
    }
}

/// The name of the chunk's table in both legs is `k`.
pub(super) fn push_scope(query: &mut QueryBuilder<Postgres>, scope: &Scope) {
    if let Some(user) = scope.user_id {
        query.push(" and k.user_id = ").push_bind(user.0);
    }
    if !scope.context_types.is_empty() {
        let types: Vec<String> = scope.context_types.iter().map(|t| t.as_str().to_owned()).collect();
        query.push(" and k.context_type = any(").push_bind(types).push(")");
    }
    query.push(
        " and (k.expires_at is null or k.expires_at > now()) and (k.valid_from is null or k.valid_from <= now())
         and (k.valid_to is null or k.valid_to > now())",
    );
}

/// In what precision embeddings are kept: see `migrations/0002_contexts.sql`.
#[derive(Clone, Copy)]
enum Element {
    Half,
    Single,
}

impl Element {
    fn type_name(self) -> &'static str {
        match self {
            Self::Half => "halfvec",
            Self::Single => "vector",
        }
    }

    fn push_bind(self, query: &mut QueryBuilder<Postgres>, vector: &Vector) {
        match self {
            Self::Half => query.push_bind(HalfVector::from_f32_slice(vector.as_slice())),
            Self::Single => query.push_bind(pgvector::Vector::from(vector.as_slice().to_vec())),
        };
    }
}

impl Store {
    /// The chunks nearest to `vector`, at most `chunks_max`.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn search_semantic(
        &self,
        tenant: TenantId,
        space: &SpaceInfo,
        vector: &Vector,
        scope: &Scope,
        chunks_max: i64,
    ) -> Result<Semantic> {
        let candidates = self.count_candidates(tenant, space, scope).await?;
        let plan = if candidates <= EXACT_CANDIDATES_MAX { Plan::Exact } else { Plan::Hnsw };
        // The dimension is part of the type that the index is on, and a number that the database gave us. For the exact
        // plan the order is hidden from the index by `+ 0`: the planner likes the index even where it should not.
        let element = if self.is_embedded() { Element::Single } else { Element::Half };
        let value_type = format!("{}({})", element.type_name(), space.dims);
        let distance = |query: &mut QueryBuilder<Postgres>| {
            query.push(format!("(k.embedding::{value_type} <#> "));
            element.push_bind(query, vector);
            query.push(format!("::{value_type})"));
        };

        let mut query = QueryBuilder::new(
            "select n.context_id, n.chunk_no, t.text, n.score, 1::float8 as coverage
             from (select k.tenant_id, k.context_id, k.version, k.chunk_no, -",
        );
        distance(&mut query);
        query.push(" as score from chunk_embeddings k where k.tenant_id = ");
        query.push_bind(tenant.0).push(" and k.space_id = ").push_bind(space.id);
        push_scope(&mut query, scope);
        query.push(" order by ");
        distance(&mut query);
        if plan == Plan::Exact {
            query.push(" + 0");
        }
        query.push(" limit ").push_bind(chunks_max);
        query.push(
            ") n join chunks t on t.tenant_id = n.tenant_id and t.context_id = n.context_id
                 and t.version = n.version and t.chunk_no = n.chunk_no
             order by n.score desc, n.context_id, n.chunk_no",
        );
        let mut connection = self.tenant(tenant).await?;
        let result = query.build().fetch_all(connection.pg()).await;
        let hits = hits_from_rows(&connection.settle(result)?)?;
        Ok(Semantic { hits, plan, candidates })
    }

    async fn count_candidates(&self, tenant: TenantId, space: &SpaceInfo, scope: &Scope) -> Result<i64> {
        let mut query =
            QueryBuilder::new("select count(*) from (select 1 from chunk_embeddings k where k.tenant_id = ");
        query.push_bind(tenant.0).push(" and k.space_id = ").push_bind(space.id);
        push_scope(&mut query, scope);
        query.push(" limit ").push_bind(EXACT_CANDIDATES_MAX + 1).push(") counted");
        let mut connection = self.tenant(tenant).await?;
        let result = query.build_query_scalar().fetch_one(connection.pg()).await;
        connection.settle(result)
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

fn hits_from_rows(rows: &[PgRow]) -> Result<Vec<ChunkHit>> {
    let read = |row: &PgRow| {
        Ok::<_, sqlx::Error>(ChunkHit {
            context: ContextId(row.try_get("context_id")?),
            chunk_no: row.try_get("chunk_no")?,
            text: row.try_get("text")?,
            score: row.try_get("score")?,
            coverage: row.try_get("coverage")?,
        })
    };
    rows.iter().map(read).collect::<sqlx::Result<_>>().map_err(Error::internal)
}
