//! Long work: rows that say what is to be done and how far it is. Who works holds a claim that lapses by the clock, so work
//! whose process died is taken up by another; the number of the attempt keeps the first one from interfering if it lives.

use std::time::Duration;

use serde_json::value::RawValue;
use sqlx::{Postgres, Row, postgres::PgArguments, postgres::PgRow, query::Query, types::Json};
use uuid::Uuid;

use super::{Store, Unit};
use crate::{
    domain::{
        Access, Actor, IdempotencyKey, Operation, OperationId, OperationKind, OperationStatus,
        OperationsRequest, TenantId, UserId,
    },
    error::{Error, Result},
};

/// Work that the caller has claimed.
#[derive(Clone, Debug)]
pub struct ClaimedOperation {
    pub id: OperationId,
    pub kind: OperationKind,
    pub user_id: Option<UserId>,
    /// Which attempt it is, from 1.
    pub attempt: i32,
    /// What the attempts before it have noted.
    pub progress: Box<RawValue>,
}

/// How an operation ended.
#[derive(Debug)]
pub struct Outcome<'a> {
    pub status: OperationStatus,
    /// JSON.
    pub result: Option<&'a str>,
    pub error: Option<&'a str>,
}

/// The columns of an [`Operation`].
macro_rules! columns {
    () => {
        "id, kind, status, user_id, progress, result, error, cancel_requested, attempts, created_at, updated_at, finished_at"
    };
}

/// $1 tenant, $2 the user to whom the reader is confined, or null
macro_rules! within_reach {
    () => {
        " from operations where tenant_id = $1 and ($2::uuid is null or user_id = $2)"
    };
}

const FIND: &str = concat!("select ", columns!(), within_reach!(), " and id = $3");
const LOCK: &str = concat!("select ", columns!(), within_reach!(), " and id = $3 for update");
const LIST: &str = concat!(
    "select ",
    columns!(),
    within_reach!(),
    " and ($3::uuid is null or id < $3) order by id desc limit $4"
);

/// Imports cannot be taken up: the lines are the client's. $1 tenant
const FAIL_ABANDONED_IMPORTS: &str = "
    update operations
    set status = case when cancel_requested then 'cancelled' else 'failed' end, finished_at = now(), updated_at = now(),
        error = 'the connection or the server ended before the import did; send it again with the same Idempotency-Key'
    where tenant_id = $1 and kind = 'import' and status = 'running' and claimed_until < now()";

/// $1 tenant, $2 seconds of the claim, $3 the one to claim, or null for any
const CLAIM: &str = "
    with next as (
        select id from operations
        where tenant_id = $1 and kind <> 'import' and id = coalesce($3, id)
          and (status = 'queued' or (status = 'running' and claimed_until < now()))
        order by id limit 1
        for update skip locked
    )
    update operations o
    set status = 'running', claimed_until = now() + make_interval(secs => $2), attempts = o.attempts + 1,
        updated_at = now()
    from next
    where o.tenant_id = $1 and o.id = next.id
    returning o.id, o.kind, o.user_id, o.attempts, o.progress";

