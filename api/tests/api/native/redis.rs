//! Redis between replicas, and without it again.

use std::time::Duration;

use context_api::{
    cache::RedisOptions,
    domain::{Rate, RateLimits},
};
use reqwest::Method;
use serde_json::json;

use crate::support::{App, Behaviour, Database, Setup, StubProvider};

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
    let found = crate::support::eventually("a whole answer", Duration::from_secs(5), async || {
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

#[tokio::test]
async fn what_one_replica_counted_the_next_knows() {
    let Ok(url) = std::env::var("TEST_REDIS_URL") else {
        panic!("TEST_REDIS_URL names no Redis; use scripts/test")
    };
    let redis = RedisOptions { url: url.into(), password: None };
    // Slow enough that nothing comes back meanwhile.
    let slow = Rate { interval: Duration::from_secs(3_600), burst: 1_000.try_into().unwrap() };
    let rate_limits = RateLimits { api_key: Some(slow), tenant: None };
    let setup = |database| Setup { redis: Some(redis.clone()), rate_limits, ..Setup::on(database) };
    let app = App::start_as(setup(Database::create().await)).await;
    let left = async |app: &App, key: &str| -> u32 {
        let answer = app.send_as(key, Method::GET, "/v1/usage", None).await;
        answer.headers["ratelimit-remaining"].to_str().unwrap().parse().unwrap()
    };
    let key = app.key.clone();
    for _ in 0..100 {
        left(&app, &key).await;
    }
    let app = App::start_as(setup(app.stop().await)).await;
    let left = left(&app, &key).await;
    assert!(left < 950, "the hundred requests before are counted, {left} are left");
}
