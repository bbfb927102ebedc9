//! Removing everything of a user, a bounded number of rows at a time.

use sqlx::Row;

use super::Store;
use crate::{
    domain::{Erased, OperationId, TenantId, UserId},
    error::{Error, Result},
};

/// Contexts in one statement: its transaction stays short.
const CONTEXTS_MAX: i64 = 200;

/// $1 tenant, $2 user, $3 contexts. What hangs on a context is removed by name, so that it is counted.
const ERASE_CONTEXTS: &str = "
    with doomed as materialized (
        select c.id from contexts c where c.tenant_id = $1 and c.user_id = $2 order by c.id limit $3 for update
    ), gone_embeddings as (
        delete from chunk_embeddings k using doomed d where k.tenant_id = $1 and k.context_id = d.id returning 1
    ), gone_chunks as (
        delete from chunks k using doomed d where k.tenant_id = $1 and k.context_id = d.id returning 1
    ), gone_past_embeddings as (
        delete from past_chunk_embeddings k using doomed d where k.tenant_id = $1 and k.context_id = d.id returning 1
    ), gone_past_chunks as (
        delete from past_chunks k using doomed d where k.tenant_id = $1 and k.context_id = d.id returning 1
    ), gone_versions as (
        delete from context_versions v using doomed d where v.tenant_id = $1 and v.context_id = d.id returning 1
    ), gone as (
        delete from contexts c using doomed d where c.tenant_id = $1 and c.id = d.id returning 1
    )
    select (select count(*) from gone) as contexts, (select count(*) from gone_versions) as versions,
           (select count(*) from gone_chunks) + (select count(*) from gone_past_chunks) as chunks,
           (select count(*) from gone_embeddings) + (select count(*) from gone_past_embeddings) as embeddings";

/// $1 tenant, $2 user, $3 the operation that erases, which stays as the receipt
const ERASE_RECORDS: &str = "
    with gone_answers as (
        delete from idempotency_keys k
        where k.tenant_id = $1 and (k.namespace = $2 or $2 = any(k.user_ids))
        returning 1
    ), gone_operations as (
        delete from operations o where o.tenant_id = $1 and o.user_id = $2 and o.id <> $3 returning 1
    )
    select (select count(*) from gone_answers) as answers, (select count(*) from gone_operations) as operations";

/// Leaves nothing of the user in the row, which the audit log refers to. $1 tenant, $2 user
const REVOKE_KEYS: &str = "
    with bound as (
        select id, revoked_at is null or revoked_at > now() as is_valid from api_keys
        where tenant_id = $1 and user_id = $2 for update
    ), revoked as (
        update api_keys k set revoked_at = least(k.revoked_at, now()), user_id = null, name = 'erased'
        from bound where k.tenant_id = $1 and k.id = bound.id
    )
    select count(*) filter (where is_valid) from bound";

impl Store {
    /// Removes some contexts of a user with all that hangs on them; answers how much it was, nothing when there are none
    /// left.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn erase_contexts(&self, tenant: TenantId, user: UserId) -> Result<Erased> {
        let mut writing = self.write(tenant).await?;
        let result = sqlx::query(ERASE_CONTEXTS)
            .bind(tenant.0)
            .bind(user.0)
            .bind(CONTEXTS_MAX)
            .fetch_one(writing.pg())
            .await;
        let erased = writing.settle(result).and_then(|row| {
            let count = |column| row.try_get(column).map_err(Error::internal);
            Ok(Erased {
                contexts: count("contexts")?,
                versions: count("versions")?,
                chunks: count("chunks")?,
                embeddings: count("embeddings")?,
                ..Erased::default()
            })
        });
        writing.finish(erased).await
    }

    /// Revokes the keys that are bound to a user; answers how many of them were valid.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn revoke_api_keys_of(&self, tenant: TenantId, user: UserId) -> Result<i64> {
        let mut connection = self.tenant(tenant).await?;
        let result =
            sqlx::query_scalar(REVOKE_KEYS).bind(tenant.0).bind(user.0).fetch_one(connection.pg()).await;
        connection.settle(result)
    }

    /// Removes what else tells of a user.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn erase_records(
        &self,
        tenant: TenantId,
        user: UserId,
        receipt: OperationId,
    ) -> Result<Erased> {
        let mut connection = self.tenant(tenant).await?;
        let result = sqlx::query(ERASE_RECORDS)
            .bind(tenant.0)
            .bind(user.0)
            .bind(receipt.0)
            .fetch_one(connection.pg())
            .await;
        let row = connection.settle(result)?;
        let count = |column| row.try_get(column).map_err(Error::internal);
        Ok(Erased {
            idempotency_keys: count("answers")?,
            operations: count("operations")?,
            ..Erased::default()
        })
    }
}