impl Unit {
    /// Queues work.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn create_operation(
        &mut self,
        actor: &Actor,
        kind: OperationKind,
        user: Option<UserId>,
    ) -> Result<OperationId> {
        let id = OperationId(Uuid::now_v7());
        let connection = self.connection();
        let result = sqlx::query(
            "insert into operations (tenant_id, id, kind, status, user_id, created_by)
             values ($1, $2, $3, 'queued', $4, $5)",
        )
        .bind(actor.tenant().0)
        .bind(id.0)
        .bind(kind.as_str())
        .bind(user.map(|user| user.0))
        .bind(actor.api_key)
        .execute(connection.pg())
        .await;
        connection.settle(result)?;
        Ok(id)
    }

    /// The operation, until the end of the unit nobody else's to change.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn lock_operation(&mut self, id: OperationId) -> Result<Option<Operation>> {
        let access = self.access;
        let connection = self.connection();
        let result = by_access(LOCK, access).bind(id.0).fetch_optional(connection.pg()).await;
        connection.settle(result)?.as_ref().map(from_row).transpose()
    }

    /// Cancels what nobody works at, and asks whoever does to stop.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn cancel_operation(&mut self, id: OperationId) -> Result<Operation> {
        self.change_operation(
            concat!(
                "update operations
                 set cancel_requested = true, updated_at = now(),
                     status = case when status = 'queued' or claimed_until < now() then 'cancelled' else status end,
                     finished_at = case when status = 'queued' or claimed_until < now() then now() end
                 where tenant_id = $1 and id = $2 returning ",
                columns!()
            ),
            id,
        )
        .await
    }

    /// Queues it again.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn requeue_operation(&mut self, id: OperationId) -> Result<Operation> {
        self.change_operation(
            concat!(
                "update operations
                 set status = 'queued', cancel_requested = false, error = null, result = null, finished_at = null,
                     claimed_until = null, updated_at = now()
                 where tenant_id = $1 and id = $2 returning ",
                columns!()
            ),
            id,
        )
        .await
    }

    async fn change_operation(&mut self, sql: &'static str, id: OperationId) -> Result<Operation> {
        let tenant = self.access.tenant;
        let connection = self.connection();
        let result = sqlx::query(sql).bind(tenant.0).bind(id.0).fetch_one(connection.pg()).await;
        from_row(&connection.settle(result)?)
    }

    /// Whether an import may go on: it was neither cancelled nor taken over, and its key is still valid. It stays so until the
    /// end of the unit: whoever ends it waits.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn import_may_go_on(&mut self, actor: &Actor, operation: &ClaimedOperation) -> Result<bool> {
        let connection = self.connection();
        let result = sqlx::query(
            "select from operations o
             where o.tenant_id = $1 and o.id = $2 and o.attempts = $3 and o.status = 'running' and not o.cancel_requested
               and ($4::uuid is null or exists (
                   select from api_keys k
                   where k.tenant_id = $1 and k.id = $4 and (k.revoked_at is null or k.revoked_at > now())
                     and (k.expires_at is null or k.expires_at > now())))
             for share",
        )
        .bind(actor.tenant().0)
        .bind(operation.id.0)
        .bind(operation.attempt)
        .bind(actor.api_key)
        .fetch_optional(connection.pg())
        .await;
        Ok(connection.settle(result)?.is_some())
    }

    /// Begins an import, or the next attempt of the one with this key. An attempt that is under way stops at its next note
    /// of progress: whoever sends an import again has given up on the connection of the first one.
    ///
    /// # Errors
    /// When the database cannot be reached; [`crate::error::Code::DatabaseBusy`] when another one begins it just now.
    pub async fn begin_import(
        &mut self,
        actor: &Actor,
        key: Option<&IdempotencyKey>,
        claim: Duration,
    ) -> Result<ClaimedOperation> {
        let connection = self.connection();
        let result = sqlx::query(
            "with again as (
                 update operations o
                 set status = 'running', attempts = o.attempts + 1, cancel_requested = false, error = null, result = null,
                     finished_at = null, claimed_until = now() + make_interval(secs => $5), updated_at = now()
                 where o.tenant_id = $1 and o.kind = 'import' and o.idempotency_key = $3
                   and o.user_id is not distinct from $4
                 returning o.id, o.kind, o.user_id, o.attempts, o.progress
             ), first as (
                 insert into operations (tenant_id, id, kind, status, user_id, idempotency_key, attempts, claimed_until,
                                         created_by)
                 select $1, $2, 'import', 'running', $4, $3, 1, now() + make_interval(secs => $5), $6
                 where not exists (select from again)
                 returning id, kind, user_id, attempts, progress
             )
             select * from again union all select * from first",
        )
        .bind(actor.tenant().0)
        .bind(Uuid::now_v7())
        .bind(key.map(|key| key.as_str()))
        .bind(actor.access.user.map(|user| user.0))
        .bind(claim.as_secs_f64())
        .bind(actor.api_key)
        .fetch_one(connection.pg())
        .await;
        claimed_from_row(&connection.settle(result)?)
    }
}

impl Store {
    /// # Errors
    /// When the database cannot be reached.
    pub async fn find_operation(&self, access: Access, id: OperationId) -> Result<Option<Operation>> {
        let mut connection = self.tenant(access.tenant).await?;
        let result = by_access(FIND, access).bind(id.0).fetch_optional(connection.pg()).await;
        connection.settle(result)?.as_ref().map(from_row).transpose()
    }

