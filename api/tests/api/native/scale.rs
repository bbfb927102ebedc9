//! Many rows: pages that are turned while somebody writes, and all of them out of one server and into another.

use std::{
    collections::HashSet,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use futures_util::future;
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{App, Behaviour, Database, KEY, Process, StubProvider, USER, free_port};

/// A body of `count` lines, as rich as they come without an embedding.
fn lines(count: usize) -> String {
    let mut body = String::new();
    for n in 0..count {
        let line = json!({
            "user_id": if n % 3 == 0 { USER.to_owned() } else { format!("0190d5a0-0000-7000-8000-{:012x}", n % 1000) },
            "context_type": (["note", "message", "документ"][n % 3]),
            "key": (n % 2 == 0).then(|| format!("key-{n}")),
            "text": "",
            "content": {"n": n, "words": "all that glitters is not gold ".repeat(1 + n % 7), "nested": [{"a": null}, 1.50, -0.0]},
            "metadata": {"group": "all", "tags": [n % 10, "x"]},
            "expires_at": (n % 5 == 0).then_some("2100-01-01T00:00:00Z"),
            "valid_from": (n % 11 == 0).then_some("2020-01-01T00:00:00Z"),
        });
        body.push_str(&line.to_string());
        body.push('\n');
    }
    body
}

/// Each line that was exported has what the line says that it was imported from.
fn assert_same_fields(imported: &str, exported: &str) {
    let parse = |line| serde_json::from_str::<Value>(line).unwrap();
    let number = |value: &Value| value["content"]["n"].as_u64().unwrap();
    let mut exported: Vec<Value> = exported.lines().map(parse).collect();
    exported.sort_by_key(number);
    for (given, found) in imported.lines().map(parse).zip(exported) {
        for (field, value) in given.as_object().unwrap() {
            assert_eq!(found.get(field).unwrap_or(&Value::Null), value, "{field} of {given}");
        }
    }
}

fn patient() -> Client {
    Client::builder().timeout(Duration::from_secs(300)).no_proxy().build().unwrap()
}

async fn import(url: &str, key: &str, body: String) -> Value {
    let request = patient().post(format!("{url}/v1/contexts/import")).bearer_auth(key);
    let response = request.header("content-type", "application/x-ndjson").body(body).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    response.json().await.unwrap()
}

/// The ids of all pages, in their order.
async fn turn_pages(app: &App, query: &str) -> Vec<String> {
    let mut ids = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = app.get(&format!("/v1/contexts?limit=200{query}{cursor}")).await;
        assert_eq!(page.status, StatusCode::OK, "{:?}", page.body);
        ids.extend(
            page.body["data"].as_array().unwrap().iter().map(|c| c["id"].as_str().unwrap().to_owned()),
        );
        match page.body["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return ids,
        }
    }
}

/// Changes, deletes, purges and makes contexts until told to stop. Answers how many writes that were, and what it removed.
async fn write_among(app: &App, ids: &[String], stop: &AtomicBool) -> (usize, HashSet<String>) {
    let mut removed = HashSet::new();
    for turn in 0.. {
        if stop.load(Ordering::Relaxed) {
            return (turn, removed);
        }
        // Far from each other, and each once.
        let id = &ids[turn * 7_919 % ids.len()];
        let path = format!("/v1/contexts/{id}");
        let answer = match turn % 4 {
            0 => app.send(Method::PATCH, &path, json!({"metadata": {"turn": turn}}).to_string()).await,
            1 => app.delete(&path).await,
            2 => app.delete(&format!("{path}?purge=true")).await,
            _ => app.note("another one").await,
        };
        assert!(answer.status.is_success(), "turn {turn}: {:?}", answer.body);
        if matches!(turn % 4, 1 | 2) {
            removed.insert(id.clone());
        }
    }
    unreachable!("it is told to stop")
}

#[tokio::test]
async fn the_pages_of_fifty_thousand_neither_repeat_nor_miss_one_while_somebody_writes() {
    const ROWS: usize = 50_000;
    let app = App::start_with(StubProvider::start(Behaviour::Work).provider()).await;
    assert_eq!(import(&app.url, &app.key, lines(ROWS)).await["created"], ROWS);
    let before = turn_pages(&app, "").await;
    assert_eq!(before.len(), ROWS);
    let filter = r#"&filter={"metadata.group":"all"}"#;
    let stop = AtomicBool::new(false);
    let reading = async {
        let lists = future::join(turn_pages(&app, ""), turn_pages(&app, filter)).await;
        stop.store(true, Ordering::Relaxed);
        lists
    };
    let ((all, filtered), (writes, removed)) = future::join(reading, write_among(&app, &before, &stop)).await;
    assert!(writes > 100, "{writes} writes");
    for list in [all, filtered] {
        let seen: HashSet<&String> = list.iter().collect();
        assert_eq!(seen.len(), list.len(), "none comes twice");
        let missing = before.iter().filter(|id| !removed.contains(*id) && !seen.contains(id)).count();
        assert_eq!(missing, 0, "of those that were there throughout");
    }
}

#[tokio::test]
async fn a_hundred_thousand_go_from_one_server_to_another_and_neither_grows() {
    const ROWS: usize = 100_000;
    const MEMORY_MAX: u64 = 150 * 1024 * 1024;
    let mut exports: Vec<String> = Vec::new();
    let mut body = lines(ROWS);
    for _ in 0..2 {
        let (database, folder) = (Database::create().await, TempDir::new().unwrap());
        let mut service = Process::serve_on(folder.path(), free_port(), database.variable());
        service.ready().await;
        assert_eq!(import(&service.url, KEY, body).await["created"], ROWS);
        let request = patient().get(format!("{}/v1/contexts/export", service.url)).bearer_auth(KEY);
        let exported = request.send().await.unwrap().text().await.unwrap();
        assert_eq!(exported.lines().count(), ROWS);
        let peak = service.memory_peak();
        assert!(peak < MEMORY_MAX, "{} MiB", peak >> 20);
        body = exported.clone();
        exports.push(exported);
    }
    assert_same_fields(&lines(ROWS), &exports[0]);
    assert!(exports[0] == exports[1], "the same bytes");
}
