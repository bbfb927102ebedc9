//! Databases that a backup is restored into: scratch ones, which are made for a check and dropped after it, and the one that an
//! operator names.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use uuid::Uuid;

use super::{ConnectOptions, backup, failure, migrations};
use crate::error::{Code, Error, Result};

/// For the statements here, of which none reads rows but [`analyze`].
const STATEMENT_MAX: Duration = Duration::from_secs(120);
/// For dropping a scratch database: all of its files go, and a checkpoint comes first.
pub const DROP_MAX: Duration = Duration::from_secs(300);
/// For a superuser or `context_owner`.
const CLEAR: &str = include_str!("clear.sql");

/// A database for one check. It has to be dropped by [`Scratch::drop_database`]; what a killed process left behind, the next
/// check of the same database drops.
pub struct Scratch {
    server: ConnectOptions,
    name: String,
    /// How to reach it.
    pub options: ConnectOptions,
}

impl Scratch {
    /// Makes one on the server of `server`, with what a superuser makes there, as far as this login may.
    ///
    /// # Errors
    /// When the database cannot be reached, or the login may not make one.
    pub async fn create(server: &ConnectOptions) -> Result<Self> {
        let mut pg = backup::connect(server, DROP_MAX).await?;
        let prefix: String = sqlx::query_scalar(
            "select format('context_check_%s_', oid) from pg_database where datname = current_database()",
        )
        .fetch_one(&mut pg)
        .await
        .map_err(failure::from_sqlx)?;
        let left_behind: Vec<String> =
            sqlx::query_scalar("select quote_ident(datname) from pg_database where starts_with(datname, $1)")
                .bind(&prefix)
                .fetch_all(&mut pg)
                .await
                .map_err(failure::from_sqlx)?;
        for name in left_behind {
            drop_database(&mut pg, &name).await?;
        }
        let name = format!("{prefix}{}", Uuid::now_v7().simple());
        run(&mut pg, format!("create database {name}")).await.map_err(|error| {
            Error::new(
                Code::DatabaseUnavailable,
                "No database for the check could be made. The login needs the right `createdb`, which \
                 init-db/04-backup.sql gives to `context_backup`; or switch the check off with BACKUP_CHECK=false.",
            )
            .with_source(error)
        })?;
        pg.close().await.ok();
        let options = server.with_database(&name)?;
        let scratch = Self { server: server.clone(), name, options };
        match scratch.prepare().await {
            Ok(()) => Ok(scratch),
            Err(error) => {
                scratch.drop_database().await.ok();
                Err(error)
            }
        }
    }

    async fn prepare(&self) -> Result<()> {
        prepare(&self.options).await?;
        // What follows writes: better ask twice where.
        let occupied = inspect(&self.options).await?;
        if occupied.database != self.name || occupied.tables > 0 {
            return Err(Error::internal("the database for the check is another one, or not empty"));
        }
        Ok(())
    }

    /// # Errors
    /// When the database cannot be reached.
    pub async fn drop_database(&self) -> Result<()> {
        let mut pg = backup::connect(&self.server, DROP_MAX).await?;
        drop_database(&mut pg, &self.name).await?;
        pg.close().await.ok();
        Ok(())
    }
}

/// `name` is one of ours, of letters, digits and underscores, or as the database itself quotes it.
async fn drop_database(pg: &mut PgConnection, name: &str) -> Result<()> {
    run(pg, format!("drop database if exists {name} with (force)")).await
}

async fn run(pg: &mut PgConnection, sql: String) -> Result<()> {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(pg).await.map(|_| ()).map_err(failure::from_sqlx)
}

/// Who restores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Login {
    Superuser,
    /// May act as `context_owner`.
    Owner,
    /// Neither: what it restores is its own.
    Other,
}

/// What is in a database before something is restored into it.
#[derive(Clone, Debug)]
pub struct Occupied {
    pub database: String,
    pub login: Login,
    /// Tables that do not belong to an extension.
    pub tables: i64,
    /// None when this login cannot see them.
    pub contexts: Option<i64>,
    pub tenants: Option<i64>,
    /// Other sessions of this service.
    pub sessions: i64,
}

/// Brings the roles, the extension and the rights into a database, if this login may. What it may not is asked for.
///
/// # Errors
/// A sentence about what an operator has to do.
pub async fn prepare(options: &ConnectOptions) -> Result<()> {
    let mut pg = backup::connect(options, STATEMENT_MAX).await?;
    let done = match login(&mut pg).await? {
        Login::Superuser => migrations::init_db(&mut pg).await,
        Login::Owner | Login::Other => require_extension(&mut pg).await,
    };
    pg.close().await.ok();
    done
}

