//! Around every request: an id, a span of its trace, one line in the log, metrics, a deadline, and a net under panics.

use std::{cell::RefCell, collections::HashMap, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use actix_web::{
    HttpMessage, HttpResponse,
    body::{BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    get,
    http::{
        Method, StatusCode,
        header::{HeaderName, HeaderValue},
    },
    middleware::Next,
    web,
};
use futures_util::FutureExt;
use metrics::{Counter, Histogram};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    State,
    authentication::RequestId,
    problem::{Problem, REQUEST_ID},
    routed_path,
};
use crate::{
    domain::{Allowance, limits::REQUEST_DEADLINE},
    error::{Code, Error},
    telemetry::{
        spans::{self, Span},
        within_request,
    },
};

/// Characters of a caller's own request id.
const REQUEST_ID_CHARS_MAX: usize = 64;

/// Even the longest import ends some time.
const IMPORT_DEADLINE: Duration = Duration::from_secs(24 * 3600);

/// What is left of the caller's limit, as in draft-ietf-httpapi-ratelimit-headers-06; the last one in seconds.
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const RATE_LIMIT_REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RATE_LIMIT_RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// Where a trace that the caller has begun goes on, as W3C Trace Context has it.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Wraps the whole application.
pub(super) async fn observe(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let id: Arc<str> = request_id(&request).into();
    let span = span(&request, &id);
    let observed = observe_in(&span, Arc::clone(&id), request, next);
    within_request(id, span.around(observed)).await
}

/// Health checks have none: they come all the time and say nothing about anybody's request.
fn span(request: &ServiceRequest, id: &str) -> Span {
    if !spans::are_on() || routed_path(request).starts_with("/health") {
        return Span::default();
    }
    let mut given = request.headers().get_all(TRACEPARENT);
    let traceparent = match (given.next(), given.next()) {
        (Some(only), None) => only.to_str().ok(),
        _ => None,
    };
    spans::server(known_method(request.method()).unwrap_or("_OTHER"), id, traceparent)
}

async fn observe_in(
    trace: &Span,
    id: Arc<str>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let started = Instant::now();
    let method = request.method().clone();
    request.extensions_mut().insert(RequestId(Arc::clone(&id)));
    // An import takes as long as its lines do; it has a deadline for each of them.
    let deadline =
        if routed_path(&request) == "/v1/contexts/import" { IMPORT_DEADLINE } else { REQUEST_DEADLINE };
    let handled = AssertUnwindSafe(next.call(request)).catch_unwind();
    let response = match tokio::time::timeout(deadline, handled).await {
        Ok(Ok(Ok(response))) => Ok(finish(response.map_into_boxed_body(), &id)),
        Ok(Ok(Err(error))) => Err(error),
        Ok(Err(_panic)) => Err(failed(Error::internal("a handler panicked"), &id)),
        Err(_) => Err(failed(
            Error::new(
                Code::DeadlineExceeded,
                format!("The request took longer than {} s.", deadline.as_secs()),
            )
            .with_retry_after(Duration::from_secs(1)),
            &id,
        )),
    };
    let (status, route) = match &response {
        Ok(response) => (response.status(), response.request().match_pattern()),
        Err(error) => (error.as_response_error().status_code(), None),
    };
    trace.answered(known_method(&method).unwrap_or("HTTP"), route.as_deref(), status.as_u16());
    let route = route.as_deref().unwrap_or("none");
    let elapsed = started.elapsed();
    tracing::info!(
        method = method.as_str(),
        route,
        status = status.as_u16(),
        duration_ms = elapsed.as_secs_f64() * 1000.0,
        "request"
    );
    count(known_method(&method).unwrap_or("other"), route, status, elapsed);
    response
}

/// What is counted of requests with the same labels.
struct Meters {
    requests: Counter,
    durations: Histogram,
}

type ByRoute = HashMap<String, Meters>;

thread_local! {
    /// By method, status and route, of which there are some hundred: to look them up by their labels costs several times as much.
    static METERS: RefCell<HashMap<(&'static str, StatusCode), ByRoute>> = RefCell::default();
}

fn count(method: &'static str, route: &str, status: StatusCode, elapsed: Duration) {
    METERS.with_borrow_mut(|meters| {
        let by_route = meters.entry((method, status)).or_default();
        if let Some(meters) = by_route.get(route) {
            meters.add(elapsed);
            return;
        }
        let labels = [
            ("method", method.to_owned()),
            ("route", route.to_owned()),
            ("status", status.as_str().to_owned()),
        ];
        let new = Meters {
            requests: metrics::counter!("http_requests_total", &labels),
            durations: metrics::histogram!("http_request_duration_seconds", &labels[..2]),
        };
        new.add(elapsed);
        by_route.insert(route.to_owned(), new);
    });
}

impl Meters {
    fn add(&self, elapsed: Duration) {
        self.requests.increment(1);
        self.durations.record(elapsed.as_secs_f64());
    }
}

/// A method as a label. A caller may invent methods, and each new label costs memory for ever.
fn known_method(method: &Method) -> Option<&'static str> {
    let known = [
        Method::GET,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::HEAD,
        Method::OPTIONS,
    ];
    let names = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];
    known.iter().position(|other| other == method).map(|index| names[index])
}

