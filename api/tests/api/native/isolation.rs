//! Tenants never see each other, by the API or beneath it.

use context_api::domain::Scope;
use reqwest::{Method, StatusCode};
use serde_json::json;
use sqlx::{AssertSqlSafe, PgConnection};

use crate::support::{App, USER, answer};

#[tokio::test]
async fn another_tenants_context_does_not_exist_by_any_route() {
    let app = App::start().await;
    let mine = app
        .post(
            "/v1/contexts",
            json!({"user_id": USER, "context_type": "note", "key": "k", "content": {"t": "a secret marmot"}}),
        )
        .await;
    let id = mine.id();
    app.embedded(&id).await;
    let stranger = app.new_tenant().await;
    let key = app.new_key(stranger, Scope::all()).await;
    let send = async |method: Method, path: String, body: Option<String>| {
        app.send_as(&key, method, &path, body.map(Into::into)).await
    };
    for method in [Method::GET, Method::DELETE] {
        let answer = send(method.clone(), format!("/v1/contexts/{id}"), None).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::NOT_FOUND, "context_not_found"), "{method}");
    }
    for path in ["/v1/contexts".to_owned(), format!("/v1/contexts?user_id={USER}")] {
        assert_eq!(send(Method::GET, path, None).await.body["data"], json!([]));
    }
    for mode in ["hybrid", "semantic", "keyword"] {
        let body = json!({"query": "marmot", "mode": mode, "user_id": USER}).to_string();
        assert_eq!(
            send(Method::POST, "/v1/contexts/search".into(), Some(body)).await.body["data"],
            json!([]),
            "{mode}"
        );
    }
    let same_key =
        json!({"user_id": USER, "context_type": "note", "key": "k", "content": {"t": "theirs"}}).to_string();
    let theirs = send(Method::POST, "/v1/contexts".into(), Some(same_key)).await;
    assert_eq!(theirs.status, StatusCode::CREATED, "their key is another than mine");
    assert_eq!(app.get(&format!("/v1/contexts/{id}")).await.body["version"], 1, "mine is untouched");
}

async fn count(connection: &mut PgConnection, table: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(format!("select count(*) from {table}")))
        .fetch_one(connection)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_session_of_the_service_without_a_tenant_sees_no_row_and_can_write_none() {
    let app = App::start().await;
    let id = app.note("something").await.id();
    app.embedded(&id).await;
    // A row in every table.
    let request = app.request(Method::PUT, &format!("/v1/contexts/{id}")).bearer_auth(&app.key).json(
        &json!({"user_id": USER, "context_type": "note", "content": "something else", "metadata": {"a": 1}}),
    );
    assert!(answer(request).await.status.is_success());
    app.service.count_words().await.unwrap();
    app.service.add_up_bytes().await.unwrap();
    app.embedded(&id).await;
    let request = app
        .request(Method::POST, "/v1/contexts")
        .bearer_auth(&app.key)
        .header("idempotency-key", "once")
        .json(&json!({"user_id": USER, "context_type": "note", "content": "once"}));
    assert!(answer(request).await.status.is_success());
    let mut session = app.database.superuser().await;
    // Never due, or the worker would take it away.
    sqlx::query(
        "insert into embedding_work (tenant_id, space_id, context_id, is_fresh, due_at)
         select c.tenant_id, s.id, c.id, true, 'infinity' from contexts c, embedding_spaces s",
    )
    .execute(&mut session)
    .await
    .unwrap();
    let tables: Vec<String> = sqlx::query_scalar(
        "select c.relname from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attname = 'tenant_id'
         where c.relkind in ('r', 'p') and not c.relispartition and c.relnamespace = 'public'::regnamespace",
    )
    .fetch_all(&mut session)
    .await
    .unwrap();
    assert!(tables.len() >= 4, "{tables:?}");
    let unforced: Vec<String> = sqlx::query_scalar(
        "select c.relname from pg_class c where c.relname = any($1) and not (c.relrowsecurity and c.relforcerowsecurity)",
    )
    .bind(&tables)
    .fetch_all(&mut session)
    .await
    .unwrap();
    assert!(unforced.is_empty(), "row-level security is not forced on {unforced:?}");
    for table in tables.iter().filter(|table| *table != "operations") {
        assert!(count(&mut session, table).await > 0, "{table} has rows for the superuser to see");
    }
    sqlx::raw_sql("set role context_app").execute(&mut session).await.unwrap();
    for setting in
        ["", "set context.tenant_id = ''", "set context.tenant_id = '00000000-0000-0000-0000-000000000000'"]
    {
        sqlx::raw_sql(setting).execute(&mut session).await.unwrap();
        for table in tables.iter().chain([&"tenants".to_owned()]) {
            assert_eq!(count(&mut session, table).await, 0, "{table} after `{setting}`");
        }
    }
    let forged = sqlx::query(
        "insert into contexts (tenant_id, id, user_id, context_type, content, text, embedding_status)
         values ('00000000-0000-7000-8000-000000000001', gen_random_uuid(), gen_random_uuid(), 't', '1', '', 'ready')",
    )
    .execute(&mut session)
    .await;
    assert!(forged.unwrap_err().to_string().contains("row-level security"));
    for forbidden in [
        "select * from chunk_embeddings_1",
        "select * from past_chunk_embeddings_1",
        "update past_chunks set text = ''",
        "select create_past_partition(7, 8)",
        "select expect_one_tenant('contexts')",
        "drop table contexts",
        "alter table contexts disable row level security",
        "truncate contexts",
        "delete from tenants",
        "delete from audit_log",
        "update audit_log set action = 'nothing'",
        "update context_versions set content = '1'",
        "insert into embedding_spaces (provider, model, dims, status) values ('x', 'y', 1, 'active')",
    ] {
        assert!(sqlx::raw_sql(forbidden).execute(&mut session).await.is_err(), "{forbidden}");
    }
}
