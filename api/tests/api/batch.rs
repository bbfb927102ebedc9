//! `/v1/contexts/batch`: many writes in one request.

use std::collections::HashSet;

use context_api::domain::{DEFAULT_TENANT, Scope, UserId};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Answer, App, Behaviour, StubProvider, USER};

const PATH: &str = "/v1/contexts/batch";

async fn quick() -> App {
    App::start_with(StubProvider::start(Behaviour::Work).provider()).await
}

/// A context with these fields besides the obligatory ones.
fn context(fields: Value) -> Value {
    let mut body = json!({"user_id": USER, "context_type": "note", "content": 1});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    body
}

fn create(fields: Value) -> Value {
    json!({"op": "create", "context": context(fields)})
}

fn upsert(key: &str, content: impl Into<Value>) -> Value {
    json!({"op": "upsert", "context": context(json!({"key": key, "content": content.into()}))})
}

async fn run(app: &App, operations: Value) -> Vec<Value> {
    let answer = app.post(PATH, json!({"operations": operations})).await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    answer.body["results"].as_array().unwrap().clone()
}

async fn run_atomic(app: &App, operations: Value) -> Answer {
    app.post(PATH, json!({"atomic": true, "operations": operations})).await
}

fn statuses(results: &[Value]) -> Vec<u64> {
    results.iter().map(|result| result["status"].as_u64().unwrap()).collect()
}

async fn count(app: &App) -> Value {
    app.post("/v1/contexts/count", json!({})).await.body["count"].clone()
}

async fn get(app: &App, id: &Value) -> Answer {
    app.get(&format!("/v1/contexts/{}", id.as_str().unwrap())).await
}

#[tokio::test]
async fn operations_are_done_and_answered_in_their_order() {
    let app = quick().await;
    let (changed, deleted) = (app.note("a heron").await.id(), app.note("an otter").await.id());
    let results = run(
        &app,
        json!([
            create(json!({"key": "a", "content": "one"})),
            upsert("a", "two"),
            upsert("a", "two"),
            upsert("b", "one"),
            {"op": "update", "id": changed, "context": context(json!({"content": "a stork"}))},
            {"op": "delete", "id": deleted},
            {"op": "update", "id": changed, "if_version": 2, "context": context(json!({"key": "c"}))},
            upsert("c", "three"),
            {"op": "upsert", "if_version": 4, "context": context(json!({"key": "c", "content": "four"}))},
            create(json!({})),
            create(json!({})),
        ]),
    )
    .await;
    assert_eq!(statuses(&results), [201, 200, 200, 201, 200, 204, 200, 200, 200, 201, 201], "{results:?}");
    for (index, result) in results.iter().enumerate() {
        assert_eq!((&result["index"], result.get("error")), (&json!(index), None));
    }
    let versions: Vec<i64> = results.iter().map(|result| result["version"].as_i64().unwrap()).collect();
    assert_eq!(versions, [1, 2, 2, 1, 2, 2, 3, 4, 5, 1, 1]);
    assert!((1..3).all(|index| results[index]["id"] == results[0]["id"]));
    assert!([4_usize, 6, 7, 8].iter().all(|index| results[*index]["id"] == json!(changed)));
    assert_eq!(get(&app, &results[0]["id"]).await.body["content"], "two");
    assert_eq!(get(&app, &json!(changed)).await.body["content"], "four");
    assert_eq!(get(&app, &json!(deleted)).await.code(), "context_not_found");
    assert_eq!(count(&app).await, 5);
    let found = app.search(json!({"query": "heron otter stork", "mode": "keyword"})).await.body;
    assert_eq!(found["data"], json!([]), "superseded and deleted text is found no more");
}

