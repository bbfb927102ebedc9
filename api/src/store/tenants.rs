//! Tenants. They belong to whoever operates the service, so these functions take none; see `migrations/0004_tenancy.sql`.

use sqlx::{Row, postgres::PgRow};
use uuid::Uuid;

use super::{Store, Unit};
use crate::{
    domain::{Tenant, TenantId, TenantName},
    error::{Error, Result},
};

impl Store {
    /// The tenant of this name.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn find_tenant(&self, name: &str) -> Result<Option<TenantId>> {
        let mut connection = self.connection().await?;
        let result = sqlx::query_scalar::<_, Option<Uuid>>("select find_tenant($1)")
            .bind(name)
            .fetch_one(connection.pg())
            .await;
        Ok(connection.settle(result)?.map(TenantId))
    }

    /// Tenants in the order of their ids, which is that of their making, from the one after `after` on.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn list_tenants(&self, after: Option<TenantId>, tenants_max: i32) -> Result<Vec<Tenant>> {
        let mut connection = self.connection().await?;
        let result = sqlx::query("select id, name, created_at from list_tenants($1, $2)")
            .bind(after.map(|tenant| tenant.0))
            .bind(tenants_max)
            .fetch_all(connection.pg())
            .await;
        connection.settle(result)?.iter().map(from_row).collect()
    }

    /// # Errors
    /// When the database cannot be asked.
    pub async fn get_tenant(&self, tenant: TenantId) -> Result<Option<Tenant>> {
        let mut connection = self.tenant(tenant).await?;
        let result = sqlx::query("select id, name, created_at from tenants where id = $1")
            .bind(tenant.0)
            .fetch_optional(connection.pg())
            .await;
        connection.settle(result)?.as_ref().map(from_row).transpose()
    }
}

impl Unit {
    /// # Errors
    /// [`crate::error::Code::TenantExists`].
    pub async fn create_tenant(&mut self, name: &TenantName) -> Result<Tenant> {
        let id = TenantId(Uuid::now_v7());
        let connection = self.connection();
        let result = sqlx::query_scalar("select create_tenant($1, $2)")
            .bind(id.0)
            .bind(name.as_str())
            .fetch_one(connection.pg())
            .await;
        let created_at = connection.settle(result)?;
        Ok(Tenant { id, name: name.as_str().to_owned(), created_at })
    }
}

fn from_row(row: &PgRow) -> Result<Tenant> {
    let read = || {
        Ok::<_, sqlx::Error>(Tenant {
            id: TenantId(row.try_get("id")?),
            name: row.try_get("name")?,
            created_at: row.try_get("created_at")?,
        })
    };
    read().map_err(Error::internal)
}
