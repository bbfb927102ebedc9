//! The audit log. The service may add lines and read them; it has no right to change or delete one.

use sqlx::{QueryBuilder, Row, postgres::PgRow};
use uuid::Uuid;

use super::{Store, Unit};
use crate::{
    domain::{Action, Actor, AuditEntry, AuditRequest, TenantId},
    error::{Error, Result},
};

impl Unit {
    /// Notes what `actor` does. Writes of contexts note it themselves.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn log(&mut self, actor: &Actor, action: Action, target: impl Into<Uuid>) -> Result<()> {
        let connection = self.connection();
        let result = sqlx::query(
            "insert into audit_log (tenant_id, id, api_key_id, request_id, action, target_id)
             values ($1, $2, $3, $4, $5, $6)",
        )
        .bind(actor.tenant().0)
        .bind(Uuid::now_v7())
        .bind(actor.api_key)
        .bind(actor.request_id.as_deref())
        .bind(action.as_str())
        .bind(target.into())
        .execute(connection.pg())
        .await;
        connection.settle(result).map(|_| ())
    }
}

impl Store {
    /// Newest first; one row more than the limit, when there is one.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn list_audit_log(&self, tenant: TenantId, request: &AuditRequest) -> Result<Vec<AuditEntry>> {
        let mut query = QueryBuilder::new(
            "select id, at, api_key_id, request_id, action, target_id, target_version from audit_log where tenant_id = ",
        );
        query.push_bind(tenant.0);
        if let Some(target) = request.target_id {
            query.push(" and target_id = ").push_bind(target);
        }
        if let Some(cursor) = request.cursor {
            query.push(" and id < ").push_bind(cursor.id());
        }
        query.push(" order by id desc limit ").push_bind(i64::from(request.limit.get()) + 1);
        let mut connection = self.tenant(tenant).await?;
        let result = query.build().fetch_all(connection.pg()).await;
        connection.settle(result)?.iter().map(from_row).collect()
    }
}

fn from_row(row: &PgRow) -> Result<AuditEntry> {
    let read = || {
        Ok::<_, sqlx::Error>(AuditEntry {
            id: row.try_get("id")?,
            at: row.try_get("at")?,
            api_key_id: row.try_get("api_key_id")?,
            request_id: row.try_get("request_id")?,
            action: row.try_get("action")?,
            target_id: row.try_get("target_id")?,
            target_version: row.try_get("target_version")?,
        })
    };
    read().map_err(Error::internal)
}
