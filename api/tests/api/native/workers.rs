//! Several workers on one database.

use std::{collections::HashMap, time::Duration};

use context_api::{cache::Cache, embedding, service::Service, store::Store, worker};
use futures_util::future;
use proptest::prelude::Rng;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;

use crate::support::{
    App, Behaviour, Database, KEY, Process, StubProvider, USER, client, eventually, free_port, options,
    random,
};

#[tokio::test]
async fn four_workers_embed_each_version_once_and_only_the_last_remains() {
    let stub = StubProvider::start(Behaviour::Answer(503, ""));
    let app = App::start_with(stub.provider()).await;
    let (stop, stopped) = watch::channel(false);
    for _ in 0..3 {
        let store = Store::new(&options(&app.database.url)).unwrap();
        let service =
            Service::new(store, Cache::new(None).unwrap(), [embedding::connect(&stub.provider()).unwrap()]);
        let watched = service.clone();
        tokio::spawn(async move { watched.watch_providers().await });
        tokio::spawn(worker::embed(service, stopped.clone()));
    }
    let write = async |number: usize, text: &str| {
        let body = json!({"user_id": USER, "context_type": "note", "key": format!("k{number}"), "content": {"t": text}});
        app.post("/v1/contexts", body).await.id()
    };
    for number in 0..200 {
        write(number, &format!("first {number}")).await;
    }
    stub.behave(Behaviour::Work);
    for number in (0..200).step_by(4) {
        write(number, &format!("second {number}")).await;
    }
    let mut superuser = app.database.superuser().await;
    eventually("an empty queue", Duration::from_secs(30), async || {
        let pending: i64 =
            sqlx::query_scalar("select count(*) from contexts where embedding_status <> 'ready'")
                .fetch_one(&mut app.database.superuser().await)
                .await
                .unwrap();
        (pending == 0).then_some(())
    })
    .await;
    let wrong: i64 = sqlx::query_scalar(
        "select count(*) from contexts c
         full join chunk_embeddings e on e.tenant_id = c.tenant_id and e.context_id = c.id and e.version = c.version
         where c.id is null or e.context_id is null",
    )
    .fetch_one(&mut superuser)
    .await
    .unwrap();
    assert_eq!(wrong, 0, "each context has exactly the embedding of its last version");
    // The first attempts, while the provider was away, and one probe for the dimension; no text twice but the updated.
    assert!((200..=270).contains(&stub.texts()), "{} texts were embedded", stub.texts());
    stop.send_replace(true);
}

const SEED: u64 = 11;
const WORKERS: usize = 4;
/// One every 300 ms or so, for a minute.
const KILLS: usize = 200;
const CLIENTS: usize = 4;
/// Each client writes a batch of new contexts in each round, 20,000 in all, and the rounds are spread over the kills.
const ROUNDS: usize = 25;
const BATCH: usize = 200;
/// Of each batch so many get a new text at once, and some of those another one in the next round.
const CHANGED: usize = 20;
const CHANGED_AGAIN: usize = 5;

/// `context-api worker`, to be killed and started again.
struct Worker {
    process: Process,
    port: u16,
    folder: TempDir,
}

impl Worker {
    fn start(variables: &[(&str, &str)]) -> Self {
        let (port, folder) = (free_port(), TempDir::new().unwrap());
        Self { process: Process::worker(folder.path(), port, variables), port, folder }
    }

    fn crash(self, variables: &[(&str, &str)]) -> Self {
        let Self { process, port, folder } = self;
        process.kill();
        Self { process: Process::worker(folder.path(), port, variables), port, folder }
    }
}

/// Numbers below any bound.
fn numbers(seed: u64) -> impl FnMut(usize) -> usize {
    let mut runner = random::runner(seed, 0);
    move |bound| usize::try_from(runner.rng().next_u64() % bound as u64).unwrap()
}

/// What one client has written last under each of its keys.
struct Client<'a> {
    name: usize,
    url: &'a str,
    random: Box<dyn FnMut(usize) -> usize + 'a>,
    texts: Vec<String>,
}

