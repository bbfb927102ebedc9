//! How long a context is visible, what lets it live on, when what it says holds, and what is removed afterwards.

use std::time::Duration;

use context_api::domain::Retention;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::support::{App, Behaviour, StubProvider, USER, eventually};

const MODES: [&str; 3] = ["keyword", "semantic", "hybrid"];

async fn quick() -> App {
    App::start_with(StubProvider::start(Behaviour::Work).provider()).await
}

async fn note(app: &App, text: &str, fields: Value) -> Value {
    let mut body = json!({"user_id": USER, "context_type": "note", "content": {"t": text}});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let answer = app.post("/v1/contexts", body).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{:?}", answer.body);
    answer.body
}

fn path_of(context: &Value) -> String {
    format!("/v1/contexts/{}", context["id"].as_str().unwrap())
}

/// An embedded note, changed afterwards: so what is written last does not depend on how long the embedding took.
async fn embedded_note(app: &App, text: &str, change: Value) -> Value {
    let context = note(app, text, json!({})).await;
    app.embedded(context["id"].as_str().unwrap()).await;
    patch(app, &context, change).await
}

async fn patch(app: &App, context: &Value, change: Value) -> Value {
    let answer = app.send(Method::PATCH, &path_of(context), change.to_string()).await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    answer.body
}

fn time_of(context: &Value, field: &str) -> OffsetDateTime {
    OffsetDateTime::parse(context[field].as_str().unwrap(), &Rfc3339).unwrap()
}

/// So many seconds after the context was written.
fn later(context: &Value, seconds: i64) -> Value {
    let at = time_of(context, "updated_at") + time::Duration::seconds(seconds);
    json!(at.format(&Rfc3339).unwrap())
}

/// The ids that a list answers; listing lets nothing live on.
async fn listed(app: &App) -> Vec<Value> {
    let list = app.get("/v1/contexts").await.body;
    list["data"].as_array().unwrap().iter().map(|context| context["id"].clone()).collect()
}

async fn found(app: &App, query: &str, mode: &str) -> Vec<Value> {
    let answer = app.search(json!({"query": query, "mode": mode})).await.body;
    answer["data"].as_array().unwrap().iter().map(|hit| hit["context"]["id"].clone()).collect()
}

