//! How to reach the database.

use std::{str::FromStr, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use sqlx::{ConnectOptions as _, postgres::PgConnectOptions};
use tracing::log::LevelFilter;

use crate::error::{Error, Result};

/// How to reach the database, and how long to wait for it.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// `postgres://…`
    pub url: SecretString,
    pub connections_max: usize,
    /// So many may wait for a free connection; the next one is refused.
    pub queue_max: usize,
    /// Waiting for a free connection; then 503.
    pub wait_timeout: Duration,
    /// Opening a connection.
    pub connect_timeout: Duration,
    /// One statement, enforced by the server.
    pub statement_timeout: Duration,
}

impl ConnectOptions {
    pub(super) fn parse_url(&self) -> Result<PgConnectOptions> {
        let options = PgConnectOptions::from_str(self.url.expose_secret())
            // The source may quote the URL, which holds a password.
            .map_err(|_| {
                Error::internal("DATABASE_URL is not of the form postgres://user:password@host:port/database")
            })?;
        Ok(options
            .application_name("context-api")
            .statement_cache_capacity(256)
            .log_statements(LevelFilter::Trace))
    }
}
