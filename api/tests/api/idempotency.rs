//! `Idempotency-Key`: a write that is sent again is done once and answered the same.

use std::collections::HashSet;

use context_api::domain::{DEFAULT_TENANT, Scope, TenantId, UserId};
use futures_util::{StreamExt, stream};
use reqwest::{
    Method, StatusCode,
    header::{HeaderMap, HeaderValue},
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Answer, App, Behaviour, StubProvider, USER, answer};

const CLIENTS: usize = 20;

async fn quick() -> App {
    App::start_with(StubProvider::start(Behaviour::Work).provider()).await
}

fn context(content: impl Into<Value>) -> Value {
    json!({"user_id": USER, "context_type": "note", "content": content.into()})
}

fn request(app: &App, key: &str, path: &str, name: &str, body: &Value) -> reqwest::RequestBuilder {
    app.request(Method::POST, path).bearer_auth(key).header("idempotency-key", name).json(body)
}

async fn post(app: &App, path: &str, name: &str, body: &Value) -> Answer {
    answer(request(app, &app.key, path, name, body)).await
}

/// An answer to the last byte.
#[derive(Debug, PartialEq)]
struct Raw {
    status: StatusCode,
    location: Option<HeaderValue>,
    etag: Option<HeaderValue>,
    content_type: Option<HeaderValue>,
    body: String,
}

async fn raw(request: reqwest::RequestBuilder) -> Raw {
    let response = request.send().await.unwrap();
    let header = |headers: &HeaderMap, name: &str| headers.get(name).cloned();
    Raw {
        status: response.status(),
        location: header(response.headers(), "location"),
        etag: header(response.headers(), "etag"),
        content_type: header(response.headers(), "content-type"),
        body: response.text().await.unwrap(),
    }
}

async fn count(app: &App) -> Value {
    app.post("/v1/contexts/count", json!({})).await.body["count"].clone()
}

