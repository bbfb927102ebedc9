//! Import and export: any number of contexts, a line each.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Answer, App, Behaviour, StubProvider, USER, answer};

pub(super) async fn app() -> App {
    App::start_with(StubProvider::start(Behaviour::Work).provider()).await
}

pub(super) fn line(number: usize) -> Value {
    json!({"user_id": USER, "context_type": "note", "content": {"n": number}, "text": ""})
}

pub(super) fn lines(values: impl IntoIterator<Item = Value>) -> String {
    values.into_iter().flat_map(|value| [value.to_string(), "\n".to_owned()]).collect()
}

pub(super) async fn import(
    app: &App,
    query: &str,
    key: Option<&str>,
    body: impl Into<reqwest::Body>,
) -> Answer {
    let mut request = app
        .request(Method::POST, &format!("/v1/contexts/import{query}"))
        .bearer_auth(&app.key)
        .header("content-type", "application/x-ndjson");
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    answer(request.body(body)).await
}

pub(super) async fn export(app: &App, query: &str) -> (String, String) {
    let request = app.request(Method::GET, &format!("/v1/contexts/export{query}")).bearer_auth(&app.key);
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let as_of = response.headers()["context-as-of"].to_str().unwrap().to_owned();
    (response.text().await.unwrap(), as_of)
}

pub(super) async fn count(app: &App) -> u64 {
    app.post("/v1/contexts/count", json!({})).await.body["count"].as_u64().unwrap()
}

