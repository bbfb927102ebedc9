//! More requests than the database can serve.

use std::time::{Duration, Instant};

use context_api::error::Code;
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;
use sqlx::Connection;

use crate::support::{App, Behaviour, QUEUE_MAX, StubProvider, eventually, options};

#[tokio::test]
async fn who_would_wait_behind_too_many_is_refused_at_once_and_the_others_are_served() {
    let app = App::start_with(StubProvider::start(Behaviour::Work).provider()).await;
    let path = app.created(json!({"text": "an otter"})).await;
    app.embedded(path.rsplit('/').next().unwrap()).await;
    let mut superuser = app.database.superuser().await;
    let mut lock = superuser.begin().await.unwrap();
    sqlx::query("select from contexts for update").execute(&mut *lock).await.unwrap();
    let pool = || app.service.store().pool_status();
    let patches = (0..options("").connections_max).map(|n| {
        let patch = json!({"metadata": {"n": n}}).to_string();
        app.send(Method::PATCH, &path, patch)
    });
    let patches = join_all(patches);
    let waiting = async || {
        let find = || app.service.tenants().find("default");
        let full =
            async || (pool().size == options("").connections_max && pool().available == 0).then_some(());
        eventually("all connections in use", Duration::from_secs(10), full).await;
        let queue = join_all((0..QUEUE_MAX).map(|_| find()));
        let one_more = async {
            let queued = async || (pool().waiting >= QUEUE_MAX).then_some(());
            eventually("a full queue", Duration::from_secs(10), queued).await;
            let began = Instant::now();
            let refused = find().await.unwrap_err();
            assert_eq!((refused.code, began.elapsed() < Duration::from_secs(1)), (Code::Overloaded, true));
            lock.rollback().await.unwrap();
        };
        let (queued, ()) = tokio::join!(queue, one_more);
        assert!(queued.iter().all(Result::is_ok), "{queued:?}");
    };
    let (patched, ()) = tokio::join!(patches, waiting());
    assert!(patched.iter().all(|answer| answer.status == 200), "{patched:?}");
    assert_eq!(app.get("/health/ready").await.body["status"], "ok");
}