#[tokio::test]
async fn contexts_of_a_batch_are_like_those_that_were_written_alone() {
    let app = quick().await;
    app.embedded(&app.note("the first one makes the space").await.id()).await;
    let long = "A sentence about herons and otters. ".repeat(100);
    let results = run(
        &app,
        json!([
            create(json!({"content": {"t": "a badger"}, "metadata": {"n": 1}, "valid_to": "2999-01-01T00:00:00Z"})),
            create(json!({"content": {"t": long}})),
            create(json!({"content": {"t": "given"}, "embedding": [0, 0, 0, 0, 0, 0, 0, -1]})),
        ]),
    )
    .await;
    assert_eq!(statuses(&results), [201; 3]);
    for result in &results {
        let context = app.embedded(result["id"].as_str().unwrap()).await;
        assert_eq!(context["embedding_status"], "ready");
    }
    let found = app.search(json!({"query": "badger", "mode": "keyword"})).await.body;
    assert_eq!(found["data"][0]["context"]["id"], results[0]["id"]);
    let nearest = json!({"vector": [0, 0, 0, 0, 0, 0, 0, -1], "mode": "semantic", "limit": 1});
    assert_eq!(app.search(nearest).await.body["data"][0]["context"]["id"], results[2]["id"]);
    let everything = app.search(json!({"vector": vec![1; 8], "mode": "semantic"})).await.body;
    assert!(everything["candidates"].as_i64().unwrap() > 6, "the long one has chunks: {everything}");
    for result in &results {
        let target = result["id"].as_str().unwrap();
        let log = app.get(&format!("/v1/audit-log?target_id={target}")).await.body;
        assert_eq!(log["data"][0]["action"], "context.create");
        assert_eq!(log["data"].as_array().unwrap().len(), 1);
    }
}

/// One operation of each kind that fails: what it is, its error, and the place below the operation.
fn failing(existing: &str, taken: &str) -> Vec<(Value, u64, &'static str, &'static str)> {
    let unknown = Uuid::new_v4();
    let update = |id: &str, fields: Value| json!({"op": "update", "id": id, "context": context(fields)});
    let old = json!({"op": "update", "id": existing, "if_version": 9, "context": context(json!({}))});
    let absent = json!({"op": "upsert", "if_version": 1, "context": context(json!({"key": "absent"}))});
    vec![
        (create(json!({"key": ""})), 400, "invalid_request", "/context/key"),
        (create(json!({"metadata": []})), 400, "invalid_request", "/context/metadata"),
        (create(json!({"content": {"a": "\u{0}"}})), 400, "invalid_json", "/context/content/a"),
        (create(json!({"ttl_seconds": 0})), 400, "invalid_request", "/context/ttl_seconds"),
        (create(json!({"colour": 1})), 400, "invalid_request", "/context/colour"),
        (create(json!({"text": "x".repeat(256 * 1024 + 1)})), 413, "text_too_long", "/context/text"),
        (create(json!({"embedding": [1, 2]})), 422, "invalid_vector", "/context/embedding"),
        (create(json!({"embedding": vec![0; 8]})), 422, "invalid_vector", "/context/embedding"),
        (json!({"op": "create"}), 400, "invalid_request", "/context"),
        (
            json!({"op": "create", "id": unknown, "context": context(json!({}))}),
            400,
            "invalid_request",
            "/id",
        ),
        (
            json!({"op": "create", "if_version": 1, "context": context(json!({}))}),
            400,
            "invalid_request",
            "/if_version",
        ),
        (json!({"op": "fly"}), 400, "invalid_request", "/op"),
        (json!({"op": "delete", "id": existing, "colour": 1}), 400, "invalid_request", "/colour"),
        (json!({"op": "delete"}), 400, "invalid_request", "/id"),
        (json!({"op": "delete", "id": "x"}), 400, "invalid_request", "/id"),
        (
            json!({"op": "delete", "id": existing, "context": context(json!({}))}),
            400,
            "invalid_request",
            "/context",
        ),
        (json!({"op": "update", "context": context(json!({}))}), 400, "invalid_request", "/id"),
        (
            json!({"op": "upsert", "if_version": 1, "context": context(json!({}))}),
            400,
            "invalid_request",
            "/if_version",
        ),
        (json!(5), 400, "invalid_request", ""),
        (update(existing, json!({"user_id": unknown})), 400, "invalid_request", "/context/user_id"),
        (update(&unknown.to_string(), json!({})), 404, "context_not_found", ""),
        (json!({"op": "delete", "id": unknown}), 404, "context_not_found", ""),
        (update(existing, json!({"key": taken})), 409, "key_conflict", "/context/key"),
        (create(json!({"key": taken})), 409, "key_conflict", "/context/key"),
        (old, 412, "precondition_failed", ""),
        (json!({"op": "delete", "id": existing, "if_version": 9}), 412, "precondition_failed", ""),
        (absent, 412, "precondition_failed", ""),
    ]
}

