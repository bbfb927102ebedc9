//! What a backup asks of the database: that no other one runs, one moment that everybody sees alike, how much there is at it, and
//! samples to search for. Goes around row-level security on purpose, with a login that may: a backup has everybody's rows.

use std::{collections::BTreeMap, time::Duration};

use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection};
use time::OffsetDateTime;

use super::{ConnectOptions, Store, contexts::visible, failure, migrations, pool};
use crate::{
    domain::{ContextId, TenantId, UserId},
    error::{Code, Error, Result},
};

/// The lock that a backup of this database holds. It belongs to its session, so a process that is killed holds it no longer.
const LOCK: &str = "select pg_try_advisory_lock(hashtext('context-api backup'))";

/// How often a session that waits says that it is there, and how long it waits for the answer.
const PING_EVERY: Duration = Duration::from_secs(5);
const PING_MAX: Duration = Duration::from_secs(20);

/// A session that sees all rows of all tenants.
pub struct BackupSession(PgConnection);

/// One moment of the database.
#[derive(Clone, Debug)]
pub struct Moment {
    /// What other sessions name it by, as long as this one keeps it.
    pub snapshot: String,
    pub at: OffsetDateTime,
    pub database: String,
    pub server_version: String,
    /// Of the schema, ascending.
    pub migrations: Vec<i64>,
    /// The migration that a program has to know to work with it, if it says so.
    pub needs: Option<i64>,
}

/// What of a context can be searched for.
#[derive(Clone, Debug)]
pub struct Sample {
    pub user: UserId,
    /// The beginning of its text.
    pub text: String,
    /// Of its first chunk, in the active space.
    pub embedding: Option<Vec<f32>>,
}

/// A session for work of an operator; its statements may take `statement_max`.
pub(super) async fn connect(options: &ConnectOptions, statement_max: Duration) -> Result<PgConnection> {
    let url = options.parse_url()?;
    let mut pg = tokio::time::timeout(options.connect_timeout, url.connect())
        .await
        .map_err(|_| Error::new(Code::DatabaseUnavailable, "The database did not answer in time."))?
        .map_err(failure::from_sqlx)?;
    let session = format!(
        "set application_name = 'context-api backup'; set statement_timeout = {}; set idle_in_transaction_session_timeout = 0; set idle_session_timeout = 0; set row_security = off; set lock_timeout = '30s'",
        statement_max.as_millis()
    );
    sqlx::raw_sql(AssertSqlSafe(session)).execute(&mut pg).await.map_err(failure::from_sqlx)?;
    Ok(pg)
}

impl BackupSession {
    /// For a login that need not see anybody's rows.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn open_blind(options: &ConnectOptions) -> Result<Self> {
        Ok(Self(connect(options, PING_MAX).await?))
    }

    /// # Errors
    /// When the database cannot be reached, or the login sees the rows of one tenant only.
    pub async fn open(options: &ConnectOptions, statement_max: Duration) -> Result<Self> {
        let mut pg = connect(options, statement_max).await?;
        let sees_all: bool =
            sqlx::query_scalar("select rolsuper or rolbypassrls from pg_roles where rolname = current_user")
                .fetch_one(&mut pg)
                .await
                .map_err(failure::from_sqlx)?;
        if !sees_all {
            return Err(Error::new(
                Code::DatabaseUnavailable,
                "This login is under row-level security and does not see what is to be backed up. Back up as `context_backup` \
                 (init-db/04-backup.sql makes it) or as a superuser.",
            ));
        }
        Ok(Self(pg))
    }

    /// Whether no other backup of this database runs. From then on none does, until the session ends.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn lock(&mut self) -> Result<bool> {
        sqlx::query_scalar(LOCK).fetch_one(&mut self.0).await.map_err(failure::from_sqlx)
    }

    /// Returns once the session is lost, and with it its lock and its moment. Asking also keeps it alive, on whose way something
    /// may give up connections that nobody uses.
    pub async fn lost(&mut self) -> Error {
        loop {
            tokio::time::sleep(PING_EVERY).await;
            let ping = tokio::time::timeout(PING_MAX, sqlx::raw_sql("select 1").execute(&mut self.0));
            if !matches!(ping.await, Ok(Ok(_))) {
                return Error::new(
                    Code::DatabaseUnavailable,
                    "The session that keeps other backups of this database away was lost.",
                );
            }
        }
    }

    /// Keeps the present moment until [`BackupSession::leave_moment`].
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn enter_moment(&mut self) -> Result<Moment> {
        let begin = "begin isolation level repeatable read read only";
        sqlx::raw_sql(begin).execute(&mut self.0).await.map_err(failure::from_sqlx)?;
        let (snapshot, at, database, server_version) = sqlx::query_as(
            "select pg_export_snapshot(), now(), current_database()::text, current_setting('server_version')",
        )
        .fetch_one(&mut self.0)
        .await
        .map_err(failure::from_sqlx)?;
        let migrations = migrations::applied_versions(&mut self.0).await?;
        let needs = migrations::floor(&mut self.0).await.map_err(failure::from_sqlx)?;
        Ok(Moment { snapshot, at, database, server_version, migrations, needs })
    }

    /// # Errors
    /// When the database cannot be reached.
    pub async fn leave_moment(&mut self) -> Result<()> {
        sqlx::raw_sql("rollback").execute(&mut self.0).await.map_err(failure::from_sqlx)?;
        Ok(())
    }

    /// What time it is there.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn now(&mut self) -> Result<OffsetDateTime> {
        sqlx::query_scalar("select clock_timestamp()")
            .fetch_one(&mut self.0)
            .await
            .map_err(failure::from_sqlx)
    }

    /// How many rows each table has, with partitions one by one.
    ///
    /// # Errors
    /// When the database cannot be reached, or takes too long.
    pub async fn count_rows(&mut self) -> Result<BTreeMap<String, i64>> {
        let tables: Vec<String> = sqlx::query_scalar(
            "select format('%I.%I', n.nspname, c.relname)
             from pg_class c join pg_namespace n on n.oid = c.relnamespace
             where c.relkind = 'r' and c.relpersistence <> 't'
               and n.nspname <> 'information_schema' and n.nspname !~ '^pg_'
               and not exists (select from pg_depend d
                               where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
             order by 1",
        )
        .fetch_all(&mut self.0)
        .await
        .map_err(failure::from_sqlx)?;
        let mut rows = BTreeMap::new();
        for table in tables {
            // The database's own name for it, in its own quotes.
            let sql = format!("select count(*) from {table}");
            let count = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut self.0).await;
            rows.insert(table, count.map_err(failure::from_sqlx)?);
        }
        Ok(rows)
    }

    /// Ends the session, and with it the lock.
    pub async fn close(self) {
        // It ends with its socket, too.
        self.0.close().await.ok();
    }
}

