//! What is removed because of its age: rows are made older than they are, and one call of the upkeep follows.

use std::time::{Duration, Instant};

use context_api::domain::{DEFAULT_TENANT, Retention, Scope};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgConnection};

use crate::support::{App, Behaviour, StubProvider, USER, answer, eventually};

async fn quick() -> App {
    App::start_with(StubProvider::start(Behaviour::Work).provider()).await
}

async fn run(superuser: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(superuser).await.unwrap();
}

async fn count(superuser: &mut PgConnection, what: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(format!("select count(*) from {what}")))
        .fetch_one(superuser)
        .await
        .unwrap()
}

async fn patch(app: &App, id: &str, n: i32) {
    let body = json!({"metadata": {"n": n}}).to_string();
    let answer = app.send(Method::PATCH, &format!("/v1/contexts/{id}"), body).await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
}

async fn versions(app: &App, id: &str) -> Vec<i64> {
    let list = app.get(&format!("/v1/contexts/{id}/versions?limit=200")).await.body;
    list["data"].as_array().unwrap().iter().map(|v| v["context"]["version"].as_i64().unwrap()).collect()
}

#[tokio::test]
async fn the_past_is_kept_for_as_long_as_the_operator_says() {
    let app = quick().await;
    let id = app.note("a heron").await.id();
    for n in 0..4 {
        patch(&app, &id, n).await;
    }
    let (old, young) = (app.note("an otter").await.id(), app.note("a badger").await.id());
    for id in [&old, &young] {
        app.delete(&format!("/v1/contexts/{id}")).await;
    }
    let mut superuser = app.database.superuser().await;
    run(&mut superuser, "update context_versions set superseded_at = superseded_at - interval '89 days'")
        .await;
    let removed = app.service.remove_outdated(&Retention::default()).await.unwrap();
    assert_eq!((removed.contexts, removed.versions), (0, 0), "nothing is ninety days old");
    run(
        &mut superuser,
        "update context_versions set superseded_at = superseded_at - interval '2 days' where version < 3",
    )
    .await;
    run(
        &mut superuser,
        &format!("update contexts set updated_at = updated_at - interval '91 days' where id = '{old}'"),
    )
    .await;
    let removed = app.service.remove_outdated(&Retention::default()).await.unwrap();
    assert_eq!(removed.contexts, 1);
    assert_eq!(versions(&app, &id).await, [4, 3]);
    assert_eq!(count(&mut superuser, &format!("context_versions where context_id = '{old}'")).await, 0);
    assert_eq!(count(&mut superuser, &format!("chunks where context_id = '{old}'")).await, 0);
    let restored = app.post(&format!("/v1/contexts/{id}/restore"), json!({"version": 2})).await;
    assert_eq!(restored.code(), "version_not_found");
    let restored = app.post(&format!("/v1/contexts/{old}/restore"), json!({})).await;
    assert_eq!(restored.code(), "context_not_found");
    let short = Retention { history: Duration::from_secs(1), ..Retention::default() };
    run(&mut superuser, "update contexts set updated_at = updated_at - interval '2 s' where not is_active")
        .await;
    assert_eq!(app.service.remove_outdated(&short).await.unwrap().contexts, 1, "the other deleted one");
    assert_eq!(app.get(&format!("/v1/contexts/{id}")).await.status, StatusCode::OK, "what lives stays");
}

#[tokio::test]
async fn no_more_versions_are_kept_than_the_operator_says_once_they_are_an_hour_old() {
    let app = quick().await;
    let id = app.note("a heron").await.id();
    for n in 0..149 {
        patch(&app, &id, n).await;
    }
    let retention = Retention { versions_max: 100, ..Retention::default() };
    assert_eq!(
        app.service.remove_outdated(&retention).await.unwrap().versions,
        0,
        "within the hour all are kept"
    );
    let mut superuser = app.database.superuser().await;
    run(&mut superuser, "update context_versions set superseded_at = superseded_at - interval '2 hours'")
        .await;
    let removed = app.service.remove_outdated(&retention).await.unwrap();
    assert_eq!(removed.versions, 49);
    assert_eq!(versions(&app, &id).await, (50..150).rev().collect::<Vec<i64>>());
    assert_eq!(app.service.remove_outdated(&retention).await.unwrap().versions, 0);
}

#[tokio::test]
async fn an_answer_is_kept_for_a_day() {
    let app = quick().await;
    let write = async || {
        let request =
            app.request(Method::POST, "/v1/contexts").bearer_auth(&app.key).header("idempotency-key", "k");
        answer(request.json(&json!({"user_id": USER, "context_type": "note", "content": 1}))).await
    };
    let first = write().await;
    let mut superuser = app.database.superuser().await;
    run(&mut superuser, "update idempotency_keys set created_at = created_at - interval '23 hours'").await;
    assert_eq!(app.service.remove_outdated(&Retention::default()).await.unwrap().idempotency_keys, 0);
    assert_eq!(write().await.id(), first.id());
    run(&mut superuser, "update idempotency_keys set created_at = created_at - interval '2 hours'").await;
    assert_eq!(app.service.remove_outdated(&Retention::default()).await.unwrap().idempotency_keys, 1);
    let anew = write().await;
    assert_eq!(anew.status, StatusCode::CREATED);
    assert_ne!(anew.id(), first.id());
}