#[tokio::test]
async fn the_same_request_is_answered_the_same_and_done_once() {
    let app = quick().await;
    let body = context("a heron");
    let send = async || raw(request(&app, &app.key, "/v1/contexts", "k", &body)).await;
    let first = send().await;
    assert_eq!(first.status, StatusCode::CREATED, "{first:?}");
    assert!(first.location.is_some() && first.etag.is_some());
    let id = serde_json::from_str::<Value>(&first.body).unwrap()["id"].as_str().unwrap().to_owned();
    assert_eq!(send().await, first);
    // What became of it meanwhile is another matter.
    let path = format!("/v1/contexts/{id}");
    app.send(Method::PATCH, &path, r#"{"metadata":{"a":1}}"#).await;
    assert_eq!(send().await, first);
    app.delete(&path).await;
    assert_eq!(send().await, first);
    assert_eq!(count(&app).await, 0);
    let log = app.get(&format!("/v1/audit-log?target_id={id}")).await.body;
    assert_eq!(log["data"].as_array().unwrap().len(), 3, "created, changed and deleted once: {log}");
    assert_eq!(post(&app, "/v1/contexts", "another", &body).await.status, StatusCode::CREATED);
    assert_eq!(count(&app).await, 1);
}

#[tokio::test]
async fn a_key_belongs_to_one_request() {
    let app = quick().await;
    assert_eq!(post(&app, "/v1/contexts", "k", &context(1)).await.status, StatusCode::CREATED);
    let batch = json!({"operations": [{"op": "create", "context": context(1)}]});
    let tenant = json!({"name": Uuid::new_v4()});
    for (path, body) in [("/v1/contexts", context(2)), ("/v1/contexts/batch", batch), ("/v1/tenants", tenant)]
    {
        let refused = post(&app, path, "k", &body).await;
        assert_eq!((refused.status.as_u16(), refused.code()), (422, "idempotency_key_reused"), "{path}");
    }
    assert_eq!(count(&app).await, 1, "nothing happened");
    let stranger = app.new_key(app.new_tenant().await, Scope::all()).await;
    let theirs = answer(request(&app, &stranger, "/v1/contexts", "k", &context(2))).await;
    assert_eq!(theirs.status, StatusCode::CREATED, "each tenant has keys of its own");
}

#[tokio::test]
async fn a_request_that_failed_leaves_its_key_free() {
    let app = quick().await;
    let existing = json!({"user_id": USER, "context_type": "note", "key": "taken", "content": 1});
    assert_eq!(app.post("/v1/contexts", existing.clone()).await.status, StatusCode::CREATED);
    let wrong = json!({"user_id": USER, "context_type": "", "content": 1});
    let atomic = json!({"atomic": true, "operations": [{"op": "create", "context": context(1)},
                                                       {"op": "create", "context": existing}]});
    let condition = request(&app, &app.key, "/v1/contexts", "k", &existing).header("if-none-match", "*");
    assert_eq!(answer(condition).await.code(), "precondition_failed");
    for (path, body, code) in [
        ("/v1/contexts", wrong, "invalid_request"),
        ("/v1/contexts/batch", atomic, "key_conflict"),
        ("/v1/tenants", json!({"name": "default"}), "tenant_exists"),
        ("/v1/api-keys", json!({"name": "", "scopes": ["read"]}), "invalid_request"),
    ] {
        assert_eq!(post(&app, path, "k", &body).await.code(), code, "{path}");
    }
    assert_eq!(count(&app).await, 1);
    assert_eq!(post(&app, "/v1/contexts", "k", &context(1)).await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn many_at_once_are_one_write() {
    let app = quick().await;
    for (round, path) in ["/v1/contexts", "/v1/contexts/batch"].into_iter().enumerate() {
        let new = context(format!("a heron {round}"));
        let body = if round == 0 { new } else { json!({"operations": [{"op": "create", "context": new}]}) };
        let name = format!("k{round}");
        let sends = (0..CLIENTS).map(|_| raw(request(&app, &app.key, path, &name, &body)));
        let answers: Vec<Raw> = stream::iter(sends).buffer_unordered(CLIENTS).collect().await;
        let (done, in_flight): (Vec<&Raw>, Vec<&Raw>) =
            answers.iter().partition(|answer| answer.status.is_success());
        let bodies: HashSet<&String> = done.iter().map(|answer| &answer.body).collect();
        assert_eq!(bodies.len(), 1, "{answers:?}");
        for answer in in_flight {
            let problem: Value = serde_json::from_str(&answer.body).unwrap();
            assert_eq!(
                (answer.status.as_u16(), &problem["code"]),
                (409, &json!("idempotency_key_in_flight"))
            );
        }
        assert_eq!(count(&app).await, round + 1);
    }
}

#[tokio::test]
async fn a_malformed_key_is_refused_and_the_longest_taken() {
    let app = quick().await;
    let (longest, longer) = ("x".repeat(255), "x".repeat(256));
    for name in ["", " ", "a b", &longer] {
        let refused = post(&app, "/v1/contexts", name, &context(1)).await;
        assert_eq!((refused.status.as_u16(), refused.code()), (400, "invalid_parameter"), "{name:?}");
        assert_eq!(refused.body["errors"][0]["pointer"], "Idempotency-Key");
    }
    assert_eq!(count(&app).await, 0);
    for name in ["!", "~", &longest, "0190d5a0-0000-7000-8000-0000000000aa"] {
        let (first, second) = (
            post(&app, "/v1/contexts", name, &context(1)).await,
            post(&app, "/v1/contexts", name, &context(1)).await,
        );
        assert_eq!((first.status, first.id()), (StatusCode::CREATED, second.id()), "{name}");
    }
}

#[tokio::test]
async fn users_with_keys_of_their_own_do_not_meet() {
    let app = quick().await;
    let mut ids = HashSet::new();
    for user in [USER, "0190d5a0-0000-7000-8000-0000000000bb"] {
        let bound = UserId(user.parse().unwrap());
        let key = app.new_key_for(DEFAULT_TENANT, vec![Scope::Read, Scope::Write], Some(bound)).await;
        let again = app.new_key_for(DEFAULT_TENANT, vec![Scope::Write], Some(bound)).await;
        let body = json!({"user_id": user, "context_type": "note", "content": 1});
        let first = answer(request(&app, &key, "/v1/contexts", "k", &body)).await;
        let second = answer(request(&app, &again, "/v1/contexts", "k", &body)).await;
        assert_eq!(first.status, StatusCode::CREATED, "{:?}", first.body);
        assert_eq!(first.id(), second.id(), "the user's, whichever of his keys he sends it with");
        ids.insert(first.id());
    }
    let unbound = post(&app, "/v1/contexts", "k", &context(1)).await;
    assert_eq!(unbound.status, StatusCode::CREATED);
    ids.insert(unbound.id());
    assert_eq!(ids.len(), 3);
}

#[tokio::test]
async fn every_write_that_makes_something_new_takes_a_key() {
    let app = quick().await;
    let note = app.note("a heron").await.id();
    app.delete(&format!("/v1/contexts/{note}")).await;
    let api_key = app.post("/v1/api-keys", json!({"name": "old", "scopes": ["read"]})).await.id();
    let operations = json!([{"op": "create", "context": context(1)}, {"op": "create", "context": context("")},
                            {"op": "delete", "id": Uuid::new_v4()}]);
    let tenant = Uuid::new_v4().to_string();
    for (path, body) in [
        ("/v1/contexts/batch".to_owned(), json!({"operations": operations})),
        (format!("/v1/contexts/{note}/restore"), json!({})),
        ("/v1/tenants".to_owned(), json!({"name": tenant})),
    ] {
        let send = || raw(request(&app, &app.key, &path, &path, &body));
        let first = send().await;
        assert!(first.status.is_success(), "{first:?}");
        assert_eq!(send().await, first, "{path}");
    }
    assert_eq!(count(&app).await, 3, "two of the batch, and the restored one");
    let tenants = app.get("/v1/tenants?limit=200").await.body;
    assert_eq!(
        tenants["data"].as_array().unwrap().iter().filter(|t| t["name"] == tenant.as_str()).count(),
        1
    );
    for (path, body) in [
        ("/v1/api-keys".to_owned(), json!({"name": "new", "scopes": ["read"]})),
        (format!("/v1/api-keys/{api_key}/rotate"), json!({"overlap_seconds": 60})),
    ] {
        let keys = async || app.get("/v1/api-keys?limit=200").await.body["data"].as_array().unwrap().len();
        let before = keys().await;
        let first = post(&app, &path, &path, &body).await;
        let second = post(&app, &path, &path, &body).await;
        assert_eq!((first.status, second.status), (StatusCode::CREATED, StatusCode::CREATED), "{path}");
        let secret = first.body["key"].as_str().unwrap();
        let used = app.send_as(secret, Method::GET, "/v1/contexts", None).await;
        assert_eq!((used.status, &second.body["key"]), (StatusCode::OK, &Value::Null), "{path}");
        let mut without_secret = first.body.clone();
        without_secret["key"] = Value::Null;
        assert_eq!(second.body, without_secret);
        assert_eq!(keys().await, before + 1, "{path}");
    }
}

/// An operator's own writes and those in the name of another tenant are of one name space: his.
#[tokio::test]
async fn an_operator_who_makes_keys_for_tenants_does_not_meet_theirs() {
    let app = quick().await;
    let (one, two) = (app.new_tenant().await, app.new_tenant().await);
    let new = |tenant: TenantId| json!({"name": "theirs", "scopes": ["read", "write"], "tenant_id": tenant});
    let first = post(&app, "/v1/api-keys", "k", &new(one)).await;
    assert_eq!(first.status, StatusCode::CREATED);
    let reused = post(&app, "/v1/api-keys", "k", &new(two)).await;
    assert_eq!(reused.code(), "idempotency_key_reused", "another tenant is another request");
    let theirs = first.body["key"].as_str().unwrap();
    let write = answer(request(&app, theirs, "/v1/contexts", "k", &context(1))).await;
    assert_eq!(write.status, StatusCode::CREATED, "the tenant has never used this key: {:?}", write.body);
}
