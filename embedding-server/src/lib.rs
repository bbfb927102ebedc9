//! The built-in model behind the HTTP routes of text-embeddings-inference, for stacks that want an embedding server of
//! their own without its large image. It knows nothing of the API and needs neither database nor cache.

mod auth;
mod body;
mod embed;
mod info;
mod input;
mod meter;
mod observe;
mod openai;
mod options;
mod other_models;
mod problem;
mod state;
mod tokenize;

use std::{net::TcpListener, time::Duration};

use actix_web::{
    App, FromRequest, Handler, HttpResponse, HttpServer, Resource, Responder,
    dev::{HttpServiceFactory, Server},
    http::header,
    middleware::from_fn,
    web,
};
use metrics_exporter_prometheus::PrometheusHandle;
use program::{CommandResult, DURATION_BUCKETS, ServerOptions, Source, Stop, within};

use self::{options::Options, state::State};

/// Slow clients: time for the head of a request. The body has a deadline of its own.
const CLIENT_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const KEEP_ALIVE: Duration = Duration::from_secs(75);
const CONNECTIONS_PER_WORKER_MAX: usize = 4_096;
/// Tokenizing is limited elsewhere; this only keeps a worker from starting threads that would wait.
const BLOCKING_THREADS_PER_WORKER_MAX: usize = 8;

/// Tokens; a text has at least the two special ones.
const TOKEN_BUCKETS: [f64; 8] = [4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 255.0, 256.0];

/// Runs the server until it is asked to stop.
///
/// # Errors
/// When a variable is malformed, the model cannot be loaded, or the address is taken.
pub async fn run(source: &Source) -> CommandResult {
    let (options, address) = (Options::read(source)?, options::bind_address(source)?);
    if options.request_texts_max > options.concurrent_texts_max {
        tracing::warn!(
            "MAX_CLIENT_BATCH_SIZE is larger than MAX_CONCURRENT_REQUESTS: the largest lists are always refused"
        );
    }
    if options.api_key.is_none() && !address.ip().is_loopback() {
        tracing::warn!(%address, "no API_KEY is set: whoever reaches the address may use the model");
    }
    let buckets: [(&str, &[f64]); 2] = [("_duration", &DURATION_BUCKETS), ("_input_length", &TOKEN_BUCKETS)];
    let metrics = program::start_metrics(&buckets)?;
    let grace = options.server.shutdown_grace;
    let state = State::load(options)?;
    // Before the port opens: whoever can reach the server can also stop it.
    let stop = Stop::listen()?;
    // Last: who finds the port open finds a model that is ready.
    let listener = program::bind("BIND_ADDR", address)?;
    let address = listener.local_addr()?;
    let server = serve(listener, state, metrics)?;
    let handle = server.handle();
    let running = tokio::spawn(server);
    tracing::info!(%address, version = env!("CARGO_PKG_VERSION"), "ready");

    stop.asked().await;
    within(grace + Duration::from_secs(1), "requests", handle.stop(true)).await;
    within(Duration::from_secs(1), "the server", async { drop(running.await) }).await;
    tracing::info!("stopped");
    Ok(())
}

/// Asks the server on this machine whether it is there.
///
/// # Errors
/// When it is not, or a variable is malformed.
pub async fn healthcheck(source: &Source) -> CommandResult {
    program::ask_health(options::bind_address(source)?, "/health").await
}

/// The server on `listener`. Signals are the caller's business.
fn serve(listener: TcpListener, state: State, metrics: PrometheusHandle) -> std::io::Result<Server> {
    meter::describe();
    let ServerOptions { workers, shutdown_grace } = state.options.server;
    let state = web::Data::new(state);
    let metrics = web::Data::new(metrics);
    let server = HttpServer::new(move || {
        App::new()
            .wrap(from_fn(observe::observe))
            .app_data(state.clone())
            .app_data(metrics.clone())
            .configure(routes)
            .default_service(web::to(HttpResponse::NotFound))
    });
    let server = server
        .workers(workers)
        .worker_max_blocking_threads(BLOCKING_THREADS_PER_WORKER_MAX)
        .max_connections(CONNECTIONS_PER_WORKER_MAX)
        .client_request_timeout(CLIENT_REQUEST_TIMEOUT)
        .keep_alive(KEEP_ALIVE)
        // A client that has gone takes its texts along.
        .h1_allow_half_closed(false)
        .shutdown_timeout(shutdown_grace.as_secs())
        .disable_signals()
        .listen(listener)?;
    Ok(server.run())
}

fn routes(config: &mut web::ServiceConfig) {
    config
        .service(readable("/health", info::health))
        .service(readable("/ping", info::health))
        .service(readable("/metrics", info::metrics))
        .service(private(readable("/info", info::info)))
        // One path, two routes: asking for it is asking for its health, which needs no key.
        .service(private(
            web::resource("/")
                .route(web::get().to(info::health))
                .route(web::head().to(info::health))
                .route(web::post().to(embed::embed))
                .default_service(web::to(async || not_allowed("GET,HEAD,POST"))),
        ))
        .service(private(postable("/embed", embed::embed)))
        .service(private(postable("/invocations", embed::embed)))
        .service(private(postable("/tokenize", tokenize::tokenize)))
        .service(private(postable("/v1/embeddings", openai::embeddings)))
        .service(private(postable("/embeddings", openai::embeddings)))
        .service(private(postable("/embed_sparse", other_models::embed_sparse)))
        .service(private(postable("/rerank", other_models::rerank)))
        .service(private(postable("/predict", other_models::predict)));
}

fn readable<F, Args>(path: &str, handler: F) -> Resource
where
    F: Handler<Args>,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    web::resource(path)
        .route(web::get().to(handler.clone()))
        .route(web::head().to(handler))
        .default_service(web::to(async || not_allowed("GET,HEAD")))
}

fn postable<F, Args>(path: &str, handler: F) -> Resource
where
    F: Handler<Args>,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    web::resource(path).route(web::post().to(handler)).default_service(web::to(async || not_allowed("POST")))
}

/// Around the whole resource, so that who has no key learns nothing, not even which method it takes.
fn private(resource: Resource) -> impl HttpServiceFactory {
    resource.wrap(from_fn(auth::check))
}

fn not_allowed(methods: &'static str) -> HttpResponse {
    HttpResponse::MethodNotAllowed().insert_header((header::ALLOW, methods)).finish()
}
