//! The ledger of stored bytes beneath the API: many writers at once, who never wait for it, and what was there before it.

use std::time::Duration;

use context_api::{
    domain::{DEFAULT_TENANT, Retention, Scope, TenantId},
    store::Store,
};
use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::json;
use sqlx::PgConnection;

use crate::support::{App, Behaviour, StubProvider, USER, options};

async fn app() -> App {
    App::start_with(StubProvider::start(Behaviour::Work).provider()).await
}

/// What a tenant has, by the formula.
async fn counted(superuser: &mut PgConnection, tenant: TenantId) -> i64 {
    sqlx::query_scalar(
        "select coalesce(sum(octet_length(s.content::text) + octet_length(s.metadata::text) + octet_length(s.text)), 0)::bigint
         from (select content, metadata, text from contexts where tenant_id = $1
               union all select content, metadata, text from context_versions where tenant_id = $1) s",
    )
    .bind(tenant.0)
    .fetch_one(superuser)
    .await
    .unwrap()
}

async fn run(superuser: &mut PgConnection, sql: &'static str) {
    sqlx::raw_sql(sql).execute(superuser).await.unwrap();
}

async fn number(superuser: &mut PgConnection, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(superuser).await.unwrap()
}

const CHANGES: &str = "select count(*) from stored_bytes_changes";

#[tokio::test]
async fn writers_and_those_who_add_up_lose_nothing_between_them() {
    let app = app().await;
    let other = app.new_tenant().await;
    let keys = [app.key.clone(), app.new_key(other, Scope::all()).await];
    let write = async |writer: usize| {
        let key = &keys[writer % 2];
        let send = async |method, path: &str, body: Option<serde_json::Value>| {
            app.send_as(key, method, path, body.map(|body| body.to_string().into())).await
        };
        for turn in 0..10 {
            let text = "heron ".repeat(turn * writer);
            let context =
                |text: &str| json!({"user_id": USER, "context_type": "note", "content": {"t": text}});
            let made = send(Method::POST, "/v1/contexts", Some(context(&text))).await;
            assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
            let path = format!("/v1/contexts/{}", made.id());
            send(Method::PATCH, &path, Some(json!({"metadata": {"turn": turn}}))).await;
            // All of a tenant write to this one.
            let mut shared = context(&format!("{writer} {turn}"));
            shared["key"] = json!("shared");
            let shared = send(Method::POST, "/v1/contexts", Some(shared)).await;
            assert!(shared.status.is_success(), "{shared:?}");
            if turn % 3 == 0 {
                send(Method::DELETE, &format!("{path}?purge=true"), None).await;
            }
        }
    };
    let add_up = async || {
        for _ in 0..30 {
            app.service.add_up_bytes().await.unwrap();
        }
    };
    tokio::join!(join_all((0..6).map(write)), add_up(), add_up());
    let mut superuser = app.database.superuser().await;
    for tenant in [DEFAULT_TENANT, other] {
        let counted = counted(&mut superuser, tenant).await;
        assert!(counted > 0);
        assert_eq!(app.service.store().stored_bytes(tenant).await.unwrap(), counted);
    }
    while app.service.add_up_bytes().await.unwrap() {}
    assert_eq!(number(&mut superuser, CHANGES).await, 0);
    for tenant in [DEFAULT_TENANT, other] {
        let counted = counted(&mut superuser, tenant).await;
        assert_eq!(app.service.store().stored_bytes(tenant).await.unwrap(), counted);
    }
}

#[tokio::test]
async fn a_writer_waits_neither_for_another_one_nor_for_who_adds_up() {
    let app = app().await;
    app.note("a heron").await;
    app.service.add_up_bytes().await.unwrap();
    // One who has written, and is not done.
    let mut writer = app.database.superuser().await;
    run(
        &mut writer,
        "begin;
         insert into contexts (tenant_id, id, user_id, context_type, content, text, embedding_status)
         select tenant_id, gen_random_uuid(), user_id, 'note', '\"an otter\"', 'an otter', 'ready' from contexts",
    )
    .await;
    // Longer than any wait for another write, had there been one.
    assert_eq!(app.note("a badger").await.status, StatusCode::CREATED);
    app.service.add_up_bytes().await.unwrap();
    // One who adds up, and is not done.
    let mut adding = app.database.superuser().await;
    run(&mut adding, "begin; update stored_bytes set bytes = bytes").await;
    assert_eq!(app.note("a stork").await.status, StatusCode::CREATED);
    let before = app.service.store().stored_bytes(DEFAULT_TENANT).await.unwrap();
    run(&mut writer, "commit").await;
    run(&mut adding, "commit").await;
    let after = app.service.store().stored_bytes(DEFAULT_TENANT).await.unwrap();
    assert_eq!(after - before, 10 + 2 + 8, "what the first one wrote counts as soon as it is done");
    while app.service.add_up_bytes().await.unwrap() {}
    let counted = counted(&mut writer, DEFAULT_TENANT).await;
    assert_eq!(app.service.store().stored_bytes(DEFAULT_TENANT).await.unwrap(), counted);
}

