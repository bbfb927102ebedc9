//! Metrics of the process, in the text form of Prometheus.

use std::time::Duration;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use crate::log;

/// Seconds; from a cached answer to the longest request.
pub const DURATION_BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];

/// How often what the histograms took in is added up. Without, they grow until somebody asks for them.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Starts counting, within a runtime of tokio. `buckets` are those of the histograms whose names end so.
///
/// # Errors
/// When this process counts already, or buckets are empty.
pub fn start_metrics(buckets: &[(&str, &[f64])]) -> Result<PrometheusHandle, BuildError> {
    let mut builder = PrometheusBuilder::new();
    for (end, bounds) in buckets {
        builder = builder.set_buckets_for_metric(Matcher::Suffix((*end).to_owned()), bounds)?;
    }
    let handle = builder.install_recorder()?;
    let upkeep = handle.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(UPKEEP_EVERY).await;
            upkeep.run_upkeep();
            metrics::counter!("log_lines_left_out_total").absolute(log::lines_left_out());
        }
    });
    Ok(handle)
}
