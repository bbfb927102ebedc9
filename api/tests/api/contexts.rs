//! `/v1/contexts`: create, get, list, delete.

use std::collections::HashSet;

use futures_util::{StreamExt, stream};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Answer, App, USER, eventually};

#[tokio::test]
async fn a_context_comes_back_as_it_was_sent() {
    let app = App::start().await;
    let sent = json!({
        "user_id": USER, "context_type": "note", "key": "first",
        "content": {"z": "last letter", "a": ["first", {"deep": "ly"}], "n": 1.5, "null": null},
        "metadata": {"source": "test", "rank": 3}, "ttl_seconds": 3600
    });
    let created = app.post("/v1/contexts", sent.clone()).await;
    assert_eq!(created.status, StatusCode::CREATED, "{:?}", created.body);
    let id = created.id();
    assert_eq!(created.headers["location"], format!("/v1/contexts/{id}"));
    assert_eq!(created.headers["etag"], "\"1\"");
    assert_eq!(Uuid::parse_str(&id).unwrap().get_version_num(), 7);
    let got = app.get(&format!("/v1/contexts/{id}")).await;
    assert_eq!((got.status, &got.headers["etag"]), (StatusCode::OK, &created.headers["etag"]));
    for field in ["user_id", "context_type", "key", "content", "metadata"] {
        assert_eq!(got.body[field], sent[field], "{field}");
    }
    assert_eq!(got.body["text"], "last letter\nfirst\nly");
    assert_eq!((&got.body["version"], &got.body["is_active"]), (&json!(1), &json!(true)));
    assert!(got.body["expires_at"].as_str().is_some_and(|at| at.ends_with('Z')));
}

#[tokio::test]
async fn numbers_keep_every_digit() {
    let app = App::start().await;
    let body = format!(
        r#"{{"user_id":"{USER}","context_type":"note","content":{{"n":12345678901234567890.12345678901234567890}}}}"#
    );
    let created = app.send(Method::POST, "/v1/contexts", body).await;
    let raw = app.request(Method::GET, &format!("/v1/contexts/{}", created.id())).bearer_auth(&app.key);
    let text = raw.send().await.unwrap().text().await.unwrap();
    assert!(text.contains("12345678901234567890.12345678901234567890"), "{text}");
}

#[tokio::test]
async fn a_key_that_exists_is_updated_in_place() {
    let app = App::start().await;
    let write = async |text: &str| {
        app.post(
            "/v1/contexts",
            json!({"user_id": USER, "context_type": "note", "key": "k", "content": {"t": text}}),
        )
        .await
    };
    let first = write("one").await;
    let same = write("one").await;
    assert_eq!((first.status, same.status), (StatusCode::CREATED, StatusCode::OK));
    assert_eq!((same.id(), &same.body["version"]), (first.id(), &json!(1)), "nothing differed");
    let second = write("two").await;
    assert_eq!(
        (second.status, second.id(), &second.body["version"]),
        (StatusCode::OK, first.id(), &json!(2))
    );
    assert_eq!(second.body["created_at"], first.body["created_at"]);
    assert_ne!(second.body["updated_at"], first.body["updated_at"]);
    let other_user = app
        .post(
            "/v1/contexts",
            json!({"user_id": Uuid::new_v4(), "context_type": "note", "key": "k", "content": 1}),
        )
        .await;
    assert_eq!(other_user.status, StatusCode::CREATED, "keys are per user");
}

#[tokio::test]
async fn an_update_is_embedded_anew_and_the_old_text_is_found_no_more() {
    let app = App::start().await;
    let write = async |text: &str| {
        app.post(
            "/v1/contexts",
            json!({"user_id": USER, "context_type": "note", "key": "k", "content": {"t": text}}),
        )
        .await
    };
    let id = write("the zebra crosses the river").await.id();
    app.embedded(&id).await;
    write("quarterly tax report").await;
    let old = app.search(json!({"query": "zebra", "mode": "keyword"})).await;
    assert_eq!(old.body["data"], json!([]));
    assert_eq!(app.embedded(&id).await["embedding_status"], "ready");
    let hit = app.search(json!({"query": "finance", "mode": "semantic"})).await;
    assert_eq!(hit.body["data"][0]["chunk"]["text"], "quarterly tax report");
    assert_eq!(hit.body["candidates"], 1, "the old version's embedding is gone");
}

#[tokio::test]
async fn a_deleted_context_is_gone_everywhere_at_once_and_its_key_can_be_written_again() {
    let app = App::start().await;
    let body = json!({"user_id": USER, "context_type": "note", "key": "k", "content": {"t": "a walrus"}});
    let id = app.post("/v1/contexts", body.clone()).await.id();
    app.embedded(&id).await;
    assert_eq!(app.delete(&format!("/v1/contexts/{id}")).await.status, StatusCode::NO_CONTENT);
    assert_eq!(app.get(&format!("/v1/contexts/{id}")).await.code(), "context_not_found");
    assert_eq!(app.delete(&format!("/v1/contexts/{id}")).await.code(), "context_not_found");
    assert_eq!(app.get("/v1/contexts").await.body["data"], json!([]));
    for mode in ["hybrid", "semantic", "keyword"] {
        assert_eq!(
            app.search(json!({"query": "walrus", "mode": mode})).await.body["data"],
            json!([]),
            "{mode}"
        );
    }
    let again = app.post("/v1/contexts", body).await;
    assert_eq!((again.id(), &again.body["is_active"], &again.body["version"]), (id, &json!(true), &json!(3)));
}

