//! What the backup service shows of itself, on its internal address: whether its backups are as they should be, and its metrics.

use std::{net::TcpListener, sync::Arc};

use actix_web::{App, HttpResponse, HttpServer, dev::Server, get, web};
use metrics_exporter_prometheus::PrometheusHandle;

use crate::{
    domain::{BackupReport, BackupStatus},
    error::{Error, Result},
};

/// What tells how the backups are at the moment.
#[derive(Clone)]
pub struct BackupReports(Arc<dyn Fn() -> BackupReport + Send + Sync>);

impl BackupReports {
    pub fn new(report: impl Fn() -> BackupReport + Send + Sync + 'static) -> Self {
        Self(Arc::new(report))
    }
}

/// Serves `/health` and `/metrics`.
///
/// # Errors
/// When the listener cannot be used.
pub fn serve_backup(
    listener: TcpListener,
    reports: BackupReports,
    handle: PrometheusHandle,
) -> Result<Server> {
    let server = HttpServer::new(move || {
        App::new()
            .app_data(web::Data::new(reports.clone()))
            .app_data(web::Data::new(handle.clone()))
            .service(get_backup_health)
            .service(get_backup_metrics)
    });
    let server = server.workers(1).shutdown_timeout(1).disable_signals();
    Ok(server.listen(listener).map_err(Error::internal)?.run())
}

/// 503 when somebody has to look after the backups.
#[get("/health")]
async fn get_backup_health(reports: web::Data<BackupReports>) -> HttpResponse {
    let report = (reports.0)();
    match report.status {
        BackupStatus::Ok => HttpResponse::Ok().json(report),
        BackupStatus::Failing => HttpResponse::ServiceUnavailable().json(report),
    }
}

#[get("/metrics")]
async fn get_backup_metrics(
    reports: web::Data<BackupReports>,
    handle: web::Data<PrometheusHandle>,
) -> HttpResponse {
    // Ages are as of now.
    (reports.0)();
    HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(handle.render())
}
