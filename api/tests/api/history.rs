//! What contexts were: superseded versions, the past as of a time, and making a context again what it was.

use context_api::domain::{DEFAULT_TENANT, Scope, UserId};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

use crate::support::{Answer, App, Behaviour, StubProvider, USER};

/// Those of the stub's vectors.
const DIMENSIONS: usize = 8;

async fn quick() -> App {
    App::start_with(StubProvider::start(Behaviour::Work).provider()).await
}

async fn note(app: &App, fields: Value) -> Value {
    let mut body = json!({"user_id": USER, "context_type": "note", "content": {"t": "a text"}});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let answer = app.post("/v1/contexts", body).await;
    assert!(answer.status.is_success(), "{:?}", answer.body);
    answer.body
}

fn path_of(context: &Value) -> String {
    format!("/v1/contexts/{}", context["id"].as_str().unwrap())
}

async fn patch(app: &App, context: &Value, change: Value) -> Value {
    let answer = app.send(Method::PATCH, &path_of(context), change.to_string()).await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    answer.body
}

async fn delete(app: &App, context: &Value) {
    assert_eq!(app.delete(&path_of(context)).await.status, StatusCode::NO_CONTENT);
}

async fn restore(app: &App, context: &Value, body: Value) -> Answer {
    app.post(&format!("{}/restore", path_of(context)), body).await
}

async fn versions(app: &App, context: &Value) -> Vec<Value> {
    let answer = app.get(&format!("{}/versions?limit=200", path_of(context))).await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    assert_eq!((&answer.body["has_more"], &answer.body["next_cursor"]), (&json!(false), &Value::Null));
    answer.body["data"].as_array().unwrap().clone()
}

/// The time in `text`, so many microseconds later.
fn moved(text: &Value, microseconds: i64) -> String {
    let at = OffsetDateTime::parse(text.as_str().unwrap(), &Rfc3339).unwrap();
    (at + Duration::microseconds(microseconds)).format(&Rfc3339).unwrap()
}

/// The versions that the three ways to ask say were in force at `at`: by id, in a list and in a count.
async fn in_force(app: &App, context: &Value, at: &str) -> Option<i64> {
    let got = app.get(&format!("{}?as_of={at}", path_of(context))).await;
    let (id, kind) = (&context["id"], context["context_type"].as_str().unwrap());
    let listed = app.get(&format!("/v1/contexts?context_type={kind}&as_of={at}")).await.body;
    let row = listed["data"].as_array().unwrap().iter().find(|row| row["id"] == *id);
    let counted = app.post("/v1/contexts/count", json!({"as_of": at, "filter": {"id": id}})).await.body;
    assert_eq!(counted["count"], json!(u8::from(row.is_some())), "{at}");
    if got.status == StatusCode::NOT_FOUND {
        assert!(row.is_none(), "{at}: {row:?}");
        return None;
    }
    let row = row.unwrap_or_else(|| panic!("{at}: in the list, too"));
    for field in ["version", "content", "updated_at"] {
        assert_eq!(row[field], got.body[field], "{at}: {field}");
    }
    assert_eq!(got.headers["etag"], format!("\"{}\"", got.body["version"]).as_str());
    got.body["version"].as_i64()
}

#[tokio::test]
async fn versions_are_listed_newest_first_each_until_the_next_one() {
    let app = quick().await;
    let first = note(&app, json!({"key": "k", "metadata": {"n": 1}, "ttl_seconds": 1000})).await;
    assert_eq!(versions(&app, &first).await, Vec::<Value>::new(), "the present one is not among them");
    let mut writes = vec![first];
    for n in 2..=5 {
        let next = patch(&app, &writes[0], json!({"metadata": {"n": n}})).await;
        writes.push(next);
    }
    let past = versions(&app, &writes[0]).await;
    let numbers: Vec<i64> = past.iter().map(|past| past["context"]["version"].as_i64().unwrap()).collect();
    assert_eq!(numbers, [4, 3, 2, 1]);
    for (past, pair) in past.iter().rev().zip(writes.windows(2)) {
        for field in
            ["id", "user_id", "key", "content", "metadata", "text", "created_at", "updated_at", "expires_at"]
        {
            assert_eq!(past["context"][field], pair[0][field], "{field}");
        }
        assert_eq!(past["superseded_at"], pair[1]["updated_at"]);
    }
    let (mut seen, mut page) = (Vec::new(), format!("{}/versions?limit=3", path_of(&writes[0])));
    loop {
        let answer = app.get(&page).await.body;
        seen.extend(
            answer["data"].as_array().unwrap().iter().map(|v| v["context"]["version"].as_i64().unwrap()),
        );
        let Some(cursor) = answer["next_cursor"].as_str() else { break };
        page = format!("{}/versions?limit=3&cursor={cursor}", path_of(&writes[0]));
        // One that comes while somebody pages does not shift the pages.
        patch(&app, &writes[0], json!({"metadata": {"n": "another"}})).await;
    }
    assert_eq!(seen, [4, 3, 2, 1]);
    delete(&app, &writes[0]).await;
    let of_deleted = versions(&app, &writes[0]).await;
    assert_eq!((of_deleted.len(), &of_deleted[0]["context"]["is_active"]), (6, &json!(true)));
}

