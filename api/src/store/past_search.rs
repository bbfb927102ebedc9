//! Searching the past: the counterparts of `store/search.rs` for a search as of a time. They begin with the versions that were in
//! force then, of the present rows and of those that were superseded, and go from each to its text: in `chunks` while that is
//! still the present one, in `past_chunks` since.

use sqlx::{Postgres, QueryBuilder, Row};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Store,
    contexts::{Bounded, large_columns, read_bounded, small_context_columns},
    filter,
    hits::{Found, found_from_row, push_wanted},
    search::{
        BEST_FIRST, ChunkHit, Compared, Distance, ExactCap, Nearby, Reach, compared_from_rows, hit_from_row,
        push_embeddings, push_owner, push_validity, push_view,
    },
    versions::{push_as_of, small_version_columns},
};
use crate::{
    domain::{Included, SearchScope, SpaceInfo, TenantId, Vector},
    error::{Error, Result},
};

/// Versions with a text of the past that a search by the index of neighbours, which has none of them, compares besides.
const PAST_COMPARED_MAX: i64 = 20_000;

/// Where versions are kept, as the row `c`.
#[derive(Clone, Copy)]
pub(super) enum Side {
    Present,
    Past,
}

impl Side {
    fn table(self) -> &'static str {
        match self {
            Self::Present => "contexts",
            Self::Past => "context_versions",
        }
    }

    fn id(self) -> &'static str {
        match self {
            Self::Present => "c.id",
            Self::Past => "c.context_id",
        }
    }
}

/// The time that is searched, and what is searched then.
pub(super) struct Then<'s> {
    tenant: TenantId,
    scope: &'s SearchScope,
    at: OffsetDateTime,
}

impl<'s> Then<'s> {
    /// None when the present is searched.
    pub(super) fn of(tenant: TenantId, scope: &'s SearchScope) -> Option<Self> {
        scope.as_of.map(|at| Self { tenant, scope, at })
    }

    /// The versions within the scope that were in force, on one side. May be gone on with ` and …`.
    fn push_in_force(&self, query: &mut QueryBuilder<Postgres>, side: Side, columns: &str) {
        query.push("select ").push(columns).push(" from ").push(side.table()).push(" c where c.tenant_id = ");
        query.push_bind(self.tenant.0);
        push_owner(query, self.scope, "c");
        push_validity(query, Some(self.scope.valid_at.unwrap_or(self.at)), "c");
        push_as_of(query, self.at, matches!(side, Side::Past));
        if let Some(filter) = &self.scope.filter {
            query.push(" and ");
            filter::push(query, filter, side.id());
        }
    }

    /// The same of both sides.
    fn push_both(
        &self,
        query: &mut QueryBuilder<Postgres>,
        columns: [&str; 2],
        mut push_rest: impl FnMut(&mut QueryBuilder<Postgres>, Side),
    ) {
        for (side, columns) in [Side::Present, Side::Past].into_iter().zip(columns) {
            query.push(if matches!(side, Side::Past) { ") union all (" } else { "(" });
            self.push_in_force(query, side, columns);
            push_rest(query, side);
        }
        query.push(")");
    }

    /// Superseded versions that were in force and have a text of the past; of each its context and its text.
    fn push_past_texts(&self, query: &mut QueryBuilder<Postgres>) {
        self.push_in_force(query, Side::Past, TEXT_OF_PAST);
        query.push(
            " and not exists (select from contexts p where p.tenant_id = c.tenant_id and p.id = c.context_id
                                                       and p.text_version = c.text_version)
             limit ",
        );
        query.push_bind(PAST_COMPARED_MAX + 1);
    }

    /// That the text of the chunk `k` was in force. A subquery for each row that is found, with one row at most: what could
    /// be made a join of might be made the beginning of the plan.
    pub(super) fn push_was_in_force(&self, query: &mut QueryBuilder<Postgres>, chunks: Side) {
        let sides: &[Side] = match chunks {
            Side::Present => &[Side::Present, Side::Past],
            // A past text is nobody's present one.
            Side::Past => &[Side::Past],
        };
        query.push("coalesce(");
        for side in sides {
            query.push("(");
            self.push_in_force(query, *side, "true");
            query.push(" and ").push(side.id()).push(" = k.context_id and c.text_version = k.version");
            // It begins with the version that brought the text: the key leads there.
            query.push(" and c.version >= k.version limit 1), ");
        }
        query.push("false)");
    }

    /// Each chunk `k` of the texts `texts` with how near it is.
    fn push_compared(
        &self,
        query: &mut QueryBuilder<Postgres>,
        space: &SpaceInfo,
        distance: &Distance<'_>,
        [texts, embeddings]: [&str; 2],
    ) {
        push_nearness(query, distance);
        query.push(" from ").push(texts).push(" f join ").push(embeddings);
        query.push(" k on k.context_id = f.context_id and k.version = f.version where ");
        push_embeddings(query, self.tenant, space);
    }
}

