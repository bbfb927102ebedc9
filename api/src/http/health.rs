//! `/health`: for people, load balancers and orchestrators. Needs no key and tells no secrets.

use std::sync::atomic::Ordering;

use actix_web::{HttpResponse, get, web};
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::State;
use crate::service::Health;

/// How the service is, in a word.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    Ok,
    /// Something is away that the service can do without.
    Degraded,
    /// The service cannot serve: its database is away, or it is stopping.
    Unavailable,
}

/// How the service is.
#[derive(Debug, Serialize, ToSchema)]
pub struct HealthReport {
    status: HealthStatus,
    /// The service's version.
    version: &'static str,
    /// For how long it has been running.
    uptime_seconds: u64,
    /// When this was looked at.
    #[serde(with = "time::serde::rfc3339")]
    timestamp: OffsetDateTime,
    checks: Health,
}

/// That the process runs.
#[derive(Debug, Serialize, ToSchema)]
pub struct Liveness {
    status: HealthStatus,
}

/// How the service and what it depends on are doing
///
/// For people. Degraded is when something is away that the service can do without.
#[utoipa::path(tag = "health", operation_id = "get_health", security(()), responses(
    (status = 200, description = "Serving, whole or degraded.", body = HealthReport),
    (status = 503, description = "Not serving.", body = HealthReport)
))]
#[get("/health")]
pub async fn get_health(state: web::Data<State>) -> HttpResponse {
    report(&state).await
}

/// Whether the process runs; touches nothing
///
/// For orchestrators: restart the process when this does not answer.
#[utoipa::path(tag = "health", operation_id = "get_liveness", security(()), responses(
    (status = 200, description = "It runs.", body = Liveness)
))]
#[get("/health/live")]
pub async fn get_liveness() -> HttpResponse {
    HttpResponse::Ok().json(Liveness { status: HealthStatus::Ok })
}

/// Whether to send requests here
///
/// For load balancers. Not while the database is away, and not once the service is stopping.
#[utoipa::path(tag = "health", operation_id = "get_readiness", security(()), responses(
    (status = 200, description = "Ready.", body = HealthReport),
    (status = 503, description = "Not ready: the database is away, or the service is stopping.", body = HealthReport)
))]
#[get("/health/ready")]
pub async fn get_readiness(state: web::Data<State>) -> HttpResponse {
    report(&state).await
}

async fn report(state: &State) -> HttpResponse {
    let checks = state.service.health().await;
    let status = if !checks.is_serving() || state.draining.load(Ordering::Relaxed) {
        HealthStatus::Unavailable
    } else if checks.is_whole() {
        HealthStatus::Ok
    } else {
        HealthStatus::Degraded
    };
    let report = HealthReport {
        status,
        version: env!("CARGO_PKG_VERSION"),
        uptime_seconds: state.started_at.elapsed().as_secs(),
        timestamp: now(),
        checks,
    };
    match status {
        HealthStatus::Unavailable => HttpResponse::ServiceUnavailable().json(report),
        HealthStatus::Ok | HealthStatus::Degraded => HttpResponse::Ok().json(report),
    }
}

#[expect(clippy::disallowed_methods, reason = "the edge: a health report tells the time of this machine")]
fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}
