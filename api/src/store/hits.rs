//! Reading what a search has found: the contexts and chunks that are answered, and what their order depends on.

use sqlx::{Postgres, QueryBuilder, Row, postgres::PgRow};
use uuid::Uuid;

use super::{
    Store,
    contexts::{Bounded, from_row, large_columns, read_bounded, small_context_columns, visible},
    filter,
    past_search::Then,
    search::{ChunkHit, Distance, Reach, plans_of, push_columns, push_embeddings},
};
use crate::{
    domain::{Context, ContextId, HitChunk, Included, SearchScope, SpaceInfo, TenantId, Vector},
    error::{Error, Result},
};

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

/// What the index of neighbours showed, as it is answered.
#[derive(Debug)]
pub struct NearbyFound {
    /// The best chunk of each context, best first.
    pub hits: Vec<ChunkHit>,
    /// Of the same places.
    pub found: Bounded<Found>,
    /// False when there were fewer chunks or contexts than were wanted: then there may be more to be had in another way.
    pub is_enough: bool,
}

impl Store {
    /// [`Store::search_nearest`] and [`Store::load_hits`] of its best `contexts_max` contexts in one statement, as everything is
    /// now: most searches by meaning are no more than that, and each statement costs them a tenth.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn find_nearest(
        &self,
        tenant: TenantId,
        (space, vector): (&SpaceInfo, &Vector),
        scope: &SearchScope,
        reach: Reach,
        contexts_max: usize,
        include: Included,
    ) -> Result<NearbyFound> {
        let mut query = QueryBuilder::new("with n as materialized (");
        self.push_nearest(&mut query, tenant, (space, vector), scope, reach);
        query.push(
            "), best as (
                 select distinct on (context_id) * from n order by context_id, score desc, chunk_no
             ), w as (
                 select *, row_number() over (order by score desc, context_id, chunk_no) as place from best
             )
             select (select count(*) from n) as chunks, w.place - 1 as place, w.score, w.context_id, w.version as chunk_version, ",
        );
        query.push(large_columns(include)).push(concat!(
            ", ",
            small_context_columns!(),
            ", t.chunk_no, t.text as chunk_text from w "
        ));
        push_texts_of_hit(&mut query, tenant);
        query.push(" and w.place <= ").push_bind(contexts_max as i64);
        query.push(" order by w.place");
        let mut connection = self.tenant_with(tenant, plans_of(scope)).await?;
        let statement = query.build().persistent(scope.filter.is_none());
        let mut chunks = 0_i64;
        let mut hits = Vec::new();
        let found = read_bounded(&mut connection, statement, |row| {
            let mut read = || {
                chunks = row.try_get("chunks")?;
                Ok::<_, sqlx::Error>(ChunkHit {
                    context: ContextId(row.try_get("context_id")?),
                    version: row.try_get("chunk_version")?,
                    chunk_no: row.try_get("chunk_no")?,
                    score: row.try_get("score")?,
                })
            };
            hits.push(read().map_err(Error::internal)?);
            Ok(Found { place: hits.len() - 1, ..found_from_row(row)? })
        })
        .await?;
        hits.truncate(found.rows.len());
        let is_enough = chunks >= reach.chunks_max && (found.cut || found.rows.len() >= contexts_max);
        Ok(NearbyFound { hits, found, is_enough })
    }

    /// Reads the contexts of `hits`, as much of them as is included, and their chunks, in their order. What was changed or has
    /// left the scope since it was found is left out.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn load_hits(
        &self,
        tenant: TenantId,
        scope: &SearchScope,
        include: Included,
        hits: &[&ChunkHit],
    ) -> Result<Bounded<Found>> {
        if let Some(then) = Then::of(tenant, scope) {
            return self.load_hits_as_of(&then, include, hits).await;
        }
        let mut query = QueryBuilder::new("select ");
        query.push(large_columns(include)).push(concat!(
            ", ",
            small_context_columns!(),
            ", w.place - 1 as place, t.chunk_no, t.text as chunk_text from "
        ));
        push_wanted(&mut query, hits);
        push_texts_of_hit(&mut query, tenant);
        push_columns(&mut query, scope, "c");
        if let Some(filter) = &scope.filter {
            query.push(" and ");
            filter::push(&mut query, filter, "c.id");
        }
        query.push(" order by w.place");
        let mut connection = self.tenant_with(tenant, plans_of(scope)).await?;
        let statement = query.build().persistent(scope.filter.is_none());
        read_bounded(&mut connection, statement, found_from_row).await
    }

    /// How many seconds before the time that is searched each context was last written, in the order of `hits`; none for one
    /// that is gone.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn ages_of_hits(
        &self,
        tenant: TenantId,
        scope: &SearchScope,
        hits: &[&ChunkHit],
    ) -> Result<Vec<Option<f64>>> {
        if let Some(then) = Then::of(tenant, scope) {
            return self.ages_of_hits_as_of(&then, hits).await;
        }
        let mut query = QueryBuilder::new("select extract(epoch from now() - c.updated_at)::float8 from ");
        push_wanted(&mut query, hits);
        query.push(" left join contexts c on c.id = w.context_id and c.tenant_id = ").push_bind(tenant.0);
        query.push(" order by w.place");
        let mut connection = self.tenant_with(tenant, plans_of(scope)).await?;
        let result = query.build_query_scalar().fetch_all(connection.pg()).await;
        connection.settle(result)
    }

    /// The language of each chunk, in the order of `hits`; none for one that is gone.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn languages_of_hits(
        &self,
        tenant: TenantId,
        scope: &SearchScope,
        hits: &[&ChunkHit],
    ) -> Result<Vec<Option<String>>> {
        let mut query =
            QueryBuilder::new("select coalesce((select k.language from chunks k where k.tenant_id = ");
        query.push_bind(tenant.0).push(
            " and k.context_id = w.context_id and k.version = w.version and k.chunk_no = w.chunk_no),
             (select v.language from context_versions v where v.tenant_id = ",
        );
        query
            .push_bind(tenant.0)
            .push(" and v.context_id = w.context_id and v.text_version = w.version limit 1)) from ");
        push_wanted(&mut query, hits);
        query.push(" order by w.place");
        let mut connection = self.tenant_with(tenant, plans_of(scope)).await?;
        let result = query.build_query_scalar().fetch_all(connection.pg()).await;
        connection.settle(result)
    }

    /// The cosine of each chunk to `vector`, in the order of `hits`; none for one that has not been embedded.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn cosines_of_hits(
        &self,
        tenant: TenantId,
        space: &SpaceInfo,
        vector: &Vector,
        scope: &SearchScope,
        hits: &[&ChunkHit],
    ) -> Result<Vec<Option<f64>>> {
        let distance = Distance::new(self, space, vector);
        let mut query = QueryBuilder::new("select -");
        push_of_embeddings(&mut query, tenant, space, scope, |query| distance.push(query));
        query.push(" from ");
        push_wanted(&mut query, hits);
        query.push(" order by w.place");
        let mut connection = self.tenant_with(tenant, plans_of(scope)).await?;
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
        scope: &SearchScope,
        hits: &[&ChunkHit],
    ) -> Result<Vec<Option<Vec<f32>>>> {
        let mut query = QueryBuilder::new("select ");
        push_of_embeddings(&mut query, tenant, space, scope, |query| {
            query.push("k.embedding::vector");
        });
        query.push(" from ");
        push_wanted(&mut query, hits);
        query.push(" order by w.place");
        let mut connection = self.tenant_with(tenant, plans_of(scope)).await?;
        let result = query.build_query_scalar::<Option<pgvector::Vector>>().fetch_all(connection.pg()).await;
        Ok(connection.settle(result)?.into_iter().map(|vector| vector.map(Vec::from)).collect())
    }
}

