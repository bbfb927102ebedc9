//! Embedding spaces. They belong to the service, not to a tenant, so most functions here take none. Their statuses change by
//! the functions of `migrations/0007_embedding_spaces.sql` alone.

use sqlx::{Row, postgres::PgRow};
use uuid::Uuid;

use super::{Store, Unit, connection::Connection};
use crate::{
    domain::{
        BackfillChange, ContextId, Pace, Space, SpaceFailure, SpaceId, SpaceInfo, SpaceStatus, SpaceWork,
        Survey, TenantId,
    },
    error::{Error, Result},
};

/// The columns of a [`Space`].
macro_rules! columns {
    () => {
        "s.id, s.provider, s.model, s.dims, s.tokens_max, s.status, s.created_at, s.activated_at, s.complete_at, s.is_paused,
         s.contexts_per_second, s.surveyed_tenant, s.surveyed_context, s.contexts_seen, s.is_surveyed, s.survey_no,
         (select nullif(p.reltuples, -1)::bigint from pg_class p
          where p.oid = to_regclass('chunk_embeddings_' || s.id)) as chunks_estimate"
    };
}

const LIST: &str = concat!("select ", columns!(), " from embedding_spaces s order by s.id");

/// $1 space, $2 whether it is paused, or null, $3 whether the pace is changed, $4 the pace
const CHANGE: &str = concat!(
    "update embedding_spaces s
     set is_paused = coalesce($2, s.is_paused),
         contexts_per_second = case when $3 then $4 else s.contexts_per_second end
     where s.id = $1 and s.status <> 'retired' returning ",
    columns!()
);

/// From the beginning.
const SURVEY_AGAIN: &str = concat!(
    "update embedding_spaces s
     set surveyed_tenant = null, surveyed_context = null, contexts_seen = 0, is_surveyed = false,
         survey_no = s.survey_no + 1
     where s.id = $1 and s.status <> 'retired' returning ",
    columns!()
);

/// Nothing, if somebody else has moved it since. $1 space, $2 and $3 where it was, $4 and $5 where it is, $6 contexts seen,
/// $7 whether that was the end, $8 which survey it is
const MOVE_SURVEY: &str = "
    update embedding_spaces
    set surveyed_tenant = $4, surveyed_context = $5, contexts_seen = contexts_seen + $6, is_surveyed = $7
    where id = $1 and not is_surveyed and survey_no = $8 and surveyed_tenant is not distinct from $2
      and surveyed_context is not distinct from $3";

/// The pace: claims so many contexts, if it is time to. What was not claimed in time may follow within two seconds. $1 space, $2 contexts
const KEEP_PACE: &str = "
    update embedding_spaces
    set next_claim_at = greatest(next_claim_at, now() - interval '2 s') + make_interval(secs => $2::float8 / contexts_per_second)
    where id = $1 and next_claim_at <= now() and contexts_per_second is not null";

/// The database counts rows when it analyses a table. $1 space
const WORK: &str = "
    select w.backfill, w.fresh, w.failed,
           coalesce(greatest(extract(epoch from clock_timestamp() - w.oldest_fresh_at), 0), 0)::float8 as oldest_fresh_seconds,
           (select nullif(c.reltuples, -1)::bigint from pg_class c where c.oid = 'contexts'::regclass) as contexts_estimate
    from embedding_work_of($1) w";

