//! Brings a database to the schema that this version knows. The only place where the service acts as `context_owner`.

use std::time::Duration;

use sqlx::{
    Connection as _, PgConnection,
    migrate::{Migrate as _, MigrateError, Migrator},
};

use super::{ConnectOptions, SchemaState, Store, failure};
use crate::error::{Code, Error, Result};

pub(super) static MIGRATIONS: Migrator = sqlx::migrate!("../migrations");

/// What a superuser runs first; see `init-db/`.
const INIT_DB: [&str; 4] = [
    include_str!("../../../init-db/01-roles.sql"),
    include_str!("../../../init-db/02-extensions.sql"),
    include_str!("../../../init-db/03-leakproof.sql"),
    include_str!("../../../init-db/04-backup.sql"),
];

/// How long a migration waits for one that is already running.
const LOCK_TIMEOUT: Duration = Duration::from_secs(600);

/// How long it waits for a table. Everybody who comes after it waits as long, so it rather steps back and tries again.
const TABLE_TIMEOUT: Duration = Duration::from_secs(3);
const STEP_BACK: Duration = Duration::from_secs(2);
/// Ten minutes in all: a dump may hold tables for long.
const TRIES_MAX: usize = 120;
/// SQLSTATE of a lock that was not to be had in time.
const LOCK_NOT_AVAILABLE: &str = "55P03";

/// What a migration did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Migrations that were missing and are now there.
    pub count: usize,
    /// The newest one.
    pub version: i64,
}

impl Store {
    /// Brings the database behind `options` to this version's schema. Any number may run at once: one works, the others
    /// wait and find nothing to do. A superuser also gets `init-db/` done.
    ///
    /// # Errors
    /// [`Code::DatabaseUnavailable`], or a sentence about what an operator has to do.
    pub async fn migrate(options: &ConnectOptions) -> Result<Applied> {
        let url = options.parse_url()?;
        let connect = PgConnection::connect_with(&url);
        let mut pg = tokio::time::timeout(options.connect_timeout, connect)
            .await
            .map_err(|_| Error::new(Code::DatabaseUnavailable, "The database did not answer in time."))?
            .map_err(failure::from_sqlx)?;
        let applied = migrate(&mut pg).await;
        // The outcome is known; a failed goodbye changes nothing about it.
        pg.close().await.ok();
        applied
    }
}

/// Like [`Store::migrate`], for a connection that is open. Leaves the session as `context_owner`.
pub(super) async fn migrate(pg: &mut PgConnection) -> Result<Applied> {
    become_owner(pg).await?;
    let failed = |error| {
        Error::new(Code::Internal, "A migration failed; the database is as it was before that migration.")
            .with_source(error)
    };
    // Whoever looks before it has its turn takes for its own what another one is about to do. The lock ends with the session.
    pg.lock().await.map_err(failed)?;
    let before = applied_versions(pg).await?;
    match state(pg).await.map_err(failure::from_sqlx)? {
        SchemaState::Newer { found } => return Err(newer_schema(found)),
        SchemaState::Ahead { found } => return Ok(Applied { count: 0, version: found }),
        SchemaState::Current | SchemaState::Behind { .. } => {}
    }
    run(pg).await.map_err(failed)?;
    pg.unlock().await.map_err(failed)?;
    let after = applied_versions(pg).await?;
    Ok(Applied { count: after.len() - before.len(), version: after.last().copied().unwrap_or(0) })
}

/// Runs what is missing, each migration in a transaction of its own.
async fn run(pg: &mut PgConnection) -> std::result::Result<(), MigrateError> {
    let session = format!("set lock_timeout = {}", TABLE_TIMEOUT.as_millis());
    sqlx::raw_sql(sqlx::AssertSqlSafe(session)).execute(&mut *pg).await?;
    let mut tries = 1;
    loop {
        match MIGRATIONS.run(&mut *pg).await {
            Err(error) if tries < TRIES_MAX && is_locked(&error) => {
                tries += 1;
                tracing::info!("a table is in use; the migration steps back and tries again");
                tokio::time::sleep(STEP_BACK).await;
            }
            done => return done,
        }
    }
}

fn is_locked(error: &MigrateError) -> bool {
    let (MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) = error else {
        return false;
    };
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == LOCK_NOT_AVAILABLE)
}

async fn become_owner(pg: &mut PgConnection) -> Result<()> {
    let (is_superuser, has_roles): (bool, bool) = sqlx::query_as(
        "select (select rolsuper from pg_roles where rolname = current_user),
                (select count(*) = 2 from pg_roles where rolname in ('context_owner', 'context_app'))",
    )
    .fetch_one(&mut *pg)
    .await
    .map_err(failure::from_sqlx)?;
    if is_superuser {
        init_db(pg).await?;
    } else if !has_roles {
        return Err(Error::new(
            Code::DatabaseUnavailable,
            "The database has no roles `context_owner` and `context_app`. Let a superuser run the files of init-db/ in \
             it, then migrate again.",
        ));
    }
    let session = format!(
        "set role context_owner; set statement_timeout = 0; set lock_timeout = {}",
        LOCK_TIMEOUT.as_millis()
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(session)).execute(&mut *pg).await.map_err(|error| {
        Error::new(
            Code::DatabaseUnavailable,
            "This login may not act as `context_owner`. Migrate with the owner's or a superuser's DATABASE_URL.",
        )
        .with_source(error)
    })?;
    Ok(())
}

/// What a superuser does in a database before anybody else can use it. May be done again.
pub(super) async fn init_db(pg: &mut PgConnection) -> Result<()> {
    // Two superusers at once would collide on the same catalogue rows.
    for sql in ["select pg_advisory_lock(hashtext('context-api init-db'))"]
        .into_iter()
        .chain(INIT_DB)
        .chain(["select pg_advisory_unlock(hashtext('context-api init-db'))"])
    {
        sqlx::raw_sql(sql).execute(&mut *pg).await.map_err(failure::from_sqlx)?;
    }
    Ok(())
}

/// Versions of the migrations that the database has, ascending; empty on a fresh one.
pub(super) async fn applied_versions(pg: &mut PgConnection) -> Result<Vec<i64>> {
    versions(pg).await.map_err(failure::from_sqlx)
}

pub(super) async fn versions(pg: &mut PgConnection) -> sqlx::Result<Vec<i64>> {
    let exists: bool =
        sqlx::query_scalar("select to_regclass('_sqlx_migrations') is not null").fetch_one(&mut *pg).await?;
    if !exists {
        return Ok(Vec::new());
    }
    sqlx::query_scalar("select version from _sqlx_migrations where success order by version")
        .fetch_all(pg)
        .await
}

/// How the schema relates to this version's.
pub(super) async fn state(pg: &mut PgConnection) -> sqlx::Result<SchemaState> {
    let applied = versions(&mut *pg).await?;
    Ok(SchemaState::with_floor(&applied, floor(pg).await?))
}

/// The migration that a program has to know to work with the schema, if it says so.
pub(super) async fn floor(pg: &mut PgConnection) -> sqlx::Result<Option<i64>> {
    let is_there: bool =
        sqlx::query_scalar("select to_regclass('schema_floor') is not null").fetch_one(&mut *pg).await?;
    if !is_there {
        return Ok(None);
    }
    sqlx::query_scalar("select needs from schema_floor").fetch_optional(pg).await
}

pub(super) fn newer_schema(found: i64) -> Error {
    Error::new(
        Code::DatabaseUnavailable,
        format!(
            "The database has migration {found}, which this version does not know. Start the version that it belongs to, or a newer one."
        ),
    )
}
