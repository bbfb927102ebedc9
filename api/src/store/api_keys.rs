//! API keys. Of a secret only the hash is ever here.

use sqlx::{Row, postgres::PgRow};
use uuid::Uuid;

use super::{Store, Unit, connection::Connection};
use crate::{
    domain::{
        Access, ApiKey, ApiKeyHash, ApiKeyInfo, Cursor, Limit, NewApiKey, Principal, Scope, TenantId, UserId,
    },
    error::{Error, Result},
};

/// The columns of an [`ApiKeyInfo`].
macro_rules! columns {
    () => {
        "id, name, prefix, scopes, user_id, created_at, expires_at, last_used_at, revoked_at"
    };
}

impl Store {
    /// Whose key this is; none when it is unknown, revoked or expired. The one question that comes before there is a
    /// tenant.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn find_principal(&self, hash: ApiKeyHash) -> Result<Option<Principal>> {
        let mut connection = self.connection().await?;
        let result = sqlx::query("select tenant_id, id, hash, scopes, user_id from find_api_key($1)")
            .bind(hash.as_bytes())
            .fetch_optional(connection.pg())
            .await;
        let Some(row) = connection.settle(result)? else { return Ok(None) };
        let read = || {
            Ok::<_, sqlx::Error>((
                row.try_get::<Uuid, _>("tenant_id")?,
                row.try_get("id")?,
                row.try_get::<&[u8], _>("hash")?,
                row.try_get::<Vec<String>, _>("scopes")?,
                row.try_get::<Option<Uuid>, _>("user_id")?,
            ))
        };
        let (tenant, api_key, stored_hash, scopes, user) = read().map_err(Error::internal)?;
        if !hash.matches(stored_hash) {
            return Ok(None);
        }
        let access = Access { tenant: TenantId(tenant), user: user.map(UserId) };
        Ok(Some(Principal { access, api_key, scopes: parse_scopes(&scopes)? }))
    }

    /// Notes that a key is in use, unless that was noted within the last minute.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn touch_api_key(&self, tenant: TenantId, id: Uuid) -> Result<()> {
        let mut connection = self.tenant(tenant).await?;
        let result = sqlx::query(
            "update api_keys set last_used_at = now()
             where tenant_id = $1 and id = $2
               and (last_used_at is null or last_used_at < now() - interval '1 minute')",
        )
        .bind(tenant.0)
        .bind(id)
        .execute(connection.pg())
        .await;
        connection.settle(result).map(|_| ())
    }

    /// Keeps a key's hash. Does nothing when the very key is kept already.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn ensure_api_key(&self, tenant: TenantId, key: &ApiKey, new: &NewApiKey) -> Result<()> {
        let mut connection = self.tenant(tenant).await?;
        insert(&mut connection, tenant, key, new).await.map(|_| ())
    }

    /// The tenant's keys, newest first; one row more than the limit, when there is one.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn list_api_keys(
        &self,
        tenant: TenantId,
        limit: Limit,
        cursor: Option<Cursor>,
    ) -> Result<Vec<ApiKeyInfo>> {
        let mut connection = self.tenant(tenant).await?;
        let result = sqlx::query(concat!(
            "select ",
            columns!(),
            " from api_keys where tenant_id = $1 and ($2::uuid is null or id < $2) order by id desc limit $3",
        ))
        .bind(tenant.0)
        .bind(cursor.map(|cursor| cursor.id()))
        .bind(i64::from(limit.get()) + 1)
        .fetch_all(connection.pg())
        .await;
        connection.settle(result)?.iter().map(info_from_row).collect()
    }

    /// Ids of the tenant's valid keys with this prefix.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn find_api_keys_by_prefix(&self, tenant: TenantId, prefix: &str) -> Result<Vec<Uuid>> {
        let mut connection = self.tenant(tenant).await?;
        let result = sqlx::query_scalar(
            "select id from api_keys where tenant_id = $1 and prefix = $2 and (revoked_at is null or revoked_at > now()) order by id limit 100",
        )
        .bind(tenant.0)
        .bind(prefix)
        .fetch_all(connection.pg())
        .await;
        connection.settle(result)
    }
}

impl Unit {
    /// Keeps a key's hash, in the tenant that the unit is for.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn insert_api_key(&mut self, key: &ApiKey, new: &NewApiKey) -> Result<ApiKeyInfo> {
        let tenant = self.access.tenant;
        insert(self.connection(), tenant, key, new)
            .await?
            .ok_or_else(|| Error::internal("two API keys are the same"))
    }

    /// The key of this id that is neither revoked nor expired, until the end of the unit nobody else's to change.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn lock_api_key(&mut self, id: Uuid) -> Result<Option<ApiKeyInfo>> {
        let tenant = self.access.tenant;
        let connection = self.connection();
        let result = sqlx::query(concat!(
            "select ",
            columns!(),
            " from api_keys
             where tenant_id = $1 and id = $2 and (revoked_at is null or revoked_at > now())
               and (expires_at is null or expires_at > now())
             for update",
        ))
        .bind(tenant.0)
        .bind(id)
        .fetch_optional(connection.pg())
        .await;
        connection.settle(result)?.as_ref().map(info_from_row).transpose()
    }

    /// Revokes a key in so many seconds, and no later than it would have been. Answers whether there was such a key.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn end_api_key(&mut self, id: Uuid, after_seconds: u32) -> Result<bool> {
        let tenant = self.access.tenant;
        let connection = self.connection();
        let result = sqlx::query(
            "update api_keys
             set revoked_at = least(revoked_at, now() + make_interval(secs => $3))
             where tenant_id = $1 and id = $2 and (revoked_at is null or revoked_at > now())
               and (expires_at is null or expires_at > now())",
        )
        .bind(tenant.0)
        .bind(id)
        .bind(f64::from(after_seconds))
        .execute(connection.pg())
        .await;
        Ok(connection.settle(result)?.rows_affected() > 0)
    }
}

/// None when the very key is kept already.
async fn insert(
    connection: &mut Connection,
    tenant: TenantId,
    key: &ApiKey,
    new: &NewApiKey,
) -> Result<Option<ApiKeyInfo>> {
    let scopes: Vec<&str> = new.scopes.iter().map(|scope| scope.as_str()).collect();
    let result = sqlx::query(concat!(
        "insert into api_keys (tenant_id, id, name, prefix, hash, scopes, user_id, expires_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8)
         on conflict (hash) do nothing
         returning ",
        columns!(),
    ))
    .bind(tenant.0)
    .bind(Uuid::now_v7())
    .bind(&new.name)
    .bind(key.prefix())
    .bind(key.hash().as_bytes())
    .bind(scopes)
    .bind(new.user_id.map(|user| user.0))
    .bind(new.expires_at)
    .fetch_optional(connection.pg())
    .await;
    connection.settle(result)?.as_ref().map(info_from_row).transpose()
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
            user_id: row.try_get::<Option<Uuid>, _>("user_id")?.map(UserId),
            created_at: row.try_get("created_at")?,
            expires_at: row.try_get("expires_at")?,
            last_used_at: row.try_get("last_used_at")?,
            revoked_at: row.try_get("revoked_at")?,
        })
    };
    read().map_err(Error::internal)
}

fn parse_scopes(scopes: &[String]) -> Result<Vec<Scope>> {
    scopes.iter().map(|scope| scope.parse()).collect()
}
