//! Whose turn it is to be embedded.

use std::time::Duration;

use context_api::domain::Scope;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{App, Behaviour, StubProvider, USER, eventually};

fn note(text: &str) -> Value {
    json!({"user_id": USER, "context_type": "note", "content": text})
}

async fn pending(app: &App, key: &str) -> u64 {
    let usage = app.send_as(key, Method::GET, "/v1/usage", None).await.body;
    usage["embedding"]["pending"].as_u64().unwrap()
}

#[tokio::test]
async fn a_crowd_of_one_tenant_does_not_hold_up_another_ones_single_note() {
    let stub = StubProvider::start(Behaviour::Work);
    let app = App::start_with(stub.provider()).await;
    app.embedded(&app.note("the first one makes the space").await.id()).await;
    stub.behave(Behaviour::Hang(Duration::from_millis(100)));
    let operations: Vec<Value> = (0..1_000)
        .map(|n| json!({"op": "create", "context": note(&format!("one of a crowd {n}"))}))
        .collect();
    for _ in 0..2 {
        app.post("/v1/contexts/batch", json!({"operations": operations})).await;
    }
    let other = app.new_key(app.new_tenant().await, Scope::all()).await;
    let body = Some(note("alone").to_string().into());
    let written = app.send_as(&other, Method::POST, "/v1/contexts?wait=ready", body).await;
    assert_eq!(written.body["embedding_status"], "ready");
    let waiting = pending(&app, &app.key).await;
    assert!(waiting > 1_000, "of the crowd {waiting} wait");
}

/// More tenants than one round looks at, each with more than one turn takes: the last one's first turn comes before the first
/// one's second.
#[tokio::test]
async fn every_tenants_turn_comes_however_many_there_are() {
    let stub = StubProvider::start(Behaviour::Work);
    let app = App::start_with(stub.provider()).await;
    app.embedded(&app.note("the first one makes the space").await.id()).await;
    stub.behave(Behaviour::Answer(503, ""));
    let crowd: Vec<Value> =
        (0..80).map(|n| json!({"op": "create", "context": note(&format!("note {n}"))})).collect();
    let mut keys = Vec::new();
    for tenant in 0..130 {
        let key = app.new_key(app.new_tenant().await, Scope::all()).await;
        let operations = if tenant == 129 { &crowd[..1] } else { &crowd[..] };
        let body = Some(json!({"operations": operations}).to_string().into());
        assert!(app.send_as(&key, Method::POST, "/v1/contexts/batch", body).await.status.is_success());
        keys.push(key);
    }
    stub.behave(Behaviour::Hang(Duration::from_millis(20)));
    eventually("the last one's note", Duration::from_secs(30), async || {
        (pending(&app, &keys[129]).await == 0).then_some(())
    })
    .await;
    let mut waiting = 0;
    for key in &keys[..129] {
        waiting += u64::from(pending(&app, key).await > 0);
    }
    assert!(waiting > 60, "{waiting} of 129 have more than their first turn");
    stub.behave(Behaviour::Work);
    for key in &keys {
        eventually("an empty queue", Duration::from_secs(30), async || {
            (pending(&app, key).await == 0).then_some(())
        })
        .await;
    }
}

/// A turn takes few texts: one context with hundreds of chunks does not bring thirty others like it along.
#[tokio::test]
async fn long_texts_of_one_tenant_do_not_hold_up_another_ones_short_one() {
    let stub = StubProvider::start(Behaviour::Work);
    let app = App::start_with(stub.provider()).await;
    app.embedded(&app.note("the first one makes the space").await.id()).await;
    stub.behave(Behaviour::Hang(Duration::from_millis(100)));
    let long = "Otters swim in the river by the old mill. ".repeat(1_500);
    let operations: Vec<Value> = (0..24).map(|_| json!({"op": "create", "context": note(&long)})).collect();
    let written = app.post("/v1/contexts/batch", json!({"operations": operations})).await;
    assert!(written.status.is_success(), "{:?}", written.body);
    let other = app.new_key(app.new_tenant().await, Scope::all()).await;
    let body = Some(note("short").to_string().into());
    let written = app.send_as(&other, Method::POST, "/v1/contexts?wait=ready", body).await;
    assert_eq!(written.body["embedding_status"], "ready");
    let waiting = pending(&app, &app.key).await;
    assert!(waiting > 12, "of the long ones {waiting} wait");
    stub.behave(Behaviour::Work);
    eventually("the long ones", Duration::from_secs(60), async || {
        (pending(&app, &app.key).await == 0).then_some(())
    })
    .await;
}
