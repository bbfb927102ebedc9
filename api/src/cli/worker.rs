//! `context-api worker`: embeds, and nothing else. Any number may run beside any number of APIs.

use std::time::Duration;

use program::{Stop, within};
use tokio::sync::watch;

use super::{CommandResult, start};
use crate::{
    config::{Config, Database, Source},
    http::State,
    telemetry, worker,
};

pub(super) async fn run(source: &Source) -> CommandResult {
    let config = Config::read(source)?;
    if matches!(config.database, Database::Embedded { .. }) {
        return Err("a worker needs DATABASE_URL: the database in process serves one process, and `serve` has a worker of its own".into());
    }
    let metrics = telemetry::start_metrics()?;
    let store = start::open_store(&config.database).await?;
    let service = start::assemble(&config, store)?;
    let watcher = tokio::spawn({
        let service = service.clone();
        async move { service.watch_providers().await }
    });
    start::serve_metrics(config.metrics, State::new(service.clone()), metrics)?;
    let (stop, stopped) = watch::channel(false);
    start::spawn_loops(&service, config.retention, &stopped);
    let running = tokio::spawn(worker::embed(service.patient(), stopped));
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "worker ready");
    Stop::listen()?.asked().await;
    stop.send_replace(true);
    let grace: Duration = config.server.shutdown_grace;
    within(grace, "the worker", async { drop(running.await) }).await;
    watcher.abort();
    service.store().close().await;
    tracing::info!("stopped");
    Ok(())
}
