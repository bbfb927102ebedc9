//! Finding chunks by their words.

use sqlx::{QueryBuilder, Row, postgres::PgRow};

use super::{
    Store,
    search::{ChunkHit, push_scope},
};
use crate::{
    domain::{ContextId, SearchScope, TenantId},
    error::{Error, Result},
};

impl Store {
    /// The chunks that hold words of `text`, at most `chunks_max`: first those with most of them, then by rank.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn search_keyword(
        &self,
        tenant: TenantId,
        text: &str,
        scope: &SearchScope,
        chunks_max: i64,
    ) -> Result<Vec<ChunkHit>> {
        let mut query = QueryBuilder::new(
            "with query as materialized (select words, any_of(words) as any_of from query_words(",
        );
        // Normalisation 1 divides by the logarithm of the length: long chunks do not win by being long.
        query.push_bind(text).push(
            ") as words)
             select k.context_id, k.version, k.chunk_no,
                    (select count(*) filter (where k.tsv @@ w)::float8 / count(*)
                     from query, unnest(query.words) w) as coverage,
                    ts_rank(k.tsv, (select any_of from query), 1)::float8 as score
             from chunks k
             where k.tsv @@ (select any_of from query) and k.tenant_id = ",
        );
        query.push_bind(tenant.0);
        push_scope(&mut query, scope);
        query
            .push(" order by coverage desc, score desc, k.context_id, k.chunk_no limit ")
            .push_bind(chunks_max);
        let mut connection = self.tenant(tenant).await?;
        let result = query.build().persistent(scope.filter.is_none()).fetch_all(connection.pg()).await;
        connection.settle(result)?.iter().map(hit_from_row).collect()
    }
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