#[tokio::test]
async fn the_log_is_kept_for_as_long_as_the_operator_says_and_for_a_day_at_least() {
    let app = quick().await;
    let ids =
        [app.note("a heron").await.id(), app.note("an otter").await.id(), app.note("a badger").await.id()];
    let mut superuser = app.database.superuser().await;
    for (id, age) in ids.iter().zip(["23 hours", "25 hours", "366 days"]) {
        run(
            &mut superuser,
            &format!("update audit_log set at = at - interval '{age}' where target_id = '{id}'"),
        )
        .await;
    }
    let entries = async |id: &str| {
        let log = app.get(&format!("/v1/audit-log?target_id={id}")).await.body;
        log["data"].as_array().unwrap().len()
    };
    assert_eq!(app.service.remove_outdated(&Retention::default()).await.unwrap().audit_entries, 1);
    assert_eq!([entries(&ids[0]).await, entries(&ids[1]).await, entries(&ids[2]).await], [1, 1, 0]);
    let none = Retention { audit_log: Duration::ZERO, ..Retention::default() };
    assert_eq!(app.service.remove_outdated(&none).await.unwrap().audit_entries, 1);
    assert_eq!([entries(&ids[0]).await, entries(&ids[1]).await], [1, 0]);
}

#[tokio::test]
async fn more_than_one_statement_removes_is_removed_of_every_tenant() {
    let app = quick().await;
    let tenant = app.new_tenant().await;
    let theirs = app.new_key(tenant, Scope::all()).await;
    let ours = app.new_key(DEFAULT_TENANT, Scope::all()).await;
    let operation = |n: usize| json!({"op": "create", "context": {"user_id": USER, "context_type": "note", "content": n}});
    for (key, rows) in [(&ours, 1000), (&ours, 200), (&theirs, 700)] {
        let operations: Vec<Value> = (0..rows).map(operation).collect();
        let body = json!({"operations": operations}).to_string();
        let answer = app.send_as(key, Method::POST, "/v1/contexts/batch", Some(body.into())).await;
        assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    }
    let stays = app.note("a heron").await.id();
    let mut superuser = app.database.superuser().await;
    let expire = format!("update contexts set expires_at = now() - interval '1 s' where id <> '{stays}'");
    run(&mut superuser, &expire).await;
    let removed = app.service.remove_outdated(&Retention::default()).await.unwrap();
    assert_eq!(removed.contexts, 1_900);
    assert_eq!(count(&mut superuser, "contexts").await, 1);
    assert_eq!(app.service.remove_outdated(&Retention::default()).await.unwrap().contexts, 0);
}

#[tokio::test]
async fn an_idempotency_key_is_free_again_after_a_day_removed_or_not() {
    let app = quick().await;
    let mut superuser = app.database.superuser().await;
    let create = async || {
        let body = json!({"user_id": USER, "context_type": "note", "content": "a heron"});
        let request = app.request(Method::POST, "/v1/contexts").bearer_auth(&app.key).json(&body);
        answer(request.header("idempotency-key", "of-yesterday")).await.id()
    };
    let first = create().await;
    let age = "update idempotency_keys set created_at = created_at - interval";
    run(&mut superuser, &format!("{age} '23 hours 59 minutes'")).await;
    assert_eq!(create().await, first);
    run(&mut superuser, &format!("{age} '1 minute'")).await;
    let second = create().await;
    assert_ne!(second, first);
    assert_eq!(create().await, second);
}

/// Autovacuum comes once a minute, and the plans of a service that has just begun are made for empty tables.
#[tokio::test]
async fn a_table_that_grows_fast_is_analyzed_and_then_left_alone() {
    let stub = StubProvider::start(Behaviour::Work);
    let app = App::start_with(stub.provider()).await;
    let line =
        |number| json!({"user_id": USER, "context_type": "note", "content": {"n": number}}).to_string();
    let lines: Vec<String> = (0..1_500).map(line).collect();
    let import = app.request(Method::POST, "/v1/contexts/import").bearer_auth(&app.key);
    let import = import.header("content-type", "application/x-ndjson").body(lines.join("\n"));
    assert_eq!(answer(import).await.body["created"], 1_500);
    // Nobody else does it.
    let mut superuser = app.database.superuser().await;
    run(&mut superuser, "alter table contexts set (autovacuum_enabled = false)").await;
    let rows_known = async || -> f32 {
        let mut superuser = app.database.superuser().await;
        let sql = "select reltuples from pg_class where oid = 'contexts'::regclass";
        sqlx::query_scalar(sql).fetch_one(&mut superuser).await.unwrap()
    };
    // A session counts what it wrote some seconds after it did.
    eventually("an analysis", Duration::from_secs(30), async || {
        app.service.analyze_what_has_grown().await.unwrap();
        (rows_known().await >= 1_000.0).then_some(())
    })
    .await;
    assert!(!app.service.analyze_what_has_grown().await.unwrap().contains(&"contexts".to_owned()));
}

#[tokio::test]
async fn after_a_hundred_tenants_it_rests_so_that_others_can_work() {
    let app = quick().await;
    let mut superuser = app.database.superuser().await;
    let add = |tenants| {
        format!(
            "insert into tenants (id, name) select gen_random_uuid(), gen_random_uuid() from generate_series(1, {tenants})"
        )
    };
    let round = async || {
        let begun = Instant::now();
        app.service.remove_outdated(&Retention::default()).await.unwrap();
        begun.elapsed()
    };
    run(&mut superuser, &add(98)).await;
    assert_eq!(count(&mut superuser, "tenants").await, 99);
    let mut works = Duration::MAX;
    for _ in 0..3 {
        works = works.min(round().await);
    }
    run(&mut superuser, &add(1)).await;
    let whole = round().await;
    assert!(whole > works * 3, "a hundred took {whole:?}, of them ninety-nine at work {works:?}");
}
