//! What is killed in the middle of its work. What was acknowledged is there once; what was not is there as a whole or not at
//! all.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    process::{Child, Stdio},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use futures_util::future;
use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Database, KEY, Process, USER, client, command, eventually, free_port};

const CRASHES: usize = 4;
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn batches_outlive_a_killed_service() {
    let (database, folder) = (Database::create().await, TempDir::new().unwrap());
    let port = free_port();
    let mut service = Some(Process::serve_on(folder.path(), port, database.variable()));
    let url = service.as_mut().unwrap().url.clone();
    batches_outlive(&url, async || {
        service.take().unwrap().kill();
        service = Some(Process::serve_on(folder.path(), port, database.variable()));
    })
    .await;
}

#[tokio::test]
async fn an_import_outlives_a_killed_service() {
    let (database, folder) = (Database::create().await, TempDir::new().unwrap());
    let port = free_port();
    let mut service = Some(Process::serve_on(folder.path(), port, database.variable()));
    let url = service.as_mut().unwrap().url.clone();
    import_outlives(folder.path(), &url, async || {
        service.take().unwrap().kill();
        service = Some(Process::serve_on(folder.path(), port, database.variable()));
    })
    .await;
}

/// An answer, or none while what has been killed is away.
async fn ask(client: &Client, url: &str, path: &str, key: Option<&str>, body: &Value) -> Option<Value> {
    let mut request = client.post(format!("{url}{path}")).bearer_auth(KEY).json(body);
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    read(request).await
}

async fn read(request: RequestBuilder) -> Option<Value> {
    let response = request.send().await.ok()?;
    let status = response.status();
    let text = response.text().await.ok()?;
    match status {
        StatusCode::OK => Some(serde_json::from_str(&text).unwrap()),
        StatusCode::SERVICE_UNAVAILABLE => None,
        StatusCode::CONFLICT if text.contains("idempotency_key_in_flight") => None,
        _ => panic!("{status}: {text}"),
    }
}

async fn count(client: &Client, url: &str) -> usize {
    let counted = eventually("a count", PATIENCE, async || {
        ask(client, url, "/v1/contexts/count", None, &json!({})).await
    });
    usize::try_from(counted.await["count"].as_u64().unwrap()).unwrap()
}

async fn all_contexts(client: &Client, url: &str) -> Vec<Value> {
    let mut contexts = Vec::new();
    let mut cursor = String::new();
    loop {
        let page: Value = eventually("a page", PATIENCE, async || {
            let request = client.get(format!("{url}/v1/contexts?limit=200{cursor}")).bearer_auth(KEY);
            read(request).await
        })
        .await;
        contexts.extend(page["data"].as_array().unwrap().iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return contexts,
        }
    }
}

const CLIENTS: usize = 4;
const BATCH_ITEMS: usize = 50;

/// Several clients write batches while `crash` kills something, again and again.
pub(super) async fn batches_outlive(url: &str, mut crash: impl AsyncFnMut()) {
    let (stop, acknowledged) = (AtomicBool::new(false), AtomicUsize::new(0));
    let clients = (0..CLIENTS).map(|client| write_batches(url, client, &stop, &acknowledged));
    let progress = async || {
        let enough = acknowledged.load(Ordering::Relaxed) + 5 * CLIENTS;
        eventually("more batches", PATIENCE, async || {
            (acknowledged.load(Ordering::Relaxed) >= enough).then_some(())
        })
        .await;
    };
    let crashes = async {
        for _ in 0..CRASHES {
            progress().await;
            crash().await;
        }
        progress().await;
        stop.store(true, Ordering::Relaxed);
    };
    let (acknowledged, ()) = future::join(future::join_all(clients), crashes).await;
    let mut found: HashMap<(u64, u64), Vec<u64>> = HashMap::new();
    let mut counters = HashMap::new();
    for context in all_contexts(&client(), url).await {
        let content = &context["content"];
        let writer = content["client"].as_u64().unwrap();
        match content["item"].as_u64() {
            Some(item) => {
                found.entry((writer, content["batch"].as_u64().unwrap())).or_default().push(item);
            }
            None => assert!(counters.insert(writer, context["version"].as_u64().unwrap()).is_none()),
        }
    }
    for (writer, acknowledged) in (0..).zip(acknowledged) {
        let batches = found.keys().filter(|(client, _)| *client == writer).count();
        assert_eq!(counters[&writer], batches as u64, "each batch of client {writer} has counted once");
        for batch in &acknowledged {
            assert!(found.contains_key(&(writer, *batch)), "batch {batch} of client {writer} is lost");
        }
    }
    for (batch, mut items) in found {
        items.sort_unstable();
        assert!(items.into_iter().eq(0..BATCH_ITEMS as u64 - 1), "{batch:?} is not there once and whole");
    }
}