/// Something of the embedding of the chunk `w`, which is among those of the present, or of the past where that is searched; null
/// when it has none.
fn push_of_embeddings(
    query: &mut QueryBuilder<Postgres>,
    tenant: TenantId,
    space: &SpaceInfo,
    scope: &SearchScope,
    push_it: impl Fn(&mut QueryBuilder<Postgres>),
) {
    let tables: &[&str] = if scope.as_of.is_some() {
        &["chunk_embeddings", "past_chunk_embeddings"]
    } else {
        &["chunk_embeddings"]
    };
    query.push("coalesce(null");
    for table in tables {
        query.push(", (select ");
        push_it(query);
        query.push(" from ").push(*table).push(
            " k where k.context_id = w.context_id and k.version = w.version and k.chunk_no = w.chunk_no and ",
        );
        push_embeddings(query, tenant, space);
        query.push(")");
    }
    query.push(")");
}

/// The context `c` of the hit `w`, as long as it is visible, and the chunk `t`. One hit after the other and not all that the scope has, however
/// little PostgreSQL takes that for: what ends after one row is never the beginning of its plan.
fn push_texts_of_hit(query: &mut QueryBuilder<Postgres>, tenant: TenantId) {
    query
        .push(" cross join lateral (select c.* from contexts c where c.id = w.context_id and c.tenant_id = ");
    query.push_bind(tenant.0).push(concat!(
        " limit 1) c join chunks t on t.tenant_id = c.tenant_id and t.context_id = c.id and t.version = w.version
                      and t.chunk_no = w.chunk_no
         where ",
        visible!()
    ));
}

/// The chunks that are asked for, numbered.
pub(super) fn push_wanted(query: &mut QueryBuilder<Postgres>, hits: &[&ChunkHit]) {
    let contexts: Vec<Uuid> = hits.iter().map(|hit| hit.context.0).collect();
    let versions: Vec<i64> = hits.iter().map(|hit| hit.version).collect();
    let chunk_nos: Vec<i32> = hits.iter().map(|hit| hit.chunk_no).collect();
    query.push("unnest(").push_bind(contexts).push("::uuid[], ").push_bind(versions).push("::bigint[], ");
    query
        .push_bind(chunk_nos)
        .push("::integer[]) with ordinality as w (context_id, version, chunk_no, place)");
}

pub(super) fn found_from_row(row: &PgRow) -> Result<Found> {
    let read = || {
        let place: i64 = row.try_get("place")?;
        let chunk = HitChunk { chunk_no: row.try_get("chunk_no")?, text: row.try_get("chunk_text")? };
        Ok::<_, sqlx::Error>((place as usize, chunk))
    };
    let (place, chunk) = read().map_err(Error::internal)?;
    Ok(Found { context: from_row(row)?, chunk, place })
}
