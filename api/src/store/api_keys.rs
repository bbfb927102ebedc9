//! Keys, and the way from a presented key to its tenant.

use sqlx::{Row, postgres::PgRow};
use time::OffsetDateTime;
use uuid::Uuid;

use super::Store;
use crate::{
    domain::{ApiKey, ApiKeyHash, ApiKeyInfo, NewApiKey, Principal, Scope, TenantId},
    error::{Error, Result},
};

impl Store {
    /// Who presents a key of this hash; none when it is unknown, revoked or expired.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn find_principal(&self, hash: ApiKeyHash) -> Result<Option<Principal>> {
        let mut connection = self.connection().await?;
        let result = sqlx::query("select tenant_id, id, scopes from find_api_key($1)")
            .bind(hash.as_bytes())
            .fetch_optional(connection.pg())
            .await;
        let Some(row) = connection.settle(result)? else { return Ok(None) };
        let read = || {
            Ok::<_, sqlx::Error>((
                row.try_get::<Uuid, _>(0)?,
                row.try_get::<Uuid, _>(1)?,
                row.try_get::<Vec<String>, _>(2)?,
            ))
        };
        let (tenant, api_key, scopes) = read().map_err(Error::internal)?;
        Ok(Some(Principal { tenant: TenantId(tenant), api_key, scopes: parse_scopes(&scopes)? }))
    }

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

    /// Keeps a key's hash. Does nothing when the very key is kept already.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn insert_api_key(&self, tenant: TenantId, key: &ApiKey, new: &NewApiKey) -> Result<()> {
        let scopes: Vec<&str> = new.scopes.iter().map(|scope| scope.as_str()).collect();
        let mut connection = self.tenant(tenant).await?;
        let result = sqlx::query(
            "insert into api_keys (tenant_id, id, name, prefix, hash, scopes, expires_at)
             values ($1, $2, $3, $4, $5, $6, $7)
             on conflict (hash) do nothing",
        )
        .bind(tenant.0)
        .bind(Uuid::now_v7())
        .bind(&new.name)
        .bind(key.prefix())
        .bind(key.hash().as_bytes())
        .bind(scopes)
        .bind(new.expires_at)
        .execute(connection.pg())
        .await;
        connection.settle(result).map(|_| ())
    }

    /// The tenant's keys, oldest first.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn list_api_keys(&self, tenant: TenantId) -> Result<Vec<ApiKeyInfo>> {
        let mut connection = self.tenant(tenant).await?;
        let result = sqlx::query(
            "select id, name, prefix, scopes, created_at, expires_at, revoked_at
             from api_keys where tenant_id = $1 order by id limit 10000",
        )
        .bind(tenant.0)
        .fetch_all(connection.pg())
        .await;
        connection.settle(result)?.iter().map(info_from_row).collect()
    }

    /// Revokes the tenant's keys of this prefix (or id); answers how many it was.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn revoke_api_key(&self, tenant: TenantId, prefix_or_id: &str) -> Result<u64> {
        let mut connection = self.tenant(tenant).await?;
        let result = sqlx::query(
            "update api_keys set revoked_at = now()
             where tenant_id = $1 and (prefix = $2 or id::text = $2) and revoked_at is null",
        )
        .bind(tenant.0)
        .bind(prefix_or_id)
        .execute(connection.pg())
        .await;
        Ok(connection.settle(result)?.rows_affected())
    }
}

fn info_from_row(row: &PgRow) -> Result<ApiKeyInfo> {
    let scopes: Vec<String> = row.try_get("scopes").map_err(Error::internal)?;
    let scopes = parse_scopes(&scopes)?;
    let read = || {
        Ok::<_, sqlx::Error>(ApiKeyInfo {
            id: row.try_get("id")?,
            name: row.try_get("name")?,
            prefix: row.try_get("prefix")?,
            scopes,
            created_at: row.try_get::<OffsetDateTime, _>("created_at")?,
            expires_at: row.try_get("expires_at")?,
            revoked_at: row.try_get("revoked_at")?,
        })
    };
    read().map_err(Error::internal)
}

fn parse_scopes(scopes: &[String]) -> Result<Vec<Scope>> {
    scopes.iter().map(|scope| scope.parse()).collect()
}