fn push_nearness(query: &mut QueryBuilder<Postgres>, distance: &Distance<'_>) {
    query.push("select k.context_id, k.version, k.chunk_no, -");
    distance.push(query);
    query.push(" as score");
}

/// Which text of which context.
const TEXT_OF_PRESENT: &str = "c.id as context_id, c.text_version as version";
const TEXT_OF_PAST: &str = "c.context_id, c.text_version as version";

impl Store {
    /// [`Store::search_exact`], where the cap is on contexts.
    pub(super) async fn search_exact_as_of(
        &self,
        then: &Then<'_>,
        space: &SpaceInfo,
        vector: &Vector,
        cap: ExactCap,
        chunks_max: i64,
    ) -> Result<Option<Compared>> {
        let distance = Distance::new(self, space, vector);
        let mut query = QueryBuilder::new("with in_force as materialized (");
        then.push_both(&mut query, [TEXT_OF_PRESENT, TEXT_OF_PAST], |query, _| {
            query.push(" limit ").push_bind(cap.contexts + 1);
        });
        query.push("), candidates as materialized (");
        for embeddings in ["chunk_embeddings", "past_chunk_embeddings"] {
            query.push(if embeddings == "chunk_embeddings" { "" } else { " union all " });
            then.push_compared(&mut query, space, &distance, ["in_force", embeddings]);
            query.push(" and (select count(*) from in_force) <= ").push_bind(cap.contexts);
        }
        query.push("), counted as (select count(*) as candidates, (select count(*) from in_force) <= ");
        query.push_bind(cap.contexts).push(
            " as within_cap from candidates)
             select counted.candidates, counted.within_cap, n.*
             from counted left join lateral (select * from candidates where counted.within_cap",
        );
        query.push(BEST_FIRST).push(" limit ").push_bind(chunks_max).push(") n on true").push(BEST_FIRST);
        let mut connection = self.tenant(then.tenant).await?;
        let result = query.build().persistent(then.scope.filter.is_none()).fetch_all(connection.pg()).await;
        compared_from_rows(&connection.settle(result)?)
    }

    /// [`Store::search_nearest`]: texts that are still the present ones by the index of neighbours, and those of the past,
    /// which are in none, one by one.
    pub(super) async fn search_nearest_as_of(
        &self,
        then: &Then<'_>,
        space: &SpaceInfo,
        vector: &Vector,
        reach: Reach,
    ) -> Result<Nearby> {
        let chunks_max = reach.chunks_max;
        let distance = Distance::new(self, space, vector);
        let mut query = QueryBuilder::new("with past as materialized (");
        then.push_past_texts(&mut query);
        query.push("), near as (");
        push_nearness(&mut query, &distance);
        query.push(" from chunk_embeddings k where ");
        push_embeddings(&mut query, then.tenant, space);
        if let Some(user) = then.scope.user_id {
            query.push(" and k.user_id = ").push_bind(user.0);
        }
        query.push(" and ");
        then.push_was_in_force(&mut query, Side::Present);
        push_view(&mut query, then.tenant, then.scope, reach);
        query.push(" order by ");
        distance.push(&mut query);
        query.push(" limit ").push_bind(chunks_max).push("), compared as (");
        then.push_compared(&mut query, space, &distance, ["past", "past_chunk_embeddings"]);
        query.push(
            ") select n.*, (select count(*) from past) as past, (select count(*) from near) as near
             from (select * from near union all select * from compared) n",
        );
        query.push(BEST_FIRST).push(" limit ").push_bind(chunks_max);
        let mut connection = self.tenant(then.tenant).await?;
        let result = query.build().persistent(then.scope.filter.is_none()).fetch_all(connection.pg()).await;
        let rows = connection.settle(result)?;
        let hits = rows.iter().map(hit_from_row).collect::<Result<_>>()?;
        let count = |name| rows.first().map_or(Ok(0), |row| row.try_get::<i64, _>(name));
        let (near, past) = (count("near").map_err(Error::internal)?, count("past").map_err(Error::internal)?);
        Ok(Nearby { hits, saw_all: near >= chunks_max && past <= PAST_COMPARED_MAX })
    }

    /// [`Store::load_hits`]: as they were.
    pub(super) async fn load_hits_as_of(
        &self,
        then: &Then<'_>,
        include: Included,
        hits: &[&ChunkHit],
    ) -> Result<Bounded<Found>> {
        let mut query = QueryBuilder::new(
            "select c.*, w.place - 1 as place, w.chunk_no, coalesce(t.text, p.text) as chunk_text from ",
        );
        push_wanted(&mut query, hits);
        query.push(" join (");
        let large = large_columns(include);
        let [present, past] = [small_context_columns!(), small_version_columns!()]
            .map(|small| format!("{large}, {small}, c.text_version"));
        then.push_both(&mut query, [&present, &past], |query, side| push_of(query, side, hits));
        query.push(") c on c.id = w.context_id and c.text_version = w.version");
        for (name, table) in [("t", "chunks"), ("p", "past_chunks")] {
            query.push(format!(" left join {table} {name} on {name}.context_id = w.context_id"));
            query.push(format!(" and {name}.version = w.version and {name}.chunk_no = w.chunk_no"));
            query.push(format!(" and {name}.tenant_id = ")).push_bind(then.tenant.0);
        }
        query.push(" where coalesce(t.text, p.text) is not null order by w.place");
        let mut connection = self.tenant(then.tenant).await?;
        let statement = query.build().persistent(then.scope.filter.is_none());
        read_bounded(&mut connection, statement, found_from_row).await
    }

    /// [`Store::ages_of_hits`], of the versions that were in force.
    pub(super) async fn ages_of_hits_as_of(
        &self,
        then: &Then<'_>,
        hits: &[&ChunkHit],
    ) -> Result<Vec<Option<f64>>> {
        let mut query = QueryBuilder::new("select extract(epoch from ");
        query.push_bind(then.at).push(" - c.updated_at)::float8 from ");
        push_wanted(&mut query, hits);
        query.push(" left join (");
        let columns = ["c.id, c.text_version, c.updated_at", "c.context_id, c.text_version, c.updated_at"];
        then.push_both(&mut query, columns, |query, side| push_of(query, side, hits));
        query.push(") c on c.id = w.context_id and c.text_version = w.version order by w.place");
        let mut connection = self.tenant(then.tenant).await?;
        let statement = query.build_query_scalar().persistent(then.scope.filter.is_none());
        let result = statement.fetch_all(connection.pg()).await;
        connection.settle(result)
    }

    /// Whether a text of the past that was in force within the scope has no embedding in the space, as far as is looked; nothing
    /// that is searched for now.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn lacks_past_embeddings(
        &self,
        tenant: TenantId,
        space: &SpaceInfo,
        scope: &SearchScope,
    ) -> Result<bool> {
        let Some(then) = Then::of(tenant, scope) else { return Ok(false) };
        let mut query = QueryBuilder::new("select exists (select from (");
        then.push_past_texts(&mut query);
        query.push(") f where f.version is null or exists (select from past_chunks t where t.tenant_id = ");
        query.push_bind(tenant.0);
        query.push(
            " and t.context_id = f.context_id and t.version = f.version
              and not exists (select from past_chunk_embeddings k
                              where k.context_id = t.context_id and k.version = t.version and k.chunk_no = t.chunk_no and ",
        );
        push_embeddings(&mut query, tenant, space);
        query.push(")))");
        let mut connection = self.tenant(tenant).await?;
        let statement = query.build_query_scalar().persistent(scope.filter.is_none());
        let result = statement.fetch_one(connection.pg()).await;
        connection.settle(result)
    }
}

/// Of these contexts.
fn push_of(query: &mut QueryBuilder<Postgres>, side: Side, hits: &[&ChunkHit]) {
    let contexts: Vec<Uuid> = hits.iter().map(|hit| hit.context.0).collect();
    query.push(" and ").push(side.id()).push(" = any(").push_bind(contexts).push(")");
}
