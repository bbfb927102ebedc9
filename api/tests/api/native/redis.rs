//! Redis between replicas, and without it again.

use context_api::cache::RedisOptions;
use serde_json::json;

use crate::support::{App, Behaviour, StubProvider};

#[tokio::test]
async fn a_query_that_one_replica_embedded_is_known_to_the_next() {
    let Ok(url) = std::env::var("TEST_REDIS_URL") else {
        panic!("TEST_REDIS_URL names no Redis; use scripts/test")
    };
    let redis = RedisOptions { url: url.clone().into(), password: None };
    let stub = StubProvider::start(Behaviour::Work);
    let app =
        App::start_full(crate::support::Database::create().await, [stub.provider()], Some(redis.clone()))
            .await;
    app.embedded(&app.note("an otter").await.id()).await;
    app.search(json!({"query": "swims", "mode": "semantic"})).await;
    let database = app.stop().await;
    let calls = stub.calls();
    let app = App::start_full(database, [stub.provider()], Some(redis)).await;
    let found = crate::support::eventually("a whole answer", std::time::Duration::from_secs(5), async || {
        let found = app.search(json!({"query": "swims", "mode": "semantic"})).await;
        (found.body["degraded"] == json!([])).then_some(found)
    })
    .await;
    assert_eq!(found.body["data"].as_array().unwrap().len(), 1);
    assert_eq!(stub.calls(), calls, "the vector came from Redis");
    let health = crate::support::answer(app.request(reqwest::Method::GET, "/health")).await;
    assert_eq!(health.body["checks"]["cache"]["detail"], "redis");
}

#[tokio::test]
async fn a_wrong_password_is_no_error_of_a_request() {
    let Ok(url) = std::env::var("TEST_REDIS_URL") else {
        panic!("TEST_REDIS_URL names no Redis; use scripts/test")
    };
    let redis = RedisOptions { url: url.into(), password: Some("wrong".to_owned().into()) };
    let stub = StubProvider::start(Behaviour::Work);
    let app = App::start_full(crate::support::Database::create().await, [stub.provider()], Some(redis)).await;
    app.embedded(&app.note("an otter").await.id()).await;
    assert_eq!(app.search(json!({"query": "swims"})).await.body["degraded"], json!([]));
}
