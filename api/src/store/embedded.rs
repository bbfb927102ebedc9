//! PostgreSQL in process: the embedded default. It serves exactly one connection, so the pool holds one, and whoever
//! held it while waiting for another would wait for ever. What was acknowledged survives the process, but perhaps not a
//! power cut; the first start says so.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use pglite_oxide::{PgliteServer, extensions};
use sqlx::{
    Connection as _, PgConnection,
    postgres::{PgConnectOptions, PgSslMode},
};

use super::{ConnectOptions, Store, failure, migrations, pool, stop_words};
use crate::error::{Code, Error, Result};

/// The engine, until it is stopped: by [`Engine::stop`], or by the end of the last [`Store`].
pub(super) struct Engine(Mutex<Option<PgliteServer>>);

impl Engine {
    /// Stops the engine and frees its folder, whoever still has a [`Store`]. Waits for the connection to be given back.
    pub(super) async fn stop(&self) {
        let server = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(server) = server else { return };
        match tokio::task::spawn_blocking(|| server.shutdown()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!("the database in process did not stop cleanly: {error:#}"),
            Err(error) => tracing::warn!(%error, "the database in process did not stop cleanly"),
        }
    }
}

impl Store {
    /// Starts the engine on the data in `folder`, which is made when it is missing, and brings it to this version's
    /// schema. `options.url` and `options.connections_max` are not used.
    ///
    /// # Errors
    /// When the folder is in use by another process, is not writable, or holds something else.
    pub async fn embedded(folder: &Path, options: &ConnectOptions) -> Result<Self> {
        let server = start(folder.to_owned()).await?;
        let address = server.tcp_addr().ok_or_else(|| Error::internal("the engine has no TCP address"))?;
        let connect = connect_options(address);
        migrate(&connect).await?;
        let options = ConnectOptions { connections_max: 1, ..options.clone() };
        let mut store = Self::from_pool(pool::pool(&options, connect, true)?, options.queue_max);
        store.engine = Some(Arc::new(Engine(Mutex::new(Some(server)))));
        Ok(store)
    }
}

async fn start(folder: PathBuf) -> Result<PgliteServer> {
    let shown = folder.display().to_string();
    let started = tokio::task::spawn_blocking(move || {
        stop_words::write(&folder.join("tmp/pglite/share/postgresql/tsearch_data"))?;
        // `fsync` stays off, as the engine has it: switched on, it cannot start, because its file system refuses to sync
        // a directory. A killed process loses nothing, the kernel has it all; a power cut may take the last seconds.
        PgliteServer::builder().path(&folder).extension(extensions::VECTOR).start()
    });
    started.await.map_err(Error::internal)?.map_err(|error| {
        Error::new(
            Code::DatabaseUnavailable,
            format!(
                "The database in process could not be started on `{shown}`. Is another context-api running on the same \
                 folder? Stop it, or choose another folder with DATA_DIR."
            ),
        )
        .with_source(error.to_string())
    })
}

fn connect_options(address: SocketAddr) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .ssl_mode(PgSslMode::Disable)
        .host(&address.ip().to_string())
        .port(address.port())
        .username("postgres")
        .database("template1")
        .application_name("context-api")
        .statement_cache_capacity(256)
}

/// Brings the engine to this version's schema, before anything else connects.
async fn migrate(options: &PgConnectOptions) -> Result<()> {
    let mut pg = PgConnection::connect_with(options).await.map_err(failure::from_sqlx)?;
    sqlx::raw_sql("set context.embedding_type = 'vector'")
        .execute(&mut pg)
        .await
        .map_err(failure::from_sqlx)?;
    let migrated = migrations::migrate(&mut pg).await;
    // The engine is one session for all that connect after each other: hand it over as it was found.
    sqlx::raw_sql("reset role; reset all").execute(&mut pg).await.map_err(failure::from_sqlx)?;
    pg.close().await.map_err(failure::from_sqlx)?;
    migrated.map(|_| ())
}