async fn until_unlisted(app: &App, context: &Value) {
    eventually("its end", Duration::from_secs(10), async || {
        (!listed(app).await.contains(&context["id"])).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_has_expired_is_gone_wherever_one_looks() {
    let app = quick().await;
    let stays = embedded_note(&app, "a heron", json!({})).await;
    let first = embedded_note(&app, "a heron in the reeds", json!({"key": "k"})).await;
    let lived_at = first["updated_at"].as_str().unwrap().to_owned();
    let last = patch(&app, &first, json!({"ttl_seconds": 1})).await;
    let left = time_of(&last, "expires_at") - time_of(&last, "updated_at");
    assert!(left.is_positive() && left <= time::Duration::seconds(1), "{left}");
    until_unlisted(&app, &first).await;
    let path = path_of(&first);
    for mode in MODES {
        assert_eq!(found(&app, "heron", mode).await, [stays["id"].clone()], "{mode}");
    }
    for (method, path, body) in [
        (Method::GET, path.clone(), None),
        (Method::GET, format!("{path}?as_of={lived_at}"), None),
        (Method::GET, format!("{path}/versions"), None),
        (Method::POST, format!("{path}/restore"), Some(json!({"version": 1}))),
        (Method::PATCH, path.clone(), Some(json!({"expires_at": null}))),
        (Method::PUT, path.clone(), Some(json!({"user_id": USER, "context_type": "note", "content": 1}))),
        (Method::DELETE, path.clone(), None),
    ] {
        let body = body.map(|body| body.to_string().into());
        let answer = app.send_as(&app.key, method.clone(), &path, body).await;
        assert_eq!(
            (answer.status, answer.code()),
            (StatusCode::NOT_FOUND, "context_not_found"),
            "{method} {path}"
        );
    }
    assert_eq!(app.post("/v1/contexts/count", json!({})).await.body["count"], 1);
    let then = json!({"as_of": lived_at, "filter": {"key": "k"}});
    assert_eq!(app.post("/v1/contexts/count", then).await.body["count"], 0);
    let then = app.get(&format!("/v1/contexts?as_of={lived_at}")).await.body;
    assert_eq!(then["data"].as_array().unwrap().len(), 1);
    let condition =
        app.request(Method::POST, "/v1/contexts").bearer_auth(&app.key).header("if-none-match", "*");
    let body = json!({"user_id": USER, "context_type": "note", "key": "k", "content": "anew"});
    let anew = crate::support::answer(condition.json(&body)).await;
    assert!(anew.status.is_success(), "its key is free: {:?}", anew.body);
    assert_eq!(
        (&anew.body["expires_at"], app.get(&path_of(&anew.body)).await.status),
        (&Value::Null, StatusCode::OK)
    );
}

#[tokio::test]
async fn a_read_puts_the_end_off_and_two_reads_do_it_once() {
    let app = quick().await;
    let fresh = async || {
        let context = embedded_note(&app, "a heron", json!({})).await;
        let end = later(&context, 60);
        let context = patch(&app, &context, json!({"sliding_ttl_seconds": 1000, "expires_at": end})).await;
        assert_eq!(context["expires_at"], end);
        context
    };
    let read = fresh().await;
    let list = app.get("/v1/contexts").await.body;
    assert_eq!(list["data"][0]["expires_at"], read["expires_at"], "a list is no read");
    app.post("/v1/contexts/count", json!({})).await;
    app.get(&format!("{}/versions", path_of(&read))).await;
    let past = app.get(&format!("{}?as_of={}", path_of(&read), read["updated_at"].as_str().unwrap())).await;
    assert_eq!(past.body["expires_at"], read["expires_at"], "nor is a look at the past");
    let (one, two) = (app.get(&path_of(&read)).await, app.get(&path_of(&read)).await);
    assert!(time_of(&one.body, "expires_at") - time_of(&read, "updated_at") >= time::Duration::seconds(1000));
    assert_eq!(one.body["expires_at"], two.body["expires_at"], "two reads close together move it once");
    assert_eq!((&one.body["version"], &one.body["updated_at"]), (&read["version"], &read["updated_at"]));
    let list = app.get("/v1/contexts").await.body;
    assert_eq!(list["data"][0]["expires_at"], one.body["expires_at"], "it is stored");
    app.delete(&path_of(&read)).await;
    for mode in MODES {
        let context = fresh().await;
        let hit =
            app.search(json!({"query": "heron", "mode": mode})).await.body["data"][0]["context"].clone();
        assert_eq!(hit["id"], context["id"], "{mode}");
        assert!(
            time_of(&hit, "expires_at") - time_of(&context, "updated_at") >= time::Duration::seconds(1000)
        );
        assert_eq!(app.get(&path_of(&context)).await.body["expires_at"], hit["expires_at"], "{mode}");
        app.delete(&path_of(&context)).await;
    }
    let far =
        note(&app, "far", json!({"sliding_ttl_seconds": 10, "expires_at": "2999-01-01T00:00:00Z"})).await;
    assert_eq!(
        app.get(&path_of(&far)).await.body["expires_at"],
        far["expires_at"],
        "a read shortens no life"
    );
}

#[tokio::test]
async fn who_is_read_outlives_who_is_not_and_search_still_finds_him() {
    let app = quick().await;
    let unread = embedded_note(&app, "a heron", json!({})).await;
    let read = embedded_note(&app, "a heron in the reeds", json!({})).await;
    let change = json!({"sliding_ttl_seconds": 1000, "expires_at": later(&read, 3)});
    patch(&app, &unread, change.clone()).await;
    patch(&app, &read, change).await;
    assert_eq!(app.get(&path_of(&read)).await.status, StatusCode::OK);
    until_unlisted(&app, &unread).await;
    for mode in MODES {
        assert_eq!(found(&app, "heron", mode).await, [read["id"].clone()], "{mode}");
    }
}

#[tokio::test]
async fn search_takes_only_what_holds_now() {
    let app = quick().await;
    let (past, future) = ("2020-01-01T00:00:00Z", "2999-01-01T00:00:00Z");
    let mut ids = Vec::new();
    for change in [
        json!({}),
        json!({"valid_from": past, "valid_to": future}),
        json!({"valid_to": past}),
        json!({"valid_from": future}),
    ] {
        ids.push(embedded_note(&app, "a heron", change).await["id"].clone());
    }
    for mode in MODES {
        let mut hits = found(&app, "heron", mode).await;
        hits.sort_by_key(|id| id.to_string());
        assert_eq!(hits, ids[..2], "{mode}");
    }
    assert_eq!(listed(&app).await.len(), 4, "a list shows what holds at other times, too");
    for (at, expected) in [
        ("2019-12-31T23:59:59.999999Z", vec![0_usize, 2]),
        (past, vec![0, 1]),
        ("2500-01-01T00:00:00Z", vec![0, 1]),
        (future, vec![0, 3]),
    ] {
        let list = app.get(&format!("/v1/contexts?valid_at={at}")).await.body;
        let held: Vec<&Value> = list["data"].as_array().unwrap().iter().rev().map(|c| &c["id"]).collect();
        assert_eq!(held, expected.iter().map(|index| &ids[*index]).collect::<Vec<_>>(), "{at}");
        let count = app.post("/v1/contexts/count", json!({"valid_at": at})).await.body;
        assert_eq!(count["count"], 2, "{at}");
    }
    let turned = json!({"id": ids[0]});
    for (change, hits) in [(json!({"valid_to": past}), 1), (json!({"valid_to": null, "valid_from": past}), 2)]
    {
        patch(&app, &turned, change).await;
        for mode in MODES {
            assert_eq!(found(&app, "heron", mode).await.len(), hits, "{mode}, at once");
        }
    }
    let bad = app.get("/v1/contexts?valid_at=now").await;
    assert_eq!((bad.status.as_u16(), bad.code()), (400, "invalid_parameter"));
    let bad = app.post("/v1/contexts/count", json!({"valid_at": "now"})).await;
    assert_eq!((bad.code(), &bad.body["errors"][0]["pointer"]), ("invalid_request", &json!("/valid_at")));
}

#[tokio::test]
async fn what_would_end_before_it_begins_is_refused() {
    let app = quick().await;
    let context = |from: &str, to: &str| json!({"user_id": USER, "context_type": "note", "content": 1, "valid_from": from, "valid_to": to});
    for (from, to) in [
        ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
        ("2026-01-01T00:00:00Z", "2025-01-01T00:00:00Z"),
        ("2026-01-01T00:00:00Z", "2026-01-01T01:00:00+02:00"),
        // The same microsecond, which is what can be stored.
        ("2026-01-01T00:00:00.0000001Z", "2026-01-01T00:00:00.0000002Z"),
    ] {
        let refused = app.post("/v1/contexts", context(from, to)).await;
        assert_eq!(
            (refused.status.as_u16(), refused.code()),
            (400, "invalid_request"),
            "{to}: {:?}",
            refused.body
        );
        assert_eq!(refused.body["errors"][0]["pointer"], "/valid_to");
        let operations = json!([{"op": "create", "context": context(from, to)},
                                {"op": "create", "context": {"user_id": USER, "context_type": "note", "content": 2}}]);
        let batch = app.post("/v1/contexts/batch", json!({"operations": operations})).await.body;
        assert_eq!(
            (&batch["results"][0]["status"], &batch["results"][1]["status"]),
            (&json!(400), &json!(201))
        );
    }
    let kept = app
        .post("/v1/contexts", context("2026-01-01T00:00:00.0000019Z", "2026-01-01T00:00:00.0000021Z"))
        .await;
    assert_eq!(kept.status, StatusCode::CREATED, "the next microsecond: {:?}", kept.body);
}

#[tokio::test]
async fn what_has_expired_is_removed_and_what_lives_stays() {
    let app = quick().await;
    let lives = note(&app, "a heron", json!({"ttl_seconds": 1000})).await;
    let expired = note(&app, "an otter", json!({"ttl_seconds": 1})).await;
    let deleted = note(&app, "a badger", json!({})).await;
    app.delete(&path_of(&deleted)).await;
    until_unlisted(&app, &expired).await;
    let removed = app.service.remove_outdated(&Retention::default()).await.unwrap();
    assert_eq!((removed.contexts, removed.versions, removed.audit_entries), (1, 0, 0));
    let removed = app.service.remove_outdated(&Retention::default()).await.unwrap();
    assert_eq!(removed.contexts, 0, "it was removed already");
    assert_eq!(app.get(&path_of(&lives)).await.status, StatusCode::OK);
    assert_eq!(app.post(&format!("{}/restore", path_of(&deleted)), json!({})).await.status, StatusCode::OK);
}

#[tokio::test]
async fn without_any_retention_the_past_is_removed_but_not_the_log_of_the_day() {
    let app = quick().await;
    let context = note(&app, "a heron", json!({})).await;
    for n in 0..3 {
        patch(&app, &context, json!({"metadata": {"n": n}})).await;
    }
    let deleted = note(&app, "an otter", json!({})).await;
    app.delete(&path_of(&deleted)).await;
    let log = app.get("/v1/audit-log?limit=200").await.body["data"].as_array().unwrap().len();
    let retention = Retention { history: Duration::ZERO, audit_log: Duration::ZERO, ..Retention::default() };
    let removed = app.service.remove_outdated(&retention).await.unwrap();
    assert_eq!((removed.contexts, removed.idempotency_keys, removed.audit_entries), (1, 0, 0));
    assert!(removed.versions >= 3, "{removed:?}");
    let versions = app.get(&format!("{}/versions", path_of(&context))).await;
    assert_eq!((versions.status, &versions.body["data"]), (StatusCode::OK, &json!([])));
    assert_eq!(app.get(&path_of(&context)).await.body["version"], 4);
    let restored = app.post(&format!("{}/restore", path_of(&context)), json!({"version": 1})).await;
    assert_eq!(restored.code(), "version_not_found");
    let restored = app.post(&format!("{}/restore", path_of(&deleted)), json!({})).await;
    assert_eq!(restored.code(), "context_not_found");
    assert_eq!(app.get("/v1/audit-log?limit=200").await.body["data"].as_array().unwrap().len(), log);
}