async fn require_extension(pg: &mut PgConnection) -> Result<()> {
    let is_there: bool =
        sqlx::query_scalar("select exists (select from pg_extension where extname = 'vector')")
            .fetch_one(&mut *pg)
            .await
            .map_err(failure::from_sqlx)?;
    if is_there {
        return Ok(());
    }
    Err(Error::new(
        Code::DatabaseUnavailable,
        "The database has no extension `vector`, which only a superuser can create. For a restore let one run the files of \
         init-db/ in it; for the check of backups let one run init-db/02-extensions.sql in `template1`, which new databases \
         are copied from.",
    ))
}

async fn login(pg: &mut PgConnection) -> Result<Login> {
    let (superuser, roles, owner): (bool, bool, bool) = sqlx::query_as(
        "select (select rolsuper from pg_roles where rolname = current_user), count(*) = 2,
                coalesce(bool_or(rolname = 'context_owner' and pg_has_role(oid, 'set')), false)
         from pg_roles where rolname in ('context_owner', 'context_app')",
    )
    .fetch_one(&mut *pg)
    .await
    .map_err(failure::from_sqlx)?;
    match (superuser, roles, owner) {
        (true, _, _) => Ok(Login::Superuser),
        (_, true, true) => Ok(Login::Owner),
        (_, true, false) => Ok(Login::Other),
        (_, false, _) => Err(Error::new(
            Code::DatabaseUnavailable,
            "The server has no roles `context_owner` and `context_app`. Let a superuser run the files of init-db/ first.",
        )),
    }
}

/// Looks at a database that something is to be restored into.
///
/// # Errors
/// When it cannot be reached, or has no roles.
pub async fn inspect(options: &ConnectOptions) -> Result<Occupied> {
    let mut pg = backup::connect(options, STATEMENT_MAX).await?;
    let login = login(&mut pg).await?;
    let (database, tables, has_contexts, sees_all, sessions): (String, i64, bool, bool, i64) = sqlx::query_as(
        "select current_database()::text,
                (select count(*) from pg_class c join pg_namespace n on n.oid = c.relnamespace
                 where c.relkind in ('r', 'p') and n.nspname <> 'information_schema' and n.nspname !~ '^pg_'
                   and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid
                                                             and d.deptype = 'e')),
                to_regclass('contexts') is not null and to_regclass('tenants') is not null,
                (select rolsuper or rolbypassrls from pg_roles where rolname = current_user),
                (select count(*) from pg_stat_activity
                 where datname = current_database() and application_name = 'context-api' and pid <> pg_backend_pid())",
    )
    .fetch_one(&mut pg)
    .await
    .map_err(failure::from_sqlx)?;
    let (contexts, tenants) = if has_contexts && sees_all {
        let counted =
            sqlx::query_as("select (select count(*) from contexts), (select count(*) from tenants)");
        let (contexts, tenants): (i64, i64) = counted.fetch_one(&mut pg).await.map_err(failure::from_sqlx)?;
        (Some(contexts), Some(tenants))
    } else {
        (None, None)
    };
    pg.close().await.ok();
    Ok(Occupied { database, login, tables, contexts, tenants, sessions })
}

/// What comes before a dump that is run as a script, of a login that acts as `context_owner` if it may: the beginning of the one
/// transaction that all of it is, and with `replace` the removal of what is there.
pub fn script_before(login: Login, replace: bool) -> String {
    let role = if login == Login::Other { "" } else { "set local role context_owner;\n" };
    let clear = if replace { CLEAR } else { "" };
    format!("{BEGIN}{role}{clear}\n")
}

/// Whatever hangs up is noticed, so that what it began does not go on. And no `commit` but ours succeeds, should the script have one: it
/// would find the two rows alike.
const BEGIN: &str = "begin;
set local lock_timeout = '30s';
set local client_min_messages = warning;
set local client_connection_check_interval = '5s';
create temporary table unfinished (n integer unique deferrable initially deferred);
insert into unfinished values (1), (1);
";

/// What comes after it, once nothing more can go wrong.
pub const SCRIPT_AFTER: &str = "\nreset role;\ndelete from pg_temp.unfinished;\ncommit;\n";

/// Has plans made for what was restored.
///
/// # Errors
/// When the database cannot be reached, or takes longer than `statement_max`.
pub async fn analyze(options: &ConnectOptions, statement_max: Duration) -> Result<()> {
    let mut pg = backup::connect(options, statement_max).await?;
    // Of the server's own tables it says that they are not ours.
    run(&mut pg, "set client_min_messages = error; analyze".to_owned()).await?;
    pg.close().await.ok();
    Ok(())
}
