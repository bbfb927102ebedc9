//! Seeing the embedding work: waiting for it, counting it, and trying again what failed.

use std::time::{Duration, Instant};

use context_api::{
    domain::{DEFAULT_TENANT, Scope, UserId},
    embedding::Provider,
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Answer, App, Behaviour, StubProvider, USER, answer, eventually};

const OTHER: &str = "0190d5a0-0000-7000-8000-0000000000cc";

fn body(user: &str, text: &str) -> Value {
    json!({"user_id": user, "context_type": "note", "content": {"t": text}})
}

async fn usage(app: &App) -> Value {
    let usage = app.get("/v1/usage").await;
    assert_eq!(usage.status, StatusCode::OK, "{:?}", usage.body);
    usage.body
}

async fn retry(app: &App, key: &str, body: Value) -> Answer {
    app.send_as(key, Method::POST, "/v1/contexts/retry-embeddings", Some(body.to_string().into())).await
}

#[tokio::test]
async fn a_write_that_waits_answers_when_it_is_found_by_meaning() {
    let app = App::start_with(StubProvider::start(Behaviour::Work).provider()).await;
    let made = app.post("/v1/contexts?wait=ready", body(USER, "a heron")).await;
    assert_eq!((made.status, &made.body["embedding_status"]), (StatusCode::CREATED, &json!("ready")));
    let path = format!("/v1/contexts/{}", made.id());
    assert_eq!(made.headers["location"], path.as_str());
    assert_eq!(made.headers["etag"], "\"1\"");
    let waiting = format!("{path}?wait=ready");
    let new = body(USER, "an otter").to_string();
    let replaced = app.send(Method::PUT, &waiting, new).await.body;
    assert_eq!((&replaced["embedding_status"], &replaced["version"]), (&json!("ready"), &json!(2)));
    let patched =
        app.send(Method::PATCH, &waiting, json!({"content": {"t": "a badger"}}).to_string()).await.body;
    assert_eq!((&patched["embedding_status"], &patched["version"]), (&json!("ready"), &json!(3)));
    let found = app.search(json!({"query": "a badger", "mode": "semantic"})).await.body;
    assert_eq!(found["data"][0]["context"]["content"]["t"], "a badger");
}

#[tokio::test]
async fn a_write_that_waits_and_is_sent_again_is_one_write() {
    let app = App::start_with(StubProvider::start(Behaviour::Work).provider()).await;
    let send = async || {
        let request = app.request(Method::POST, "/v1/contexts?wait=ready").bearer_auth(&app.key);
        answer(request.header("idempotency-key", "once").json(&body(USER, "a heron"))).await
    };
    let (first, second) = (send().await, send().await);
    assert_eq!((first.status, &first.body["embedding_status"]), (StatusCode::CREATED, &json!("ready")));
    assert_eq!((second.status, &second.body), (first.status, &first.body));
}

