//! Answers that are given again: only while they are true, and only to whom they belong.

use std::time::Duration;

use context_api::domain::{Scope, UserId};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::support::{Answer, App, Behaviour, StubProvider, USER, answer, eventually};

const HIT: &str = "context-api; hit";
const MISS: &str = "context-api; fwd=miss";

async fn quick() -> App {
    App::start_with(StubProvider::start(Behaviour::Work).provider()).await
}

fn words(text: &str) -> Value {
    json!({"query": text, "mode": "keyword"})
}

fn came(answer: &Answer) -> &str {
    answer.headers["cache-status"].to_str().unwrap()
}

/// Asks until the answer comes from memory: what happens in the background may have changed something in between.
async fn remembered(what: &str, ask: impl AsyncFn() -> Answer) -> Answer {
    eventually(what, Duration::from_secs(30), async || {
        let answer = ask().await;
        (came(&answer) == HIT).then_some(answer)
    })
    .await
}

fn ids(answer: &Answer) -> Vec<&str> {
    answer.body["data"].as_array().unwrap().iter().map(|hit| hit["context"]["id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn an_answer_is_given_again_until_something_changes() {
    let app = quick().await;
    let otter = app.note("an otter swims").await.id();
    app.embedded(&otter).await;
    let path = format!("/v1/contexts/{otter}");
    let search = async || app.search(words("otter")).await;
    let get = async || app.get(&path).await;
    let (first, again) = (search().await, remembered("a search", search).await);
    assert_eq!(first.body["data"], again.body["data"]);
    let (first, again) = (get().await, remembered("a context", get).await);
    assert_eq!((&first.body, &first.headers["etag"]), (&again.body, &again.headers["etag"]));
    let known = app.request(Method::GET, &path).bearer_auth(&app.key).header("if-none-match", "\"1\"");
    assert_eq!(answer(known).await.status, StatusCode::NOT_MODIFIED);

    let changed = app.send(Method::PATCH, &path, json!({"text": "a heron stands"}).to_string()).await;
    assert_eq!(changed.status, StatusCode::OK, "{:?}", changed.body);
    assert!(ids(&search().await).is_empty(), "it is about a heron now");
    assert_eq!(get().await.body["text"], "a heron stands");
    remembered("a search", search).await;
    let another = app.note("another otter").await.id();
    assert_eq!(ids(&search().await), [&another]);
    remembered("a search", search).await;
    remembered("a context", get).await;
    let batch = json!({"operations": [{"op": "delete", "id": another}, {"op": "delete", "id": otter}]});
    assert_eq!(app.post("/v1/contexts/batch", batch).await.status, StatusCode::OK);
    assert!(ids(&search().await).is_empty());
    assert_eq!(get().await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn what_waited_for_its_embedding_is_found_by_meaning_as_soon_as_it_has_it() {
    let app = quick().await;
    let by_meaning = json!({"query": "anything", "mode": "semantic"});
    for number in 1..=20 {
        let body =
            json!({"user_id": USER, "context_type": "note", "content": {"text": format!("otter {number}")}});
        let written = app.post("/v1/contexts?wait=ready", body).await;
        assert_eq!(written.body["embedding_status"], "ready");
        let found = app.search(json!({"query": "anything", "mode": "semantic", "limit": 50})).await;
        assert_eq!(found.body["data"].as_array().unwrap().len(), number);
        app.search(by_meaning.clone()).await;
    }
}

#[tokio::test]
async fn a_caller_who_insists_gets_an_answer_that_is_made_for_them() {
    let app = quick().await;
    let path = format!("/v1/contexts/{}", app.note("an otter").await.id());
    remembered("a context", async || app.get(&path).await).await;
    remembered("a search", async || app.search(words("otter")).await).await;
    let insisting = |method, path: &str| {
        app.request(method, path).bearer_auth(&app.key).header("cache-control", "no-cache")
    };
    let got = answer(insisting(Method::GET, &path)).await;
    assert_eq!((got.status, came(&got)), (StatusCode::OK, "context-api; fwd=request"));
    let found = answer(insisting(Method::POST, "/v1/contexts/search").json(&words("otter"))).await;
    assert_eq!((found.status, came(&found)), (StatusCode::OK, "context-api; fwd=request"));
}

#[tokio::test]
async fn what_time_changes_is_remembered_no_longer_than_it_is_true() {
    let app = quick().await;
    let soon = OffsetDateTime::now_utc() + Duration::from_secs(2);
    let soon = soon.format(&time::format_description::well_known::Rfc3339).unwrap();
    app.created(json!({"text": "an otter that begins", "valid_from": soon})).await;
    app.created(json!({"text": "an otter that ends", "valid_to": soon})).await;
    let path = app.created(json!({"text": "an otter that expires", "ttl_seconds": 2})).await;
    let search = async || app.search(words("otter")).await;
    let get = async || app.get(&path).await;
    assert_eq!(ids(&remembered("a search", search).await).len(), 2);
    remembered("a context", get).await;
    // Long before the memory ends by itself.
    eventually("the expiry", Duration::from_secs(15), async || {
        (get().await.status == StatusCode::NOT_FOUND).then_some(())
    })
    .await;
    eventually("what begins, alone", Duration::from_secs(15), async || {
        let found = search().await;
        let texts: Vec<_> =
            found.body["data"].as_array().unwrap().iter().map(|hit| &hit["chunk"]["text"]).collect();
        (texts == ["an otter that begins"]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_depends_on_being_read_or_on_the_time_is_not_remembered() {
    let app = quick().await;
    let path = app.created(json!({"text": "an otter", "sliding_ttl_seconds": 1000})).await;
    app.created(json!({"text": "a heron"})).await;
    let recency = json!({"half_life_seconds": 60, "weight": 0.5});
    for _ in 0..3 {
        assert_eq!(came(&app.get(&path).await), MISS);
        assert_eq!(came(&app.search(words("otter")).await), MISS);
        let aging = json!({"query": "heron", "mode": "keyword", "recency": recency});
        assert_eq!(came(&app.search(aging).await), MISS);
        assert_eq!(
            came(&app.search(json!({"query": "heron", "mode": "keyword", "explain": true})).await),
            MISS
        );
    }
    remembered("another search", async || app.search(words("heron")).await).await;
}

#[tokio::test]
async fn nobody_is_answered_with_what_another_may_read() {
    let app = quick().await;
    let otter = app.note("an otter").await.id();
    let path = format!("/v1/contexts/{otter}");
    remembered("a context", async || app.get(&path).await).await;
    remembered("a search", async || app.search(words("otter")).await).await;
    let tenant = app.new_tenant().await;
    let stranger = app.new_key(tenant, Scope::all()).await;
    let own = Some(UserId(uuid::Uuid::from_u128(7)));
    let scopes = vec![Scope::Read, Scope::Write];
    let bound = app.new_key_for(context_api::domain::DEFAULT_TENANT, scopes, own).await;
    for key in [&stranger, &bound] {
        for _ in 0..2 {
            assert_eq!(app.send_as(key, Method::GET, &path, None).await.status, StatusCode::NOT_FOUND);
            let body = words("otter").to_string().into();
            let found = app.send_as(key, Method::POST, "/v1/contexts/search", Some(body)).await;
            assert!(ids(&found).is_empty());
        }
    }
    let unread = app.new_key(context_api::domain::DEFAULT_TENANT, vec![Scope::Write]).await;
    assert_eq!(app.send_as(&unread, Method::GET, &path, None).await.status, StatusCode::FORBIDDEN);
}