/// Each batch makes new contexts and counts up one. Two of three have a name and are sent until they are acknowledged; the
/// others once. Answers the numbers of those that were acknowledged.
async fn write_batches(
    url: &str,
    writer: usize,
    stop: &AtomicBool,
    acknowledged: &AtomicUsize,
) -> HashSet<u64> {
    let client = client();
    let mut written = HashSet::new();
    for batch in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let context = |content: Value, key: Option<String>| json!({"user_id": USER, "context_type": "note", "text": "", "content": content, "key": key});
        let mut operations: Vec<Value> = (0..BATCH_ITEMS - 1)
            .map(|item| json!({"op": "create", "context": context(json!({"client": writer, "batch": batch, "item": item}), None)}))
            .collect();
        let counter = context(json!({"client": writer, "last": batch}), Some(format!("counter-{writer}")));
        operations.insert(BATCH_ITEMS / 2, json!({"op": "upsert", "context": counter}));
        let body = json!({"operations": operations, "atomic": batch % 2 == 0});
        let name = format!("{writer}-{batch}");
        let send = async |name| ask(&client, url, "/v1/contexts/batch", name, &body).await;
        let answer = if batch % 3 == 0 {
            send(None).await
        } else {
            Some(eventually("an acknowledgement", PATIENCE, async || send(Some(&name)).await).await)
        };
        let Some(answer) = answer else { continue };
        let results = answer["results"].as_array().unwrap();
        assert!(results.iter().all(|result| result["status"].as_u64().unwrap() < 300), "{results:?}");
        written.insert(batch);
        acknowledged.fetch_add(1, Ordering::Relaxed);
    }
    written
}

/// So many that the import is still under way when it is interrupted.
const LINES: usize = 18_000;
/// Of so many lines one has a text to embed.
const LINES_PER_TEXT: usize = 30;

/// Each second line has a key.
fn write_lines(path: &Path) {
    let lines: Vec<String> = (0..LINES)
        .map(|n| {
            let key = (n % 2 == 0).then(|| format!("key-{n}"));
            let text = if n % LINES_PER_TEXT == 0 { format!("document number {n}") } else { String::new() };
            let body = json!({"user_id": USER, "context_type": "note", "key": key, "content": {"n": n}, "text": text});
            body.to_string()
        })
        .collect();
    std::fs::write(path, lines.join("\n")).unwrap();
}

/// Does not outlive a test that fails.
struct KilledOnDrop(Child);

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// `context-api import` goes on while `crash` kills something, again and again.
pub(super) async fn import_outlives(folder: &Path, url: &str, mut crash: impl AsyncFnMut()) {
    let client = client();
    let file = folder.join("lines.ndjson");
    write_lines(&file);
    count(&client, url).await;
    let complaints = folder.join("import.log");
    let mut import = KilledOnDrop(
        command(folder, &[("CONTEXT_API_KEY", KEY)])
            .args(["import", file.to_str().unwrap(), "--url", url])
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&complaints).unwrap())
            .spawn()
            .unwrap(),
    );
    for round in 1..=CRASHES {
        let before = eventually("the import to get on", PATIENCE, async || {
            let counted = count(&client, url).await;
            (counted >= round * LINES / (CRASHES + 2)).then_some(counted)
        })
        .await;
        assert!(before < LINES, "it is still being imported");
        crash().await;
        // Before the import goes on: it waits a while until it is sent again.
        let after = count(&client, url).await;
        assert!(before <= after, "{before} before, {after} after");
    }
    // It rode over all of it: the file is sent again until all of it is acknowledged.
    let status = tokio::task::spawn_blocking(move || import.0.wait()).await.unwrap().unwrap();
    assert!(status.success(), "{}", std::fs::read_to_string(&complaints).unwrap());
    let contexts = eventually("every embedding", Duration::from_secs(90), async || {
        let contexts = all_contexts(&client, url).await;
        contexts.iter().all(|c| c["embedding_status"] == "ready").then_some(contexts)
    })
    .await;
    let numbers: HashSet<u64> = contexts.iter().map(|c| c["content"]["n"].as_u64().unwrap()).collect();
    assert_eq!((contexts.len(), numbers.len()), (LINES, LINES));
    assert!(contexts.iter().all(|c| c["version"] == 1), "no line was written twice");
    let search = json!({"query": "document", "mode": "semantic", "limit": 1});
    let found = ask(&client, url, "/v1/contexts/search", None, &search).await.unwrap();
    assert_eq!(found["candidates"], json!(LINES / LINES_PER_TEXT), "each text is embedded exactly once");
}
