//! Answers that are kept in the transaction of the write that they tell of.

use sqlx::{Row, postgres::PgRow};
use uuid::Uuid;

use super::Unit;
use crate::{
    domain::{IdempotentRequest, KeptAnswer, limits::IDEMPOTENCY_RETENTION},
    error::{Code, Error, Result},
};

/// Whether a write is to be done.
#[derive(Debug)]
pub enum Claim {
    /// By the caller, who then keeps the answer with [`Unit::keep_answer`].
    Mine,
    /// It was done already.
    Done(KeptAnswer),
}

const FIND: &str = "
    select fingerprint, status, location, etag, body from idempotency_keys
    where tenant_id = $1 and namespace = $2 and key = $3";

impl Unit {
    /// Claims the request's key, or one that was used so long ago that it is free again. Waits for another unit that has just claimed it, for some seconds.
    ///
    /// # Errors
    /// [`Code::IdempotencyKeyReused`] when the key belongs to another request; [`Code::IdempotencyKeyInFlight`] when the
    /// other unit takes too long.
    pub async fn claim(&mut self, request: &IdempotentRequest) -> Result<Claim> {
        let (tenant, namespace) = (self.access.tenant.0, self.namespace());
        let connection = self.connection();
        let result = sqlx::query(
            "insert into idempotency_keys as k (tenant_id, namespace, key, fingerprint) values ($1, $2, $3, $4)
             on conflict (tenant_id, namespace, key) do update
                 set fingerprint = excluded.fingerprint, created_at = now(), status = null, location = null, etag = null,
                     body = null, user_ids = '{}'
                 where k.created_at < now() - make_interval(secs => $5)",
        )
        .bind(tenant)
        .bind(namespace)
        .bind(request.key.as_str())
        .bind(request.fingerprint.as_bytes())
        .bind(IDEMPOTENCY_RETENTION.as_secs_f64())
        .execute(connection.pg())
        .await;
        let inserted = connection.settle(result).map_err(|error| match error.code {
            Code::DatabaseBusy => in_flight(),
            _ => error,
        })?;
        if inserted.rows_affected() == 1 {
            return Ok(Claim::Mine);
        }
        let result = sqlx::query(FIND)
            .bind(tenant)
            .bind(namespace)
            .bind(request.key.as_str())
            .fetch_optional(connection.pg())
            .await;
        // None: purged in between, a day after it was made.
        let row = connection.settle(result)?.ok_or_else(in_flight)?;
        let fingerprint: &[u8] = row.try_get("fingerprint").map_err(Error::internal)?;
        if fingerprint != request.fingerprint.as_bytes() {
            return Err(Error::new(
                Code::IdempotencyKeyReused,
                "This Idempotency-Key was used for a request that asked for something else; choose a new one.",
            ));
        }
        answer_from_row(&row).map(Claim::Done)
    }

    /// Keeps the answer under the key that was claimed.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn keep_answer(&mut self, request: &IdempotentRequest, answer: &KeptAnswer) -> Result<()> {
        let (tenant, namespace) = (self.access.tenant.0, self.namespace());
        let users: Vec<Uuid> = answer.users.iter().map(|user| user.0).collect();
        let connection = self.connection();
        let result = sqlx::query(
            "update idempotency_keys set status = $4, location = $5, etag = $6, body = $7, user_ids = $8
             where tenant_id = $1 and namespace = $2 and key = $3",
        )
        .bind(tenant)
        .bind(namespace)
        .bind(request.key.as_str())
        .bind(i16::try_from(answer.status).map_err(Error::internal)?)
        .bind(&answer.location)
        .bind(&answer.etag)
        .bind(&answer.body)
        .bind(users)
        .execute(connection.pg())
        .await;
        connection.settle(result).map(|_| ())
    }

    /// Keys that are bound to different users must not see each other's answers.
    fn namespace(&self) -> Uuid {
        self.access.user.map_or(Uuid::nil(), |user| user.0)
    }
}

fn in_flight() -> Error {
    Error::new(Code::IdempotencyKeyInFlight, "The request with this Idempotency-Key is still under way.")
        .with_retry_after(std::time::Duration::from_secs(1))
}

fn answer_from_row(row: &PgRow) -> Result<KeptAnswer> {
    let read = || {
        Ok::<_, sqlx::Error>(KeptAnswer {
            status: row.try_get::<i16, _>("status")?.unsigned_abs(),
            location: row.try_get("location")?,
            etag: row.try_get("etag")?,
            body: row.try_get("body")?,
            users: Vec::new(),
        })
    };
    read().map_err(Error::internal)
}