impl Store {
    /// All of them, the oldest first, also those that are about to be dropped.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn list_spaces(&self) -> Result<Vec<Space>> {
        let mut connection = self.connection().await?;
        let result = sqlx::query(LIST).fetch_all(connection.pg()).await;
        connection.settle(result)?.iter().map(from_row).collect()
    }

    /// Makes the first space, which is active at once, unless there is an active one already.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn create_first_space(
        &self,
        provider: &str,
        model: &str,
        dims: i32,
        tokens_max: Option<i32>,
    ) -> Result<()> {
        let mut connection = self.connection().await?;
        let result = sqlx::query("select create_embedding_space($1, $2, $3, $4, true)")
            .bind(provider)
            .bind(model)
            .bind(dims)
            .bind(tokens_max)
            .execute(connection.pg())
            .await;
        connection.settle(result).map(|_| ())
    }

    /// What a space lacks.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn space_work(&self, space: SpaceId) -> Result<SpaceWork> {
        work(&mut *self.connection().await?, space).await
    }

    /// Whether it is time to embed so many contexts more of a backfill with a pace; if so, they are counted.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn keep_pace(&self, space: SpaceId, contexts: i32) -> Result<bool> {
        let mut connection = self.connection().await?;
        let result = sqlx::query(KEEP_PACE).bind(space.0).bind(contexts).execute(connection.pg()).await;
        connection.settle(result).map(|done| done.rows_affected() > 0)
    }

    /// Notes how far the survey is, unless somebody else has moved it.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn move_survey(&self, space: SpaceId, from: &Survey, to: &Survey) -> Result<()> {
        let ids =
            |survey: &Survey| (survey.tenant.map(|tenant| tenant.0), survey.context.map(|context| context.0));
        let ((from_tenant, from_context), (to_tenant, to_context)) = (ids(from), ids(to));
        let mut connection = self.connection().await?;
        let result = sqlx::query(MOVE_SURVEY)
            .bind(space.0)
            .bind(from_tenant)
            .bind(from_context)
            .bind(to_tenant)
            .bind(to_context)
            .bind(to.contexts_seen - from.contexts_seen)
            .bind(to.is_done)
            .bind(from.number)
            .execute(connection.pg())
            .await;
        connection.settle(result).map(|_| ())
    }

    /// Notes that a space has everything that was there when it was made.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn complete_space(&self, space: SpaceId) -> Result<()> {
        let mut connection = self.connection().await?;
        let result = sqlx::query(
            "update embedding_spaces set complete_at = clock_timestamp()
             where id = $1 and complete_at is null and is_surveyed",
        )
        .bind(space.0)
        .execute(connection.pg())
        .await;
        connection.settle(result).map(|_| ())
    }

    /// Drops a space that was deleted a while ago, when there is one.
    ///
    /// # Errors
    /// [`crate::error::Code::DatabaseBusy`] when it is in use; when the database cannot be reached.
    pub async fn drop_retired_space(&self) -> Result<Option<SpaceId>> {
        let mut connection = self.connection().await?;
        let result = sqlx::query_scalar::<_, Option<i32>>("select drop_retired_embedding_space()")
            .fetch_one(connection.pg())
            .await;
        Ok(connection.settle(result)?.map(SpaceId))
    }

    /// Contexts of the tenant that the space's model cannot do anything with, at most `contexts_max`.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn list_space_failures(
        &self,
        tenant: TenantId,
        space: SpaceId,
        contexts_max: i64,
    ) -> Result<Vec<SpaceFailure>> {
        let mut connection = self.tenant(tenant).await?;
        let result = sqlx::query(
            "select w.context_id, coalesce(w.error, '') as reason from embedding_work w
             where w.tenant_id = $1 and w.space_id = $2 and w.status = 'failed'
             order by w.context_id limit $3",
        )
        .bind(tenant.0)
        .bind(space.0)
        .bind(contexts_max)
        .fetch_all(connection.pg())
        .await;
        let rows = connection.settle(result)?;
        let read = |row: &PgRow| {
            let context_id = ContextId(row.try_get("context_id")?);
            Ok::<_, sqlx::Error>(SpaceFailure { context_id, reason: row.try_get("reason")? })
        };
        rows.iter().map(read).collect::<sqlx::Result<_>>().map_err(Error::internal)
    }
}

impl Unit {
    /// Makes a space beside the active one; none when there is one of this model already.
    ///
    /// # Errors
    /// [`crate::error::Code::DatabaseBusy`] when a write takes too long; when the database cannot be reached.
    pub async fn create_space(
        &mut self,
        provider: &str,
        model: &str,
        dims: i32,
        tokens_max: Option<i32>,
    ) -> Result<Option<SpaceId>> {
        let connection = self.connection();
        let result =
            sqlx::query_scalar::<_, Option<i32>>("select create_embedding_space($1, $2, $3, $4, false)")
                .bind(provider)
                .bind(model)
                .bind(dims)
                .bind(tokens_max)
                .fetch_one(connection.pg())
                .await;
        Ok(connection.settle(result)?.map(SpaceId))
    }