#[tokio::test]
async fn one_that_fails_neither_sinks_the_others_nor_is_half_done() {
    let app = quick().await;
    app.embedded(&app.note("the first one makes the space").await.id()).await;
    let written = run(&app, json!([create(json!({"key": "mine"})), create(json!({"key": "taken"}))])).await;
    let existing = written[0]["id"].as_str().unwrap();
    let mut total = 3;
    let mut all = Vec::new();
    for (operation, status, code, pointer) in failing(existing, "taken") {
        let shown: String = operation.to_string().chars().take(120).collect();
        let results = run(&app, json!([create(json!({})), operation, create(json!({}))])).await;
        total += 2;
        assert_eq!(statuses(&results), [201, status, 201], "{shown}: {results:?}");
        let error = &results[1]["error"];
        assert_eq!((&error["code"], &error["status"]), (&json!(code), &json!(status)), "{shown}");
        assert_eq!(error["errors"][0]["pointer"].as_str().unwrap_or_default(), pointer, "{shown}: {error}");
        assert_eq!((results[1].get("id"), results[1].get("version")), (None, None), "{shown}");
        let atomic =
            run_atomic(&app, json!([create(json!({})), create(json!({"key": "new"})), operation])).await;
        assert_eq!((u64::from(atomic.status.as_u16()), atomic.code()), (status, code), "{shown}");
        assert_eq!(atomic.headers["content-type"], "application/problem+json");
        let place = json!(format!("/operations/2{pointer}"));
        assert_eq!(atomic.body["errors"][0]["pointer"], place, "{shown}: {:?}", atomic.body);
        all.push(operation);
    }
    assert_eq!(count(&app).await, total, "nothing of what was atomic");
    // All of them in one, with good ones of every kind among them.
    let mut operations = vec![upsert("a", 1)];
    for (index, operation) in all.iter().enumerate() {
        operations.extend([operation.clone(), upsert("a", index), create(json!({}))]);
    }
    let results = run(&app, json!(operations)).await;
    let good = statuses(&results).into_iter().filter(|status| *status < 300).count();
    assert_eq!(good, operations.len() - all.len(), "{results:?}");
    assert_eq!(get(&app, &written[0]["id"]).await.body["version"], 1, "which all of them failed to change");
}

#[tokio::test]
async fn an_atomic_batch_happens_as_a_whole() {
    let app = quick().await;
    let operations = json!([create(json!({"key": "a"})), upsert("a", 2), upsert("b", 1), create(json!({}))]);
    let done = run_atomic(&app, operations).await;
    assert_eq!(
        (done.status, statuses(done.body["results"].as_array().unwrap())),
        (StatusCode::OK, vec![201, 200, 201, 201])
    );
    assert_eq!(count(&app).await, 3);
}

#[tokio::test]
async fn a_thousand_pass_and_one_more_is_refused() {
    let app = quick().await;
    for (operations, status) in [(0, 400), (1_001, 400), (1_000, 200)] {
        let list: Vec<Value> = (0..operations).map(|n| upsert(&format!("k{n}"), n)).collect();
        let answer = app.post(PATH, json!({"operations": list})).await;
        assert_eq!(answer.status.as_u16(), status, "{operations}: {:?}", answer.body["code"]);
        if status == 400 {
            assert_eq!(answer.body["errors"][0]["pointer"], "/operations");
            continue;
        }
        let results = answer.body["results"].as_array().unwrap();
        assert!(statuses(results).iter().all(|status| *status == 201));
        let ids: HashSet<&str> = results.iter().map(|result| result["id"].as_str().unwrap()).collect();
        assert_eq!(ids.len(), operations);
        // Each result is that of its own operation.
        for index in [0_usize, 1, 9, 10, 500, 999] {
            assert_eq!(get(&app, &results[index]["id"]).await.body["content"], json!(index));
        }
    }
    assert_eq!(count(&app).await, 1_000);
    let again: Vec<Value> = (0..1_000).map(|n| upsert(&format!("k{n}"), n)).collect();
    let results = run(&app, json!(again)).await;
    assert!(
        results.iter().all(|result| result["status"] == 200 && result["version"] == 1),
        "nothing differed"
    );
    for body in [json!({}), json!({"operations": 5}), json!({"operations": [], "colour": 1}), json!([])] {
        assert_eq!(app.post(PATH, body.clone()).await.code(), "invalid_request", "{body}");
    }
}

