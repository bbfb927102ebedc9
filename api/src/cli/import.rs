//! `context-api import`: sends a file to the API as one import. It may be cut off at any point and run again: the import is
//! named after the file's bytes, so no line is stored twice.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use backon::{ExponentialBuilder, Retryable};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use clap::Args;
use futures_util::TryStreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::{Body, Method};
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::{
    fs::File,
    io::{AsyncRead, stdin},
    time::Instant,
};
use tokio_util::io::ReaderStream;

use super::{
    CommandResult,
    client::{Api, ApiArguments, ApiError, checked},
};
use crate::config::Source;

/// How long a file is sent again while the server is away or an earlier attempt is still held to be alive.
const RETRY_TOTAL: Duration = Duration::from_secs(180);
/// How long to wait for the embeddings without seeing any progress.
const EMBEDDING_STALL: Duration = Duration::from_secs(120);

#[derive(Debug, Args)]
pub(super) struct ImportArguments {
    /// One JSON object per line, as POST /v1/contexts takes it or an export gives it; `-` for standard input
    file: PathBuf,
    #[command(flatten)]
    api: ApiArguments,
    /// Return when the contexts are stored, without waiting until they are found by meaning
    #[arg(long)]
    no_wait: bool,
}

#[derive(Debug, Deserialize)]
struct Report {
    created: u64,
    updated: u64,
    unchanged: u64,
    failed: u64,
    errors: Vec<FailedLine>,
}

#[derive(Debug, Deserialize)]
struct FailedLine {
    line: u64,
    error: LineError,
}

#[derive(Debug, Deserialize)]
struct LineError {
    code: String,
    detail: String,
    #[serde(default)]
    errors: Vec<FieldError>,
}

#[derive(Debug, Deserialize)]
struct FieldError {
    pointer: String,
    detail: String,
}

pub(super) async fn run(source: &Source, arguments: ImportArguments) -> CommandResult {
    let api = Api::new(source, arguments.api)?;
    let from_stdin = arguments.file.as_os_str() == "-";
    let (bar, report) = if from_stdin {
        let bar = progress_bar(None);
        // What was read from there cannot be read again.
        let report = send(&api, stdin(), &uuid::Uuid::now_v7().to_string(), &bar).await;
        (bar, report)
    } else {
        let (name, bytes) = fingerprint(&arguments.file)?;
        let bar = progress_bar(Some(bytes));
        let report = send_file(&api, &arguments.file, &name, &bar).await;
        (bar, report)
    };
    bar.finish_and_clear();
    let report = report.map_err(|error| format!("the import was {}", error.words()))?;
    for failed in &report.errors {
        eprintln!("line {} was refused ({}): {}", failed.line, failed.error.code, words(&failed.error));
    }
    println!(
        "{} created, {} updated, {} there already, {} failed, in {:.1} s.",
        report.created,
        report.updated,
        report.unchanged,
        report.failed,
        bar.elapsed().as_secs_f64()
    );
    if !arguments.no_wait && report.created + report.updated > 0 {
        wait_until_embedded(&api).await?;
    }
    if report.failed > 0 { Err(format!("{} line(s) were not stored", report.failed).into()) } else { Ok(()) }
}

/// The name of the import, and the file's size.
fn fingerprint(path: &Path) -> Result<(String, u64), String> {
    let unreadable = |error| format!("{} cannot be read: {error}", path.display());
    let mut file = std::fs::File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if metadata.is_dir() {
        return Err(format!("{} is a folder, not a file", path.display()));
    }
    let mut digest = Hashing(Sha256::new());
    std::io::copy(&mut file, &mut digest).map_err(unreadable)?;
    Ok((URL_SAFE_NO_PAD.encode(digest.0.finalize()), metadata.len()))
}

/// Hashes what is written to it.
struct Hashing(Sha256);

impl std::io::Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn progress_bar(bytes: Option<u64>) -> ProgressBar {
    let style =
        |template| ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    match bytes {
        Some(bytes) => ProgressBar::new(bytes)
            .with_style(style("{bar:40} {percent:>3} %  {binary_bytes_per_sec}  about {eta} left  {msg}")),
        None => ProgressBar::new_spinner().with_style(style("{spinner} {binary_bytes}  {msg}")),
    }
}

async fn send_file(api: &Api, path: &Path, name: &str, bar: &ProgressBar) -> Result<Report, ApiError> {
    let attempt = || async {
        bar.reset();
        let file = File::open(path).await.map_err(|error| ApiError::Permanent(error.to_string()))?;
        send(api, file, name, bar).await
    };
    let backoff = ExponentialBuilder::default()
        .with_jitter()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(Duration::from_secs(5))
        .without_max_times()
        .with_total_delay(Some(RETRY_TOTAL));
    attempt
        .retry(backoff)
        .when(ApiError::is_transient)
        .notify(|_, _| bar.set_message("the server did not take it all; trying again"))
        .await
}

async fn send(
    api: &Api,
    reader: impl AsyncRead + Send + 'static,
    name: &str,
    bar: &ProgressBar,
) -> Result<Report, ApiError> {
    let sent = bar.clone();
    let chunks =
        ReaderStream::with_capacity(reader, 64 * 1024).inspect_ok(move |chunk| sent.inc(chunk.len() as u64));
    let request = api
        .request(Method::POST, "/v1/contexts/import")?
        .header("content-type", "application/x-ndjson")
        .header("idempotency-key", name)
        .body(Body::wrap_stream(chunks));
    let response = checked(request.send().await?).await?;
    Ok(response.json().await?)
}

fn words(error: &LineError) -> String {
    let fields: Vec<String> = error.errors.iter().map(|e| format!(" {}: {}.", e.pointer, e.detail)).collect();
    format!("{}{}", error.detail, fields.concat())
}

/// Counts what is pending until there is nothing.
async fn wait_until_embedded(api: &Api) -> CommandResult {
    let spinner = ProgressBar::new_spinner();
    spinner.enable_steady_tick(Duration::from_millis(100));
    let pending = json!({"filter": {"embedding_status": "pending"}});
    let (mut least, mut progress_at) = (u64::MAX, Instant::now());
    let mut away_since: Option<Instant> = None;
    loop {
        match api.count(&pending).await {
            Ok(0) => break,
            Ok(count) => {
                spinner.set_message(format!("waiting until all are found by meaning, too: {count} to go"));
                // A server that was away has had no time to embed anything.
                let was_away = away_since.take().is_some();
                if count < least || was_away {
                    (least, progress_at) = (count, Instant::now());
                } else if progress_at.elapsed() > EMBEDDING_STALL {
                    return Err("the contexts are stored, but nothing is being embedded; see /health".into());
                }
            }
            Err(error) => {
                let away = away_since.get_or_insert_with(Instant::now).elapsed();
                if !error.is_transient() || away > EMBEDDING_STALL {
                    let words = error.words();
                    return Err(format!("the contexts are stored, but not counted: {words}").into());
                }
                spinner.set_message("the server is away; trying again");
            }
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let elapsed = spinner.elapsed().as_secs_f64();
    spinner.finish_and_clear();
    println!("Found by meaning, too, after another {elapsed:.1} s.");
    std::io::stdout().flush()?;
    Ok(())
}