impl Store {
    /// The database as it is at a moment that a [`BackupSession`] keeps. One connection, for reading.
    ///
    /// # Errors
    /// When the URL is malformed.
    pub fn at_moment(options: &ConnectOptions, moment: &Moment) -> Result<Self> {
        let options = ConnectOptions { connections_max: 1, ..options.clone() };
        let pool = pool::pool_at(&options, options.parse_url()?, &moment.snapshot)?;
        Ok(Self::from_pool(pool, options.queue_max))
    }

    /// The newest contexts of the tenant that have a text, and whose beginning and end are not about to come.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn newest_with_text(&self, tenant: TenantId, contexts_max: i64) -> Result<Vec<ContextId>> {
        let mut connection = self.tenant(tenant).await?;
        let result = sqlx::query_scalar(concat!(
            "select c.id from contexts c where c.tenant_id = $1 and c.text ~ '\\S' and ",
            visible!(),
            " order by c.id desc limit $2"
        ))
        .bind(tenant.0)
        .bind(contexts_max)
        .fetch_all(connection.pg())
        .await;
        Ok(connection.settle(result)?.into_iter().map(ContextId).collect())
    }

    /// What to search for to find this context; none when it is not there.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn sample(&self, tenant: TenantId, context: ContextId) -> Result<Option<Sample>> {
        let mut connection = self.tenant(tenant).await?;
        let result = sqlx::query_as(
            "select c.user_id, left(c.text, 200),
                    (select k.embedding::halfvec::real[] from chunk_embeddings k
                     where k.tenant_id = c.tenant_id and k.context_id = c.id
                       and k.space_id = (select s.id from embedding_spaces s where s.status = 'active')
                     order by k.version desc, k.chunk_no limit 1)
             from contexts c where c.tenant_id = $1 and c.id = $2",
        )
        .bind(tenant.0)
        .bind(context.0)
        .fetch_optional(connection.pg())
        .await;
        let row: Option<(uuid::Uuid, String, Option<Vec<f32>>)> = connection.settle(result)?;
        Ok(row.map(|(user, text, embedding)| Sample { user: UserId(user), text, embedding }))
    }

    /// Of these contexts, those that come or go because of what time it is.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn bound_in_time(&self, tenant: TenantId, contexts: &[ContextId]) -> Result<Vec<ContextId>> {
        let ids: Vec<uuid::Uuid> = contexts.iter().map(|context| context.0).collect();
        let mut connection = self.tenant(tenant).await?;
        let result = sqlx::query_scalar(
            "select c.id from contexts c where c.tenant_id = $1 and c.id = any($2)
             and coalesce(c.expires_at, c.valid_to, c.valid_from) is not null",
        )
        .bind(tenant.0)
        .bind(ids)
        .fetch_all(connection.pg())
        .await;
        Ok(connection.settle(result)?.into_iter().map(ContextId).collect())
    }
}
