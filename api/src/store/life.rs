//! What time alone does to contexts: they expire, and begin and cease to hold. Reads may put their end off.

use std::time::Duration;

use sqlx::Row;
use time::OffsetDateTime;
use uuid::Uuid;

use super::Store;
use crate::{
    domain::{ContextId, TenantId},
    error::{Error, Result},
};

/// Moves the end of each context that is still in the version that was read, and of its chunks, in one statement. Before a
/// tenth of the time is over that is not worth a write: reads that follow each other closely cost one in all. Nor is it worth
/// a wait: who holds the row writes or extends it, too.
///
/// $1 tenant, $2 ids, $3 versions
const EXTEND: &str = "
    with due as materialized (
        select c.id from contexts c join unnest($2::uuid[], $3::bigint[]) as was (id, version) on was.id = c.id
        where c.tenant_id = $1 and c.version = was.version and c.is_active and c.expires_at > now()
          and c.expires_at < now() + make_interval(secs => c.sliding_ttl_seconds * 0.9::float8)
        order by c.id
        for update of c skip locked
    ), c as (
        update contexts c
        set expires_at = now() + make_interval(secs => c.sliding_ttl_seconds::float8)
        from due
        where c.tenant_id = $1 and c.id = due.id
        returning c.id, c.text_version, c.expires_at
    ), extended_chunks as (
        update chunks k set expires_at = c.expires_at from c
        where k.tenant_id = $1 and k.context_id = c.id and k.version = c.text_version
    ), extended_embeddings as (
        update chunk_embeddings k set expires_at = c.expires_at from c
        where k.tenant_id = $1 and k.context_id = c.id and k.version = c.text_version
    )
    select id, expires_at from c";

/// $1 tenant, $2 seconds
const NEXT_CHANGE: &str = "
    select extract(epoch from least(
        (select min(c.expires_at) from contexts c
         where c.tenant_id = $1 and c.expires_at > now() and c.expires_at < now() + make_interval(secs => $2)),
        (select min(c.valid_from) from contexts c
         where c.tenant_id = $1 and c.valid_from > now() and c.valid_from < now() + make_interval(secs => $2)),
        (select min(c.valid_to) from contexts c
         where c.tenant_id = $1 and c.valid_to > now() and c.valid_to < now() + make_interval(secs => $2))
    ) - now())::float8";

impl Store {
    /// How long until what readers of the tenant see changes though nobody writes; none when that is not `within` so much time.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn next_change_by_time(&self, tenant: TenantId, within: Duration) -> Result<Option<Duration>> {
        let mut connection = self.tenant(tenant).await?;
        let result = sqlx::query_scalar::<_, Option<f64>>(NEXT_CHANGE)
            .bind(tenant.0)
            .bind(within.as_secs_f64())
            .fetch_one(connection.pg())
            .await;
        Ok(connection.settle(result)?.map(|seconds| Duration::from_secs_f64(seconds.max(0.0))))
    }

    /// Lets contexts that were read in these versions live on; answers those whose end was moved, with the new one.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn extend_life(
        &self,
        tenant: TenantId,
        read: &[(ContextId, i64)],
    ) -> Result<Vec<(ContextId, OffsetDateTime)>> {
        let (ids, versions): (Vec<Uuid>, Vec<i64>) =
            read.iter().map(|(id, version)| (id.0, *version)).unzip();
        let mut connection = self.tenant(tenant).await?;
        let result =
            sqlx::query(EXTEND).bind(tenant.0).bind(ids).bind(versions).fetch_all(connection.pg()).await;
        let rows = connection.settle(result)?;
        rows.iter()
            .map(|row| Ok((ContextId(row.try_get("id")?), row.try_get("expires_at")?)))
            .collect::<sqlx::Result<_>>()
            .map_err(Error::internal)
    }
}
