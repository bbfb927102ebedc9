//! The connections. Row-level security compares every row with the session's tenant; setting it costs a round trip, so a
//! connection is set only when its tenant changes, or how its statements are planned.

use std::{
    ops::DerefMut,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use deadpool::{
    Runtime,
    managed::{
        Manager, Metrics, Object, PoolConfig, PoolError, QueueMode, RecycleError, RecycleResult, Timeouts,
    },
};
use sqlx::{ConnectOptions as _, postgres::PgConnectOptions};

use super::{
    ConnectOptions, Store,
    connection::{Connection, Plans},
    failure,
    home::Home,
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
    /// Whether it is the engine in process, which serves one connection only.
    in_process: bool,
    /// The moment at which a session sees the database; none for the present.
    snapshot: Option<String>,
    breaks: Arc<AtomicU64>,
    home: Home,
}

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
        // `hnsw.*` are placeholders until the extension is loaded. No `seqscan`: what is a tenant's has an index that leads there. To read
        // everybody's rows for it looks right while tables are small, and where a plan is made for more rows than this tenant has.
        let session = format!(
            "set role context_app; set statement_timeout = {}; set lock_timeout = {}; set idle_in_transaction_session_timeout = {}; \
             set jit = off; set enable_seqscan = off; set hnsw.iterative_scan = 'relaxed_order'; set hnsw.max_scan_tuples = 40000",
            self.statement_timeout.as_millis(),
            LOCK_TIMEOUT.as_millis(),
            self.statement_timeout.as_millis() * 2,
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
        Ok(Connection::new(pg, away, !self.in_process, self.breaks.clone(), breaks_outlived))
    }

    async fn recycle(&self, connection: &mut Connection, metrics: &Metrics) -> RecycleResult<Error> {
        if self.home.is_left(connection.away.as_ref()) {
            return Err(RecycleError::message("the thread that opened the connection ends"));
        }
        connection.recycle(metrics.last_used()).await
    }
}

impl Store {
    /// Makes the pool. Opens no connection yet: the database may come up later.
    ///
    /// # Errors
    /// When the URL is malformed.
    pub fn new(options: &ConnectOptions) -> Result<Self> {
        Ok(Self::from_pool(pool(options, options.parse_url()?, false)?, options.queue_max))
    }

    pub(super) fn from_pool(pool: Pool, queue_max: usize) -> Self {
        Self { pool, queue_max, engine: None, witness: None, text_index: Arc::new(AtomicBool::new(true)) }
    }

    /// The same database for what can wait: it joins the queue for a connection however long that is.
    #[must_use]
    pub fn patient(&self) -> Self {
        Self { queue_max: usize::MAX, ..self.clone() }
    }

    /// A connection for what belongs to no tenant: functions, and tables of few rows. What its session is set to is not known.
    pub(super) async fn connection(&self) -> Result<impl DerefMut<Target = Connection> + use<>> {
        self.acquire().await
    }

    /// A connection that sees the rows of `tenant`.
    pub(super) async fn tenant(&self, tenant: TenantId) -> Result<Object<Connector>> {
        self.tenant_with(tenant, Plans::Fitted).await
    }

    /// The same for statements that are planned in this way.
    pub(super) async fn tenant_with(&self, tenant: TenantId, plans: Plans) -> Result<Object<Connector>> {
        let mut connection = self.acquire().await?;
        connection.set_session(tenant, plans).await?;
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

/// `in_process`: whether `pg` is the engine in process.
pub(super) fn pool(options: &ConnectOptions, pg: PgConnectOptions, in_process: bool) -> Result<Pool> {
    pool_of(pg, in_process, None, options)
}

/// Whose sessions see the database as another one does that has exported `snapshot`, for as long as that one lasts.
pub(super) fn pool_at(options: &ConnectOptions, pg: PgConnectOptions, snapshot: &str) -> Result<Pool> {
    pool_of(pg, false, Some(snapshot.to_owned()), options)
}

fn pool_of(
    pg: PgConnectOptions,
    in_process: bool,
    snapshot: Option<String>,
    options: &ConnectOptions,
) -> Result<Pool> {
    let connector = Connector {
        options: pg,
        statement_timeout: options.statement_timeout,
        in_process,
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
