//! Asks the service many searches: several at a time when only the answers matter, one after the other when their times do.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use futures_util::{StreamExt, TryStreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json, map::Entry};
use tokio::time::Instant;

use super::super::client::{Api, ApiError, checked};

const SEARCH_MAX: Duration = Duration::from_secs(60);
/// How often a search is asked again when the service is busy or away.
const RETRIES_MAX: usize = 6;

/// What the evaluation wants to know of an answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) hits: Vec<Hit>,
    pub(super) plan: Option<String>,
    pub(super) is_complete: bool,
    pub(super) is_degraded: bool,
    pub(super) milliseconds: f64,
}

#[derive(Debug)]
pub(super) struct Hit {
    /// The context's key; its id when it has none.
    pub(super) document: String,
    pub(super) score: f64,
}

#[derive(Deserialize)]
struct Response {
    data: Vec<ResponseHit>,
    plan: Option<String>,
    complete: bool,
    degraded: Vec<Value>,
}

#[derive(Deserialize)]
struct ResponseHit {
    context: ResponseContext,
    score: f64,
}

#[derive(Deserialize)]
struct ResponseContext {
    id: String,
    key: Option<String>,
}

pub(super) struct Searches {
    pub(super) api: Api,
    /// Members of every request, such as weights to be tried.
    pub(super) common: Map<String, Value>,
    pub(super) concurrency: usize,
}

impl Searches {
    /// All answers, in the order of the requests.
    pub(super) async fn answers(
        &self,
        what: &'static str,
        requests: Vec<Map<String, Value>>,
    ) -> Result<Vec<Answer>, ApiError> {
        let bar = progress_bar(requests.len(), what);
        let answers = stream::iter(requests)
            .map(|request| self.ask(request))
            .buffered(self.concurrency)
            .inspect_ok(|_| bar.inc(1))
            .try_collect()
            .await;
        bar.finish_and_clear();
        answers
    }

    /// For each of `columns` the answers to its requests, of which `request` makes one for each row. The columns take turns,
    /// each row beginning with another one, so that whatever else the machine does meets all of them alike.
    pub(super) async fn timed(
        &self,
        what: &'static str,
        (rows, columns): (usize, usize),
        request: impl Fn(usize, usize) -> Map<String, Value>,
    ) -> Result<Vec<Vec<Answer>>, ApiError> {
        let bar = progress_bar(rows * columns, what);
        let mut answers: Vec<Vec<Answer>> = (0..columns).map(|_| Vec::with_capacity(rows)).collect();
        for row in 0..rows {
            for turn in 0..columns {
                let column = (row + turn) % columns;
                answers[column].push(self.ask(request(row, column)).await?);
                bar.inc(1);
            }
        }
        bar.finish_and_clear();
        Ok(answers)
    }

    async fn ask(&self, mut request: Map<String, Value>) -> Result<Answer, ApiError> {
        for (member, value) in &self.common {
            match request.entry(member) {
                // What narrows a search narrows it besides.
                Entry::Occupied(mut own) if member == "filter" => {
                    let both = json!({"$and": [own.get(), value]});
                    own.insert(both);
                }
                Entry::Occupied(_) => {}
                Entry::Vacant(place) => {
                    place.insert(value.clone());
                }
            }
        }
        let backoff = ExponentialBuilder::default()
            .with_jitter()
            .with_min_delay(Duration::from_millis(200))
            .with_max_times(RETRIES_MAX);
        (|| self.attempt(&request)).retry(backoff).when(ApiError::is_transient).await
    }

    async fn attempt(&self, request: &Map<String, Value>) -> Result<Answer, ApiError> {
        let request = self
            .api
            .request(Method::POST, "/v1/contexts/search")?
            // An answer out of a cache says nothing about the search.
            .header("cache-control", "no-cache")
            .timeout(SEARCH_MAX)
            .json(request);
        let started = Instant::now();
        let body = checked(request.send().await?).await?.bytes().await?;
        let milliseconds = started.elapsed().as_secs_f64() * 1000.0;
        let response: Response = serde_json::from_slice(&body)
            .map_err(|error| ApiError::Permanent(format!("answered something else: {error}")))?;
        let hits = response
            .data
            .into_iter()
            .map(|ResponseHit { context, score }| Hit { document: context.key.unwrap_or(context.id), score });
        Ok(Answer {
            hits: hits.collect(),
            plan: response.plan,
            is_complete: response.complete,
            is_degraded: !response.degraded.is_empty(),
            milliseconds,
        })
    }
}

fn progress_bar(length: usize, what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {pos} of {len}  {per_sec}  about {eta} left  {msg}");
    ProgressBar::new(length as u64)
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        .with_message(what)
}
