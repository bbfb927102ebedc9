//! Limits on requests: counted by key and by tenant, said in each answer, and refused before anything else is done. And on the
//! searches that a tenant has under way.

use std::{num::NonZeroUsize, time::Duration};

use context_api::{
    cache::RedisOptions,
    domain::{DEFAULT_TENANT, Limits, Rate, RateLimits, Scope, SearchLimits},
};
use futures_util::{StreamExt, stream::FuturesUnordered};
use reqwest::Method;
use serde_json::json;

use crate::support::{Answer, App, Behaviour, Database, Setup, StubProvider, eventually};

const HOUR: Duration = Duration::from_secs(3_600);

/// Nothing comes back while a test runs.
fn hourly(burst: u32) -> Rate {
    Rate { interval: HOUR, burst: burst.try_into().unwrap() }
}

/// Counts in this process.
async fn limited(rates: RateLimits) -> App {
    let limits = Limits { rates, ..Limits::default() };
    App::start_as(Setup { limits, redis: None, ..Setup::on(Database::create().await) }).await
}

fn header(answer: &Answer, name: &str) -> Option<u64> {
    answer.headers.get(name).map(|value| value.to_str().unwrap().parse().unwrap())
}

async fn ask(app: &App, key: &str) -> Answer {
    app.send_as(key, Method::GET, "/v1/usage", None).await
}

#[tokio::test]
async fn a_key_is_limited_and_told_so() {
    let app = limited(RateLimits { api_key: Some(hourly(3)), tenant: None }).await;
    for left in [2, 1, 0] {
        let answer = ask(&app, &app.key).await;
        assert_eq!(answer.status, 200);
        let headers = ["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"];
        let told = headers.map(|name| header(&answer, name).unwrap());
        assert_eq!(told, [3, left, (3 - left) * HOUR.as_secs()]);
    }
    let refused = app.post("/v1/contexts", json!({"no": "context"})).await;
    assert_eq!(
        (refused.status.as_u16(), refused.code()),
        (429, "rate_limited"),
        "before the body is looked at"
    );
    assert!((3_500..=3_600).contains(&header(&refused, "retry-after").unwrap()), "{refused:?}");
    assert_eq!(header(&refused, "ratelimit-remaining"), Some(0));
    let other = app.new_key(DEFAULT_TENANT, Scope::all()).await;
    assert_eq!(ask(&app, &other).await.status, 200, "another key has its own");
}

#[tokio::test]
async fn who_was_refused_is_let_in_again() {
    let quick = Rate { interval: Duration::from_millis(500), burst: 1.try_into().unwrap() };
    let app = limited(RateLimits { api_key: Some(quick), tenant: None }).await;
    for status in [429, 200] {
        eventually("that status", Duration::from_secs(30), async || {
            (ask(&app, &app.key).await.status == status).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_tenant_is_limited_whatever_key_it_uses() {
    let app = limited(RateLimits { api_key: Some(hourly(3)), tenant: Some(hourly(4)) }).await;
    let (one, other) = (app.new_tenant().await, app.new_tenant().await);
    let keys = [app.new_key(one, Scope::all()).await, app.new_key(one, Scope::all()).await];
    for status in [200, 200, 200, 429, 429] {
        assert_eq!(ask(&app, &keys[0]).await.status, status);
    }
    assert_eq!(
        ask(&app, &keys[1]).await.status,
        200,
        "what a key may not send takes nothing from its tenant"
    );
    let refused = ask(&app, &keys[1]).await;
    assert_eq!((refused.code(), header(&refused, "ratelimit-limit")), ("rate_limited", Some(4)));
    assert_eq!(ask(&app, &app.new_key(other, Scope::all()).await).await.status, 200);
}

#[tokio::test]
async fn without_a_limit_and_without_a_key_nothing_is_counted() {
    let app = limited(RateLimits::default()).await;
    assert_eq!(header(&ask(&app, &app.key).await, "ratelimit-limit"), None);
    let app = limited(RateLimits { api_key: Some(hourly(1)), tenant: None }).await;
    for _ in 0..3 {
        let health = crate::support::answer(app.request(Method::GET, "/health/live")).await;
        assert_eq!((health.status.as_u16(), header(&health, "ratelimit-limit")), (200, None));
        assert_eq!(ask(&app, "ctx_a_key_that_nobody_knows_0123456789").await.status, 401);
    }
}

#[tokio::test]
async fn with_a_dead_redis_each_process_counts() {
    let dead = RedisOptions::new("redis://127.0.0.1:1/0");
    let rates = RateLimits { api_key: Some(hourly(2)), tenant: None };
    let limits = Limits { rates, ..Limits::default() };
    let setup = Setup { redis: Some(dead), limits, ..Setup::on(Database::create().await) };
    let app = App::start_as(setup).await;
    for status in [200, 200, 429] {
        assert_eq!(ask(&app, &app.key).await.status, status);
    }
}

#[tokio::test]
async fn a_tenant_has_so_many_searches_at_once_and_waiting_and_another_one_notices_nothing() {
    let stub = StubProvider::start(Behaviour::Work);
    let searches = SearchLimits { at_once: NonZeroUsize::new(2), waiting: 3 };
    let limits = Limits { searches, ..Limits::default() };
    let setup = Setup::on(Database::create().await);
    let app = App::start_as(Setup { providers: vec![stub.provider()], limits, ..setup }).await;
    app.embedded(&app.note("an otter").await.id()).await;
    let stranger = app.new_key(app.new_tenant().await, Scope::all()).await;
    // The embedding of these queries does not come for now.
    stub.hold("heron");
    let search = async |number: usize| {
        let query = format!("heron {number}");
        if number.is_multiple_of(2) {
            app.post("/v1/contexts/search", json!({"query": query})).await
        } else {
            app.post("/v1/contexts/pack", json!({"query": query, "budget": {"max_tokens": 100}})).await
        }
    };
    let mut searches: FuturesUnordered<_> = (0..8).map(search).collect();
    for _ in 0..3 {
        let refused = searches.next().await.unwrap();
        assert_eq!((refused.status.as_u16(), refused.code()), (429, "too_many_searches"));
        assert_eq!(header(&refused, "retry-after"), Some(1));
    }
    let elsewhere = json!({"query": "otter", "mode": "keyword"}).to_string();
    let answer = app.send_as(&stranger, Method::POST, "/v1/contexts/search", Some(elsewhere.into())).await;
    assert_eq!(answer.status, 200);
    stub.release();
    for _ in 0..5 {
        assert_eq!(searches.next().await.unwrap().status, 200);
    }
    assert_eq!(app.search(json!({"query": "otter"})).await.body["data"].as_array().unwrap().len(), 1);
}