impl Client<'_> {
    fn key(&self, number: usize) -> String {
        format!("{}-{number}", self.name)
    }

    /// Like no other. One in forty is of several chunks.
    fn new_text(&mut self) -> String {
        let words = if (self.random)(40) == 0 { 300 } else { 4 };
        let words: Vec<String> = (0..words).map(|_| format!("{:07x}", (self.random)(1 << 28))).collect();
        format!("client {} says {}", self.name, words.join(" "))
    }

    async fn send(&self, numbers: impl Iterator<Item = usize>) {
        let operations: Vec<Value> = numbers
            .map(|number| {
                let text = &self.texts[number];
                let context = json!({"user_id": USER, "context_type": "note", "key": self.key(number), "content": {}, "text": text});
                json!({"op": "upsert", "context": context})
            })
            .collect();
        let request = client().post(format!("{}/v1/contexts/batch", self.url)).bearer_auth(KEY);
        let response = request.json(&json!({"operations": operations})).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let answer: Value = response.json().await.unwrap();
        let results = answer["results"].as_array().unwrap();
        assert!(results.iter().all(|result| result["status"].as_u64().unwrap() < 300), "{results:?}");
    }

    async fn change(&mut self, numbers: &[usize]) {
        for &number in numbers {
            self.texts[number] = self.new_text();
        }
        self.send(numbers.iter().copied()).await;
    }

    async fn write(mut self, mut kills: watch::Receiver<usize>) -> Vec<(String, String)> {
        let mut changed: Vec<usize> = Vec::new();
        for round in 0..ROUNDS {
            kills.wait_for(|kills| *kills >= round * KILLS / ROUNDS).await.unwrap();
            let first = self.texts.len();
            for _ in 0..BATCH {
                let text = self.new_text();
                self.texts.push(text);
            }
            self.send(first..first + BATCH).await;
            let again = changed.split_off(changed.len().saturating_sub(CHANGED_AGAIN));
            let offset = (self.random)(BATCH / CHANGED);
            changed = (0..CHANGED).map(|nth| first + offset + nth * BATCH / CHANGED).collect();
            self.change(&changed).await;
            if !again.is_empty() {
                self.change(&again).await;
            }
        }
        (0..self.texts.len()).map(|number| (self.key(number), self.texts[number].clone())).collect()
    }
}

/// One chunk with its vector, and the context that it belongs to.
#[derive(sqlx::FromRow)]
struct Stored {
    key: String,
    text: String,
    status: String,
    text_version: i64,
    chunk_version: Option<i64>,
    chunk_no: Option<i32>,
    chunk: Option<String>,
    vector: Option<Vec<f32>>,
}

const STORED: &str = "
    select c.key, c.text, c.embedding_status as status, c.text_version, k.version as chunk_version, k.chunk_no, k.text as chunk,
           e.embedding::halfvec::real[] as vector
    from contexts c
    left join chunks k on k.tenant_id = c.tenant_id and k.context_id = c.id
    left join chunk_embeddings e on e.tenant_id = k.tenant_id and e.context_id = k.context_id and e.version = k.version
                                and e.chunk_no = k.chunk_no
    order by c.key, k.version, k.chunk_no";

/// The context has this text, the chunks of just this version, and of each the vector that the provider makes of it.
fn assert_embedded(key: &str, text: &str, rows: &[Stored]) {
    // Chunks overlap, and leave out nothing but blanks between them.
    let (mut from, mut end) = (0, 0);
    for (chunk_no, row) in (0..).zip(rows) {
        assert_eq!((row.text.as_str(), row.status.as_str()), (text, "ready"), "{key}");
        assert_eq!((row.chunk_version, row.chunk_no), (Some(row.text_version), Some(chunk_no)), "{key}");
        let chunk = row.chunk.as_deref().unwrap();
        let start = from + text[from..].find(chunk).unwrap_or_else(|| panic!("{key}: {chunk}"));
        assert_eq!(text[end.min(start)..start].trim(), "", "{key}: before {chunk}");
        (from, end) = (start + 1, start + chunk.len());
        let vector = row.vector.as_deref().unwrap_or_else(|| panic!("{key}: chunk {chunk_no} has no vector"));
        let expected = StubProvider::vector_of(chunk);
        assert_eq!(vector.len(), expected.dimensions());
        // Half precision keeps 11 bits.
        let is_near = vector.iter().zip(expected.as_slice()).all(|(a, b)| (a - b).abs() < 0.001);
        assert!(is_near, "{key}, {chunk}: {vector:?} and not {expected:?}");
    }
    assert_eq!(text[end..].trim(), "", "{key}: all of the text is in its chunks");
}

