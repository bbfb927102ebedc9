//! How much a tenant may store: what is refused when it has as much, what is not, and how it gets room again.

use std::time::Duration;

use context_api::domain::{DEFAULT_TENANT, Limits, Scope, UserId};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    support::{Answer, App, Behaviour, Database, Setup, StubProvider, USER, answer, eventually},
    transfer::{import, line, lines},
};

pub(super) const OTHER: &str = "0190d5a0-0000-7000-8000-0000000000cc";

async fn on(database: Database, stored_bytes_max: Option<i64>) -> App {
    let limits = Limits { stored_bytes_max, ..Limits::default() };
    let providers = vec![StubProvider::start(Behaviour::Work).provider()];
    Box::pin(App::start_as(Setup { providers, limits, ..Setup::on(database) })).await
}

/// Without a quota; what a tenant has stored before it gets one.
pub(super) async fn unlimited() -> App {
    on(Database::create().await, None).await
}

/// The same data, which are as much as may be.
async fn full(app: App) -> App {
    let bytes = bytes(&app).await;
    on(app.stop().await, Some(bytes)).await
}

pub(super) async fn bytes(app: &App) -> i64 {
    app.get("/v1/usage").await.body["stored"]["bytes"].as_i64().unwrap()
}

fn body(text: &str) -> Value {
    json!({"user_id": USER, "context_type": "note", "content": {"t": text}})
}

fn is_refused(answer: &Answer) -> bool {
    (answer.status, answer.code()) == (StatusCode::FORBIDDEN, "storage_quota_exceeded")
}

pub(super) async fn patch(app: &App, path: &str, body: Value) -> Answer {
    app.send(Method::PATCH, path, body.to_string()).await
}

#[tokio::test]
async fn whatever_would_store_something_is_refused_and_all_else_goes_on() {
    let app = unlimited().await;
    let [changed, deleted] = [app.created(json!({"key": "k"})).await, app.created(json!({})).await];
    patch(&app, &changed, json!({"metadata": {"long": "before"}})).await;
    app.delete(&deleted).await;
    let app = full(app).await;
    let stored = bytes(&app).await;

    let refused = app.note("a heron").await;
    assert!(is_refused(&refused), "{refused:?}");
    let detail = refused.body["detail"].as_str().unwrap();
    assert!(detail.contains(&format!("has {stored} bytes stored and may have {stored}.")), "{detail}");
    assert!(detail.contains("Purge contexts"), "{detail}");
    let scopes = vec![Scope::Read, Scope::Write];
    let of_one_user = app.new_key_for(DEFAULT_TENANT, scopes, Some(USER.parse().unwrap())).await;
    let told =
        app.send_as(&of_one_user, Method::POST, "/v1/contexts", Some(body("x").to_string().into())).await;
    let without_numbers = "This tenant has as much stored as it may. Purge contexts";
    assert!(
        is_refused(&told) && told.body["detail"].as_str().unwrap().starts_with(without_numbers),
        "{told:?}"
    );
    assert_eq!(refused.body.get("errors"), None, "no field of the request is to blame");
    let mut upsert = body("a heron");
    upsert["key"] = json!("k");
    let put = app.send(Method::PUT, &changed, body("a heron").to_string()).await;
    let smaller = patch(&app, &changed, json!({"content": 1, "metadata": null})).await;
    let conditional = app.request(Method::POST, "/v1/contexts").bearer_auth(&app.key).json(&body("x"));
    let conditional = answer(conditional.header("if-none-match", "*")).await;
    for (what, answer) in [
        ("an upsert", app.post("/v1/contexts", upsert).await),
        ("a replacement", put),
        ("a patch that leaves less, beside the version that was", smaller),
        ("a creation on a condition", conditional),
        ("bringing back", app.post(&format!("{deleted}/restore"), json!({})).await),
        ("going back", app.post(&format!("{changed}/restore"), json!({"version": 1})).await),
    ] {
        assert!(is_refused(&answer), "{what}: {answer:?}");
    }
    let unknown = format!("/v1/contexts/{}", uuid::Uuid::now_v7());
    assert_eq!(patch(&app, &unknown, json!({})).await.code(), "context_not_found");
    let unchanged = app.post(&format!("{changed}/restore"), json!({})).await;
    assert_eq!((unchanged.status, &unchanged.body["version"]), (StatusCode::OK, &json!(2)));
    assert_eq!(bytes(&app).await, stored, "nothing was written");

    assert_eq!(app.search(json!({"query": "text"})).await.body["data"].as_array().unwrap().len(), 1);
    let usage = app.get("/v1/usage").await.body["stored"].clone();
    assert_eq!((&usage["bytes"], &usage["bytes_max"]), (&json!(stored), &json!(stored)));
    let user = UserId(USER.parse().unwrap());
    let bound = app.new_key_for(DEFAULT_TENANT, vec![Scope::Read], Some(user)).await;
    let usage = app.get_as(&bound, "/v1/usage").await.body["stored"].clone();
    assert_eq!((&usage["bytes"], &usage["bytes_max"]), (&json!(stored), &Value::Null));

    let stranger = app.new_key(app.new_tenant().await, Scope::all()).await;
    let theirs = Some(body("an otter").to_string().into());
    let theirs = app.send_as(&stranger, Method::POST, "/v1/contexts", theirs).await;
    assert_eq!(theirs.status, StatusCode::CREATED, "another tenant has its own: {theirs:?}");
    assert_eq!(app.delete(&changed).await.status, StatusCode::NO_CONTENT);
    app.stop().await;
}