#[tokio::test]
async fn nobody_waits_for_a_provider_that_is_away() {
    let app = App::start_with(Provider::Tei { url: "http://127.0.0.1:1".to_owned(), api_key: None }).await;
    eventually("a provider that is known to be away", Duration::from_secs(10), async || {
        let health = app.get("/health").await.body;
        (health["checks"]["embeddings"]["status"] != "ok").then_some(())
    })
    .await;
    let started = Instant::now();
    let pending = app.post("/v1/contexts?wait=ready", body(USER, "a heron")).await;
    assert_eq!((pending.status, &pending.body["embedding_status"]), (StatusCode::CREATED, &json!("pending")));
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_refusal_ends_the_wait() {
    let app = App::start_with(StubProvider::start(Behaviour::Poison("wolf")).provider()).await;
    let refused = app.post("/v1/contexts?wait=ready", body(USER, "a wolf")).await;
    assert_eq!((refused.status, &refused.body["embedding_status"]), (StatusCode::CREATED, &json!("failed")));
    assert!(refused.body["embedding_error"].is_string(), "{:?}", refused.body);
}

#[tokio::test]
async fn only_what_can_be_waited_for_is_accepted() {
    let app = App::start_with(StubProvider::start(Behaviour::Work).provider()).await;
    for query in ["wait=embedded", "wait=", "weight=ready"] {
        let refused = app.post(&format!("/v1/contexts?{query}"), body(USER, "a heron")).await;
        assert_eq!(
            (refused.status, refused.code()),
            (StatusCode::BAD_REQUEST, "invalid_parameter"),
            "{query}"
        );
    }
    assert_eq!(usage(&app).await["stored"]["contexts"], 0);
}

#[tokio::test]
async fn usage_tells_what_is_stored_and_what_waits() {
    let stub = StubProvider::start(Behaviour::Answer(503, ""));
    let app = App::start_with(stub.provider()).await;
    let empty = usage(&app).await;
    assert_eq!(empty["embedding"]["oldest_pending_since"], Value::Null);
    assert_eq!(empty["stored"]["bytes"], 0);
    let written = app.post("/v1/contexts", body(USER, "a heron")).await.body;
    app.post("/v1/contexts", body(OTHER, "an otter")).await;
    let silent = json!({"user_id": USER, "context_type": "note", "content": 1, "text": ""});
    let silent = app.post("/v1/contexts", silent).await.id();
    let since = usage(&app).await["embedding"]["oldest_pending_since"].clone();
    assert!(since.is_string());
    // It waits since its text was written, whatever else of it is changed.
    let patch = json!({"metadata": {"a": 1}}).to_string();
    app.send(Method::PATCH, &format!("/v1/contexts/{}", written["id"].as_str().unwrap()), patch).await;
    app.delete(&format!("/v1/contexts/{silent}")).await;
    let waiting = usage(&app).await;
    let stored = &waiting["stored"];
    assert_eq!(
        [&stored["contexts"], &stored["deleted_contexts"], &stored["chunks"], &stored["embeddings"]],
        [&json!(2), &json!(1), &json!(2), &json!(0)],
        "{waiting}"
    );
    assert_eq!(stored["versions"], 2, "one patched, one deleted");
    // The heron with its first version, the otter, and what was deleted, twice.
    assert_eq!(stored["bytes"], (16 + 8 + 7) + (16 + 2 + 7) + (17 + 2 + 8) + 2 * (1 + 2), "{waiting}");
    let embedding = &waiting["embedding"];
    assert_eq!((&embedding["pending"], &embedding["failed"]), (&json!(2), &json!(0)));
    assert_eq!(embedding["oldest_pending_since"], since);
    let age = embedding["oldest_pending_seconds"].as_f64().unwrap();
    assert!(age > 0.0 && usage(&app).await["embedding"]["oldest_pending_seconds"].as_f64().unwrap() > age);

    let user = UserId(OTHER.parse().unwrap());
    let bound = app.new_key_for(DEFAULT_TENANT, vec![Scope::Read], Some(user)).await;
    let theirs = app.send_as(&bound, Method::GET, "/v1/usage", None).await.body;
    assert_eq!((&theirs["stored"]["contexts"], &theirs["embedding"]["pending"]), (&json!(1), &json!(1)));
    assert_eq!(theirs["stored"]["bytes"], 17 + 2 + 8);

    stub.behave(Behaviour::Work);
    eventually("an empty queue", Duration::from_secs(20), async || {
        (usage(&app).await["embedding"]["pending"] == 0).then_some(())
    })
    .await;
    let done = usage(&app).await;
    assert_eq!((&done["stored"]["embeddings"], &done["embedding"]["space"]["dims"]), (&json!(2), &json!(8)));
    assert_eq!(done["embedding"]["oldest_pending_seconds"], 0.0);
    app.service.measure_backlog().await.unwrap();
}

#[tokio::test]
async fn what_failed_is_listed_and_tried_again() {
    let stub = StubProvider::start(Behaviour::Poison("wolf"));
    let app = App::start_with(stub.provider()).await;
    for (user, text) in [(USER, "a wolf"), (USER, "another wolf"), (OTHER, "their wolf"), (USER, "a heron")] {
        app.post("/v1/contexts", body(user, text)).await;
    }
    let failed = async || usage(&app).await["embedding"]["failed"].clone();
    eventually("three refusals", Duration::from_secs(20), async || (failed().await == 3).then_some(())).await;
    let list = app.get(r#"/v1/contexts?filter={"embedding_status":"failed"}"#).await.body;
    let list = list["data"].as_array().unwrap();
    assert_eq!(list.len(), 3);
    assert!(list.iter().all(|context| context["embedding_error"].is_string()), "{list:?}");

    let calls = stub.calls();
    let again = retry(&app, &app.key, json!({"filter": {"content.t": "a wolf"}})).await;
    assert_eq!(again.body, json!({"retried": 1, "has_more": false}));
    eventually("the same refusal", Duration::from_secs(20), async || {
        (stub.calls() > calls && failed().await == 3).then_some(())
    })
    .await;

    stub.behave(Behaviour::Work);
    let user = UserId(OTHER.parse().unwrap());
    let bound = app.new_key_for(DEFAULT_TENANT, vec![Scope::Write], Some(user)).await;
    assert_eq!(retry(&app, &bound, json!({})).await.body["retried"], 1, "only its own user's");
    let others = retry(&app, &bound, json!({"user_id": USER})).await;
    assert_eq!((others.status, others.code()), (StatusCode::FORBIDDEN, "user_not_allowed"));
    let rest = app.send_as(&app.key, Method::POST, "/v1/contexts/retry-embeddings", None).await;
    assert_eq!(rest.body, json!({"retried": 2, "has_more": false}));
    eventually("all of them", Duration::from_secs(20), async || {
        let usage = usage(&app).await;
        (usage["stored"]["embeddings"] == 4 && usage["embedding"]["failed"] == 0).then_some(())
    })
    .await;
    assert_eq!(retry(&app, &app.key, json!({})).await.body["retried"], 0);
    let wrong = retry(&app, &app.key, json!({"filter": {"nope": 1}})).await;
    assert_eq!(wrong.body["errors"][0]["pointer"], "/filter/nope");
}
