//! `context-api import`: loads a file over the HTTP API, as any client would. It may be cut off at any point and run
//! again: a line with a `key` that is there already changes nothing.

use std::{
    collections::VecDeque,
    fs::File,
    io::{BufRead, BufReader, ErrorKind, stdin},
    path::PathBuf,
    time::Duration,
};

use backon::{ExponentialBuilder, Retryable};
use clap::Args;
use futures_util::{StreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::{Client, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::time::Instant;
use uuid::Uuid;

use super::CommandResult;
use crate::{config::Source, domain::limits::BODY_BYTES_MAX};

/// Requests under way at once.
const CONCURRENCY: usize = 8;
const REQUEST_DEADLINE: Duration = Duration::from_secs(35);
/// How long one line is tried again while the server is away or busy.
const RETRY_TOTAL: Duration = Duration::from_secs(60);
/// Mistakes that are printed; the rest are counted.
const MISTAKES_SHOWN_MAX: u64 = 20;
/// The last contexts are watched until they are embedded; those before them are by then.
const WATCHED_MAX: usize = 64;
/// How long to wait for the embeddings without seeing any progress.
const EMBEDDING_STALL: Duration = Duration::from_secs(120);

#[derive(Debug, Args)]
pub(super) struct ImportArguments {
    /// One JSON object per line, each what POST /v1/contexts takes; `-` for standard input
    file: PathBuf,
    /// Where the API is
    #[arg(long, default_value = "http://127.0.0.1:8000")]
    url: reqwest::Url,
    /// Return when the contexts are stored, without waiting until they are found by meaning
    #[arg(long)]
    no_wait: bool,
}

#[derive(Debug, Deserialize)]
struct Stored {
    id: Uuid,
    embedding_status: String,
}

#[derive(Debug, Deserialize)]
struct Refusal {
    code: String,
    detail: String,
    #[serde(default)]
    errors: Vec<RefusedField>,
}

#[derive(Debug, Deserialize)]
struct RefusedField {
    pointer: String,
    detail: String,
}

/// Why a line was not stored.
enum LineError {
    /// It may work later.
    Transient(String),
    Permanent(String),
}

struct Importer {
    client: Client,
    contexts: reqwest::Url,
    key: SecretString,
}

#[derive(Default)]
struct Tally {
    created: u64,
    present: u64,
    failed: u64,
    watched: VecDeque<Uuid>,
}

pub(super) async fn run(source: &Source, arguments: ImportArguments) -> CommandResult {
    let key = source.text("CONTEXT_API_KEY")?.ok_or(
        "set CONTEXT_API_KEY to an API key with the scopes `write` and `read` (context-api keys create)",
    )?;
    let importer = Importer {
        client: client(&arguments.url)?,
        contexts: arguments.url.join("/v1/contexts")?,
        key: key.into(),
    };
    let (reader, bytes) = open(&arguments.file)?;
    let bar = progress_bar(bytes);
    let tally = importer.import(reader, &bar).await?;
    bar.finish_and_clear();
    println!(
        "{} created, {} there already, {} failed, in {:.1} s.",
        tally.created,
        tally.present,
        tally.failed,
        bar.elapsed().as_secs_f64()
    );
    if !arguments.no_wait {
        importer.wait_until_embedded(tally.watched).await?;
    }
    if tally.failed > 0 { Err(format!("{} line(s) were not stored", tally.failed).into()) } else { Ok(()) }
}

fn client(url: &reqwest::Url) -> reqwest::Result<Client> {
    let builder = Client::builder().timeout(REQUEST_DEADLINE).connect_timeout(Duration::from_secs(5));
    // What is on this machine is not asked for through a proxy, which would also see the key.
    let is_local = url.host_str().is_some_and(|host| ["127.0.0.1", "localhost", "[::1]"].contains(&host));
    if is_local { builder.no_proxy().build() } else { builder.build() }
}

fn open(path: &PathBuf) -> Result<(Box<dyn BufRead>, Option<u64>), String> {
    if path.as_os_str() == "-" {
        return Ok((Box::new(BufReader::new(stdin())), None));
    }
    let readable = |error| format!("{} cannot be read: {error}", path.display());
    let file = File::open(path).map_err(readable)?;
    let metadata = file.metadata().map_err(readable)?;
    if metadata.is_dir() {
        return Err(format!("{} is a folder, not a file", path.display()));
    }
    let bytes = metadata.len();
    Ok((Box::new(BufReader::new(file)), Some(bytes)))
}

fn progress_bar(bytes: Option<u64>) -> ProgressBar {
    let style =
        |template| ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    match bytes {
        Some(bytes) => ProgressBar::new(bytes)
            .with_style(style("{bar:40} {percent:>3} %  {binary_bytes_per_sec}  {msg}  about {eta} left")),
        None => ProgressBar::new_spinner().with_style(style("{spinner} {binary_bytes}  {msg}")),
    }
}

impl Importer {
    /// Sends each line; a line that fails does not stop the others.
    async fn import(
        &self,
        reader: Box<dyn BufRead>,
        bar: &ProgressBar,
    ) -> Result<Tally, Box<dyn std::error::Error>> {
        let mut tally = Tally::default();
        // A file that breaks off stays broken: one error, then the end. A line that is no text is just that line's error.
        let mut broken = false;
        let lines = reader.lines().map_while(move |line| {
            let ended = broken;
            broken = line.as_ref().is_err_and(|error| error.kind() != ErrorKind::InvalidData);
            (!ended).then_some(line)
        });
        let lines = lines.enumerate().map(|(index, line)| (index + 1, line));
        let mut answers = stream::iter(lines)
            .map(async |(number, line)| match line {
                Ok(line) if line.trim().is_empty() => (number, line.len(), None),
                Ok(line) if line.len() > BODY_BYTES_MAX => {
                    (number, line.len(), Some(Err(format!("is longer than {BODY_BYTES_MAX} bytes"))))
                }
                Ok(line) => (number, line.len(), Some(self.send(&line).await)),
                Err(error) => (number, 0, Some(Err(format!("cannot be read: {error}")))),
            })
            .buffer_unordered(CONCURRENCY);
        while let Some((number, bytes, outcome)) = answers.next().await {
            bar.inc(bytes as u64 + 1);
            match outcome {
                None => {}
                Some(Ok((created, stored))) => tally.note(created, stored),
                Some(Err(reason)) => {
                    tally.failed += 1;
                    if tally.failed <= MISTAKES_SHOWN_MAX {
                        bar.suspend(|| eprintln!("line {number} {reason}"));
                    }
                }
            }
            bar.set_message(format!("{} stored", tally.created + tally.present));
        }
        Ok(tally)
    }

    async fn send(&self, line: &str) -> Result<(bool, Stored), String> {
        let attempt = || self.send_once(line);
        let backoff = ExponentialBuilder::default()
            .with_jitter()
            .with_min_delay(Duration::from_millis(100))
            .with_max_delay(Duration::from_secs(5))
            .without_max_times()
            .with_total_delay(Some(RETRY_TOTAL));
        attempt
            .retry(backoff)
            .when(|error| matches!(error, LineError::Transient(_)))
            .await
            .map_err(|(LineError::Transient(reason) | LineError::Permanent(reason))| reason)
    }

    async fn send_once(&self, line: &str) -> Result<(bool, Stored), LineError> {
        let request = self
            .client
            .post(self.contexts.clone())
            .bearer_auth(self.key.expose_secret())
            .header("content-type", "application/json")
            .body(line.to_owned());
        let response = match request.send().await {
            Ok(response) => response,
            // Never reached the server, so nothing was written.
            Err(error) if error.is_connect() => {
                return Err(LineError::Transient(format!("was not sent: {}", error.without_url())));
            }
            // May have been written: only a line with a key can be sent again without writing it twice.
            Err(error) if has_key(line) => {
                return Err(LineError::Transient(format!("got no answer: {}", error.without_url())));
            }
            Err(error) => {
                return Err(LineError::Permanent(format!(
                    "got no answer and may or may not be stored: {}",
                    error.without_url()
                )));
            }
        };
        let status = response.status();
        let body = response.bytes().await.map_err(|error| {
            let reason = format!("got half an answer: {}", error.without_url());
            if has_key(line) { LineError::Transient(reason) } else { LineError::Permanent(reason) }
        })?;
        if status.is_success() {
            let stored = serde_json::from_slice(&body)
                .map_err(|error| LineError::Permanent(format!("got a strange answer: {error}")))?;
            return Ok((status == StatusCode::CREATED, stored));
        }
        let reason = reason(status, &body);
        match status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE | StatusCode::BAD_GATEWAY
                if has_key(line) =>
            {
                Err(LineError::Transient(reason))
            }
            _ => Err(LineError::Permanent(reason)),
        }
    }

    /// Looks at the last contexts until none is pending.
    async fn wait_until_embedded(&self, mut watched: VecDeque<Uuid>) -> CommandResult {
        if watched.is_empty() {
            return Ok(());
        }
        let spinner = ProgressBar::new_spinner().with_message("waiting until all are found by meaning");
        spinner.enable_steady_tick(Duration::from_millis(100));
        let mut progress_at = Instant::now();
        while let Some(id) = watched.front().copied() {
            let url = format!("{}/{id}", self.contexts);
            let response = self.client.get(url).bearer_auth(self.key.expose_secret()).send().await?;
            let is_pending = match response.status() {
                // Deleted meanwhile, by somebody else.
                StatusCode::NOT_FOUND => false,
                status if status.is_success() => {
                    response.json::<Stored>().await?.embedding_status == "pending"
                }
                _ => true,
            };
            if !is_pending {
                watched.pop_front();
                progress_at = Instant::now();
                continue;
            }
            if progress_at.elapsed() > EMBEDDING_STALL {
                return Err("the contexts are stored, but nothing is being embedded; see /health".into());
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        let elapsed = spinner.elapsed().as_secs_f64();
        spinner.finish_and_clear();
        println!("Found by meaning, too, after another {elapsed:.1} s.");
        Ok(())
    }
}

impl Tally {
    fn note(&mut self, created: bool, stored: Stored) {
        if created {
            self.created += 1;
        } else {
            self.present += 1;
        }
        if stored.embedding_status == "pending" {
            if self.watched.len() == WATCHED_MAX {
                self.watched.pop_front();
            }
            self.watched.push_back(stored.id);
        }
    }
}

fn has_key(line: &str) -> bool {
    #[derive(Deserialize)]
    struct Keyed {
        key: Option<String>,
    }
    serde_json::from_str::<Keyed>(line).is_ok_and(|line| line.key.is_some())
}

/// The server's words.
fn reason(status: StatusCode, body: &[u8]) -> String {
    match serde_json::from_slice::<Refusal>(body) {
        Ok(refusal) => {
            let fields: Vec<String> =
                refusal.errors.iter().map(|e| format!(" {}: {}.", e.pointer, e.detail)).collect();
            format!("was refused ({}): {}{}", refusal.code, refusal.detail, fields.concat())
        }
        Err(_) => format!("was refused with status {}", status.as_u16()),
    }
}
