//! Connections, each of which knows the tenant that it is set to. Row-level security compares every row with the
//! session's tenant; setting it costs a round trip, so a connection is set only when its tenant changes.

use std::{
    ops::DerefMut,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use deadpool::{
    Runtime,
    managed::{
        Manager, Metrics, Object, PoolConfig, PoolError, QueueMode, RecycleError, RecycleResult, Timeouts,
    },
};
use sqlx::{ConnectOptions as _, Connection as _, PgConnection, postgres::PgConnectOptions};
use tokio::time::Instant;

use super::{
    ConnectOptions, Store, failure,
    home::{Away, Home},
};
use crate::{
    domain::TenantId,
    error::{Code, Error, Result},
};

pub(super) type Pool = deadpool::managed::Pool<Connector>;

/// How busy the pool is.
#[derive(Clone, Copy, Debug)]
pub struct PoolStatus {
    pub size: usize,
    pub available: usize,
    pub waiting: usize,
}

/// Opens connections for the pool and decides which may be used again.
pub(super) struct Connector {
    options: PgConnectOptions,
    statement_timeout: Duration,
    /// What the engine in process, which serves one connection only, needs set; none for a server.
    engine_settings: Option<&'static str>,
    /// The moment at which a session sees the database; none for the present.
    snapshot: Option<String>,
    breaks: Arc<AtomicU64>,
    home: Home,
}

/// A connection and what is known of its session.
#[expect(clippy::struct_excessive_bools, reason = "independent facts about one session")]
pub(super) struct Connection {
    pg: PgConnection,
    /// What `context.tenant_id` is; none when unknown.
    tenant: Option<TenantId>,
    /// False from before a statement until its outcome is known: a future that is dropped in between leaves it so.
    settled: bool,
    broken: bool,
    /// Between `begin` and its end, so that a transaction whose owner was cancelled is not handed to the next one.
    in_transaction: bool,
    /// Whether another one can be had in its place; the engine in process has just one.
    replaceable: bool,
    opened_at: Instant,
    /// Unless it is where the pool is.
    away: Option<Away>,
    /// Of all connections of the pool, how often one broke.
    breaks: Arc<AtomicU64>,
    /// How often one had, when this one was last seen alive.
    breaks_outlived: u64,
}

/// Old connections are replaced, so that load spreads again after a fail-over and caches on the server do not grow.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(30 * 60);

/// A connection that was idle for longer is asked whether it still lives: the server may have been restarted.
const IDLE_TRUSTED_MAX: Duration = Duration::from_secs(1);

/// Errors of statements that nobody waits for any more: of the last one, and of a rollback after it.
const OUTSTANDING_ERRORS_MAX: usize = 3;

/// How long a write waits for another one to the same row.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

impl Manager for Connector {
    type Type = Connection;
    type Error = Error;

    async fn create(&self) -> Result<Connection> {
        let breaks_outlived = self.breaks.load(Ordering::Relaxed);
        let options = self.options.clone();
        // On the heap: connecting is rare, and its future large.
        let opening = Box::pin(async move { options.connect().await.map_err(failure::from_sqlx) });
        let (mut pg, away) = self.home.open(opening).await?;
        // Not start-up parameters: poolers in between refuse those. `relaxed_order`: while the index scan goes on past filtered
        // rows it meets nearer ones than it has given already, which `strict_order` would leave out; who asks sorts them.
        // `hnsw.*` are placeholders until the extension is loaded.
        let session = format!(
            "set role context_app; set statement_timeout = {}; set lock_timeout = {}; set idle_in_transaction_session_timeout = {}; \
             set jit = off; set hnsw.iterative_scan = 'relaxed_order'; \
             set hnsw.max_scan_tuples = 40000; {}",
            self.statement_timeout.as_millis(),
            LOCK_TIMEOUT.as_millis(),
            self.statement_timeout.as_millis() * 2,
            self.engine_settings.unwrap_or_default(),
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(session)).execute(&mut pg).await.map_err(failure::from_set_role)?;
        if let Some(snapshot) = &self.snapshot {
            // A statement that takes no parameters; the name is the database's own.
            let enter = format!(
                "begin isolation level repeatable read read only; set transaction snapshot '{}'",
                snapshot.replace('\'', "")
            );
            sqlx::raw_sql(sqlx::AssertSqlSafe(enter)).execute(&mut pg).await.map_err(failure::from_sqlx)?;
        }
        Ok(Connection {
            pg,
            tenant: None,
            settled: true,
            broken: false,
            in_transaction: false,
            replaceable: self.engine_settings.is_none(),
            opened_at: Instant::now(),
            away,
            breaks: self.breaks.clone(),
            breaks_outlived,
        })
    }

    async fn recycle(&self, connection: &mut Connection, metrics: &Metrics) -> RecycleResult<Error> {
        if connection.broken {
            return Err(RecycleError::message("the connection broke"));
        }
        if self.home.is_left(connection.away.as_ref()) {
            return Err(RecycleError::message("the thread that opened the connection ends"));
        }
        // The engine in process gains nothing from another connection.
        if connection.replaceable && connection.opened_at.elapsed() > CONNECTION_AGE_MAX {
            return Err(RecycleError::message("the connection is old"));
        }
        // Where one has broken, the others may have as well: the server was restarted, perhaps.
        let breaks = self.breaks.load(Ordering::Relaxed);
        if metrics.last_used() > IDLE_TRUSTED_MAX || connection.breaks_outlived != breaks {
            connection.settled = false;
        }
        if !connection.settled {
            // It may be dead, or its last user was cancelled in the middle of a statement. The driver first reads what is outstanding;
            // the pool's timeout bounds that.
            connection.tenant = None;
            if let Err(error) = drain(&mut connection.pg).await {
                self.breaks.fetch_add(1, Ordering::Relaxed);
                return Err(RecycleError::Backend(failure::from_sqlx(error)));
            }
            connection.settled = true;
            connection.breaks_outlived = breaks;
        }
        if connection.in_transaction {
            connection.end("rollback").await.map_err(RecycleError::Backend)?;
        }
        Ok(())
    }
}

/// Reads what is outstanding, and asks the server whether it is there.
async fn drain(pg: &mut PgConnection) -> sqlx::Result<()> {
    let mut answer = pg.ping().await;
    // A statement that was cancelled may have failed: its error comes first.
    for _ in 0..OUTSTANDING_ERRORS_MAX {
        match answer {
            Err(sqlx::Error::Database(_)) => answer = pg.ping().await,
            answer => return answer,
        }
    }
    answer
}

impl Connection {
    /// The session, for one statement or transaction; [`Connection::settle`] must follow.
    pub(super) fn pg(&mut self) -> &mut PgConnection {
        self.settled = false;
        &mut self.pg
    }

    /// Takes note of how a statement ended, and turns the driver's error into ours.
    pub(super) fn settle<T>(&mut self, result: sqlx::Result<T>) -> Result<T> {
        match &result {
            Ok(_) => self.settled = true,
            Err(error) if failure::connection_survives(error) => self.settled = true,
            Err(_) => {
                self.broken = true;
                self.breaks.fetch_add(1, Ordering::Relaxed);
            }
        }
        result.map_err(failure::from_sqlx)
    }

    pub(super) async fn begin(&mut self) -> Result<()> {
        self.in_transaction = true;
        let result = sqlx::raw_sql("begin").execute(self.pg()).await;
        self.settle(result).map(|_| ())
    }

    /// Ends the transaction, by `commit` or `rollback`.
    pub(super) async fn end(&mut self, how: &'static str) -> Result<()> {
        let result = sqlx::raw_sql(how).execute(self.pg()).await;
        self.settle(result)?;
        self.in_transaction = false;
        Ok(())
    }

    /// As [`Connection::discard`], where that gains something over waiting for what the session still has to do.
    pub(super) fn abandon(&mut self) {
        self.broken |= self.replaceable;
    }

    /// Lets the pool close this connection instead of handing it out again.
    pub(super) fn discard(&mut self) {
        self.broken = true;
    }

    async fn set_tenant(&mut self, tenant: TenantId) -> Result<()> {
        if self.tenant == Some(tenant) {
            return Ok(());
        }
        self.enter_tenant(tenant).await?;
        self.tenant = Some(tenant);
        Ok(())
    }

    /// Sets the tenant and remembers none: within a transaction, which may take the setting back with all else.
    pub(super) async fn enter_tenant(&mut self, tenant: TenantId) -> Result<()> {
        self.tenant = None;
        let result = sqlx::query("select set_config('context.tenant_id', $1, false)")
            .bind(tenant.to_string())
            .execute(self.pg())
            .await;
        self.settle(result).map(|_| ())
    }
}

impl Store {
    /// Makes the pool. Opens no connection yet: the database may come up later.
    ///
    /// # Errors
    /// When the URL is malformed.
    pub fn new(options: &ConnectOptions) -> Result<Self> {
        Ok(Self::from_pool(pool(options, options.parse_url()?, None)?, options.queue_max))
    }

    pub(super) fn from_pool(pool: Pool, queue_max: usize) -> Self {
        Self { pool, queue_max, engine: None, witness: None }
    }

    /// The same database for what can wait: it joins the queue for a connection however long that is.
    #[must_use]
    pub fn patient(&self) -> Self {
        Self { queue_max: usize::MAX, ..self.clone() }
    }

    /// A connection that no tenant is set on, for what belongs to no tenant.
    pub(super) async fn connection(&self) -> Result<impl DerefMut<Target = Connection> + use<>> {
        self.acquire().await
    }

    /// A connection that sees the rows of `tenant`.
    pub(super) async fn tenant(&self, tenant: TenantId) -> Result<Object<Connector>> {
        let mut connection = self.acquire().await?;
        connection.set_tenant(tenant).await?;
        Ok(connection)
    }

    /// Whether something new may be begun. Who would have to wait for so many others is better off elsewhere, or later; and those
    /// others stay fast.
    ///
    /// # Errors
    /// [`Code::Overloaded`].
    pub fn admit(&self) -> Result<()> {
        if self.pool.status().waiting < self.queue_max {
            return Ok(());
        }
        metrics::counter!("requests_shed_total").increment(1);
        let error =
            Error::new(Code::Overloaded, "The database has more to do than it can; this was not begun.");
        Err(error.with_retry_after(Duration::from_secs(1)))
    }

    async fn acquire(&self) -> Result<Object<Connector>> {
        self.admit()?;
        let connection = if self.is_embedded() {
            // A caller who is cancelled half-way would leave a socket that is closed before all was read from it, and the
            // engine ends with the first of those. So this goes on without the caller, and gives the connection back. The store
            // comes along, to be dropped after the connection: the engine stops with the last one and waits for connections.
            let store = self.clone();
            let getting = tokio::spawn(async move { (store.pool.get().await, store) });
            getting.await.map_err(Error::internal)?.0
        } else {
            self.pool.get().await
        };
        match connection {
            Ok(connection) => Ok(connection),
            Err(PoolError::Backend(error)) => Err(error),
            Err(PoolError::Timeout(kind)) => Err(Error::new(
                Code::DatabaseUnavailable,
                "The database did not give the service a connection in time.",
            )
            .with_retry_after(Duration::from_secs(1))
            .with_source(format!("{kind:?} timed out"))),
            Err(other) => Err(Error::internal(other.to_string())),
        }
    }

    pub fn pool_status(&self) -> PoolStatus {
        let status = self.pool.status();
        PoolStatus { size: status.size, available: status.available, waiting: status.waiting }
    }

    /// Before the threads end that connections were opened on: has those live on the runtime that the pool was made on. Answers whether all
    /// do, within `longest`; those that have not are lost with their threads.
    pub async fn outlive_threads(&self, longest: Duration) -> bool {
        if self.is_embedded() {
            return true;
        }
        let home = &self.pool.manager().home;
        home.gather(longest, || {
            self.pool.retain(|connection, _| !home.is_left(connection.away.as_ref()));
        })
        .await
    }

    /// Closes the connections, and stops the engine if it runs in process. Statements under way end first.
    pub async fn close(&self) {
        self.pool.close();
        if let Some(engine) = &self.engine {
            engine.stop().await;
        }
    }
}

pub(super) fn pool(
    options: &ConnectOptions,
    pg: PgConnectOptions,
    engine_settings: Option<&'static str>,
) -> Result<Pool> {
    pool_of(pg, engine_settings, None, options)
}

/// Whose sessions see the database as another one does that has exported `snapshot`, for as long as that one lasts.
pub(super) fn pool_at(options: &ConnectOptions, pg: PgConnectOptions, snapshot: &str) -> Result<Pool> {
    pool_of(pg, None, Some(snapshot.to_owned()), options)
}

fn pool_of(
    pg: PgConnectOptions,
    engine_settings: Option<&'static str>,
    snapshot: Option<String>,
    options: &ConnectOptions,
) -> Result<Pool> {
    let connector = Connector {
        options: pg,
        statement_timeout: options.statement_timeout,
        engine_settings,
        snapshot,
        breaks: Arc::default(),
        home: Home::here(),
    };
    let mut config = PoolConfig::new(options.connections_max);
    config.timeouts = Timeouts {
        wait: Some(options.wait_timeout),
        create: Some(options.connect_timeout),
        recycle: Some(options.connect_timeout),
    };
    // Last used first: the warmest caches, and idle ones grow old and go.
    config.queue_mode = QueueMode::Lifo;
    Pool::builder(connector)
        .config(config)
        .runtime(Runtime::Tokio1)
        .build()
        .map_err(|error| Error::internal(error.to_string()))
}
