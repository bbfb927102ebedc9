//! Logs, metrics and traces of the process. Logs go to standard error, so that what a command prints can be used by another.
//! Imports `domain` and `error`.

mod export;
mod lines;
pub mod spans;
mod traceparent;

use std::{
    io::{BufWriter, IsTerminal, Write},
    sync::OnceLock,
    time::Duration,
};

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_appender::non_blocking::{ErrorCounter, WorkerGuard};
use tracing_subscriber::{EnvFilter, filter::ParseError, fmt::format::FmtSpan};

pub use self::export::{Sampling, TraceGuard, TraceOptions, start_traces};
use self::lines::WithOrigin;
pub use self::lines::of_request;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object per line, for machines.
    Json,
    /// For people.
    Pretty,
}

impl LogFormat {
    /// People sit at terminals, machines read files.
    pub fn for_terminal() -> Self {
        if std::io::stderr().is_terminal() { Self::Pretty } else { Self::Json }
    }
}

/// What libraries say that helps nobody, such as that a client has sent a malformed header; whoever wants it names them
/// in `LOG_LEVEL`.
const QUIET: &str = "sqlx::postgres::notice=warn,pglite_oxide=warn,wasmer_wasix=error,wasmer_wasix::state::env=off,actix_http::h1::dispatcher=off";

#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Directives of [`EnvFilter`].
    pub directives: String,
    pub format: LogFormat,
}

impl LogOptions {
    /// # Errors
    /// When a directive is malformed.
    pub fn filter(directives: &str) -> Result<EnvFilter, ParseError> {
        EnvFilter::builder().parse(format!("{QUIET},{directives}"))
    }
}

/// Log lines that were left out; none before logging starts.
static LINES_LEFT_OUT: OnceLock<ErrorCounter> = OnceLock::new();

/// Starts logging. Later calls do nothing, so that tests may share a process. Lines are written in the background, and when the
/// guard is dropped the last ones are, for a second at most. Where whoever reads them is so slow that a hundred thousand wait,
/// further ones are left out and counted: a service must not stand still because nobody reads its log.
pub fn start_logging(options: &LogOptions) -> WorkerGuard {
    let (lines, guard) = tracing_appender::non_blocking(Gathering(BufWriter::new(std::io::stderr())));
    LINES_LEFT_OUT.get_or_init(|| lines.error_counter());
    let filter = LogOptions::filter(&options.directives).unwrap_or_default();
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(lines).with_span_events(FmtSpan::NONE);
    let result = match options.format {
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_current_span(false).with_span_list(false);
            builder.map_event_format(WithOrigin).try_init()
        }
        LogFormat::Pretty => {
            let builder = builder.with_ansi(std::io::stderr().is_terminal());
            builder.map_event_format(WithOrigin).try_init()
        }
    };
    // Only fails when logging was started before.
    result.ok();
    guard
}

/// How long lines are gathered after some were written.
const GATHER_FOR: Duration = Duration::from_millis(5);

/// Writes a line that comes alone at once. Of a busy service, whose thread of the log would be woken for each line, it writes many together.
struct Gathering<W>(W);

impl<W: Write> Write for Gathering<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes)
    }

    /// Asked for whenever no line waits any more.
    #[expect(clippy::disallowed_methods, reason = "the thread of the log has nothing else to do")]
    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()?;
        std::thread::sleep(GATHER_FOR);
        Ok(())
    }
}

/// Seconds; from a cached answer to the longest request.
const DURATION_BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];

/// Tokens; a text has at least the two special ones.
const TOKEN_BUCKETS: [f64; 8] = [4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 255.0, 256.0];

/// How often what the histograms took in is added up. Without, they grow until somebody asks for them.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Starts counting, within a runtime of tokio.
///
/// # Errors
/// When this process counts already.
pub fn start_metrics() -> Result<PrometheusHandle, BuildError> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("duration_seconds".to_owned()), &DURATION_BUCKETS)?
        // Those of the embedding server, whose names are another program's.
        .set_buckets_for_metric(Matcher::Suffix("_duration".to_owned()), &DURATION_BUCKETS)?
        .set_buckets_for_metric(Matcher::Suffix("_input_length".to_owned()), &TOKEN_BUCKETS)?
        .install_recorder()?;
    describe();
    let upkeep = handle.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(UPKEEP_EVERY).await;
            upkeep.run_upkeep();
            let left_out = LINES_LEFT_OUT.get().map_or(0, ErrorCounter::dropped_lines);
            metrics::counter!("log_lines_left_out_total").absolute(left_out as u64);
        }
    });
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
