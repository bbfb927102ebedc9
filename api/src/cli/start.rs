//! What several commands do first: reach the database, check its schema, and put the service together.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use backon::{ExponentialBuilder, Retryable};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::watch;

use crate::{
    cache::Cache,
    config::{Config, Database},
    domain::Retention,
    embedding::{self, Reranker},
    error::Result,
    http::{self, ServerHandle, State},
    service::Service,
    store::{SchemaState, Store},
    worker,
};

/// How long a start waits for a database that is still coming up.
const DATABASE_START: Duration = Duration::from_secs(30);

/// The database, reachable and of this version's schema.
pub(super) async fn open_store(database: &Database) -> Result<Store> {
    let store = match database {
        Database::Server(options) => Store::new(options)?,
        #[cfg(feature = "embedded-postgres")]
        Database::Embedded { folder, options } => return Store::embedded(folder, options).await,
        #[cfg(not(feature = "embedded-postgres"))]
        Database::Embedded { .. } => {
            return Err(crate::error::Error::internal("this build has no database of its own"));
        }
    };
    let ask = || store.schema_state();
    let state = ask
        .retry(
            ExponentialBuilder::default()
                .with_max_delay(Duration::from_secs(2))
                .with_total_delay(Some(DATABASE_START))
                .without_max_times(),
        )
        // Only what asks to be tried again: a missing role does not appear by waiting.
        .when(|error| error.retry_after.is_some())
        .notify(|error, pause| tracing::warn!(%error, ?pause, "the database is not there yet"))
        .await?;
    state.require_known()?;
    if let SchemaState::Ahead { found } = state {
        tracing::warn!(
            migration = found,
            "a newer version has migrated the database, to a schema that this one can work with"
        );
    }
    if !store.go_by_text_index_if_usable().await? {
        tracing::warn!(
            "keyword search cannot use its index under row-level security: let a superuser run init-db/03-leakproof.sql"
        );
    }
    Ok(store)
}

/// The service on an open database.
pub(super) fn assemble(config: &Config, store: Store) -> Result<Service> {
    let cache = Cache::new(config.redis.as_ref())?;
    let cache = if store.is_embedded() { cache.alone() } else { cache };
    let cache = cache.with_answers(config.answer_limits);
    let providers = std::iter::once(&config.provider).chain(&config.next_provider);
    let embedders = providers.map(embedding::connect).collect::<Result<Vec<_>>>()?;
    let reranker = config.reranker.clone().map(Reranker::new).transpose()?;
    Ok(Service::new(store, cache, embedders).with_reranker(reranker).with_limits(config.limits))
}

/// What a worker does besides embedding. Each loop may be cut off anywhere.
pub(super) fn spawn_loops(service: &Service, retention: Retention, stopped: &watch::Receiver<bool>) {
    let service = service.patient();
    tokio::spawn(worker::remove_outdated(service.clone(), retention, stopped.clone()));
    tokio::spawn(worker::operations(service.clone(), stopped.clone()));
    tokio::spawn(worker::survey(service.clone(), stopped.clone()));
    tokio::spawn(worker::count(service.clone(), stopped.clone()));
    tokio::spawn(worker::analyze(service.clone(), stopped.clone()));
    tokio::spawn(worker::measure_backlog(service.clone(), stopped.clone()));
}

/// Lets the process be measured at this address, if there is one.
pub(super) fn serve_metrics(
    address: Option<SocketAddr>,
    state: Arc<State>,
    metrics: PrometheusHandle,
) -> std::result::Result<Option<ServerHandle>, Box<dyn std::error::Error>> {
    let Some(address) = address else { return Ok(None) };
    let listener = program::bind("METRICS_ADDR", address)?;
    let metrics_address = listener.local_addr()?;
    let server = http::serve_metrics(listener, state, metrics)?;
    let handle = server.handle();
    tokio::spawn(server);
    tracing::info!(%metrics_address, "serving metrics");
    Ok(Some(handle))
}