/// Kills one after another, at its own pace: nobody waits for anything by these pauses.
async fn kill_at_random(
    mut workers: Vec<Worker>,
    variables: &[(&str, &str)],
    kills: &watch::Sender<usize>,
) -> Vec<Worker> {
    let mut random = numbers(SEED);
    for kill in 1..=KILLS {
        let pause = 200 + random(200);
        tokio::time::sleep(Duration::from_millis(pause as u64)).await;
        let killed = workers.swap_remove(random(WORKERS));
        workers.push(killed.crash(variables));
        kills.send_replace(kill);
    }
    workers
}

#[tokio::test]
async fn workers_that_are_killed_for_a_minute_leave_each_context_with_its_last_text_alone() {
    // So slow that some worker is always in the middle of a call, and that their work is just done within the minute.
    let stub = StubProvider::start(Behaviour::Hang(Duration::from_millis(300)));
    let (database, folder) = (Database::create().await, TempDir::new().unwrap());
    let variables = [
        database.variable(),
        ("BOOTSTRAP_API_KEY", KEY),
        ("WORKER_INLINE", "false"),
        ("EMBEDDING_PROVIDER", "tei"),
        ("EMBEDDING_SERVICE_URL", &stub.url),
    ];
    let mut service = Process::serve(folder.path(), free_port(), &variables);
    service.ready().await;
    let workers: Vec<Worker> = (0..WORKERS).map(|_| Worker::start(&variables)).collect();
    let (kills, killed) = watch::channel(0);
    let clients = (0..CLIENTS).map(|name| {
        let random = Box::new(numbers(SEED + 1 + name as u64));
        Client { name, url: &service.url, random, texts: Vec::new() }.write(killed.clone())
    });
    let (written, workers) =
        future::join(future::join_all(clients), kill_at_random(workers, &variables, &kills)).await;
    let mut superuser = database.superuser().await;
    let began = std::time::Instant::now();
    // The claims of those that were killed last have to lapse.
    eventually("an empty queue", Duration::from_secs(90), async || {
        let is_pending: bool =
            sqlx::query_scalar("select exists (select from contexts where embedding_status = 'pending')")
                .fetch_one(&mut superuser)
                .await
                .unwrap();
        (!is_pending).then_some(())
    })
    .await;
    println!("drained in {:?}", began.elapsed());
    drop(workers);
    let written: HashMap<String, String> = written.into_iter().flatten().collect();
    assert_eq!(written.len(), CLIENTS * ROUNDS * BATCH);
    let rows: Vec<Stored> = sqlx::query_as(STORED).fetch_all(&mut superuser).await.unwrap();
    let vectors: i64 =
        sqlx::query_scalar("select count(*) from chunk_embeddings").fetch_one(&mut superuser).await.unwrap();
    assert_eq!(usize::try_from(vectors).unwrap(), rows.len(), "one vector for each chunk, in one space");
    let contexts: Vec<&[Stored]> = rows.chunk_by(|a, b| a.key == b.key).collect();
    assert_eq!(contexts.len(), written.len());
    for rows in contexts {
        let key = &rows[0].key;
        assert_embedded(key, &written[key], rows);
    }
    // Even if each text that was replaced had been embedded before, there would not be so many.
    let texts = rows.len() + rows.len() / 8;
    assert!(stub.texts() > texts, "hardly any work was lost and done again: {} texts", stub.texts());
}
