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

/// Caches as those of several processes, with a Redis of their own.
struct Caches {
    server: RedisServer,
    /// To look at what is in Redis.
    redis: redis::aio::MultiplexedConnection,
    tenant: TenantId,
    key: String,
}

type Seen = Option<context_api::cache::Present>;

impl Caches {
    async fn start() -> Self {
        let server = RedisServer::start().await;
        let client = redis::Client::open(server.url()).unwrap();
        let redis = client.get_multiplexed_async_connection().await.unwrap();
        let tenant = TenantId(Uuid::now_v7());
        let key = format!("context-api:v1:{{generations}}:{}", tenant.0);
        Self { server, redis, tenant, key }
    }

    fn cache(&self) -> Cache {
        Cache::new(Some(&self.server.options())).unwrap().with_answers(AnswerLimits::default())
    }

    async fn present(&self, cache: &Cache) -> Seen {
        cache.answers().unwrap().present(self.tenant, b"").await
    }

    async fn word(&self) -> Option<Vec<u8>> {
        redis::cmd("GET").arg(&self.key).query_async(&mut self.redis.clone()).await.unwrap()
    }

    async fn run(&self, command: &redis::Cmd) {
        command.query_async::<()>(&mut self.redis.clone()).await.unwrap();
    }

    /// What is present when a word has just been lent to this one, which has asked for nothing for longer than one is lent.
    async fn lent(&self, reader: &Cache) -> Seen {
        eventually("a word that is lent", Duration::from_secs(10), async || {
            let present = self.present(reader).await;
            let is_lent = self.word().await.is_some_and(|word| word.len() == 17);
            if is_lent { Some(present?) } else { None }
        })
        .await
        .into()
    }

    /// Has `cache` tell that something has changed; then `reader` must know that what was present is over.
    async fn change(&self, cache: &Cache, reader: &Cache, before: Seen, what: &str) {
        cache.renew(self.tenant).await;
        let now = self.present(reader).await;
        assert!(
            now.is_some() && now != before,
            "{what}: it is known that this is over, and {now:?} is given"
        );
    }

    /// Changes by one, by two at once, and by two at once when Redis has forgotten the word.
    async fn changes(&self, reader: &Cache, one: &Cache, other: &Cache) {
        for round in 0..15 {
            let before = self.lent(reader).await;
            let what = format!("round {round}");
            if round % 3 == 2 {
                self.run(redis::cmd("DEL").arg(&self.key)).await;
            }
            if round % 3 == 0 {
                self.change(one, reader, before, &what).await;
            } else {
                tokio::join!(
                    self.change(one, reader, before, &what),
                    self.change(other, reader, before, &what)
                );
            }
        }
    }
}

/// The word of a tenant that nobody writes to is lent for a moment: nobody who knows of a change is answered by it. Also not who changed
/// something when another one had taken the word back already, or when Redis had forgotten it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_changes_something_waits_for_those_who_go_by_a_lent_word() {
    let caches = Caches::start().await;
    let (reader, one, other) = (caches.cache(), caches.cache(), caches.cache());
    eventually("a word that is gone by without asking", Duration::from_secs(10), async || {
        let before = caches.lent(&reader).await;
        caches.run(redis::cmd("SET").arg(&caches.key).arg("a word of others")).await;
        (caches.present(&reader).await == before).then_some(())
    })
    .await;
    // By one that asks again only when the word is not lent to it any more, and by one that has it lent anew all the time.
    caches.changes(&reader, &one, &other).await;
    let (done, is_done) = watch::channel(false);
    let reading = {
        let (reader, tenant) = (reader.clone(), caches.tenant);
        tokio::spawn(async move {
            while !*is_done.borrow() {
                reader.answers().unwrap().present(tenant, b"").await;
                tokio::task::yield_now().await;
            }
        })
    };
    caches.changes(&reader, &one, &other).await;
    done.send_replace(true);
    reading.await.unwrap();
}

#[tokio::test]
async fn whoever_changes_something_waits_for_a_connection_that_a_read_has_found_broken() {
    let caches = Caches::start().await;
    let reader = caches.cache();
    let before = eventually("a word", Duration::from_secs(10), async || caches.present(&reader).await).await;
    let ids = async || -> Vec<u64> {
        let clients: String =
            redis::cmd("CLIENT").arg("LIST").query_async(&mut caches.redis.clone()).await.unwrap();
        let ids =
            clients.lines().filter_map(|line| line.strip_prefix("id=")?.split(' ').next()?.parse().ok());
        ids.collect()
    };
    let others = ids().await;
    let writer = caches.cache();
    eventually("a word", Duration::from_secs(10), async || caches.present(&writer).await).await;
    let began = eventually("the epoch of the one that has begun", Duration::from_secs(10), async || {
        caches.present(&reader).await.filter(|present| *present != before)
    })
    .await;
    for id in ids().await.iter().filter(|id| !others.contains(id)) {
        caches.run(redis::cmd("CLIENT").arg("KILL").arg("ID").arg(*id)).await;
    }
    assert_eq!(caches.present(&writer).await, None, "its connection has broken");
    caches.change(&writer, &reader, Some(began), "just after that").await;
}

#[tokio::test]
async fn what_is_none_of_ours_in_the_place_of_a_word_is_replaced() {
    let caches = Caches::start().await;
    let cache = caches.cache();
    for epoch in [false, true] {
        let key = if epoch { "context-api:v1:{generations}:epoch" } else { caches.key.as_str() };
        for command in ["LPUSH", "APPEND"] {
            let before =
                eventually("a word", Duration::from_secs(10), async || caches.present(&cache).await).await;
            caches.run(redis::cmd("DEL").arg(key)).await;
            caches.run(redis::cmd(command).arg(key).arg("short")).await;
            eventually("another word", Duration::from_secs(1), async || {
                caches.present(&cache).await.filter(|present| *present != before)
            })
            .await;
        }
    }
}
