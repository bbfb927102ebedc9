//! Which embedding a context has: a change of anything but its text keeps it, and a caller may bring one.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Answer, App, Behaviour, StubProvider, USER};

/// Those of the stub's vectors.
const DIMENSIONS: usize = 8;

async fn patch(app: &App, path: &str, body: &Value) -> Answer {
    app.send(Method::PATCH, path, body.to_string()).await
}

#[tokio::test]
async fn a_change_of_anything_but_the_text_keeps_the_embedding() {
    let stub = StubProvider::start(Behaviour::Work);
    let app = App::start_with(stub.provider()).await;
    let path = app.created(json!({"content": {"title": "a heron", "body": "stands still"}})).await;
    let id = path.rsplit('/').next().unwrap().to_owned();
    app.embedded(&id).await;
    let texts = stub.texts();
    for change in [
        json!({"metadata": {"a": 1}}),
        json!({"context_type": "bird"}),
        json!({"key": "heron", "expires_at": "2999-01-01T00:00:00Z"}),
        json!({"valid_from": "2020-01-01T00:00:00Z"}),
        json!({"content": {"legs": 2}, "text": "a heron\nstands still"}),
    ] {
        let patched = patch(&app, &path, &change).await;
        assert_eq!(
            (patched.status, &patched.body["embedding_status"]),
            (StatusCode::OK, &json!("ready")),
            "{change}"
        );
        let found = app.search(json!({"vector": vec![1.0; DIMENSIONS], "mode": "semantic"})).await;
        assert_eq!(found.body["data"][0]["context"]["id"], json!(id), "{change}");
    }
    assert_eq!(stub.texts(), texts, "nothing was embedded again");
    let typed =
        app.search(json!({"vector": vec![1.0; DIMENSIONS], "mode": "semantic", "context_types": ["bird"]}));
    assert_eq!(typed.await.body["candidates"], 1, "search knows the new type");
}

/// The best hit for a vector, and its score.
async fn nearest(app: &App, vector: &[f64]) -> (String, f64) {
    let found = app.search(json!({"vector": vector, "mode": "semantic"})).await.body;
    (
        found["data"][0]["context"]["id"].as_str().unwrap().to_owned(),
        found["data"][0]["score"].as_f64().unwrap(),
    )
}

#[tokio::test]
async fn a_given_embedding_counts_at_once_until_the_text_changes() {
    let stub = StubProvider::start(Behaviour::Work);
    let app = App::start_with(stub.provider()).await;
    app.embedded(&app.note("the first one makes the space").await.id()).await;
    let texts = stub.texts();
    let mut vector = vec![0.0; DIMENSIONS];
    vector[3] = -2.0;
    let path = app.created(json!({"embedding": vector})).await;
    let id = path.rsplit('/').next().unwrap().to_owned();
    let given = |(found, score): (String, f64)| found == id && score > 0.999;
    let context = app.get(&path).await.body;
    assert_eq!(context["embedding_status"], "ready");
    assert!(context.get("embedding").is_none());
    assert!(given(nearest(&app, &vector).await));
    let patched = patch(&app, &path, &json!({"metadata": {"a": 1}})).await;
    assert_eq!((&patched.body["version"], &patched.body["embedding_status"]), (&json!(2), &json!("ready")));
    assert!(given(nearest(&app, &vector).await));
    let same = patch(&app, &path, &json!({"embedding": vector})).await;
    assert_eq!(same.body["version"], 2, "the same embedding is no change");
    vector[3] = 2.0;
    let turned = patch(&app, &path, &json!({"embedding": vector})).await;
    assert_eq!((&turned.body["version"], &turned.body["embedding_status"]), (&json!(3), &json!("ready")));
    assert!(given(nearest(&app, &vector).await));
    assert_eq!(stub.texts(), texts, "the service embedded nothing");
    let changed = patch(&app, &path, &json!({"content": {"t": "another text"}})).await;
    assert_eq!(changed.body["text"], "another text");
    assert_eq!(app.embedded(&id).await["embedding_status"], "ready");
    assert_eq!(stub.texts(), texts + 1, "now the service did");
    assert!(!given(nearest(&app, &vector).await));
}

#[tokio::test]
async fn an_embedding_of_no_use_is_refused() {
    let away = App::start_with(StubProvider::start(Behaviour::Answer(503, "")).provider()).await;
    let body = json!({"user_id": USER, "context_type": "note", "content": 1, "embedding": [1.0]});
    let early = away.post("/v1/contexts", body).await;
    assert_eq!((early.status.as_u16(), early.code()), (503, "no_embedding_space"));
    assert!(early.headers.contains_key("retry-after"));
    away.stop().await;
    let app = App::start_with(StubProvider::start(Behaviour::Work).provider()).await;
    app.embedded(&app.note("the first one makes the space").await.id()).await;
    let path = app.created(json!({})).await;
    let of = |number: &str, count: usize| format!("[{}]", vec![number; count].join(","));
    for (embedding, status, code, pointer) in [
        (of("1", DIMENSIONS - 1), 422, "invalid_vector", Some("/embedding")),
        (of("1", DIMENSIONS + 1), 422, "invalid_vector", Some("/embedding")),
        (of("0", DIMENSIONS), 422, "invalid_vector", Some("/embedding")),
        (of("1", 0), 422, "invalid_vector", Some("/embedding")),
        (of("1e39", DIMENSIONS), 422, "invalid_vector", Some("/embedding")),
        (of("NaN", DIMENSIONS), 400, "invalid_json", None),
        (of("1e999", DIMENSIONS), 400, "invalid_json", None),
        (of("\"x\"", DIMENSIONS), 400, "invalid_request", Some("/embedding/0")),
        ("{}".to_owned(), 400, "invalid_request", Some("/embedding")),
    ] {
        let new =
            format!(r#"{{"user_id":"{USER}","context_type":"note","content":1,"embedding":{embedding}}}"#);
        let change = format!(r#"{{"embedding":{embedding}}}"#);
        for (method, path, body) in
            [(Method::POST, "/v1/contexts", new), (Method::PATCH, path.as_str(), change)]
        {
            let refused = app.send(method, path, body).await;
            assert_eq!((refused.status.as_u16(), refused.code()), (status, code), "{embedding}");
            assert_eq!(
                refused.body["errors"][0]["pointer"].as_str(),
                pointer,
                "{embedding}: {:?}",
                refused.body
            );
        }
    }
}
