//! Metrics, traces and the origin of log lines. Imports `domain` and `error`.

mod export;
mod origin;
pub mod spans;
mod traceparent;

use metrics_exporter_prometheus::{BuildError, PrometheusHandle};
use program::DURATION_BUCKETS;

pub use self::{
    export::{Sampling, TraceGuard, TraceOptions, start_traces},
    origin::{line_origin, within_request},
};

/// Starts counting, within a runtime of tokio.
///
/// # Errors
/// When this process counts already.
pub fn start_metrics() -> Result<PrometheusHandle, BuildError> {
    let handle = program::start_metrics(&[("duration_seconds", &DURATION_BUCKETS)])?;
    describe();
    Ok(handle)
}

fn describe() {
    use metrics::{describe_counter, describe_gauge, describe_histogram};
    describe_counter!("http_requests_total", "Requests, by method, route and status.");
    describe_histogram!("http_request_duration_seconds", "Time to answer, by method and route.");
    describe_counter!("searches_total", "Searches, by mode and plan.");
    describe_counter!(
        "searches_degraded_total",
        "Searches that answered less than was asked for, by reason."
    );
    describe_counter!("contexts_embedded_total", "Contexts that became ready.");
    describe_counter!("chunks_embedded_total", "Chunks that were embedded.");
    describe_counter!("embedding_failures_total", "Failed calls of the embedding provider, by kind.");
    describe_histogram!("embedding_batch_duration_seconds", "Time of one call of the embedding provider.");
    describe_gauge!(
        "embedding_provider_up",
        "1 when every configured embedding provider answered last time, else 0."
    );
    describe_gauge!(
        "embedding_space_contexts",
        "Contexts that an embedding space beside the active one lacks, by space and kind."
    );
    describe_counter!("cache_remote_failures_total", "Calls that Redis did not answer.");
    describe_counter!("trace_spans_lost_total", "Spans that the collector did not take.");
    describe_backups();
    describe_gauge!("database_connections", "Open connections.");
    describe_gauge!("database_connections_idle", "Open connections that nobody uses.");
    describe_gauge!("database_connection_waiters", "Requests that wait for a connection.");
}

fn describe_backups() {
    use metrics::{describe_counter, describe_gauge};
    describe_gauge!("backup_last_success_timestamp_seconds", "The moment that the newest good backup shows.");
    describe_gauge!("backup_age_seconds", "How long ago that was.");
    describe_gauge!("backup_last_size_bytes", "Bytes of the last backup, as it is stored.");
    describe_gauge!("backup_last_duration_seconds", "How long the last backup took, by step.");
    describe_counter!("backup_failures_total", "What failed about backups, by stage.");
    describe_gauge!("backup_running", "1 while a backup is being made, else 0.");
    describe_gauge!("backup_next_timestamp_seconds", "When the next one is due.");
    describe_gauge!("backups_stored", "Backups in the storage.");
    describe_gauge!("backups_damaged", "Of those, how many are not what was written.");
    describe_gauge!("backup_last_verify_timestamp_seconds", "When that was looked at last.");
}
