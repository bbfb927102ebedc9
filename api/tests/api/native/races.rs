//! Who comes at the same time: many clients who change one context, and transactions that a superuser holds open.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgConnection};

use crate::{
    conditions::count_up,
    support::{App, Behaviour, StubProvider, USER, eventually},
};

#[tokio::test]
async fn no_increment_of_thousands_is_lost() {
    let app = App::start_with(StubProvider::start(Behaviour::Work).provider()).await;
    count_up(&app, 8, 1_000).await;
}

async fn run(session: &mut PgConnection, sql: String) {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(session).await.unwrap();
}

/// A read that would put off the end of a context must not wait for whoever is writing it, and must not fail.
#[tokio::test]
async fn a_read_waits_for_no_writer() {
    let app = App::start_with(StubProvider::start(Behaviour::Work).provider()).await;
    let body = json!({"user_id": USER, "context_type": "note", "content": "a heron", "sliding_ttl_seconds": 1000,
                      "expires_at": "2100-01-01T00:00:00Z"});
    let id = app.post("/v1/contexts", body).await.id();
    app.embedded(&id).await;
    let mut writer = app.database.superuser().await;
    run(&mut writer, format!("update contexts set expires_at = now() + interval '60 s' where id = '{id}'"))
        .await;
    run(&mut writer, format!("begin; select from contexts where id = '{id}' for update")).await;
    let path = format!("/v1/contexts/{id}");
    let get = app.get(&path);
    let read =
        tokio::time::timeout(Duration::from_secs(2), get).await.expect("an answer while somebody writes");
    assert_eq!(read.status, StatusCode::OK, "{:?}", read.body);
    for mode in ["keyword", "semantic", "hybrid"] {
        let search = app.search(json!({"query": "heron", "mode": mode}));
        let found =
            tokio::time::timeout(Duration::from_secs(2), search).await.expect("hits while somebody writes");
        assert_eq!(found.body["data"][0]["context"]["id"], json!(id), "{mode}");
    }
    run(&mut writer, "rollback".to_owned()).await;
}

/// An embedding is written while a change of everything but the text is under way: search must know it by the new type, end
/// and validity.
#[tokio::test]
async fn an_embedding_that_arrives_during_a_change_goes_by_the_change() {
    let stub = StubProvider::start(Behaviour::Work);
    let app = App::start_with(stub.provider()).await;
    app.embedded(&app.note("the first one makes the space").await.id()).await;
    stub.behave(Behaviour::Hang(Duration::from_secs(1)));
    let calls = stub.calls();
    let id = app.note("a heron").await.id();
    eventually("the worker's call", Duration::from_secs(10), async || (stub.calls() > calls).then_some(()))
        .await;
    let mut writer = app.database.superuser().await;
    // As the service changes a context: the triggers do the rest.
    let change = "set version = version + 1, context_type = 'bird', expires_at = '2100-01-01', valid_from = '2020-01-01'";
    run(&mut writer, format!("begin; update contexts {change} where id = '{id}'")).await;
    eventually("the worker, waiting for the change", Duration::from_secs(10), async || {
        let waiting: bool = sqlx::query_scalar(
            "select exists (select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock')",
        )
        .fetch_one(&mut app.database.superuser().await)
        .await
        .unwrap();
        waiting.then_some(())
    })
    .await;
    run(&mut writer, "commit".to_owned()).await;
    assert_eq!(app.embedded(&id).await["embedding_status"], "ready");
    let stale: i64 = sqlx::query_scalar(
        "select count(*) from contexts c
         left join chunk_embeddings e on e.tenant_id = c.tenant_id and e.context_id = c.id and e.version = c.text_version
         where (c.context_type, c.expires_at, c.valid_from, c.valid_to)
               is distinct from (e.context_type, e.expires_at, e.valid_from, e.valid_to)",
    )
    .fetch_one(&mut writer)
    .await
    .unwrap();
    assert_eq!(stale, 0, "embeddings that search takes for something else");
    stub.behave(Behaviour::Work);
    let body = json!({"query": "heron", "mode": "semantic", "context_types": ["bird"]});
    assert_eq!(app.search(body).await.body["data"][0]["context"]["id"], json!(id));
}

/// Each writes what the other writes, the other way round, in statements of different kinds.
#[tokio::test]
async fn mixed_batches_in_opposite_order_do_not_lock_each_other_out() {
    let app = App::start_with(StubProvider::start(Behaviour::Work).provider()).await;
    let context = |key: usize, content: String| json!({"user_id": USER, "context_type": "note", "key": format!("k{key}"), "text": "", "content": content});
    let mut ids = Vec::new();
    for key in 0..20 {
        ids.push(app.post("/v1/contexts", context(key, "new".to_owned())).await.id());
    }
    let batch = |order: Vec<usize>, content: String| {
        let operations: Vec<Value> = order
            .into_iter()
            .flat_map(|key| {
                let upserted = context(key, format!("{content}, upserted"));
                let updated = context(key, format!("{content}, updated"));
                [
                    json!({"op": "upsert", "context": upserted}),
                    json!({"op": "update", "id": ids[key], "context": updated}),
                ]
            })
            .collect();
        app.send(Method::POST, "/v1/contexts/batch", json!({"operations": operations}).to_string())
    };
    for round in 0..20 {
        let (one, two) = tokio::join!(
            batch((0..20).collect(), format!("{round} one")),
            batch((0..20).rev().collect(), format!("{round} two"))
        );
        for answer in [one, two] {
            assert_eq!(answer.status, StatusCode::OK, "round {round}: {:?}", answer.body);
            let results = answer.body["results"].as_array().unwrap();
            assert!(results.iter().all(|result| result["status"] == 200), "round {round}: {results:?}");
        }
    }
}

/// Each finds what the other finds, in another order, and lets it live on.
#[tokio::test]
async fn searches_for_the_same_contexts_do_not_lock_each_other_out() {
    let app = App::start_with(StubProvider::start(Behaviour::Work).provider()).await;
    let operations: Vec<Value> = (0..100)
        .map(|n| {
            let text = format!("{} {} {n}", "gull ".repeat(1 + n % 10), "plover ".repeat(10 - n % 10));
            json!({"op": "create", "context": {"user_id": USER, "context_type": "note", "content": text,
                                               "sliding_ttl_seconds": 1000}})
        })
        .collect();
    let written = app.post("/v1/contexts/batch", json!({"operations": operations})).await;
    assert_eq!(written.status, StatusCode::OK, "{:?}", written.body);
    let mut superuser = app.database.superuser().await;
    for round in 0..20 {
        // Due to live on: less than nine tenths of their time are left. In the order in which all writes lock, because the
        // worker writes the same rows meanwhile.
        let update = "with locked as materialized (select id from contexts order by id for update)
                      update contexts c set expires_at = now() + interval '60 s' from locked where c.id = locked.id";
        run(&mut superuser, update.to_owned()).await;
        let searches = (0..8).map(|n| {
            let body = json!({"query": (["gull", "plover"][n % 2]), "mode": "keyword", "limit": 100});
            app.post("/v1/contexts/search", body)
        });
        let answers: Vec<_> = stream::iter(searches).buffer_unordered(8).collect().await;
        for answer in answers {
            assert_eq!(answer.status, StatusCode::OK, "round {round}: {:?}", answer.body);
            assert_eq!(answer.body["data"].as_array().unwrap().len(), 100, "round {round}");
        }
    }
}
