//! The life of contexts that are read: each read may put their end off.

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

impl Store {
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
