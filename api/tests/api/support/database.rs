//! A database for one test: a copy of a migrated template on the server that the environment names, or the engine in
//! process in a folder of its own.

use std::{str::FromStr, time::Duration};

use context_api::store::{ConnectOptions, Store};
use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, postgres::PgConnectOptions};
use tempfile::TempDir;
use uuid::Uuid;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    Native,
    Embedded,
}

impl Engine {
    /// What the environment asks for.
    pub fn chosen() -> Self {
        let embedded = std::env::var("TEST_ENGINE").is_ok_and(|engine| engine == "embedded");
        if embedded || std::env::var("TEST_DATABASE_URL").is_err() {
            println!("database: in process");
            Self::Embedded
        } else {
            println!("database: TEST_DATABASE_URL");
            Self::Native
        }
    }
}

/// Gone when dropped.
pub struct Database {
    pub engine: Engine,
    /// The superuser's; empty for the engine in process.
    pub url: String,
    name: String,
    folder: TempDir,
}

/// Requests that wait for a connection of an app: more than any test sends by the way.
pub const QUEUE_MAX: usize = 100;

pub fn options(url: &str) -> ConnectOptions {
    ConnectOptions {
        url: url.to_owned().into(),
        connections_max: 8,
        queue_max: QUEUE_MAX,
        wait_timeout: Duration::from_secs(5),
        connect_timeout: Duration::from_secs(5),
        statement_timeout: Duration::from_secs(15),
    }
}

fn server() -> PgConnectOptions {
    let url = std::env::var("TEST_DATABASE_URL").expect("TEST_DATABASE_URL");
    PgConnectOptions::from_str(&url).expect("TEST_DATABASE_URL is a URL")
}

fn url_of(database: &str) -> String {
    server().database(database).to_url_lossy().to_string()
}

async fn run(connection: &mut PgConnection, sql: String) -> sqlx::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.map(|_| ())
}

impl Database {
    /// Migrated and empty.
    pub async fn create() -> Self {
        Self::create_on(Engine::chosen()).await
    }

    pub async fn create_on(engine: Engine) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let name = format!("context_test_{}", Uuid::new_v4().simple());
        if engine == Engine::Embedded {
            return Self { engine, url: String::new(), name, folder };
        }
        let template = template().await;
        let mut server = PgConnection::connect_with(&server()).await.expect("the test server");
        run(&mut server, format!("create database {name} template {template}"))
            .await
            .expect("create a database");
        Self { engine, url: url_of(&name), name, folder }
    }

    /// Empty, without roles' grants, extension or schema; native only.
    pub async fn create_bare() -> Self {
        let name = format!("context_test_{}", Uuid::new_v4().simple());
        let mut server = PgConnection::connect_with(&server()).await.expect("the test server");
        run(&mut server, format!("create database {name} template template0"))
            .await
            .expect("create a database");
        Self {
            engine: Engine::Native,
            url: url_of(&name),
            name,
            folder: TempDir::new().expect("a temporary folder"),
        }
    }

    /// The same for another application on it, whose end is not the database's; native only.
    pub fn again(&self) -> Self {
        assert_eq!(self.engine, Engine::Native, "the engine in process has one application");
        Self::at(&self.url)
    }

    /// One that the test has made itself, on a server of its own, by the URL of whoever uses it.
    pub fn at(url: &str) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        Self { engine: Engine::Native, url: url.to_owned(), name: String::new(), folder }
    }

    /// Of a database of the test server.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub async fn open(&self) -> Store {
        match self.engine {
            Engine::Native => Store::new(&options(&self.url)).expect("a store"),
            Engine::Embedded => {
                Store::embedded(self.folder.path(), &options("")).await.expect("the engine in process")
            }
        }
    }

    /// Drops it while the rest of the test goes on. Postgres drops no database as long as anybody is half-way through
    /// opening a connection, to whichever database; so a test that holds its runtime up may wait here for itself.
    pub async fn remove(self) {
        tokio::task::spawn_blocking(move || drop(self)).await.expect("a thread to drop it in");
    }

    /// As superuser; native only.
    pub async fn superuser(&self) -> PgConnection {
        assert_eq!(
            self.engine,
            Engine::Native,
            "the engine in process has one connection, and the service has it"
        );
        PgConnection::connect(&self.url).await.expect("the test database")
    }

    /// What tells a service of its own to use it.
    pub fn variable(&self) -> (&'static str, &str) {
        match self.engine {
            Engine::Native => ("DATABASE_URL", &self.url),
            Engine::Embedded => ("DATA_DIR", self.folder.path().to_str().expect("a path in UTF-8")),
        }
    }
}

/// The name of a migrated database to copy from. Made once per server and version of the schema.
async fn template() -> String {
    let name = format!("context_template_{}", schema_digest());
    let mut server = PgConnection::connect_with(&server()).await.expect("the test server");
    run(&mut server, "select pg_advisory_lock(7263)".to_owned()).await.expect("the lock");
    let exists: bool = sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
        .bind(&name)
        .fetch_one(&mut server)
        .await
        .expect("pg_database");
    if !exists {
        let unfinished = format!("{name}_unfinished");
        run(&mut server, format!("drop database if exists {unfinished}")).await.expect("drop");
        run(&mut server, format!("create database {unfinished}")).await.expect("create");
        Store::migrate(&options(&url_of(&unfinished))).await.expect("migrate");
        // The migration's session may take a moment to leave.
        run(
            &mut server,
            format!(
                "select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = '{unfinished}'"
            ),
        )
        .await
        .expect("terminate");
        run(&mut server, format!("alter database {unfinished} rename to {name}")).await.expect("rename");
    }
    server.close().await.expect("close");
    name
}

/// Changes whenever a migration or an `init-db` file does.
fn schema_digest() -> String {
    let mut digest = Sha256::new();
    for migration in sqlx::migrate!("../migrations").iter() {
        digest.update(&migration.checksum);
    }
    for sql in std::fs::read_dir("../init-db").expect("init-db") {
        digest.update(std::fs::read(sql.expect("a file").path()).expect("a file"));
    }
    let bytes = digest.finalize();
    u64::from_be_bytes(bytes[..8].try_into().expect("eight bytes")).to_string()
}

impl Drop for Database {
    fn drop(&mut self) {
        if self.engine == Engine::Embedded || self.name.is_empty() {
            return;
        }
        let name = std::mem::take(&mut self.name);
        let drop_it = move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let dropping = async {
                let mut server = PgConnection::connect_with(&server()).await?;
                run(&mut server, format!("drop database if exists {name} with (force)")).await
            };
            // Sessions of an application that was not stopped may hold it up: they live in the runtime that waits here.
            runtime.block_on(async { tokio::time::timeout(Duration::from_secs(5), dropping).await })
        };
        // The server itself may be what the test has stopped.
        let dropped = std::thread::spawn(drop_it).join();
        if !matches!(dropped, Ok(Ok(Ok(())))) {
            println!("a test database stays behind: {dropped:?}");
        }
    }
}
