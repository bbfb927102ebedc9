//! Counting in how many chunks of a tenant each word is. Writes note what changed, one row for each chunk that came or went,
//! and wait for nobody; here the notes are added up. See `migrations/0008_keyword_ranking.sql`.

use sqlx::Row;
use uuid::Uuid;

use super::Store;
use crate::{
    domain::TenantId,
    error::{Error, Result},
};

/// Chunks that are counted in one statement: its transaction stays short. Many at once cost less, because they share words.
const CHANGES_MAX: i64 = 2_000;

/// Terms in their order, so that two that do this at once wait for each other and never both. Answers what is in no chunk
/// any more.
const COUNT: &str = "
    with taken as materialized (
        select c.id from keyword_changes c
        where c.tenant_id = $1
        order by c.id limit $2 for update skip locked
    ), gone as (
        delete from keyword_changes c using taken t
        where c.tenant_id = $1 and c.id = t.id
        returning c.language, c.sign, c.terms, c.length
    ), totals as (
        insert into keyword_totals as t (tenant_id, language, chunks, length)
        select $1, g.language, sum(g.sign), sum(g.sign * g.length) from gone g group by g.language order by g.language
        on conflict (tenant_id, language) do update
            set chunks = t.chunks + excluded.chunks, length = t.length + excluded.length
    ), counted as (
        insert into lexemes as l (tenant_id, lexeme, chunks)
        select $1, w.lexeme, sum(g.sign) from gone g cross join unnest(tsvector_to_array(g.terms)) as w (lexeme)
        group by w.lexeme having sum(g.sign) <> 0
        order by w.lexeme collate \"C\"
        on conflict (tenant_id, lexeme) do update set chunks = l.chunks + excluded.chunks
        returning l.lexeme, l.chunks
    )
    select (select count(*) from gone) as changes,
           array(select c.lexeme from counted c where c.chunks = 0) as unused";

const DELETE_UNUSED: &str =
    "delete from lexemes l where l.tenant_id = $1 and l.lexeme = any($2) and l.chunks = 0";

impl Store {
    /// Adds up some of what changed in the tenant; answers whether there may be more.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn count_keyword_changes(&self, tenant: TenantId) -> Result<bool> {
        let mut connection = self.tenant(tenant).await?;
        connection.begin().await?;
        let result = sqlx::query(COUNT).bind(tenant.0).bind(CHANGES_MAX).fetch_one(connection.pg()).await;
        let row = connection.settle(result)?;
        let changes: i64 = row.try_get("changes").map_err(Error::internal)?;
        let unused: Vec<String> = row.try_get("unused").map_err(Error::internal)?;
        // In the same transaction: nobody would look for them again, and what is erased has to go with its words.
        if !unused.is_empty() {
            let result =
                sqlx::query(DELETE_UNUSED).bind(tenant.0).bind(unused).execute(connection.pg()).await;
            connection.settle(result)?;
        }
        connection.end("commit").await?;
        Ok(changes >= CHANGES_MAX)
    }

    /// Tenants with something to count, in their order, beginning behind `after`.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn tenants_with_keyword_changes(
        &self,
        after: Option<TenantId>,
        tenants_max: i32,
    ) -> Result<Vec<TenantId>> {
        let mut connection = self.connection().await?;
        let result = sqlx::query_scalar::<_, Uuid>("select tenants_with_keyword_changes($1, $2)")
            .bind(after.map(|tenant| tenant.0))
            .bind(tenants_max)
            .fetch_all(connection.pg())
            .await;
        Ok(connection.settle(result)?.into_iter().map(TenantId).collect())
    }
}
