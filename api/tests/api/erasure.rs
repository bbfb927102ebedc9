//! Erasing a user: nothing of it is found afterwards by any route, and nobody else loses anything.

use context_api::domain::{DEFAULT_TENANT, Scope};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{App, Behaviour, StubProvider, USER, answer};

const OTHER: &str = "0190d5a0-0000-7000-8000-0000000000cc";

async fn write(app: &App, user: &str, key: Option<&str>, text: &str) -> Value {
    let mut request = app
        .request(Method::POST, "/v1/contexts")
        .bearer_auth(&app.key)
        .json(&json!({"user_id": user, "context_type": "note", "content": {"t": text}}));
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    let written = answer(request).await;
    assert_eq!(written.status, StatusCode::CREATED, "{:?}", written.body);
    written.body
}

#[tokio::test]
async fn everything_of_a_user_is_gone_and_a_receipt_says_what_it_was() {
    let app = App::start_with(StubProvider::start(Behaviour::Work).provider()).await;
    let ids: Vec<String> = {
        let mut ids = Vec::new();
        for number in 0..450 {
            let key = (number == 0).then_some("kept");
            ids.push(
                write(&app, USER, key, &format!("marmot {number}")).await["id"].as_str().unwrap().to_owned(),
            );
        }
        ids
    };
    let others = write(&app, OTHER, None, "marmot of another").await;
    app.embedded(&ids[449]).await;
    app.embedded(others["id"].as_str().unwrap()).await;
    let patch = json!({"metadata": {"v": 2}}).to_string();
    app.send(Method::PATCH, &format!("/v1/contexts/{}", ids[0]), patch).await;
    app.delete(&format!("/v1/contexts/{}", ids[1])).await;
    let bound = app
        .post("/v1/api-keys", json!({"name": "theirs", "scopes": ["read", "write"], "user_id": USER}))
        .await;
    let bound_key = bound.body["key"].as_str().unwrap().to_owned();

    let erased = app.delete(&format!("/v1/users/{USER}")).await;
    assert_eq!(
        (erased.status, &erased.body["status"]),
        (StatusCode::OK, &json!("succeeded")),
        "{:?}",
        erased.body
    );
    let receipt = &erased.body["result"];
    assert_eq!(receipt["user_id"], USER);
    let counts = &receipt["erased"];
    assert_eq!((&counts["contexts"], &counts["versions"]), (&json!(450), &json!(2)), "{counts}");
    assert_eq!(
        (&counts["idempotency_keys"], &counts["api_keys_revoked"]),
        (&json!(1), &json!(1)),
        "{counts}"
    );
    assert!(
        counts["chunks"].as_u64().unwrap() >= 449 && counts["embeddings"].as_u64().unwrap() >= 1,
        "{counts}"
    );
    assert!(receipt["remains"].as_str().unwrap().contains("Backups"));

    for id in [&ids[0], &ids[1], &ids[449]] {
        for path in [format!("/v1/contexts/{id}"), format!("/v1/contexts/{id}/versions")] {
            assert_eq!(app.get(&path).await.status, StatusCode::NOT_FOUND, "{path}");
        }
        let then = format!("/v1/contexts/{id}?as_of={}", others["created_at"].as_str().unwrap());
        assert_eq!(app.get(&then).await.status, StatusCode::NOT_FOUND);
        let restored = app.post(&format!("/v1/contexts/{id}/restore"), json!({})).await;
        assert_eq!(restored.status, StatusCode::NOT_FOUND);
    }
    assert_eq!(app.get("/v1/contexts").await.body["data"].as_array().unwrap().len(), 1);
    for mode in ["keyword", "semantic", "hybrid"] {
        let found = app.search(json!({"query": "marmot", "mode": mode, "limit": 100})).await.body;
        let data = found["data"].as_array().unwrap();
        assert!(
            data.iter().all(|hit| hit["context"]["user_id"] == OTHER) && data.len() == 1,
            "{mode}: {found}"
        );
    }
    let listed = app.send_as(&bound_key, Method::GET, "/v1/contexts", None).await;
    assert_eq!(listed.code(), "invalid_api_key", "bound keys are revoked");
    let keys = app.get("/v1/api-keys").await.body.to_string();
    assert!(!keys.contains(USER) && !keys.contains("theirs"), "{keys}");
    let exported = app.get("/v1/contexts/export").await.body.to_string();
    assert!(!exported.contains(USER));
    // The kept answer is gone, too: the same request is a new one now.
    write(&app, USER, Some("kept"), "marmot 0").await;
    app.stop().await;
}

#[tokio::test]
async fn erasing_who_has_nothing_is_no_error_and_needs_an_admin() {
    let app = App::start_with(StubProvider::start(Behaviour::Work).provider()).await;
    let erased = app.delete(&format!("/v1/users/{USER}")).await;
    assert_eq!(erased.status, StatusCode::OK);
    assert_eq!(erased.body["result"]["erased"]["contexts"], 0);
    let id = erased.id();
    let writer = app.new_key(DEFAULT_TENANT, vec![Scope::Read, Scope::Write]).await;
    for action in ["cancel", "retry"] {
        let path = format!("/v1/operations/{id}/{action}");
        let refused = app.send_as(&writer, Method::POST, &path, None).await;
        assert_eq!((refused.status, refused.code()), (StatusCode::FORBIDDEN, "missing_scope"), "{action}");
        let ended = app.post(&path, json!({})).await;
        assert_eq!((ended.status, ended.code()), (StatusCode::CONFLICT, "operation_conflict"), "{action}");
    }
    let missing = app.get(&format!("/v1/operations/{}", uuid::Uuid::now_v7())).await;
    assert_eq!((missing.status, missing.code()), (StatusCode::NOT_FOUND, "operation_not_found"));
    let audit = app.get(&format!("/v1/audit-log?target_id={USER}")).await.body;
    assert_eq!(audit["data"][0]["action"], "user.erase");
    let events = app.request(Method::GET, &format!("/v1/operations/{id}/events")).bearer_auth(&app.key);
    let response = events.send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let text = response.text().await.unwrap();
    let data = text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
    assert!(text.starts_with("event: operation\n"), "{text}");
    assert_eq!(serde_json::from_str::<Value>(data).unwrap()["status"], "succeeded", "{text}");
    app.stop().await;
}