/// The caller's `X-Request-ID` when it is a plain short word, so that it cannot forge log lines; otherwise a new one.
fn request_id(request: &ServiceRequest) -> String {
    let plain = |id: &&str| {
        (1..=REQUEST_ID_CHARS_MAX).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    let given = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok()).filter(plain);
    given.map_or_else(|| Uuid::now_v7().to_string(), str::to_owned)
}

/// Puts the id into the answer, and into the body when it is a problem.
fn finish(mut response: ServiceResponse, id: &str) -> ServiceResponse {
    let problem = response.response().error().and_then(|error| error.as_error::<Problem>());
    if let Some(problem) = problem {
        log(&problem.error);
        let rebuilt = problem.response(Some(id));
        let (request, _) = response.into_parts();
        response = ServiceResponse::new(request, rebuilt);
    }
    let allowance = response.request().extensions().get::<Allowance>().copied();
    if let Some(allowance) = allowance {
        let seconds = allowance.reset.as_secs_f64().ceil() as u64;
        let headers = response.headers_mut();
        headers.insert(RATE_LIMIT, allowance.limit.into());
        headers.insert(RATE_LIMIT_REMAINING, allowance.remaining.into());
        headers.insert(RATE_LIMIT_RESET, seconds.into());
    }
    if let Ok(value) = HeaderValue::from_str(id) {
        response.headers_mut().insert(HeaderName::from_static(REQUEST_ID), value);
    }
    response
}

/// A failure for which there is no request left to answer on: actix answers it from the error alone.
fn failed(error: Error, id: &str) -> actix_web::Error {
    log(&error);
    let problem = Problem::from(error);
    let response = problem.response(Some(id));
    actix_web::error::InternalError::from_response(problem, response).into()
}

/// Our own failures, once, with their causes. What callers do wrong is theirs to read.
fn log(error: &Error) {
    match error.code {
        Code::Internal => tracing::error!(%error, "a request failed"),
        Code::DatabaseUnavailable | Code::DeadlineExceeded => {
            tracing::warn!(%error, "a request could not be served");
        }
        _ => tracing::debug!(%error, "a request was refused"),
    }
}

/// The metrics in Prometheus' text form.
#[get("/metrics")]
pub(super) async fn get_metrics(
    state: web::Data<State>,
    handle: web::Data<PrometheusHandle>,
) -> HttpResponse {
    let pool = state.service.store().pool_status();
    metrics::gauge!("database_connections").set(pool.size as f64);
    metrics::gauge!("database_connections_idle").set(pool.available as f64);
    metrics::gauge!("database_connection_waiters").set(pool.waiting as f64);
    HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(handle.render())
}