#[tokio::test]
async fn two_clients_with_the_same_keys_in_opposite_order_both_get_through() {
    let app = quick().await;
    for round in 0..20 {
        let batch = |order: Vec<usize>, content: &'static str| {
            let operations: Vec<Value> =
                order.iter().map(|key| upsert(&format!("k{key}"), format!("{content} {round}"))).collect();
            app.send(Method::POST, PATH, json!({"operations": operations}).to_string())
        };
        let (one, two) = tokio::join!(batch((0..50).collect(), "one"), batch((0..50).rev().collect(), "two"));
        for answer in [&one, &two] {
            assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
            assert!(statuses(answer.body["results"].as_array().unwrap()).iter().all(|status| *status < 300));
        }
        let list = app.get("/v1/contexts?limit=200").await.body;
        let contents: HashSet<String> =
            list["data"].as_array().unwrap().iter().map(|row| row["content"].to_string()).collect();
        assert_eq!(contents.len(), 1, "one came after the other as a whole: {contents:?}");
    }
    assert_eq!(count(&app).await, 50);
}

#[tokio::test]
async fn a_key_that_is_bound_to_a_user_writes_for_nobody_else() {
    let app = quick().await;
    let theirs = app.post("/v1/contexts", context(json!({"key": "k", "content": "a secret"}))).await.id();
    let own = Uuid::parse_str("0190d5a0-0000-7000-8000-0000000000bb").unwrap();
    let scopes = vec![Scope::Read, Scope::Write];
    let key = app.new_key_for(DEFAULT_TENANT, scopes, Some(UserId(own))).await;
    let operations = json!([
        create(json!({"user_id": own, "key": "k"})),
        create(json!({})),
        upsert("k", 2),
        {"op": "update", "id": theirs, "context": context(json!({}))},
        {"op": "update", "id": theirs, "context": context(json!({"user_id": own}))},
        {"op": "delete", "id": theirs},
        {"op": "delete", "id": theirs, "if_version": 1},
    ]);
    let send = async |atomic: bool| {
        let body = json!({"atomic": atomic, "operations": operations}).to_string();
        app.send_as(&key, Method::POST, PATH, Some(body.into())).await
    };
    let atomic = send(true).await;
    assert_eq!((atomic.status, atomic.code()), (StatusCode::FORBIDDEN, "user_not_allowed"));
    assert_eq!(atomic.body["errors"][0]["pointer"], "/operations/1");
    assert_eq!(count(&app).await, 1);
    let results = send(false).await.body["results"].as_array().unwrap().clone();
    assert_eq!(statuses(&results), [201, 403, 403, 403, 404, 404, 404], "{results:?}");
    let after = app.get(&format!("/v1/contexts/{theirs}")).await.body;
    assert_eq!((&after["version"], &after["content"]), (&json!(1), &json!("a secret")));
    assert_eq!(count(&app).await, 2);
}

#[tokio::test]
async fn the_key_of_a_deleted_context_can_be_created_again() {
    let app = quick().await;
    let first = app.post("/v1/contexts", context(json!({"key": "k"}))).await.id();
    let results = run(
        &app,
        json!([{"op": "delete", "id": first}, create(json!({"key": "k", "content": "anew"})), {"op": "delete", "id": first},
               {"op": "delete", "id": first}, upsert("k", "once more")]),
    )
    .await;
    assert_eq!(statuses(&results), [204, 200, 204, 404, 200], "{results:?}");
    let now = app.get(&format!("/v1/contexts/{first}")).await.body;
    assert_eq!(
        (&now["content"], &now["version"], &now["is_active"]),
        (&json!("once more"), &json!(5), &json!(true))
    );
}
