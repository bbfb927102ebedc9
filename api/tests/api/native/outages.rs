//! The embedding server is away, as in production: the API, a worker and `context-api embedder` are processes of their own.
//! Nothing that is written meanwhile is refused, late or lost, and all of it is embedded soon after the end.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Database, KEY, Process, USER, client, eventually, free_port};

/// Written while the embedding server is away; it needs a fraction of a second for them.
const NOTES: usize = 40;
/// From the end of an outage until all is ready.
const RECOVERY: Duration = Duration::from_secs(5);
/// So long that a process that has just found the embedding server well has looked again before the end.
const OUTAGE: Duration = Duration::from_millis(6_500);
const PATIENCE: Duration = Duration::from_secs(30);

/// Calls of the embedding server, whatever came of them.
const CALLS: &str = "embedding_batch_duration_seconds_count";
/// Texts that the embedding server was given.
const TEXTS: &str = "te_embed_count";
const FAILURES: &str = r#"embedding_failures_total{kind="transient"}"#;

struct Stack {
    api: Process,
    worker: Process,
    client: Client,
    provider_port: u16,
    // After the processes, which use them.
    _database: Database,
    folder: TempDir,
}

/// A new folder for a process's log.
fn home(folder: &Path, name: &str) -> PathBuf {
    let home = folder.join(name);
    std::fs::create_dir_all(&home).unwrap();
    home
}

impl Stack {
    /// All but the embedding server.
    async fn start() -> Self {
        let (database, folder) = (Database::create().await, TempDir::new().unwrap());
        let provider_port = free_port();
        let provider_url = format!("http://127.0.0.1:{provider_port}");
        let shared = [
            database.variable(),
            ("BOOTSTRAP_API_KEY", KEY),
            ("WORKER_INLINE", "false"),
            ("EMBEDDING_PROVIDER", "tei"),
            ("EMBEDDING_SERVICE_URL", &provider_url),
        ];
        let mut api = Process::serve(&home(folder.path(), "api"), free_port(), &shared);
        let mut worker = Process::worker(&home(folder.path(), "worker"), free_port(), &shared);
        api.ready().await;
        worker.ready().await;
        Self { api, worker, client: client(), provider_port, _database: database, folder }
    }

    /// The embedding server, each time on the same port.
    async fn start_provider(&self) -> Process {
        let variables = [("EMBEDDING_THREADS", "1"), ("HTTP_WORKERS", "2")];
        let home = home(self.folder.path(), "provider");
        let mut provider = Process::embedder(&home, self.provider_port, &variables);
        provider.ready().await;
        provider
    }

    /// The same, with a first note embedded, and the worker at rest.
    async fn start_provider_and_space(&self) -> Process {
        let provider = self.start_provider().await;
        self.write("heron", 1).await;
        eventually("a space", PATIENCE, async || (self.ready().await == 1).then_some(())).await;
        provider
    }

    async fn ask(&self, method: Method, path: &str, body: &Value) -> (StatusCode, Value) {
        let request = self.client.request(method, format!("{}{path}", self.api.url));
        let response = request.bearer_auth(KEY).json(body).send().await.unwrap();
        (response.status(), response.json().await.unwrap())
    }

    /// Writes notes one by one. Each is accepted, and at once.
    async fn write(&self, about: &str, count: usize) {
        for number in 0..count {
            let began = Instant::now();
            let (status, answer) =
                self.ask(Method::POST, "/v1/contexts", &note(&format!("{about} {number}"))).await;
            assert_eq!(status, StatusCode::CREATED, "{answer}");
            assert!(began.elapsed() < Duration::from_secs(1), "a write took {:?}", began.elapsed());
        }
    }

    async fn count(&self, filter: Value) -> usize {
        let (status, answer) = self.ask(Method::POST, "/v1/contexts/count", &json!({"filter": filter})).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        usize::try_from(answer["count"].as_u64().unwrap()).unwrap()
    }

    async fn ready(&self) -> usize {
        self.count(json!({"embedding_status": "ready"})).await
    }

    async fn search(&self, query: &str) -> Value {
        let (status, answer) = self.ask(Method::POST, "/v1/contexts/search", &json!({"query": query})).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        answer
    }

    /// Searches go on without meaning, and say so.
    async fn assert_words_alone(&self, reason: &str, within: Duration) {
        let began = Instant::now();
        let found = self.search("otter").await;
        assert_eq!(found["degraded"], json!([reason]));
        assert!(!found["data"].as_array().unwrap().is_empty(), "found by words");
        assert!(began.elapsed() < within, "a search took {:?}", began.elapsed());
    }

    /// None is lost, none has failed, and it did not take long.
    async fn assert_recovers(&self, back: Instant, notes: usize) {
        let left = RECOVERY.saturating_sub(back.elapsed());
        eventually("all notes to be ready", left, async || (self.ready().await == notes).then_some(())).await;
        println!("all were ready {:?} after the end of the outage", back.elapsed());
        assert_eq!(self.count(json!({})).await, notes);
        eventually("searches by meaning", PATIENCE, async || {
            (self.search("otter").await["degraded"] == json!([])).then_some(())
        })
        .await;
    }

