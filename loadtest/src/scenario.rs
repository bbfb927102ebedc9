//! What is asked: the scenarios, and the requests that they are made of.

use std::borrow::Cow;

use bytes::Bytes;
use clap::ValueEnum;
use hyper::Method;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

use crate::{
    client::{Call, Connection},
    data::{Corpus, Query},
    outcome::Expected,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Creates contexts with their vectors, one a request
    Ingest,
    /// Creates contexts with their vectors, a hundred a request
    IngestBatch,
    /// Reads contexts by their ids
    Get,
    /// Searches by a given vector
    SearchVector,
    /// Searches by meaning; the service embeds the query
    SearchSemantic,
    /// Searches by words
    SearchKeyword,
    /// Searches by both
    SearchHybrid,
    /// Searches within what one user owns, by both
    SearchUser,
    /// Packs context for a prompt
    Pack,
    /// Ninety reads (searches, gets, packs) to ten writes (creations, changes)
    Mixed,
}

/// One request.
pub struct Step {
    pub operation: &'static str,
    pub call: Call,
    pub expected: Expected,
}

/// What of a scenario can be chosen.
#[derive(Clone, Debug)]
pub struct Options {
    pub limit: u32,
    pub effort: String,
    /// Different queries; they repeat, the first ones most often.
    pub queries: u64,
    /// Contexts that the service holds, of those that `data` makes.
    pub contexts: u64,
    /// Nothing is answered from a cache, and no query is embedded already.
    pub no_cache: bool,
    pub seed: u64,
    /// Of this run alone: what it writes has keys that nothing else has.
    pub run: u64,
}

/// All that is to be asked.
pub struct Plan {
    scenario: Scenario,
    options: Options,
    corpus: Corpus,
    queries: Vec<Query>,
    /// Searches for the vectors of the queries. Made beforehand: to write out so many numbers takes longer than to send them.
    vector_searches: Vec<Bytes>,
    /// Of contexts that are there.
    ids: Vec<String>,
}

/// Ids are read from the service, a page of so many at a time.
const PAGE: usize = 200;
const IDS_MAX: usize = 20_000;
const BATCH: u64 = 100;
const PACK_TOKENS: u32 = 1_000;

/// Of a hundred requests of the mixed scenario. The rest are changes.
const MIX: [(u32, Scenario); 6] = [
    (25, Scenario::SearchHybrid),
    (40, Scenario::SearchUser),
    (50, Scenario::SearchVector),
    (80, Scenario::Get),
    (90, Scenario::Pack),
    (97, Scenario::Ingest),
];

impl Plan {
    /// Reads from the service what the scenario has to know.
    ///
    /// # Errors
    /// When the service does not answer as expected: in words.
    pub async fn prepare(
        scenario: Scenario,
        options: Options,
        corpus: Corpus,
        connection: &mut Connection,
    ) -> Result<Self, String> {
        let reads_ids = matches!(scenario, Scenario::Get | Scenario::Mixed);
        let ids = if reads_ids { ids(connection).await? } else { Vec::new() };
        if reads_ids && ids.is_empty() {
            return Err("there are no contexts to be read: import what `loadtest data` makes".to_owned());
        }
        let queries: Vec<Query> =
            (0..options.queries).map(|number| corpus.query(number, options.contexts)).collect();
        let (limit, effort) = (options.limit, &options.effort);
        let by_vector = |query: &Query| json!({"vector": query.vector, "mode": "semantic", "limit": limit, "effort": effort});
        let vector_searches = queries.iter().map(|query| Bytes::from(by_vector(query).to_string())).collect();
        Ok(Self { scenario, options, corpus, queries, vector_searches, ids })
    }