#[tokio::test]
async fn what_is_no_new_version_leaves_no_note() {
    let app = app().await;
    let id = app.note("a heron").await.id();
    app.embedded(&id).await;
    let mut superuser = app.database.superuser().await;
    assert_eq!(number(&mut superuser, CHANGES).await, 1, "its embedding changes nothing");
    run(&mut superuser, "update contexts set expires_at = now() + interval '1 day'").await;
    run(&mut superuser, "delete from contexts where false").await;
    assert_eq!(number(&mut superuser, CHANGES).await, 1);
}

#[tokio::test]
async fn a_statement_about_several_tenants_is_noted_for_each() {
    let app = app().await;
    let other = app.new_tenant().await;
    let theirs = app.new_key(other, Scope::all()).await;
    for key in [&app.key, &theirs, &theirs] {
        let body = json!({"user_id": USER, "context_type": "note", "content": 1}).to_string();
        app.send_as(key, Method::POST, "/v1/contexts", Some(body.into())).await;
    }
    let mut superuser = app.database.superuser().await;
    run(
        &mut superuser,
        "insert into contexts (tenant_id, id, user_id, context_type, content, text, embedding_status)
         select tenant_id, gen_random_uuid(), user_id, 'note', '12345', '', 'ready' from contexts",
    )
    .await;
    for (tenant, bytes) in [(DEFAULT_TENANT, 3 + 7), (other, 2 * 3 + 2 * 7)] {
        assert_eq!(counted(&mut superuser, tenant).await, bytes);
        assert_eq!(app.service.store().stored_bytes(tenant).await.unwrap(), bytes);
    }
    run(&mut superuser, "delete from contexts where content = '12345'").await;
    for (tenant, bytes) in [(DEFAULT_TENANT, 3), (other, 2 * 3)] {
        assert_eq!(app.service.store().stored_bytes(tenant).await.unwrap(), bytes);
    }
}

#[tokio::test]
async fn what_was_stored_before_the_ledger_is_in_it() {
    let app = app().await;
    let other = app.new_tenant().await;
    let theirs = app.new_key(other, Scope::all()).await;
    let context = json!({"user_id": USER, "context_type": "note", "content": {"t": "theirs"}}).to_string();
    app.send_as(&theirs, Method::POST, "/v1/contexts", Some(context.into())).await;
    let path = app.created(json!({"content": {"t": "a heron"}})).await;
    app.send(Method::PATCH, &path, json!({"content": {"t": "an otter"}}).to_string()).await;
    app.delete(&app.created(json!({})).await).await;
    let mut superuser = app.database.superuser().await;
    // As it was before.
    run(
        &mut superuser,
        "drop function context_bytes(jsonb, jsonb, text), tenants_with_stored_bytes_changes(uuid, integer);
         drop function count_bytes_that_came, count_bytes_of_new_version, count_bytes_that_went cascade;
         drop table stored_bytes, stored_bytes_changes;
         delete from _sqlx_migrations where description = 'stored bytes'",
    )
    .await;
    assert_eq!(Store::migrate(&options(&app.database.url)).await.unwrap().count, 1);
    for tenant in [DEFAULT_TENANT, other] {
        let counted = counted(&mut superuser, tenant).await;
        assert!(counted > 0);
        assert_eq!(app.service.store().stored_bytes(tenant).await.unwrap(), counted);
    }
    assert_eq!(number(&mut superuser, CHANGES).await, 0);
    app.note("a badger").await;
    let counted = counted(&mut superuser, DEFAULT_TENANT).await;
    assert_eq!(app.service.store().stored_bytes(DEFAULT_TENANT).await.unwrap(), counted);
}

#[tokio::test]
async fn what_the_upkeep_removes_is_not_stored_any_more() {
    let app = app().await;
    let path = app.created(json!({})).await;
    for n in 0..120 {
        let answer = app.send(Method::PATCH, &path, json!({"metadata": {"n": n}}).to_string()).await;
        assert_eq!(answer.status, StatusCode::OK);
    }
    app.created(json!({"ttl_seconds": 3600})).await;
    let mut superuser = app.database.superuser().await;
    run(
        &mut superuser,
        "update contexts set expires_at = now() where expires_at is not null;
         update context_versions set superseded_at = superseded_at - interval '2 hours'",
    )
    .await;
    let store = app.service.store();
    let before = store.stored_bytes(DEFAULT_TENANT).await.unwrap();
    assert_eq!(before, counted(&mut superuser, DEFAULT_TENANT).await);
    let retention = Retention { versions_max: 100, ..Retention::default() };
    let removed = app.service.remove_outdated(&retention).await.unwrap();
    assert_eq!((removed.contexts, removed.versions), (1, 20));
    let after = store.stored_bytes(DEFAULT_TENANT).await.unwrap();
    assert!(after < before);
    assert_eq!(after, counted(&mut superuser, DEFAULT_TENANT).await);
    let none = Retention { history: Duration::ZERO, ..Retention::default() };
    app.service.remove_outdated(&none).await.unwrap();
    let least = store.stored_bytes(DEFAULT_TENANT).await.unwrap();
    assert_eq!(least, counted(&mut superuser, DEFAULT_TENANT).await);
}
