//! `context-api serve`: the API, and unless told otherwise a worker beside it.

use std::{net::SocketAddr, time::Duration};

use program::{Stop, within};
use tokio::sync::watch;

use super::{CommandResult, start};
use crate::{
    config::{Config, Source},
    domain::{ApiKey, DEFAULT_TENANT, Limit, NewApiKey, Scope},
    http::{self, State},
    service::Service,
    telemetry, worker,
};

/// For connections to move before the server stops: for as long as statements take, nearly all of them.
const MOVE_MAX: Duration = Duration::from_secs(3);

pub(super) async fn run(source: &Source) -> CommandResult {
    let config = Config::read(source)?;
    let metrics = telemetry::start_metrics()?;
    let store = start::open_store(&config.database).await?;
    let service = start::assemble(&config, store)?;
    if let Some(key) = &config.bootstrap_api_key {
        service.keys().ensure_bootstrap(key).await?;
    }
    let first_key = first_key(&service).await?;
    let watcher = tokio::spawn({
        let service = service.clone();
        async move { service.watch_providers().await }
    });
    let (stop, stopped) = watch::channel(false);
    if service.store().is_embedded() {
        tokio::spawn(worker::vacuum(service.patient(), stopped.clone()));
    }
    let worker = config.worker_inline.then(|| {
        start::spawn_loops(&service, config.retention, &stopped);
        tokio::spawn(worker::embed(service.patient(), stopped))
    });
    let state = State::new(service.clone());
    let metrics_server = start::serve_metrics(config.metrics, state.clone(), metrics)?;
    // Last: who finds the port open finds a service that is ready.
    let listener = program::bind("BIND_ADDR", config.bind)?;
    let address = listener.local_addr()?;
    let server = http::serve(listener, state.clone(), config.server)?;
    let handle = server.handle();
    let running = tokio::spawn(server);
    tracing::info!(%address, version = env!("CARGO_PKG_VERSION"), "ready");
    if let Some(key) = first_key {
        welcome(address, &key);
    }

    Stop::listen()?.asked().await;
    // Not ready any more: load balancers are given the time to see it before the port closes.
    state.drain();
    tokio::time::sleep(config.drain).await;
    let grace = config.server.shutdown_grace;
    // Its threads end one by one, and what is under way in the last needs its connection.
    if !service.store().outlive_threads(MOVE_MAX.min(grace)).await {
        tracing::warn!("statements are under way that take long; what waits for them may fail");
    }
    within(grace + Duration::from_secs(1), "requests", handle.stop(true)).await;
    stop.send_replace(true);
    if let Some(worker) = worker {
        within(grace, "the worker", async { drop(worker.await) }).await;
    }
    watcher.abort();
    if let Some(handle) = metrics_server {
        handle.stop(false).await;
    }
    let closed = service.store().close();
    within(grace, "the database", closed).await;
    within(Duration::from_secs(1), "the server", async { drop(running.await) }).await;
    tracing::info!("stopped");
    Ok(())
}

/// A key for the one who starts the embedded default for the first time, and so has no other way in.
async fn first_key(service: &Service) -> crate::error::Result<Option<ApiKey>> {
    let one = Limit::new(Some(1))?;
    if !service.store().is_embedded()
        || !service.keys().list(DEFAULT_TENANT, one, None).await?.data.is_empty()
    {
        return Ok(None);
    }
    let new = NewApiKey::new("first start", Scope::all(), None, None)?;
    service.keys().create_for_operator(DEFAULT_TENANT, &new).await.map(Some)
}

fn welcome(address: SocketAddr, key: &ApiKey) {
    let key = key.expose();
    println!(
        "
Context API is ready on http://{address} (explorer: http://{address}/docs).

The data is in this process's own database. It survives a crash of the service; a power cut may take the last seconds
of it. For production set DATABASE_URL.

Your API key, shown only this once (more: context-api keys create):

  export CONTEXT_API_KEY={key}

Try it, store something:

  curl -sS http://{address}/v1/contexts -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' -d '{{\"user_id\": \"0190d5a0-0000-7000-8000-000000000001\", \"context_type\": \"note\", \"content\": {{\"text\": \"The chess club meets on Tuesday evening.\"}}}}'
"
    );
}
