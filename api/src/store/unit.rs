//! A unit of work: several statements that happen together or not at all. The connection is held from the first to the
//! last, so between them nothing is waited for but PostgreSQL.

use deadpool::managed::Object;

use super::{Store, changes::Notice, connection::Connection, pool::Connector};
use crate::{domain::Access, error::Result};

/// A transaction. One that is dropped before its end is rolled back: with its connection, which is closed, or before that one
/// is used again.
pub struct Unit {
    connection: Object<Connector>,
    ended: bool,
    notice: Notice,
    pub(super) access: Access,
}

impl Drop for Unit {
    fn drop(&mut self) {
        self.notice.withdraw();
        if !self.ended {
            self.connection.abandon();
        }
    }
}

impl Store {
    /// # Errors
    /// When the database cannot be reached.
    pub async fn begin(&self, access: Access) -> Result<Unit> {
        let mut connection = self.tenant(access.tenant).await?;
        connection.begin().await?;
        let notice = Notice::about(self, access.tenant);
        Ok(Unit { connection, ended: false, notice, access })
    }
}

impl Unit {
    /// Goes on with the rows of another tenant, in the same transaction.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn enter(&mut self, access: Access) -> Result<()> {
        self.connection.enter_tenant(access.tenant).await?;
        self.notice.add(access.tenant);
        self.access = access;
        Ok(())
    }

    pub(super) fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// Makes it all durable.
    ///
    /// # Errors
    /// When the database does not say that it has; then nobody knows.
    pub async fn commit(mut self) -> Result<()> {
        // Also when it fails: the database may have done it nevertheless.
        let notice = std::mem::take(&mut self.notice);
        let committed = self.connection.end("commit").await;
        self.ended = committed.is_ok();
        drop(self);
        notice.give().await;
        committed
    }

    /// Undoes it all.
    ///
    /// # Errors
    /// When the database cannot be reached; then it undoes it by itself.
    pub async fn roll_back(mut self) -> Result<()> {
        self.connection.end("rollback").await?;
        self.ended = true;
        Ok(())
    }

    /// A point to return to with [`Unit::roll_back_to_savepoint`]; forgets the one before.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn savepoint(&mut self) -> Result<()> {
        self.run("savepoint item").await
    }

    /// # Errors
    /// When the database cannot be reached.
    pub async fn release_savepoint(&mut self) -> Result<()> {
        self.run("release savepoint item").await
    }

    /// # Errors
    /// When the database cannot be reached.
    pub async fn roll_back_to_savepoint(&mut self) -> Result<()> {
        self.run("rollback to savepoint item; release savepoint item").await
    }

    async fn run(&mut self, sql: &'static str) -> Result<()> {
        let result = sqlx::raw_sql(sql).execute(self.connection.pg()).await;
        self.connection.settle(result).map(|_| ())
    }
}
