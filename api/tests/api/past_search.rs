//! A search as of a time finds what was there then, by the text and the embedding that it had then.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{App, Behaviour, StubProvider, USER};

/// Those of the stub's vectors.
const DIMENSIONS: usize = 8;

async fn quick() -> App {
    App::start_with(StubProvider::start(Behaviour::Work).provider()).await
}

/// Writes a text and waits until it is embedded; answers the context.
async fn write(app: &App, key: &str, text: &str, more: Value) -> Value {
    let mut body = json!({"user_id": USER, "context_type": "note", "key": key, "content": 1, "text": text});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let answer = app.post("/v1/contexts", body).await;
    assert!(answer.status.is_success(), "{:?}", answer.body);
    app.embedded(&answer.id()).await
}

fn time_of(context: &Value) -> &str {
    context["updated_at"].as_str().unwrap()
}

async fn search(app: &App, body: Value) -> Value {
    app.search(body).await.body
}

/// The texts of the chunks that are found.
fn texts(answer: &Value) -> Vec<&str> {
    answer["data"].as_array().unwrap().iter().map(|hit| hit["chunk"]["text"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn each_moment_is_searched_by_its_own_texts_and_embeddings() {
    let app = App::start().await;
    let first = write(&app, "a", "otters swim in the river and eat fish", json!({})).await;
    let other = write(&app, "b", "the recipe asks for two eggs and some flour", json!({})).await;
    let second = write(&app, "a", "a spreadsheet with formulas and pivot tables", json!({})).await;
    let moved = json!({"metadata": {"moved": true}}).to_string();
    let path = format!("/v1/contexts/{}", first["id"].as_str().unwrap());
    let third = app.send(Method::PATCH, &path, moved).await.body;
    for mode in ["semantic", "keyword", "hybrid"] {
        let at = async |as_of: &Value, query: &str| {
            let body = json!({"query": query, "mode": mode, "as_of": as_of, "explain": true, "diversity": 0.1,
                              "recency": {"half_life_seconds": 60}});
            search(&app, body).await
        };
        let then = at(&other["updated_at"], "otters in a river").await;
        assert_eq!(texts(&then)[0], "otters swim in the river and eat fish", "{mode}: {then}");
        let hit = &then["data"][0]["context"];
        assert_eq!((&hit["version"], &hit["text"]), (&json!(1), &first["text"]), "{mode}");
        assert_eq!((&then["complete"], &then["degraded"]), (&json!(true), &json!([])), "{mode}");
        assert!(
            !texts(&at(&other["updated_at"], "pivot tables").await)
                .contains(&"a spreadsheet with formulas and pivot tables")
        );
        // The present text, in a version of the past, and now.
        for (as_of, version) in [(&second["updated_at"], 2), (&third["updated_at"], 3)] {
            let later = at(as_of, "spreadsheet formulas").await;
            assert_eq!(texts(&later)[0], "a spreadsheet with formulas and pivot tables", "{mode}");
            assert_eq!(later["data"][0]["context"]["version"], version, "{mode}");
            assert!(!texts(&later).contains(&"otters swim in the river and eat fish"), "{mode}");
        }
        assert_eq!(at(&json!("1999-01-01T00:00:00Z"), "otters").await["data"], json!([]), "{mode}");
        let now = search(&app, json!({"query": "otters", "mode": mode})).await;
        assert!(!texts(&now).iter().any(|text| text.contains("otters")), "{mode}: {now}");
    }
}

#[tokio::test]
async fn what_was_deleted_is_found_as_of_before_until_it_is_purged() {
    let app = quick().await;
    let otter = write(&app, "a", "an otter", json!({})).await;
    let path = format!("/v1/contexts/{}", otter["id"].as_str().unwrap());
    assert_eq!(app.delete(&path).await.status, StatusCode::NO_CONTENT);
    let heron = write(&app, "b", "a heron", json!({})).await;
    let at = async |as_of: &str, mode: &str| {
        search(&app, json!({"query": "otter", "mode": mode, "as_of": as_of})).await["data"].clone()
    };
    for mode in ["semantic", "keyword", "hybrid"] {
        assert_eq!(at(time_of(&otter), mode).await[0]["context"]["key"], "a", "{mode}");
        let gone = at(time_of(&heron), mode).await;
        assert!(gone.as_array().unwrap().iter().all(|hit| hit["context"]["key"] == "b"), "{mode}: {gone}");
    }
    assert_eq!(app.delete(&format!("{path}?purge=true")).await.status, StatusCode::NO_CONTENT);
    for mode in ["semantic", "keyword", "hybrid"] {
        assert_eq!(at(time_of(&otter), mode).await, json!([]), "{mode}");
    }
}

#[tokio::test]
async fn scope_filter_and_validity_are_those_of_then() {
    let app = quick().await;
    let old = json!({"metadata": {"state": "old"}, "valid_to": "2020-01-01T00:00:00Z"});
    let first = write(&app, "a", "an otter", old).await;
    // The text stays, all else changes: its chunks are still the present ones.
    let kept = json!({"metadata": {"state": "new"}, "context_type": "memo"});
    let second = write(&app, "a", "an otter", kept).await;
    assert_eq!(second["version"], 2);
    for mode in ["semantic", "keyword", "hybrid"] {
        let hits = async |as_of: &str, more: Value| {
            let mut body = json!({"query": "otter", "mode": mode, "as_of": as_of});
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            search(&app, body).await["data"].as_array().unwrap().len()
        };
        let valid = "2019-06-01T00:00:00Z";
        for (as_of, more, found) in [
            (time_of(&first), json!({}), 0),
            (time_of(&first), json!({"valid_at": valid}), 1),
            (time_of(&first), json!({"valid_at": valid, "filter": {"metadata.state": "old"}}), 1),
            (time_of(&first), json!({"valid_at": valid, "filter": {"metadata.state": "new"}}), 0),
            (time_of(&first), json!({"valid_at": valid, "context_types": ["note"]}), 1),
            (time_of(&first), json!({"valid_at": valid, "context_types": ["memo"]}), 0),
            (time_of(&second), json!({}), 1),
            (time_of(&second), json!({"filter": {"metadata.state": "new"}, "context_types": ["memo"]}), 1),
            (time_of(&second), json!({"filter": {"metadata.state": "old"}}), 0),
            (time_of(&second), json!({"user_id": "0190d5a0-0000-7000-8000-0000000000bb"}), 0),
        ] {
            assert_eq!(hits(as_of, more.clone()).await, found, "{mode} at {as_of}: {more}");
        }
    }
}

#[tokio::test]
async fn a_given_embedding_ranks_as_of_its_time() {
    let app = quick().await;
    write(&app, "z", "the first one makes the space", json!({})).await;
    let mut vector = vec![0.0; DIMENSIONS];
    vector[3] = -1.0;
    let first = write(&app, "a", "an otter", json!({"embedding": vector})).await;
    let mut turned = vector.clone();
    turned[3] = 1.0;
    let second = write(&app, "a", "an otter", json!({"embedding": turned})).await;
    for (at, sign) in [(&first, 1.0), (&second, -1.0)] {
        let body = json!({"vector": vector, "mode": "semantic", "as_of": at["updated_at"]});
        let found = search(&app, body).await;
        let hits = found["data"].as_array().unwrap();
        let hit = hits.iter().find(|hit| hit["context"]["key"] == "a").unwrap();
        assert!((hit["score"].as_f64().unwrap() - sign).abs() < 1e-3, "{hit}");
    }
}

#[tokio::test]
async fn what_was_never_embedded_is_found_by_its_words_and_the_answer_says_so() {
    let stub = StubProvider::start(Behaviour::Work);
    let app = App::start_with(stub.provider()).await;
    write(&app, "z", "the first one makes the space", json!({})).await;
    stub.behave(Behaviour::Answer(503, ""));
    let body = json!({"user_id": USER, "context_type": "note", "key": "a", "content": 1, "text": "an otter"});
    let first = app.post("/v1/contexts", body).await.body;
    let body = json!({"user_id": USER, "context_type": "note", "key": "a", "content": 1, "text": "a heron"});
    assert_eq!(app.post("/v1/contexts", body).await.status, StatusCode::OK);
    stub.behave(Behaviour::Work);
    app.embedded(first["id"].as_str().unwrap()).await;
    let at = json!({"query": "an animal otter", "as_of": first["updated_at"]});
    let found = search(&app, at).await;
    assert_eq!(found["degraded"], json!(["history_not_embedded"]), "{found}");
    assert!(texts(&found).contains(&"an otter"), "{found}");
    let now = search(&app, json!({"query": "an animal otter"})).await;
    assert_eq!(now["degraded"], json!([]));
}