    /// Newest first; one row more than the limit, when there is one.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn list_operations(
        &self,
        access: Access,
        request: &OperationsRequest,
    ) -> Result<Vec<Operation>> {
        let mut connection = self.tenant(access.tenant).await?;
        let result = by_access(LIST, access)
            .bind(request.cursor.map(|cursor| cursor.id()))
            .bind(i64::from(request.limit.get()) + 1)
            .fetch_all(connection.pg())
            .await;
        connection.settle(result)?.iter().map(from_row).collect()
    }

    /// Tenants that have work waiting, at most `tenants_max`.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn tenants_with_operations(&self, tenants_max: i32) -> Result<Vec<TenantId>> {
        let mut connection = self.connection().await?;
        let result = sqlx::query_scalar::<_, Uuid>("select tenants_with_operations($1)")
            .bind(tenants_max)
            .fetch_all(connection.pg())
            .await;
        Ok(connection.settle(result)?.into_iter().map(TenantId).collect())
    }

    /// Claims this operation, or any that waits.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn claim_operation(
        &self,
        tenant: TenantId,
        id: Option<OperationId>,
        claim: Duration,
    ) -> Result<Option<ClaimedOperation>> {
        let mut connection = self.tenant(tenant).await?;
        let result = sqlx::query(FAIL_ABANDONED_IMPORTS).bind(tenant.0).execute(connection.pg()).await;
        connection.settle(result)?;
        let result = sqlx::query(CLAIM)
            .bind(tenant.0)
            .bind(claim.as_secs_f64())
            .bind(id.map(|id| id.0))
            .fetch_optional(connection.pg())
            .await;
        connection.settle(result)?.as_ref().map(claimed_from_row).transpose()
    }

    /// Notes how far the work is and claims it for longer. Answers whether to go on: not when somebody has cancelled it or
    /// has taken it over.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn note_progress(
        &self,
        tenant: TenantId,
        operation: &ClaimedOperation,
        progress: &str,
        claim: Duration,
    ) -> Result<bool> {
        let mut connection = self.tenant(tenant).await?;
        let result = sqlx::query_scalar::<_, bool>(
            "update operations
             set progress = $4::text::jsonb, claimed_until = now() + make_interval(secs => $5), updated_at = now()
             where tenant_id = $1 and id = $2 and attempts = $3 and status = 'running'
             returning not cancel_requested",
        )
        .bind(tenant.0)
        .bind(operation.id.0)
        .bind(operation.attempt)
        .bind(progress)
        .bind(claim.as_secs_f64())
        .fetch_optional(connection.pg())
        .await;
        Ok(connection.settle(result)?.unwrap_or(false))
    }

    /// Ends the work. Does nothing when somebody has taken it over.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn finish_operation(
        &self,
        tenant: TenantId,
        operation: &ClaimedOperation,
        outcome: &Outcome<'_>,
    ) -> Result<()> {
        let mut connection = self.tenant(tenant).await?;
        let result = sqlx::query(
            "update operations
             set status = $4, result = $5::text::jsonb, error = $6, finished_at = now(), updated_at = now(),
                 claimed_until = null
             where tenant_id = $1 and id = $2 and attempts = $3 and status = 'running'",
        )
        .bind(tenant.0)
        .bind(operation.id.0)
        .bind(operation.attempt)
        .bind(outcome.status.as_str())
        .bind(outcome.result)
        .bind(outcome.error)
        .execute(connection.pg())
        .await;
        connection.settle(result).map(|_| ())
    }
}

fn by_access(sql: &'static str, access: Access) -> Query<'static, Postgres, PgArguments> {
    sqlx::query(sql).bind(access.tenant.0).bind(access.user.map(|user| user.0))
}

fn claimed_from_row(row: &PgRow) -> Result<ClaimedOperation> {
    let kind: &str = row.try_get("kind").map_err(Error::internal)?;
    let kind = kind.parse().map_err(Error::internal)?;
    let read = || {
        Ok::<_, sqlx::Error>(ClaimedOperation {
            id: OperationId(row.try_get("id")?),
            kind,
            user_id: row.try_get::<Option<Uuid>, _>("user_id")?.map(UserId),
            attempt: row.try_get("attempts")?,
            progress: row.try_get::<Json<Box<RawValue>>, _>("progress")?.0,
        })
    };
    read().map_err(Error::internal)
}

fn from_row(row: &PgRow) -> Result<Operation> {
    let text = |column| row.try_get::<&str, _>(column).map_err(Error::internal);
    let kind = text("kind")?.parse().map_err(Error::internal)?;
    let status = text("status")?.parse().map_err(Error::internal)?;
    let read = || {
        Ok::<_, sqlx::Error>(Operation {
            id: OperationId(row.try_get("id")?),
            kind,
            status,
            user_id: row.try_get::<Option<Uuid>, _>("user_id")?.map(UserId),
            progress: row.try_get::<Json<Box<RawValue>>, _>("progress")?.0,
            result: row.try_get::<Option<Json<Box<RawValue>>>, _>("result")?.map(|json| json.0),
            error: row.try_get("error")?,
            cancel_requested: row.try_get("cancel_requested")?,
            attempts: row.try_get("attempts")?,
            created_at: row.try_get("created_at")?,
            updated_at: row.try_get("updated_at")?,
            finished_at: row.try_get("finished_at")?,
        })
    };
    read().map_err(Error::internal)
}