#[tokio::test]
async fn of_a_batch_only_what_stores_something_fails() {
    let app = unlimited().await;
    let changed = app.created(json!({})).await;
    let [first, second] = [app.created(json!({})).await, app.created(json!({})).await];
    let id = |path: &str| path.rsplit('/').next().unwrap().to_owned();
    let app = full(app).await;
    let delete = |path: &str| json!({"op": "delete", "id": id(path)});
    let create = json!({"op": "create", "context": body("a heron")});
    let update = json!({"op": "update", "id": id(&changed), "context": body("an otter")});
    let mut keyed = body("a badger");
    keyed["key"] = json!("k");
    let upsert = json!({"op": "upsert", "context": keyed});

    let atomic = json!({"atomic": true, "operations": [delete(&first), create]});
    let atomic = app.post("/v1/contexts/batch", atomic).await;
    assert!(is_refused(&atomic), "{atomic:?}");
    assert_eq!(atomic.body["errors"][0]["pointer"], "/operations/1");
    assert_eq!(app.get(&first).await.status, StatusCode::OK, "none of it happened");

    let operations = json!([create, delete(&first), update, upsert, delete(&second)]);
    let batch = app.post("/v1/contexts/batch", json!({"operations": operations})).await;
    assert_eq!(batch.status, StatusCode::OK, "{batch:?}");
    let results = batch.body["results"].as_array().unwrap();
    let codes: Vec<&Value> = results.iter().map(|result| &result["error"]["code"]).collect();
    let full = json!("storage_quota_exceeded");
    assert_eq!(codes, [&full, &Value::Null, &full, &full, &Value::Null], "{results:?}");
    assert_eq!(app.get(&second).await.status, StatusCode::NOT_FOUND);
    assert_eq!(app.get(&changed).await.body["version"], 1);
    app.stop().await;
}

#[tokio::test]
async fn lines_of_an_import_without_room_fail_and_are_stored_when_it_is_sent_again() {
    let app = unlimited().await;
    let first = import(&app, "", Some("thirsty"), lines((0..3).map(line))).await;
    assert_eq!(first.body["created"], 3);
    let large = app.created(json!({"content": "x".repeat(10_000)})).await;
    let key = app.key.clone();
    let mut app = full(app).await;
    app.key = key;
    let again = async || import(&app, "", Some("thirsty"), lines((0..5).map(line))).await;
    let refused = again().await;
    assert_eq!(refused.status, StatusCode::OK, "{refused:?}");
    let counts = ["unchanged", "created", "failed"].map(|name| refused.body[name].as_u64().unwrap());
    assert_eq!(counts, [3, 0, 2], "what is there is there: {refused:?}");
    let errors = refused.body["errors"].as_array().unwrap();
    let told: Vec<(&Value, &Value)> = errors.iter().map(|e| (&e["line"], &e["error"]["code"])).collect();
    let full = json!("storage_quota_exceeded");
    assert_eq!(told, [(&json!(4), &full), (&json!(5), &full)]);
    app.delete(&format!("{large}?purge=true")).await;
    eventually("room for the rest", Duration::from_secs(20), async || {
        let answer = again().await.body;
        (answer["failed"] == 0).then(|| assert_eq!(answer["created"], 2, "{answer}"))
    })
    .await;
    app.stop().await;
}

#[tokio::test]
async fn purging_and_erasing_make_room_and_deleting_alone_does_not() {
    let app = unlimited().await;
    let purged = app.created(json!({"content": "x".repeat(1_000)})).await;
    let theirs = json!({"user_id": OTHER, "context_type": "note", "content": "y".repeat(1_000)});
    app.post("/v1/contexts", theirs).await;
    let app = full(app).await;
    let create = async || app.note("a heron").await;
    let accepted = async |what: &str| {
        eventually(what, Duration::from_secs(20), async || {
            let answer = create().await;
            (answer.status == StatusCode::CREATED).then_some(()).or_else(|| {
                assert!(is_refused(&answer), "{answer:?}");
                None
            })
        })
        .await;
    };
    let before = bytes(&app).await;
    assert!(is_refused(&create().await));
    app.delete(&purged).await;
    assert!(bytes(&app).await > before, "it can be restored");
    assert!(is_refused(&create().await));
    app.delete(&format!("{purged}?purge=true")).await;
    accepted("room after a purge").await;
    eventually("no room again", Duration::from_secs(20), async || {
        let theirs = json!({"user_id": OTHER, "context_type": "note", "content": "y".repeat(1_000)});
        is_refused(&app.post("/v1/contexts", theirs).await).then_some(())
    })
    .await;
    let erased = app.delete(&format!("/v1/users/{OTHER}")).await;
    assert_eq!(erased.body["status"], "succeeded", "{erased:?}");
    accepted("room after an erasure").await;
    app.stop().await;
}

#[tokio::test]
async fn what_was_answered_before_there_was_no_room_is_answered_again() {
    let app = unlimited().await;
    let send = async |app: &App, key: &str, path: &str, body: &Value| {
        let request = app.request(Method::POST, path).bearer_auth(key).header("idempotency-key", path);
        answer(request.json(body)).await
    };
    let batch = json!({"atomic": true, "operations": [{"op": "create", "context": body("an otter")}]});
    let requests = [("/v1/contexts", body("a heron")), ("/v1/contexts/batch", batch)];
    let mut first = Vec::new();
    for (path, body) in &requests {
        first.push(send(&app, &app.key, path, body).await);
    }
    let key = app.key.clone();
    let app = full(app).await;
    for ((path, body), first) in requests.iter().zip(first) {
        let again = send(&app, &key, path, body).await;
        assert_eq!((again.status, again.body), (first.status, first.body), "{path}");
    }
    assert!(is_refused(&app.note("a badger").await));
    app.stop().await;
}
