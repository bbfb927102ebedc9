//! HTTP: routes, what they accept and what they answer. Knows neither SQL nor providers. Imports `service`,
//! `domain`, `error` and `telemetry`.

mod answers;
mod api_keys;
mod audit;
mod authentication;
mod backup;
mod batch;
mod body;
mod conditions;
mod contexts;
mod count;
mod explorer;
mod freshness;
mod health;
mod history;
mod observe;
mod openapi;
mod operations;
mod pack;
mod problem;
mod schemas;
mod search;
mod spaces;
mod tenants;
mod transfer;
mod usage;
mod waiting;

use std::{
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

pub use actix_web::dev::ServerHandle;
use actix_web::{
    App, HttpServer,
    dev::{Server, ServiceRequest},
    middleware::from_fn,
    web,
};
use metrics_exporter_prometheus::PrometheusHandle;
use program::ServerOptions;
use tokio::time::Instant;
use utoipa_actix_web::AppExt;

pub use self::{
    backup::{BackupReports, serve_backup},
    openapi::document,
};
use crate::{
    error::{Error, Result},
    service::Service,
};

/// What every handler may use.
pub struct State {
    pub service: Service,
    started_at: Instant,
    draining: AtomicBool,
}

impl State {
    pub fn new(service: Service) -> Arc<Self> {
        Arc::new(Self { service, started_at: Instant::now(), draining: AtomicBool::new(false) })
    }

    /// From now on the service is not ready: load balancers send nothing new while it finishes what it has.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }
}

/// The path as the router sees it: with its percent-encodings resolved. Whatever goes by another one treats the same route in
/// two ways.
fn routed_path(request: &ServiceRequest) -> &str {
    request.match_info().as_str()
}

/// Slow clients: time for the head of a request. The body is bounded by the request's deadline.
const CLIENT_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const KEEP_ALIVE: Duration = Duration::from_secs(75);
const CONNECTIONS_PER_WORKER_MAX: usize = 4_096;

/// The API on `listener`. Signals are the caller's business.
///
/// # Errors
/// When the listener cannot be used.
pub fn serve(listener: TcpListener, state: Arc<State>, options: ServerOptions) -> Result<Server> {
    let state = web::Data::from(state);
    let document = web::Data::new(document());
    let routes = web::Data::new(problem::Routes::new(&openapi::routes()));
    let server = HttpServer::new(move || {
        App::new()
            .wrap(from_fn(authentication::authenticate))
            .wrap(from_fn(problem::check_method))
            // The last one is the outermost.
            .wrap(from_fn(observe::observe))
            .into_utoipa_app()
            .app_data(state.clone())
            .app_data(document.clone())
            .app_data(routes.clone())
            .app_data(web::PathConfig::default().error_handler(problem::path_error))
            .app_data(web::QueryConfig::default().error_handler(problem::query_error))
            .configure(configure)
            .into_app()
            .service(web::redirect("/docs", "/docs/"))
            .service(explorer::get_explorer)
            .default_service(web::to(problem::no_route))
    });
    let server = server
        .workers(options.workers)
        .max_connections(CONNECTIONS_PER_WORKER_MAX)
        .client_request_timeout(CLIENT_REQUEST_TIMEOUT)
        .keep_alive(KEEP_ALIVE)
        .shutdown_timeout(options.shutdown_grace.as_secs())
        .disable_signals()
        .listen(listener)
        .map_err(Error::internal)?;
    Ok(server.run())
}

/// Every route. Registered with `service`, which is what brings a route into the OpenAPI document.
fn configure(config: &mut utoipa_actix_web::service_config::ServiceConfig<'_>) {
    config
        .service(contexts::create_context)
        .service(contexts::list_contexts)
        .service(count::count_contexts)
        .service(transfer::import_contexts)
        .service(transfer::export_contexts)
        .service(batch::write_batch)
        .service(search::search_contexts)
        .service(pack::pack_contexts)
        .service(contexts::get_context)
        .service(contexts::replace_context)
        .service(contexts::patch_context)
        .service(contexts::delete_context)
        .service(history::list_versions)
        .service(history::restore_context)
        .service(operations::list_operations)
        .service(operations::get_operation)
        .service(operations::follow_operation)
        .service(operations::cancel_operation)
        .service(operations::retry_operation)
        .service(operations::erase_user)
        .service(api_keys::create_api_key)
        .service(api_keys::list_api_keys)
        .service(api_keys::rotate_api_key)
        .service(api_keys::revoke_api_key)
        .service(usage::get_usage)
        .service(usage::retry_embeddings)
        .service(spaces::create_embedding_space)
        .service(spaces::list_embedding_spaces)
        .service(spaces::get_embedding_space)
        .service(spaces::change_embedding_space)
        .service(spaces::delete_embedding_space)
        .service(spaces::list_embedding_space_failures)
        .service(spaces::retry_embedding_space)
        .service(spaces::compare_embedding_space)
        .service(spaces::activate_embedding_space)
        .service(tenants::create_tenant)
        .service(tenants::list_tenants)
        .service(audit::list_audit_log)
        .service(health::get_health)
        .service(health::get_liveness)
        .service(health::get_readiness)
        .service(openapi::get_openapi)
        .service(openapi::get_error_code);
}

/// The metrics on a listener of their own, which no proxy forwards to; and, for a worker, whether it can work.
///
/// # Errors
/// When the listener cannot be used.
pub fn serve_metrics(listener: TcpListener, state: Arc<State>, handle: PrometheusHandle) -> Result<Server> {
    let state = web::Data::from(state);
    let server = HttpServer::new(move || {
        App::new()
            .app_data(state.clone())
            .app_data(web::Data::new(handle.clone()))
            .service(observe::get_metrics)
            .service(health::get_readiness)
    });
    Ok(server
        .workers(1)
        .shutdown_timeout(1)
        .disable_signals()
        .listen(listener)
        .map_err(Error::internal)?
        .run())
}
