//! Limits on requests: counted by key and by tenant, said in each answer, and refused before anything else is done. And how many
//! are worked on at once.

use std::{num::NonZeroU32, time::Duration};

use context_api::{
    cache::RedisOptions,
    domain::{DEFAULT_TENANT, Rate, RateLimits, Scope},
};
use reqwest::Method;
use serde_json::json;

use crate::support::{Answer, App, Behaviour, Database, Setup, StubProvider, eventually};

fn one_a_second(burst: u32) -> Rate {
    Rate { per_second: NonZeroU32::MIN, burst: burst.try_into().unwrap() }
}

async fn limited(rate_limits: RateLimits) -> App {
    App::start_as(Setup { rate_limits, ..Setup::on(Database::create().await) }).await
}

fn header(answer: &Answer, name: &str) -> Option<u64> {
    answer.headers.get(name).map(|value| value.to_str().unwrap().parse().unwrap())
}

async fn ask(app: &App, key: &str) -> Answer {
    app.send_as(key, Method::GET, "/v1/usage", None).await
}

#[tokio::test]
async fn a_key_is_limited_told_so_and_let_in_again() {
    let app = limited(RateLimits { api_key: Some(one_a_second(3)), tenant: None }).await;
    for left in [2, 1, 0] {
        let answer = ask(&app, &app.key).await;
        assert_eq!(answer.status, 200);
        assert_eq!(header(&answer, "ratelimit-limit"), Some(3));
        assert_eq!(header(&answer, "ratelimit-remaining"), Some(left));
        assert!((1..=3).contains(&header(&answer, "ratelimit-reset").unwrap()), "{answer:?}");
    }
    let refused = app.post("/v1/contexts", json!({"no": "context"})).await;
    assert_eq!(
        (refused.status.as_u16(), refused.code()),
        (429, "rate_limited"),
        "before the body is looked at"
    );
    assert_eq!(header(&refused, "retry-after"), Some(1));
    assert_eq!(header(&refused, "ratelimit-remaining"), Some(0));
    let other = app.new_key(DEFAULT_TENANT, Scope::all()).await;
    assert_eq!(ask(&app, &other).await.status, 200, "another key has its own");
    eventually("another request", Duration::from_secs(10), async || {
        (ask(&app, &app.key).await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_tenant_is_limited_whatever_key_it_uses() {
    let app = limited(RateLimits { api_key: Some(one_a_second(3)), tenant: Some(one_a_second(4)) }).await;
    let (one, other) = (app.new_tenant().await, app.new_tenant().await);
    let keys = [app.new_key(one, Scope::all()).await, app.new_key(one, Scope::all()).await];
    for key in [&keys[0], &keys[1], &keys[0], &keys[1]] {
        assert_eq!(ask(&app, key).await.status, 200);
    }
    for key in &keys {
        let refused = ask(&app, key).await;
        assert_eq!(refused.code(), "rate_limited");
        assert_eq!(header(&refused, "ratelimit-limit"), Some(4), "the tenant's");
    }
    assert_eq!(ask(&app, &app.new_key(other, Scope::all()).await).await.status, 200);
}

#[tokio::test]
async fn without_a_limit_and_without_a_key_nothing_is_counted() {
    let app = limited(RateLimits::default()).await;
    assert_eq!(header(&ask(&app, &app.key).await, "ratelimit-limit"), None);
    let app = limited(RateLimits { api_key: Some(one_a_second(1)), tenant: None }).await;
    for _ in 0..3 {
        let health = crate::support::answer(app.request(Method::GET, "/health/live")).await;
        assert_eq!((health.status.as_u16(), header(&health, "ratelimit-limit")), (200, None));
        assert_eq!(ask(&app, "ctx_a_key_that_nobody_knows_0123456789").await.status, 401);
    }
}

#[tokio::test]
async fn without_redis_each_process_counts() {
    let dead = RedisOptions { url: "redis://127.0.0.1:1/0".to_owned().into(), password: None };
    let rate_limits = RateLimits { api_key: Some(one_a_second(2)), tenant: None };
    let setup = Setup { redis: Some(dead), rate_limits, ..Setup::on(Database::create().await) };
    let app = App::start_as(setup).await;
    let statuses = [ask(&app, &app.key).await, ask(&app, &app.key).await, ask(&app, &app.key).await];
    assert_eq!(statuses.map(|answer| answer.status.as_u16()), [200, 200, 429]);
}

#[tokio::test]
async fn what_is_too_much_at_once_is_refused_at_once() {
    let stub = StubProvider::start(Behaviour::Work);
    let setup =
        Setup { providers: vec![stub.provider()], requests_max: 1, ..Setup::on(Database::create().await) };
    let app = App::start_as(setup).await;
    app.embedded(&app.note("an otter").await.id()).await;
    stub.hold("heron");
    let calls = stub.calls();
    let slow = app.search(json!({"query": "a heron"}));
    let meanwhile = async {
        eventually("a search under way", Duration::from_secs(10), async || {
            (stub.calls() > calls).then_some(())
        })
        .await;
        let refused = ask(&app, &app.key).await;
        assert_eq!((refused.status.as_u16(), refused.code()), (503, "overloaded"));
        assert_eq!(header(&refused, "retry-after"), Some(1));
        let live = crate::support::answer(app.request(Method::GET, "/health/live")).await;
        let export = app.get("/v1/contexts/export").await;
        assert_eq!((live.status.as_u16(), export.status.as_u16()), (200, 200), "these are not counted");
        stub.release();
    };
    tokio::join!(slow, meanwhile);
    eventually("a place", Duration::from_secs(5), async || {
        (ask(&app, &app.key).await.status == 200).then_some(())
    })
    .await;
}