    /// What a space lacks.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn space_work(&mut self, space: SpaceId) -> Result<SpaceWork> {
        work(self.connection(), space).await
    }

    /// # Errors
    /// When the database cannot be reached.
    pub async fn find_space(&mut self, space: SpaceId) -> Result<Option<Space>> {
        let connection = self.connection();
        let result = sqlx::query(concat!("select ", columns!(), " from embedding_spaces s where s.id = $1"))
            .bind(space.0)
            .fetch_optional(connection.pg())
            .await;
        connection.settle(result)?.as_ref().map(from_row).transpose()
    }

    /// None when there is no such space.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn change_backfill(&mut self, space: SpaceId, change: BackfillChange) -> Result<Option<Space>> {
        let (is_changed, pace) = match change.pace {
            Pace::AsBefore => (false, None),
            Pace::Unlimited => (true, None),
            Pace::AtMost(contexts) => (true, Some(contexts)),
        };
        let connection = self.connection();
        let result = sqlx::query(CHANGE)
            .bind(space.0)
            .bind(change.is_paused)
            .bind(is_changed)
            .bind(pace)
            .fetch_optional(connection.pg())
            .await;
        connection.settle(result)?.as_ref().map(from_row).transpose()
    }

    /// Has everything looked at once more; none when there is no such space.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn survey_again(&mut self, space: SpaceId) -> Result<Option<Space>> {
        let connection = self.connection();
        let result = sqlx::query(SURVEY_AGAIN).bind(space.0).fetch_optional(connection.pg()).await;
        connection.settle(result)?.as_ref().map(from_row).transpose()
    }

    /// Lets search read this space; answers whether it may be activated.
    ///
    /// # Errors
    /// [`crate::error::Code::DatabaseBusy`] when a write takes too long; when the database cannot be reached.
    pub async fn activate_space(&mut self, space: SpaceId) -> Result<bool> {
        self.change_status("select activate_embedding_space($1)", space).await
    }

    /// Lets a space be dropped; answers whether it may be.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn retire_space(&mut self, space: SpaceId) -> Result<bool> {
        self.change_status("select retire_embedding_space($1)", space).await
    }

    async fn change_status(&mut self, sql: &'static str, space: SpaceId) -> Result<bool> {
        let connection = self.connection();
        let result = sqlx::query_scalar(sql).bind(space.0).fetch_one(connection.pg()).await;
        connection.settle(result)
    }
}

async fn work(connection: &mut Connection, space: SpaceId) -> Result<SpaceWork> {
    let result = sqlx::query(WORK).bind(space.0).fetch_one(connection.pg()).await;
    let row = connection.settle(result)?;
    let read = || {
        Ok::<_, sqlx::Error>(SpaceWork {
            backfill: row.try_get("backfill")?,
            fresh: row.try_get("fresh")?,
            oldest_fresh_seconds: row.try_get("oldest_fresh_seconds")?,
            failed: row.try_get("failed")?,
            contexts_estimate: row.try_get("contexts_estimate")?,
        })
    };
    read().map_err(Error::internal)
}

fn from_row(row: &PgRow) -> Result<Space> {
    let status: String = row.try_get("status").map_err(Error::internal)?;
    let status: SpaceStatus = status.parse().map_err(Error::internal)?;
    let read = || {
        Ok::<_, sqlx::Error>(Space {
            info: SpaceInfo {
                id: row.try_get("id")?,
                provider: row.try_get("provider")?,
                model: row.try_get("model")?,
                dims: row.try_get("dims")?,
                tokens_max: row.try_get("tokens_max")?,
            },
            status,
            created_at: row.try_get("created_at")?,
            activated_at: row.try_get("activated_at")?,
            complete_at: row.try_get("complete_at")?,
            is_paused: row.try_get("is_paused")?,
            contexts_per_second: row.try_get("contexts_per_second")?,
            chunks_estimate: row.try_get("chunks_estimate")?,
            survey: Survey {
                tenant: row.try_get::<Option<Uuid>, _>("surveyed_tenant")?.map(TenantId),
                context: row.try_get::<Option<Uuid>, _>("surveyed_context")?.map(ContextId),
                contexts_seen: row.try_get("contexts_seen")?,
                is_done: row.try_get("is_surveyed")?,
                number: row.try_get("survey_no")?,
            },
        })
    };
    read().map_err(Error::internal)
}