    /// The request of this number. The same number makes the same request, but for the keys of what is new.
    pub fn step(&self, number: usize) -> Step {
        let number = number as u64;
        let mut chance =
            StdRng::seed_from_u64(self.options.seed ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        if self.scenario != Scenario::Mixed {
            return self.step_of(self.scenario, number, &mut chance);
        }
        let draw = chance.random_range(0..100);
        match MIX.iter().find(|(below, _)| draw < *below) {
            Some((_, scenario)) => self.step_of(*scenario, number, &mut chance),
            None => self.change(number, &mut chance),
        }
    }

    fn step_of(&self, scenario: Scenario, number: u64, chance: &mut StdRng) -> Step {
        match scenario {
            Scenario::Ingest => {
                let body = self.new_context(number);
                self.post("ingest", "/v1/contexts", &body, Expected::Created)
            }
            Scenario::IngestBatch => {
                let first = number * BATCH;
                let create = |number| json!({"op": "create", "context": self.new_context(number)});
                let operations: Vec<Value> = (first..first + BATCH).map(create).collect();
                let body = json!({"operations": operations});
                self.post("ingest-batch", "/v1/contexts/batch", &body, Expected::AllCreated)
            }
            Scenario::Get | Scenario::Mixed => {
                let id = &self.ids[self.ranked(self.ids.len(), chance)];
                self.call("get", Method::GET, format!("/v1/contexts/{id}"), Bytes::new(), Expected::Success)
            }
            _ => self.search(scenario, number, self.ranked(self.queries.len(), chance)),
        }
    }

    /// `place`: of the query.
    fn search(&self, scenario: Scenario, number: u64, place: usize) -> Step {
        let (limit, effort) = (self.options.limit, &self.options.effort);
        let query = &self.queries[place];
        // A word that nobody has used yet: else the text's embedding is known from the last time.
        let text = if self.options.no_cache {
            Cow::from(format!("{} q{:x}n{number}", query.text, self.options.run))
        } else {
            Cow::from(&query.text)
        };
        let by_text = |mode: &str| json!({"query": text, "mode": mode, "limit": limit, "effort": effort});
        let (operation, body) = match scenario {
            Scenario::SearchVector => {
                let (path, body) = ("/v1/contexts/search".to_owned(), self.vector_searches[place].clone());
                return self.call("search-vector", Method::POST, path, body, Expected::Found);
            }
            Scenario::SearchSemantic => ("search-semantic", by_text("semantic")),
            Scenario::SearchKeyword => ("search-keyword", by_text("keyword")),
            Scenario::SearchUser => {
                let body = json!({"query": text, "user_id": query.user_id, "limit": limit, "effort": effort});
                ("search-user", body)
            }
            Scenario::Pack => {
                let body = json!({"query": text, "budget": {"max_tokens": PACK_TOKENS}});
                return self.post("pack", "/v1/contexts/pack", &body, Expected::Found);
            }
            _ => ("search-hybrid", by_text("hybrid")),
        };
        self.post(operation, "/v1/contexts/search", &body, Expected::Found)
    }

    /// One that is like those that are there, under a key of its own.
    fn new_context(&self, number: u64) -> Value {
        let mut context = self.corpus.context(self.options.contexts + number);
        context["key"] = json!(format!("loadtest-{:x}-{number}", self.options.run));
        context
    }

    /// A change of what a context says beside its text.
    fn change(&self, number: u64, chance: &mut StdRng) -> Step {
        let id = &self.ids[chance.random_range(0..self.ids.len())];
        let body = json!({"metadata": {"changed_by": self.options.run, "request": number}}).to_string();
        self.call("change", Method::PATCH, format!("/v1/contexts/{id}"), Bytes::from(body), Expected::Success)
    }

    /// One of so many: where caches count some are asked for far more often than others, as people do.
    fn ranked(&self, count: usize, chance: &mut StdRng) -> usize {
        let draw: f64 = chance.random();
        let place = if self.options.no_cache { draw } else { draw * draw * draw };
        ((place * count as f64) as usize).min(count - 1)
    }

    fn post(&self, operation: &'static str, path: &str, body: &Value, expected: Expected) -> Step {
        self.call(operation, Method::POST, path.to_owned(), Bytes::from(body.to_string()), expected)
    }

    fn call(
        &self,
        operation: &'static str,
        method: Method,
        path: String,
        body: Bytes,
        expected: Expected,
    ) -> Step {
        Step { operation, call: Call { method, path, body, no_cache: self.options.no_cache }, expected }
    }
}

/// Ids of contexts that are there, the newest first.
async fn ids(connection: &mut Connection) -> Result<Vec<String>, String> {
    let (mut ids, mut cursor) = (Vec::new(), None::<String>);
    for _ in 0..IDS_MAX / PAGE {
        let after = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
        let page =
            ask(connection, Method::GET, &format!("/v1/contexts?limit={PAGE}{after}"), Bytes::new()).await?;
        let contexts = page["data"].as_array().into_iter().flatten();
        ids.extend(contexts.filter_map(|context| context["id"].as_str().map(str::to_owned)));
        cursor = page["next_cursor"].as_str().map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    Ok(ids)
}

/// How many contexts the service holds.
///
/// # Errors
/// When it does not answer as expected: in words.
pub async fn count(connection: &mut Connection) -> Result<u64, String> {
    let counted = ask(connection, Method::POST, "/v1/contexts/count", Bytes::from_static(b"{}")).await?;
    counted["count"].as_u64().ok_or_else(|| format!("a count without a number: {counted}"))
}

async fn ask(connection: &mut Connection, method: Method, path: &str, body: Bytes) -> Result<Value, String> {
    let call = Call { method, path: path.to_owned(), body, no_cache: true };
    let answer = connection.ask(&call).await.map_err(|error| error.to_string())?;
    let body: Value = serde_json::from_slice(&answer.body).map_err(|error| format!("{path}: {error}"))?;
    if !answer.status.is_success() {
        return Err(format!("{path}: {} {}", answer.status, body["detail"].as_str().unwrap_or_default()));
    }
    Ok(body)
}
