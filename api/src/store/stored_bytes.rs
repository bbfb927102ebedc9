//! How many bytes a tenant has stored. Writes note what they add and take away, and wait for nobody; here the notes are added
//! up. See `migrations/0015_stored_bytes.sql`.

use sqlx::Row;
use uuid::Uuid;

use super::Store;
use crate::{
    domain::TenantId,
    error::{Error, Result},
};

/// Notes that are added up in one statement: its transaction stays short.
const CHANGES_MAX: i64 = 10_000;

/// $1 tenant. In one snapshot, so that no note is counted twice or not at all.
macro_rules! bytes_of_tenant {
    () => {
        "(coalesce((select s.bytes from stored_bytes s where s.tenant_id = $1), 0)
          + coalesce((select sum(c.bytes) from stored_bytes_changes c where c.tenant_id = $1), 0))::bigint"
    };
}
pub(super) use bytes_of_tenant;

const STORED_BYTES: &str = concat!("select ", bytes_of_tenant!());

const ADD_UP: &str = "
    with taken as materialized (
        select c.id from stored_bytes_changes c
        where c.tenant_id = $1
        order by c.id limit $2 for update skip locked
    ), gone as (
        delete from stored_bytes_changes c using taken t
        where c.tenant_id = $1 and c.id = t.id
        returning c.bytes
    ), added as (
        insert into stored_bytes as s (tenant_id, bytes)
        select $1, sum(g.bytes) from gone g having count(*) > 0
        on conflict (tenant_id) do update set bytes = s.bytes + excluded.bytes
    )
    select count(*) as changes from gone";

impl Store {
    /// How many bytes the tenant has stored.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn stored_bytes(&self, tenant: TenantId) -> Result<i64> {
        let mut connection = self.tenant(tenant).await?;
        let result = sqlx::query_scalar(STORED_BYTES).bind(tenant.0).fetch_one(connection.pg()).await;
        connection.settle(result)
    }

    /// Adds up some of what changed in the tenant; answers whether there may be more.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn add_up_stored_bytes(&self, tenant: TenantId) -> Result<bool> {
        let mut connection = self.tenant(tenant).await?;
        let result = sqlx::query(ADD_UP).bind(tenant.0).bind(CHANGES_MAX).fetch_one(connection.pg()).await;
        let changes: i64 = connection.settle(result)?.try_get("changes").map_err(Error::internal)?;
        Ok(changes >= CHANGES_MAX)
    }

    /// Tenants with something to add up, in their order, beginning behind `after`.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn tenants_with_stored_bytes_changes(
        &self,
        after: Option<TenantId>,
        tenants_max: i32,
    ) -> Result<Vec<TenantId>> {
        let mut connection = self.connection().await?;
        let result = sqlx::query_scalar::<_, Uuid>("select tenants_with_stored_bytes_changes($1, $2)")
            .bind(after.map(|tenant| tenant.0))
            .bind(tenants_max)
            .fetch_all(connection.pg())
            .await;
        Ok(connection.settle(result)?.into_iter().map(TenantId).collect())
    }
}