#[tokio::test]
async fn what_has_expired_is_invisible() {
    let app = App::start().await;
    let with = async |key: &str, expiry: Value| {
        let mut body =
            json!({"user_id": USER, "context_type": "note", "key": key, "content": {"t": "a heron"}});
        body.as_object_mut().unwrap().extend(expiry.as_object().unwrap().clone());
        app.post("/v1/contexts", body).await.id()
    };
    let past = with("past", json!({"expires_at": "2020-01-01T00:00:00.123Z"})).await;
    let future = with("future", json!({"expires_at": "2999-01-01T00:00:00Z"})).await;
    let short = with("short", json!({"ttl_seconds": 1})).await;
    assert_eq!(app.get(&format!("/v1/contexts/{past}")).await.code(), "context_not_found");
    eventually("the short one's end", std::time::Duration::from_secs(5), async || {
        (app.get(&format!("/v1/contexts/{short}")).await.status == StatusCode::NOT_FOUND).then_some(())
    })
    .await;
    app.embedded(&future).await;
    for mode in ["keyword", "semantic", "hybrid"] {
        let found = app.search(json!({"query": "heron", "mode": mode})).await;
        let ids: Vec<&str> = found.body["data"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|h| h["context"]["id"].as_str())
            .collect();
        assert_eq!(ids, [future.as_str()], "{mode}");
    }
    assert_eq!(app.get("/v1/contexts").await.body["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn pages_hold_every_context_once_newest_first() {
    let app = App::start().await;
    for number in 0..7 {
        let context_type = if number % 2 == 0 { "even" } else { "odd" };
        let body = json!({"user_id": USER, "context_type": context_type, "content": {"n": number}});
        assert_eq!(app.post("/v1/contexts", body).await.status, StatusCode::CREATED);
    }
    let mut seen = Vec::new();
    let mut path = "/v1/contexts?limit=3".to_owned();
    loop {
        let page = app.get(&path).await.body;
        seen.extend(page["data"].as_array().unwrap().iter().map(|c| c["content"]["n"].as_i64().unwrap()));
        assert_eq!(page["has_more"], json!(!page["next_cursor"].is_null()));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/v1/contexts?limit=3&cursor={cursor}");
        // A row that comes in while somebody pages does not shift the pages.
        app.note("a newcomer").await;
    }
    assert_eq!(seen, [6, 5, 4, 3, 2, 1, 0]);
    let odd = app.get("/v1/contexts?context_type=odd").await.body;
    let odd: HashSet<i64> =
        odd["data"].as_array().unwrap().iter().map(|c| c["content"]["n"].as_i64().unwrap()).collect();
    assert_eq!(odd, HashSet::from([1, 3, 5]));
    let nobody = app.get(&format!("/v1/contexts?user_id={}", Uuid::new_v4())).await.body;
    assert_eq!(nobody, json!({"data": [], "next_cursor": null, "has_more": false}));
    assert_eq!(
        app.get(&format!("/v1/contexts?user_id={USER}&limit=2")).await.body["data"].as_array().unwrap().len(),
        2
    );
}

#[tokio::test]
async fn a_context_without_any_text_is_ready_and_kept() {
    let app = App::start().await;
    let created =
        app.post("/v1/contexts", json!({"user_id": USER, "context_type": "number", "content": 42})).await;
    assert_eq!((&created.body["embedding_status"], &created.body["text"]), (&json!("ready"), &json!("")));
}

#[tokio::test]
async fn racing_writers_of_one_key_make_one_context() {
    let app = App::start().await;
    let writes = (0..8).map(|n| {
        app.post(
            "/v1/contexts",
            json!({"user_id": USER, "context_type": "note", "key": "k", "content": {"t": format!("word{n}")}}),
        )
    });
    let answers: Vec<Answer> = stream::iter(writes).buffer_unordered(8).collect().await;
    let ids: HashSet<String> = answers.iter().map(|answer| answer.id()).collect();
    assert_eq!(ids.len(), 1);
    assert_eq!(answers.iter().filter(|answer| answer.status == StatusCode::CREATED).count(), 1);
    let versions: HashSet<i64> =
        answers.iter().map(|answer| answer.body["version"].as_i64().unwrap()).collect();
    let last = answers.iter().max_by_key(|answer| answer.body["version"].as_i64()).unwrap().body.clone();
    for n in 0..8 {
        let found = app.search(json!({"query": format!("word{n}"), "mode": "keyword"})).await;
        let expected = usize::from(last["text"] == format!("word{n}"));
        assert_eq!(
            found.body["data"].as_array().unwrap().len(),
            expected,
            "only the last text is found: word{n}"
        );
    }
    assert_eq!(versions, (1..=8).collect::<HashSet<i64>>(), "no write was lost");
}