    /// Waits until all processes know that the provider is away.
    async fn noticed(&self) {
        eventually("the worker to notice", PATIENCE, async || {
            (self.worker.metric("embedding_provider_up").await? == 0.0).then_some(())
        })
        .await;
        eventually("the API to notice", PATIENCE, async || {
            let health = self.client.get(format!("{}/health", self.api.url)).send().await.unwrap();
            let health: Value = health.json().await.unwrap();
            (health["checks"]["embeddings"]["status"] != "ok").then_some(())
        })
        .await;
    }

    /// What the worker has counted.
    async fn counted(&self, name: &str) -> usize {
        counted(&self.worker, name).await
    }
}

/// A number that appears in the metrics once it is no longer zero.
async fn counted(process: &Process, name: &str) -> usize {
    process.metric(name).await.map_or(0, |number| number as usize)
}

fn note(text: &str) -> Value {
    json!({"user_id": USER, "context_type": "note", "content": {"text": text}})
}

#[tokio::test]
async fn a_provider_that_is_down_when_everything_starts_is_taken_up_when_it_comes() {
    let stack = Stack::start().await;
    stack.noticed().await;
    stack.write("otter", NOTES).await;
    stack.assert_words_alone("no_embedding_space", Duration::from_secs(1)).await;
    assert_eq!(stack.counted(CALLS).await, 0, "nobody calls who is known to be away");
    let provider = stack.start_provider().await;
    let back = Instant::now();
    stack.assert_recovers(back, NOTES).await;
    // Besides the notes: a word of each loop of the worker to learn the dimension, and the searches.
    assert!(stack.counted(CALLS).await <= 6, "{} calls", stack.counted(CALLS).await);
    let texts = counted(&provider, TEXTS).await;
    assert!(texts <= NOTES + 4, "{texts} texts");
}

#[tokio::test]
async fn a_provider_that_is_killed_in_the_middle_of_a_batch_is_given_it_again() {
    let stack = Stack::start().await;
    let provider = stack.start_provider_and_space().await;
    let text = "A crowd of words that keeps the model busy for a moment. ".repeat(3);
    let operations: Vec<Value> =
        (0..NOTES).map(|n| json!({"op": "create", "context": note(&format!("{n} {text}"))})).collect();
    let (status, answer) =
        stack.ask(Method::POST, "/v1/contexts/batch", &json!({"operations": operations})).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    eventually("a busy provider", PATIENCE, async || {
        (provider.metric("te_queue_size").await? > 0.0).then_some(())
    })
    .await;
    provider.kill();
    let left = 1 + NOTES - stack.ready().await;
    assert!(left > 0, "the batch was under way");
    let mut pace = tokio::time::interval(OUTAGE / NOTES as u32);
    for _ in 0..NOTES {
        pace.tick().await;
        stack.write("otter", 1).await;
    }
    stack.assert_words_alone("embedder_unavailable", Duration::from_secs(1)).await;
    stack.noticed().await;
    let provider = stack.start_provider().await;
    let back = Instant::now();
    stack.assert_recovers(back, 1 + 2 * NOTES).await;
    let (calls, texts) = (stack.counted(CALLS).await, counted(&provider, TEXTS).await);
    assert!(calls < 20, "{calls} calls");
    assert!(texts <= left + NOTES + 2, "{texts} texts for {left} + {NOTES}");
}

#[tokio::test]
async fn a_provider_that_hangs_for_a_moment_costs_no_text_a_second_attempt() {
    let stack = Stack::start().await;
    let provider = stack.start_provider_and_space().await;
    let before = counted(&provider, TEXTS).await;
    provider.signal("STOP");
    stack.write("otter", NOTES).await;
    // The first one waits for its deadline; those that follow do without.
    stack.assert_words_alone("embedder_unavailable", Duration::from_secs(5)).await;
    stack.assert_words_alone("embedder_unavailable", Duration::from_secs(1)).await;
    provider.signal("CONT");
    let back = Instant::now();
    stack.assert_recovers(back, 1 + NOTES).await;
    assert_eq!(stack.counted(FAILURES).await, 0);
    let texts = counted(&provider, TEXTS).await - before;
    // And those of the searches: the one that was given up, and the last.
    assert!(texts <= NOTES + 2, "{texts} texts");
}

#[tokio::test]
async fn a_provider_that_hangs_beyond_every_deadline_is_taken_up_when_it_goes_on() {
    let stack = Stack::start().await;
    let provider = stack.start_provider_and_space().await;
    let calls = stack.counted(CALLS).await;
    provider.signal("STOP");
    stack.write("otter", NOTES).await;
    eventually("a call that is given up", PATIENCE, async || {
        (stack.worker.metric(FAILURES).await? > 0.0).then_some(())
    })
    .await;
    stack.noticed().await;
    stack.write("badger", NOTES).await;
    stack.assert_words_alone("embedder_unavailable", Duration::from_secs(5)).await;
    provider.signal("CONT");
    let back = Instant::now();
    stack.assert_recovers(back, 1 + 2 * NOTES).await;
    let calls = stack.counted(CALLS).await - calls;
    assert!(calls <= 12, "{calls} calls");
}
