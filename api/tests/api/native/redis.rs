//! Redis between replicas, and without it again.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use context_api::{
    cache::{Cache, RedisOptions},
    domain::{AnswerLimits, Limits, Rate, RateLimits, TenantId},
};
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::sync::watch;
use uuid::Uuid;

use crate::support::{App, Behaviour, Database, RedisGroup, RedisServer, Setup, StubProvider, eventually};

#[tokio::test]
async fn a_query_that_one_replica_embedded_is_known_to_the_next() {
    let Ok(url) = std::env::var("TEST_REDIS_URL") else {
        panic!("TEST_REDIS_URL names no Redis; use scripts/test")
    };
    let redis = RedisOptions::new(url);
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
    let redis = RedisOptions { password: Some("wrong".into()), ..RedisOptions::new(url) };
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
    let redis = RedisOptions::new(url);
    // Slow enough that nothing comes back meanwhile.
    let slow = Rate { interval: Duration::from_secs(3_600), burst: 1_000.try_into().unwrap() };
    let rates = RateLimits { api_key: Some(slow), tenant: None };
    let limits = Limits { rates, ..Limits::default() };
    let setup = |database| Setup { redis: Some(redis.clone()), limits, ..Setup::on(database) };
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

/// Two replicas on one database.
struct Replicas {
    one: App,
    other: App,
    path: String,
}

impl Replicas {
    async fn start(redis: &RedisOptions) -> Self {
        let stub = StubProvider::start(Behaviour::Work);
        let database = Database::create().await;
        let start = |database: Database| {
            let setup = Setup::on(database);
            App::start_as(Setup { providers: vec![stub.provider()], redis: Some(redis.clone()), ..setup })
        };
        let other = start(database.again()).await;
        let one = start(database).await;
        let path = one.created(json!({"key": "counter", "text": "number 0"})).await;
        Self { one, other, path }
    }

    /// A write by one, and what the other one answers from then on.
    async fn write_and_read(&self, number: u32) {
        let patch = json!({"text": format!("number {number}")}).to_string();
        let written = self.one.send(Method::PATCH, &self.path, patch).await;
        assert_eq!(written.status, StatusCode::OK, "{:?}", written.body);
        for _ in 0..3 {
            self.read(number).await;
        }
    }

    /// What the other one answers is what was written last. Whether it is from memory.
    async fn read(&self, number: u32) -> bool {
        let text = json!(format!("number {number}"));
        let read = self.other.get_as(&self.one.key, &self.path).await;
        assert_eq!((read.status, &read.body["text"]), (StatusCode::OK, &text));
        let body = json!({"query": "number", "mode": "keyword"}).to_string();
        let found =
            self.other.send_as(&self.one.key, Method::POST, "/v1/contexts/search", Some(body.into())).await;
        assert_eq!(found.status, StatusCode::OK, "{:?}", found.body);
        assert_eq!(found.body["data"][0]["chunk"]["text"], text);
        [read, found].iter().all(|answer| answer.headers["cache-status"] == "context-api; hit")
    }

    /// Reads alone, until they are answered from memory: nothing that is written meanwhile makes good what was missed.
    async fn remember(&self, number: u32) {
        eventually("answers from memory", Duration::from_secs(30), async || {
            self.read(number).await.then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn what_one_replica_wrote_the_other_answers_whatever_becomes_of_redis() {
    let mut redis = RedisServer::start().await;
    let replicas = Box::pin(Replicas::start(&redis.options())).await;
    let number = &mut 0;
    let write = async |number: &mut u32| {
        for _ in 0..20 {
            *number += 1;
            replicas.write_and_read(*number).await;
        }
        *number
    };
    replicas.remember(0).await;
    redis.flush();
    replicas.remember(write(number).await).await;
    redis.hang();
    let last = write(number).await;
    redis.go_on();
    replicas.remember(last).await;
    redis.kill();
    let last = write(number).await;
    redis.start_again().await;
    replicas.remember(last).await;
    // Of this one only the other replica knows when the first one writes.
    redis.kill();
    replicas.read(last).await;
    redis.start_again().await;
    replicas.remember(last).await;
    *number += 1;
    replicas.write_and_read(*number).await;
    replicas.remember(*number).await;
    let is_over = AtomicBool::new(false);
    // And in the middle of all that, again and again: each goes on until the others have got so much further.
    let (written, progress) = watch::channel(*number);
    let disturb = async {
        let further = async |writes: u32| {
            let until = *progress.borrow() + writes;
            progress.clone().wait_for(|number| *number >= until).await.unwrap();
        };
        for _ in 0..3 {
            redis.flush();
            further(3).await;
            redis.hang();
            further(10).await;
            redis.go_on();
            further(30).await;
        }
        is_over.store(true, Ordering::Relaxed);
    };
    let go_on = async {
        while !is_over.load(Ordering::Relaxed) {
            *number += 1;
            replicas.write_and_read(*number).await;
            written.send_replace(*number);
        }
    };
    tokio::join!(disturb, go_on);
    replicas.remember(*number).await;
}

/// A replica of Redis that was not told the last writes takes the place of the one that was.
async fn what_redis_forgets_when_it_fails_over_nobody_believes(mut group: RedisGroup) {
    let replicas = Box::pin(Replicas::start(&group.options())).await;
    replicas.remember(0).await;
    group.replica.hang();
    for number in 1..=20 {
        replicas.write_and_read(number).await;
    }
    group.master.kill();
    group.replica.go_on();
    // Nobody asks meanwhile, so nobody knows.
    group.failed_over().await;
    replicas.read(20).await;
    replicas.remember(20).await;
    for number in 21..=40 {
        replicas.write_and_read(number).await;
    }
    replicas.remember(40).await;
}

#[tokio::test]
async fn a_cluster_that_fails_over_makes_no_answer_stale() {
    what_redis_forgets_when_it_fails_over_nobody_believes(
        RedisGroup::cluster("context-api:v1:{generations}:epoch").await,
    )
    .await;
}

#[tokio::test]
async fn sentinels_that_fail_over_make_no_answer_stale() {
    what_redis_forgets_when_it_fails_over_nobody_believes(RedisGroup::with_sentinel().await).await;
}

#[tokio::test]
async fn who_asked_nothing_while_the_master_was_replaced_does_not_believe_the_old_one() {
    let group = RedisGroup::with_sentinel().await;
    let replicas = Box::pin(Replicas::start(&group.options())).await;
    replicas.write_and_read(1).await;
    replicas.remember(1).await;
    group.master.hang();
    group.failed_over().await;
    let patch = json!({"text": "number 2"}).to_string();
    let written = replicas.one.send(Method::PATCH, &replicas.path, patch).await;
    assert_eq!(written.status, StatusCode::OK, "{:?}", written.body);
    // For some seconds it still takes itself for the master.
    group.master.go_on();
    replicas.read(2).await;
    replicas.remember(2).await;
}

/// The word of a tenant that nobody writes to is lent for a moment: nobody who knows of a change is answered by it. Also not who changed
/// something when another one had taken the word back already, or when Redis had forgotten it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_changes_something_waits_for_those_who_go_by_a_lent_word() {
    let url = std::env::var("TEST_REDIS_URL").expect("TEST_REDIS_URL names a Redis; use scripts/test");
    let options = RedisOptions::new(url.clone());
    let cache = || Cache::new(Some(&options)).unwrap().with_answers(AnswerLimits::default());
    let (reader, one, other) = (cache(), cache(), cache());
    let tenant = TenantId(Uuid::now_v7());
    let key = format!("context-api:v1:{{generations}}:{}", tenant.0);
    let mut redis = redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap();
    let present = async |cache: &Cache| cache.answers().unwrap().present(tenant, b"").await;

    let (done, is_done) = watch::channel(false);
    let reading = {
        let reader = reader.clone();
        tokio::spawn(async move {
            // So that a word is lent at nearly every moment.
            while !*is_done.borrow() {
                reader.answers().unwrap().present(tenant, b"").await;
                tokio::task::yield_now().await;
            }
        })
    };
    for round in 0..30 {
        let before = eventually("a word that is lent", Duration::from_secs(10), async || {
            let value: Option<Vec<u8>> = redis::cmd("GET").arg(&key).query_async(&mut redis).await.unwrap();
            if value.is_some_and(|value| value.len() == 17) { present(&reader).await } else { None }
        })
        .await;
        let change = async |cache: &Cache| {
            cache.renew(tenant).await;
            assert_ne!(present(&reader).await, Some(before), "round {round}: it is known that this is over");
        };
        if round % 3 > 0 {
            redis::cmd("DEL").arg(&key).query_async::<()>(&mut redis).await.unwrap();
        }
        if round % 3 > 1 {
            change(&one).await;
        } else {
            tokio::join!(change(&one), change(&other));
        }
    }
    done.send_replace(true);
    reading.await.unwrap();
}