#[tokio::test]
async fn lines_that_cannot_be_stored_are_named_and_the_others_are_stored() {
    let app = app().await;
    let long = format!(r#"{{"content":"{}"}}"#, "x".repeat(8 * 1024 * 1024));
    let body = [
        line(1).to_string(),
        String::new(),
        "not json".to_owned(),
        r#"{"user_id":"me"}"#.to_owned(),
        long,
        json!({"user_id": USER, "context_type": "note", "content": {"a": 1}, "ttl_seconds": 0}).to_string(),
        "   ".to_owned(),
        // The last line needs no end.
        line(2).to_string(),
    ]
    .join("\n");
    let answer = import(&app, "", None, body).await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    let counts = |name: &str| answer.body[name].as_u64().unwrap();
    assert_eq!((counts("lines"), counts("created"), counts("failed"), counts("next_line")), (8, 2, 4, 9));
    let errors: Vec<(u64, &str)> = answer.body["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| (error["line"].as_u64().unwrap(), error["error"]["code"].as_str().unwrap()))
        .collect();
    assert_eq!(
        errors,
        [(3, "invalid_json"), (4, "invalid_request"), (5, "body_too_large"), (6, "invalid_request")]
    );
    assert_eq!(answer.body["errors"][3]["error"]["errors"][0]["pointer"], "/ttl_seconds");
    assert_eq!(count(&app).await, 2);
    let operation =
        app.get(&format!("/v1/operations/{}", answer.body["operation_id"].as_str().unwrap())).await;
    assert_eq!(
        (&operation.body["status"], &operation.body["result"]["failed"]),
        (&json!("succeeded"), &json!(4))
    );
}

#[tokio::test]
async fn many_errors_are_counted_and_the_first_are_shown() {
    let app = app().await;
    let answer = import(&app, "", None, "x\n".repeat(1_200)).await;
    assert_eq!(answer.body["failed"], 1_200);
    assert_eq!(answer.body["errors"].as_array().unwrap().len(), 100);
}

#[tokio::test]
async fn an_import_that_is_sent_again_stores_nothing_twice() {
    let app = app().await;
    let body = lines((0..1_100).map(line));
    let first = import(&app, "", Some("file"), body.clone()).await;
    assert_eq!(first.body["created"], 1_100, "{:?}", first.body);
    let changed = app.get("/v1/contexts?limit=1").await.body["data"][0].clone();
    let id = changed["id"].as_str().unwrap();
    let patch = json!({"metadata": {"by": "somebody"}}).to_string();
    assert_eq!(app.send(Method::PATCH, &format!("/v1/contexts/{id}"), patch).await.status, StatusCode::OK);
    let again = import(&app, "", Some("file"), body.clone()).await;
    assert_eq!(
        (&again.body["created"], &again.body["unchanged"]),
        (&json!(0), &json!(1_100)),
        "{:?}",
        again.body
    );
    assert_eq!(again.body["operation_id"], first.body["operation_id"]);
    let kept = app.get(&format!("/v1/contexts/{id}")).await.body;
    assert_eq!(kept["metadata"], json!({"by": "somebody"}), "what was changed since stays changed");
    let rest = lines((1_000..1_200).map(line));
    let rest = import(&app, "?first_line=1001", Some("file"), rest).await;
    assert_eq!(
        (&rest.body["created"], &rest.body["unchanged"]),
        (&json!(100), &json!(100)),
        "{:?}",
        rest.body
    );
    assert_eq!(rest.body["next_line"], 1_201);
    assert_eq!(count(&app).await, 1_200);
    let other = import(&app, "", None, lines((0..10).map(line))).await;
    assert_eq!(other.body["created"], 10, "without a name it is another import");
    for (query, key) in
        [("?first_line=0", None), ("?first_line=x", None), ("", Some("a b")), ("?first=1", None)]
    {
        let refused = import(&app, query, key, "").await;
        assert_eq!(
            (refused.status, refused.code()),
            (StatusCode::BAD_REQUEST, "invalid_parameter"),
            "{query}"
        );
    }
    let json = app.post("/v1/contexts/import", line(1)).await;
    assert_eq!(json.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test]
async fn lines_about_the_same_context_are_stored_in_their_order() {
    let app = app().await;
    let keyed = |n: usize| json!({"user_id": USER, "context_type": "note", "key": "k", "content": {"n": n}, "text": ""});
    let answer = import(&app, "", None, lines([keyed(1), line(0), keyed(2), keyed(3), keyed(3)])).await;
    let body = &answer.body;
    assert_eq!(
        [&body["created"], &body["updated"], &body["unchanged"]],
        [&json!(2), &json!(2), &json!(1)],
        "{body:?}"
    );
    let found = app.get("/v1/contexts?filter=%7B%22key%22%3A%22k%22%7D").await.body;
    assert_eq!((&found["data"][0]["content"]["n"], &found["data"][0]["version"]), (&json!(3), &json!(3)));
}

#[tokio::test]
async fn an_export_is_an_import_and_comes_out_the_same() {
    let source = app().await;
    let rich = json!({
        "user_id": USER, "context_type": "note", "key": "ä\"\\", "metadata": {"a": [1, null, {"b": 1.50}]},
        "content": {"long": "digits", "b": "second", "a": "first"},
        "sliding_ttl_seconds": 3600, "valid_from": "2020-01-01T00:00:00Z", "valid_to": "2999-01-01T00:00:00.5Z"
    });
    let dims = source.note("something, so that there is a space").await;
    source.embedded(&dims.id()).await;
    let number = source.search(json!({"query": "x", "mode": "semantic"})).await.body["space"]["dims"]
        .as_u64()
        .unwrap();
    let vector: Vec<f64> = (0..number).map(|n| (n as f64 + 0.3).sin()).collect();
    let given = json!({
        "user_id": USER, "context_type": "note", "content": {"t": "given"}, "embedding": vector, "text": "of my own"
    });
    // With digits that a double does not have.
    let rich = rich.to_string().replace("\"digits\"", "12345678901234567890.5");
    let stored = import(&source, "", None, format!("{rich}\n{}", lines([given, line(7)]))).await;
    assert_eq!(stored.body["created"], 3, "{:?}", stored.body);
    let id = source.get("/v1/contexts?limit=1").await.body["data"][0]["id"].clone();
    let path = format!("/v1/contexts/{}", id.as_str().unwrap());
    source.send(Method::PATCH, &path, json!({"metadata": {"v": 2}}).to_string()).await;
    let gone = source.note("deleted").await.id();
    source.delete(&format!("/v1/contexts/{gone}")).await;
    let (first, _) = export(&source, "").await;
    assert_eq!(first.lines().count(), 4, "{first}");
    assert!(first.contains("12345678901234567890.5") && first.contains("\"embedding\""), "{first}");
    source.stop().await;

    let target = app().await;
    // There, too, the space has to be known before a vector can be of it.
    let warm_up = target.note("first").await.id();
    target.embedded(&warm_up).await;
    target.delete(&format!("/v1/contexts/{warm_up}?purge=true")).await;
    let imported = import(&target, "", None, first.clone()).await;
    assert_eq!(
        (&imported.body["created"], &imported.body["failed"]),
        (&json!(4), &json!(0)),
        "{:?}",
        imported.body
    );
    let (second, as_of) = export(&target, "").await;
    assert_eq!(first, second);
    let again = import(&target, "", None, second.clone()).await;
    assert_eq!(again.body["unchanged"], 4, "{:?}", again.body);
    let ready = target.get("/v1/contexts").await.body;
    let given = ready["data"].as_array().unwrap().iter().find(|c| c["text"] == "of my own").unwrap().clone();
    assert_eq!(given["embedding_status"], "ready", "its embedding came along");
    target.delete(&format!("/v1/contexts/{}", given["id"].as_str().unwrap())).await;
    let (then, _) = export(&target, &format!("?as_of={as_of}")).await;
    assert_eq!(then, second, "that moment stays as it was");
    let (now, _) = export(&target, "").await;
    assert_eq!(now.lines().count(), 3);
    let back = import(&target, "", None, second.clone()).await;
    assert_eq!(back.body["updated"], 1, "what was deleted since comes back: {:?}", back.body);
    target.stop().await;
}

#[tokio::test]
async fn an_export_shows_one_moment_however_much_is_written_meanwhile() {
    let app = app().await;
    import(&app, "", None, lines((0..450).map(line))).await;
    let (all, as_of) = export(&app, "").await;
    let ids: Vec<String> = all
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!((ids.len(), ids.is_sorted()), (450, true));
    for id in ids.iter().step_by(9) {
        app.send(Method::PATCH, &format!("/v1/contexts/{id}"), json!({"content": {"n": "new"}}).to_string())
            .await;
    }
    for id in ids.iter().skip(1).step_by(9) {
        app.delete(&format!("/v1/contexts/{id}")).await;
    }
    import(&app, "", None, lines((0..50).map(line))).await;
    let (rest, again) = export(&app, &format!("?as_of={as_of}&after={}", ids[199])).await;
    assert_eq!(again, as_of);
    assert_eq!(rest, all.split_inclusive('\n').skip(200).collect::<String>());
    let (now, _) = export(&app, "?filter=%7B%22content.n%22%3A%22new%22%7D").await;
    assert_eq!(now.lines().count(), 50);
    for query in ["?as_of=yesterday", "?after=x", "?filter=%7B", "?limit=1"] {
        assert_eq!(
            app.get(&format!("/v1/contexts/export{query}")).await.status,
            StatusCode::BAD_REQUEST,
            "{query}"
        );
    }
}

#[tokio::test]
async fn another_file_under_the_same_name_loses_no_line() {
    let app = app().await;
    import(&app, "", Some("name"), lines((0..3).map(line))).await;
    let other = import(&app, "", Some("name"), lines((10..13).map(line))).await;
    assert_eq!(other.body["created"], 3, "{:?}", other.body);
    assert_eq!(count(&app).await, 6);
    app.stop().await;
}
