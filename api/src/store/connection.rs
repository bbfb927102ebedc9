//! A connection of the pool, and what is known of its session: whose rows it sees, how its statements are planned, whether it is
//! in the middle of something.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use deadpool::managed::{RecycleError, RecycleResult};
use sqlx::{Connection as _, PgConnection};
use tokio::time::Instant;

use super::{failure, home::Away};
use crate::{
    domain::TenantId,
    error::{Error, Result},
};

/// Old connections are replaced, so that load spreads again after a fail-over and caches on the server do not grow.
const AGE_MAX: Duration = Duration::from_secs(30 * 60);

/// A connection that was idle for longer is asked whether it still lives: the server may have been restarted.
const IDLE_TRUSTED_MAX: Duration = Duration::from_secs(1);

/// Errors of statements that nobody waits for any more: of the last one, and of a rollback after it.
const OUTSTANDING_ERRORS_MAX: usize = 3;

/// How PostgreSQL comes by the plans of prepared statements (`plan_cache_mode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plans {
    /// Anew for the values that are asked for, where that looks cheaper. For a statement that is best done otherwise for other values.
    Fitted,
    /// Once, for all values. For a statement whose one good way is in its text: planning takes longer than most of them run.
    Kept,
}

impl Plans {
    fn mode(self) -> &'static str {
        match self {
            Self::Fitted => "auto",
            Self::Kept => "force_generic_plan",
        }
    }
}

/// A connection and what is known of its session.
#[expect(clippy::struct_excessive_bools, reason = "independent facts about one session")]
pub(super) struct Connection {
    pg: PgConnection,
    /// What `context.tenant_id` and `plan_cache_mode` are; none when unknown.
    session: Option<(TenantId, Plans)>,
    /// False from before a statement until its outcome is known: a future that is dropped in between leaves it so.
    settled: bool,
    broken: bool,
    /// Between `begin` and its end, so that a transaction whose owner was cancelled is not handed to the next one.
    in_transaction: bool,
    /// Whether another one can be had in its place; the engine in process has just one.
    replaceable: bool,
    opened_at: Instant,
    /// Unless it is where the pool is.
    pub(super) away: Option<Away>,
    /// Of all connections of the pool, how often one broke.
    breaks: Arc<AtomicU64>,
    /// How often one had, when this one was last seen alive.
    breaks_outlived: u64,
}

impl Connection {
    /// `breaks_outlived`: what `breaks` was before `pg` was opened.
    pub(super) fn new(
        pg: PgConnection,
        away: Option<Away>,
        replaceable: bool,
        breaks: Arc<AtomicU64>,
        breaks_outlived: u64,
    ) -> Self {
        Self {
            pg,
            session: None,
            settled: true,
            broken: false,
            in_transaction: false,
            replaceable,
            opened_at: Instant::now(),
            away,
            breaks,
            breaks_outlived,
        }
    }

    /// Makes it ready for another user, or says why it is not fit for one. `idle`: since it was last used.
    pub(super) async fn recycle(&mut self, idle: Duration) -> RecycleResult<Error> {
        if self.broken {
            return Err(RecycleError::message("the connection broke"));
        }
        // The engine in process gains nothing from another connection.
        if self.replaceable && self.opened_at.elapsed() > AGE_MAX {
            return Err(RecycleError::message("the connection is old"));
        }
        // Where one has broken, the others may have as well: the server was restarted, perhaps.
        let breaks = self.breaks.load(Ordering::Relaxed);
        if idle > IDLE_TRUSTED_MAX || self.breaks_outlived != breaks {
            self.settled = false;
        }
        if !self.settled {
            // It may be dead, or its last user was cancelled in the middle of a statement. The driver first reads what is outstanding;
            // the pool's timeout bounds that.
            self.session = None;
            if let Err(error) = drain(&mut self.pg).await {
                self.breaks.fetch_add(1, Ordering::Relaxed);
                return Err(RecycleError::Backend(failure::from_sqlx(error)));
            }
            self.settled = true;
            self.breaks_outlived = breaks;
        }
        if self.in_transaction {
            self.end("rollback").await.map_err(RecycleError::Backend)?;
        }
        Ok(())
    }

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

    /// Costs a round trip where the session was not left like that.
    pub(super) async fn set_session(&mut self, tenant: TenantId, plans: Plans) -> Result<()> {
        if self.session == Some((tenant, plans)) {
            return Ok(());
        }
        self.session = None;
        let set =
            "select set_config('context.tenant_id', $1, false), set_config('plan_cache_mode', $2, false)";
        let result = sqlx::query(set).bind(tenant.to_string()).bind(plans.mode()).execute(self.pg()).await;
        self.settle(result)?;
        self.session = Some((tenant, plans));
        Ok(())
    }

    /// Sets the tenant and remembers none: within a transaction, which may take the setting back with all else.
    pub(super) async fn enter_tenant(&mut self, tenant: TenantId) -> Result<()> {
        self.session = None;
        let result = sqlx::query("select set_config('context.tenant_id', $1, false)")
            .bind(tenant.to_string())
            .execute(self.pg())
            .await;
        self.settle(result).map(|_| ())
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