#[tokio::test]
async fn there_is_no_past_of_what_one_may_not_see() {
    let app = quick().await;
    let context = note(&app, json!({})).await;
    patch(&app, &context, json!({"metadata": {"n": 1}})).await;
    let unknown = json!({"id": Uuid::new_v4()});
    let other = UserId("0190d5a0-0000-7000-8000-0000000000bb".parse().unwrap());
    let scopes = vec![Scope::Read, Scope::Write];
    let bound = app.new_key_for(DEFAULT_TENANT, scopes.clone(), Some(other)).await;
    let foreign = app.new_key(app.new_tenant().await, scopes).await;
    let own = app.key.clone();
    for (key, context) in [(own, &unknown), (bound, &context), (foreign, &context)] {
        let path = path_of(context);
        for (method, path, body) in [
            (Method::GET, format!("{path}/versions"), None),
            (Method::GET, format!("{path}?as_of=2900-01-01T00:00:00Z"), None),
            (Method::POST, format!("{path}/restore"), Some("{}")),
            (Method::POST, format!("{path}/restore"), Some(r#"{"version":1}"#)),
        ] {
            let answer = app.send_as(&key, method, &path, body.map(Into::into)).await;
            assert_eq!(
                (answer.status, answer.code()),
                (StatusCode::NOT_FOUND, "context_not_found"),
                "{path}"
            );
        }
    }
}

#[tokio::test]
async fn one_page_of_versions_stays_small_however_large_they_are() {
    let app = quick().await;
    let large = "x".repeat(1_900_000);
    let context = note(&app, json!({"text": "", "content": large})).await;
    for n in 0..6 {
        patch(&app, &context, json!({"metadata": {"n": n}})).await;
    }
    let (mut seen, mut page) = (0, format!("{}/versions", path_of(&context)));
    loop {
        let answer = app.get(&page).await.body;
        let data = answer["data"].as_array().unwrap().len();
        assert!((1..=4).contains(&data), "{data} versions of 1.9 MB in one page");
        seen += data;
        let Some(cursor) = answer["next_cursor"].as_str() else { break };
        page = format!("{}/versions?cursor={cursor}", path_of(&context));
    }
    assert_eq!(seen, 6);
}

#[tokio::test]
async fn each_moment_has_the_version_that_was_in_force() {
    let app = quick().await;
    let first = note(&app, json!({})).await;
    let second = patch(&app, &first, json!({"metadata": {"n": 2}})).await;
    delete(&app, &first).await;
    let deleted_at = versions(&app, &first).await[0]["superseded_at"].clone();
    assert_eq!(restore(&app, &first, json!({})).await.status, StatusCode::OK);
    let restored = app.get(&path_of(&first)).await.body;
    for (at, microseconds, version) in [
        (&json!("1970-01-01T00:00:00Z"), 0, None),
        (&first["updated_at"], -1, None),
        (&first["updated_at"], 0, Some(1)),
        (&second["updated_at"], -1, Some(1)),
        (&second["updated_at"], 0, Some(2)),
        (&deleted_at, -1, Some(2)),
        (&deleted_at, 0, None),
        (&restored["updated_at"], -1, None),
        (&restored["updated_at"], 0, Some(4)),
        (&json!("9999-12-31T23:59:59Z"), 0, Some(4)),
    ] {
        let at = moved(at, microseconds);
        assert_eq!(in_force(&app, &first, &at).await, version, "{at}");
    }
    assert_eq!(restored["version"], 4);
    for bad in ["yesterday", "", "2026-01-01", "0001-01-01T00:00:00Z"] {
        for path in [path_of(&first), "/v1/contexts".to_owned()] {
            let refused = app.get(&format!("{path}?as_of={bad}")).await;
            assert_eq!((refused.status.as_u16(), refused.code()), (400, "invalid_parameter"), "{bad}");
        }
        let refused = app.post("/v1/contexts/count", json!({"as_of": bad})).await;
        assert_eq!(
            (refused.code(), &refused.body["errors"][0]["pointer"]),
            ("invalid_request", &json!("/as_of"))
        );
    }
}

#[tokio::test]
async fn the_past_is_filtered_and_paged_as_it_was() {
    let app = quick().await;
    let mut written = Vec::new();
    for n in 0..5 {
        written.push(note(&app, json!({"metadata": {"n": n, "state": "old"}})).await);
    }
    let then = written[4]["updated_at"].as_str().unwrap().to_owned();
    for context in &written[..4] {
        patch(&app, context, json!({"metadata": {"state": "new"}})).await;
    }
    delete(&app, &written[1]).await;
    note(&app, json!({"metadata": {"n": 9, "state": "old"}})).await;
    let (mut seen, mut page) = (Vec::new(), format!("/v1/contexts?limit=2&as_of={then}"));
    loop {
        let answer = app.get(&page).await.body;
        let rows = answer["data"].as_array().unwrap();
        assert!(rows.iter().all(|row| row["version"] == 1), "{rows:?}");
        seen.extend(rows.iter().map(|row| row["metadata"]["n"].as_i64().unwrap()));
        let Some(cursor) = answer["next_cursor"].as_str() else { break };
        page = format!("/v1/contexts?limit=2&as_of={then}&cursor={cursor}");
    }
    assert_eq!(seen, [4, 3, 2, 1, 0]);
    let count = async |body: Value| app.post("/v1/contexts/count", body).await.body["count"].clone();
    let old = json!({"metadata.state": "old"});
    assert_eq!(count(json!({"as_of": then, "filter": old})).await, 5);
    assert_eq!(count(json!({"filter": old})).await, 2, "now");
    assert_eq!(count(json!({"as_of": then, "filter": {"version": {"$gt": 1}}})).await, 0);
    assert_eq!(count(json!({"as_of": then, "user_id": Uuid::new_v4()})).await, 0);
    assert_eq!(count(json!({"as_of": then, "context_type": "memo"})).await, 0);
    // Of a version that was superseded nobody asks any more whether it is embedded.
    assert_eq!(count(json!({"as_of": then, "filter": {"embedding_status": "failed"}})).await, 0);
}

#[tokio::test]
async fn a_context_becomes_again_what_it_was() {
    let app = quick().await;
    let fields = json!({"key": "k", "content": {"title": "a heron", "body": "fishes"}, "metadata": {"n": 1},
                        "valid_from": "2020-01-01T00:00:00Z"});
    let first = note(&app, fields).await;
    let change = json!({"context_type": "memo", "key": null, "content": "an otter", "metadata": {"n": null},
                        "valid_from": null, "expires_at": "2999-01-01T00:00:00Z"});
    patch(&app, &first, change).await;
    let restored = restore(&app, &first, json!({"version": 1})).await;
    assert_eq!(restored.status, StatusCode::OK, "{:?}", restored.body);
    assert_eq!(restored.headers["etag"], "\"3\"");
    for field in ["id", "key", "context_type", "content", "metadata", "text", "created_at", "valid_from"] {
        assert_eq!(restored.body[field], first[field], "{field}");
    }
    assert_eq!(restored.body["expires_at"], "2999-01-01T00:00:00Z", "its life stays the present one's");
    for (word, hits) in [("heron", 1), ("otter", 0)] {
        let found = app.search(json!({"query": word, "mode": "keyword"})).await;
        assert_eq!(found.body["data"].as_array().unwrap().len(), hits, "{word}");
    }
    assert_eq!(app.embedded(&restored.id()).await["embedding_status"], "ready");
    for body in [json!({}), json!({"version": 3}), json!({"version": 1}), json!({"version": null})] {
        let again = restore(&app, &first, body.clone()).await;
        assert_eq!(
            (again.status, &again.body["version"]),
            (StatusCode::OK, &json!(3)),
            "{body}: it is so already"
        );
    }
    let no_body = app.request(Method::POST, &format!("{}/restore", path_of(&first))).bearer_auth(&app.key);
    assert_eq!(crate::support::answer(no_body).await.body["version"], 3);
    for (body, status, code) in [
        (json!({"version": 4}), 404, "version_not_found"),
        (json!({"version": 0}), 404, "version_not_found"),
        (json!({"version": "1"}), 400, "invalid_request"),
        (json!({"number": 1}), 400, "invalid_request"),
    ] {
        let refused = restore(&app, &first, body.clone()).await;
        assert_eq!((refused.status.as_u16(), refused.code()), (status, code), "{body}");
    }
    let stale = app.request(Method::POST, &format!("{}/restore", path_of(&first))).bearer_auth(&app.key);
    let stale = crate::support::answer(stale.header("if-match", "\"2\"").json(&json!({"version": 2}))).await;
    assert_eq!(stale.code(), "precondition_failed");
}

#[tokio::test]
async fn a_deleted_context_comes_back_unless_its_key_is_taken() {
    let app = quick().await;
    let first = note(&app, json!({"key": "k"})).await;
    delete(&app, &first).await;
    for version in [2, 3] {
        let refused = restore(&app, &first, json!({"version": version})).await;
        assert_eq!(
            (refused.status.as_u16(), refused.code()),
            (404, "version_not_found"),
            "deleted is no version"
        );
    }
    let back = restore(&app, &first, json!({})).await;
    assert_eq!((back.status, &back.body["version"]), (StatusCode::OK, &json!(3)));
    assert_eq!((&back.body["is_active"], &back.body["key"]), (&json!(true), &json!("k")));
    assert_eq!(
        app.search(json!({"query": "text", "mode": "keyword"})).await.body["data"].as_array().unwrap().len(),
        1
    );
    let renamed = patch(&app, &first, json!({"key": "other"})).await;
    note(&app, json!({"key": "k"})).await;
    for deleted in [false, true] {
        if deleted {
            delete(&app, &first).await;
        }
        let taken = restore(&app, &first, json!({"version": 1})).await;
        assert_eq!((taken.status, taken.code()), (StatusCode::CONFLICT, "key_conflict"), "{:?}", taken.body);
    }
    let own = restore(&app, &first, json!({})).await;
    assert_eq!((&own.body["key"], &own.body["content"]), (&json!("other"), &renamed["content"]));
}

#[tokio::test]
async fn an_embedding_that_was_given_comes_back_with_its_version() {
    let stub = StubProvider::start(Behaviour::Work);
    let app = App::start_with(stub.provider()).await;
    app.embedded(&app.note("the first one makes the space").await.id()).await;
    // No numbers that half precision has exactly.
    let vector: Vec<f64> = (0..DIMENSIONS).map(|n| 0.1 - 0.07 * n as f64).collect();
    let first = note(&app, json!({"embedding": vector})).await;
    patch(&app, &first, json!({"content": {"t": "another text"}})).await;
    app.embedded(first["id"].as_str().unwrap()).await;
    let texts = stub.texts();
    for how in ["a version", "a deleted one"] {
        let body = if how == "a version" { json!({"version": 1}) } else { json!({}) };
        let restored = restore(&app, &first, body).await;
        assert_eq!(restored.body["embedding_status"], "ready", "{how}: {:?}", restored.body);
        let found = app.search(json!({"vector": vector, "mode": "semantic"})).await.body;
        assert_eq!(found["data"][0]["context"]["id"], first["id"], "{how}");
        assert!(found["data"][0]["score"].as_f64().unwrap() > 0.999, "{how}: {found}");
        delete(&app, &first).await;
    }
    assert_eq!(stub.texts(), texts, "nothing was embedded again");
}

#[tokio::test]
async fn a_purge_leaves_nothing_but_its_line_in_the_log() {
    let app = quick().await;
    for deleted_before in [false, true] {
        let context = note(&app, json!({"key": "k", "content": "a secret"})).await;
        let written = patch(&app, &context, json!({"metadata": {"n": 1}})).await;
        if deleted_before {
            delete(&app, &context).await;
        }
        let path = path_of(&context);
        assert_eq!(app.delete(&format!("{path}?purge=true")).await.status, StatusCode::NO_CONTENT);
        assert_eq!(app.get(&format!("{path}/versions")).await.code(), "context_not_found");
        assert_eq!(restore(&app, &context, json!({})).await.code(), "context_not_found");
        assert_eq!(app.delete(&format!("{path}?purge=true")).await.code(), "context_not_found");
        let then = written["updated_at"].as_str().unwrap();
        assert_eq!(in_force(&app, &context, then).await, None);
        assert_eq!(app.get(&format!("/v1/contexts?as_of={then}")).await.body["data"], json!([]));
        let log = app.get(&format!("/v1/audit-log?target_id={}", context["id"].as_str().unwrap())).await.body;
        let log = log["data"].as_array().unwrap();
        let actions: Vec<&str> = log.iter().map(|entry| entry["action"].as_str().unwrap()).collect();
        let deleted: &[&str] = if deleted_before { &["context.delete"] } else { &[] };
        let expected = [&["context.purge"][..], deleted, &["context.update", "context.create"][..]].concat();
        assert_eq!(actions, expected);
        let again = note(&app, json!({"key": "k"})).await;
        assert_ne!(again["id"], context["id"], "its key is free");
        assert_eq!(
            app.delete(&format!("{}?purge=true", path_of(&again))).await.status,
            StatusCode::NO_CONTENT
        );
    }
    let context = note(&app, json!({})).await;
    let wrong = app.delete(&format!("{}?purge=yes", path_of(&context))).await;
    assert_eq!((wrong.status.as_u16(), wrong.code()), (400, "invalid_parameter"));
    let stale =
        app.request(Method::DELETE, &format!("{}?purge=true", path_of(&context))).bearer_auth(&app.key);
    let stale = crate::support::answer(stale.header("if-match", "\"2\"")).await;
    assert_eq!(stale.code(), "precondition_failed");
    assert_eq!(app.get(&path_of(&context)).await.status, StatusCode::OK);
}
