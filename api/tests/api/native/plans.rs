//! The hot statements use their indexes, as the role that the service runs as: row-level security hides an index from
//! a condition whose function is not leakproof, and nothing but speed would tell.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::support::{App, Behaviour, StubProvider, USER, answer, eventually};

async fn scans(superuser: &mut PgConnection, index: &str) -> i64 {
    sqlx::query_scalar(
        "select coalesce(sum(idx_scan), 0)::bigint from pg_stat_user_indexes where indexrelname ~ $1",
    )
    .bind(index)
    .fetch_one(superuser)
    .await
    .unwrap()
}

#[tokio::test]
async fn hot_statements_use_their_indexes() {
    let stub = StubProvider::start(Behaviour::Work);
    let app = App::start_with(stub.provider()).await;
    let id = app.note("an otter").await.id();
    app.embedded(&id).await;
    // As many as make the way by the tenant longer than that by the word.
    let line = |number| {
        json!({"user_id": USER, "context_type": "note", "content": format!("otter {number}")}).to_string()
    };
    let lines: Vec<String> = (0..3_000).map(line).collect();
    let import = app.request(Method::POST, "/v1/contexts/import").bearer_auth(&app.key);
    let import = import.header("content-type", "application/x-ndjson").body(lines.join("\n"));
    assert_eq!(answer(import).await.body["created"], 3_000);
    let database = app.stop().await;
    let mut superuser = database.superuser().await;
    // Few rows would be read without any index. This leaves the planner no such way out, but it cannot make it use an
    // index that it may not.
    let name: String =
        sqlx::query_scalar("select current_database()").fetch_one(&mut superuser).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(format!("alter database {name} set enable_seqscan = off")))
        .execute(&mut superuser)
        .await
        .unwrap();
    sqlx::raw_sql("analyze").execute(&mut superuser).await.unwrap();
    sqlx::raw_sql("select pg_stat_reset()").execute(&mut superuser).await.unwrap();

    let app = App::start_on(database, stub.provider()).await;
    app.get(&format!("/v1/contexts/{id}")).await;
    app.get(&format!("/v1/contexts?user_id={}", uuid::Uuid::new_v4())).await;
    app.search(json!({"query": "otter", "mode": "keyword"})).await;
    app.search(json!({"query": "otter", "mode": "semantic", "user_id": USER})).await;
    let database = app.stop().await;
    for index in [
        "^contexts_pkey$",
        "^contexts_(user|key)$",
        "^chunks_terms$",
        "^chunk_embeddings_1_tenant_id_user_id",
    ] {
        // A session's figures are written down when it has ended.
        eventually(&format!("a scan of {index}"), Duration::from_secs(10), async || {
            (scans(&mut database.superuser().await, index).await > 0).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_search_reads_its_hits_however_many_tenants_there_are_and_not_all_that_its_user_has() {
    const SEARCHES: i64 = 40;
    let stub = StubProvider::start(Behaviour::Work);
    let app = App::start_with(stub.provider()).await;
    let line = |number| {
        json!({"user_id": USER, "context_type": "note", "content": format!("otter {number}")}).to_string()
    };
    let lines: Vec<String> = (0..1_000).map(line).collect();
    let import = app.request(Method::POST, "/v1/contexts/import").bearer_auth(&app.key);
    let import = import.header("content-type", "application/x-ndjson").body(lines.join("\n"));
    assert_eq!(answer(import).await.body["created"], 1_000);
    let database = app.stop().await;
    let mut superuser = database.superuser().await;
    // By an average tenant PostgreSQL would now expect a row of each.
    sqlx::raw_sql(
        "set session_replication_role = replica;
         -- A worker would read them, too.
         update contexts set embedding_status = 'ready';
         insert into tenants (id, name) select gen_random_uuid(), 'other ' || n from generate_series(1, 3000) n;
         insert into contexts
         select (jsonb_populate_record(c, jsonb_build_object('tenant_id', t.id, 'id', gen_random_uuid()))).*
         from (select c as c from contexts c limit 1) c, tenants t where t.name like 'other %';
         insert into chunks
         select (jsonb_populate_record(k, jsonb_build_object('tenant_id', c.tenant_id, 'context_id', c.id))).*
         from (select k as k from chunks k limit 1) k, contexts c join tenants t on t.id = c.tenant_id and t.name like 'other %';
         analyze; select pg_stat_reset()",
    )
    .execute(&mut superuser)
    .await
    .unwrap();
    superuser.close().await.unwrap();

    let app = App::start_on(database, stub.provider()).await;
    for number in 0..SEARCHES {
        let query =
            json!({"query": format!("otter {number}"), "mode": "keyword", "user_id": USER, "limit": 10});
        assert_eq!(app.search(query).await.body["data"].as_array().unwrap().len(), 10);
    }
    let database = app.stop().await;
    // A session's figures are written down before it is gone.
    let read = eventually("the end of all sessions", Duration::from_secs(10), async || {
        sqlx::query_scalar::<_, i64>(
            "select coalesce(idx_tup_fetch, 0) + seq_tup_read from pg_stat_user_tables
             where relname = 'contexts' and not exists (
                 select from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()
                     and backend_type = 'client backend')",
        )
        .fetch_optional(&mut database.superuser().await)
        .await
        .unwrap()
    })
    .await;
    assert!(read >= SEARCHES * 10, "{read} contexts were read, and {SEARCHES} searches had 10 hits each");
    assert!(read < SEARCHES * 100, "{read} contexts were read for {SEARCHES} searches with 10 hits");
}

#[tokio::test]
async fn every_table_that_a_search_reads_is_planned_for_ten_tenants() {
    let stub = StubProvider::start(Behaviour::Work);
    let app = App::start_with(stub.provider()).await;
    let others: Vec<String> = sqlx::query_scalar(
        "select c.relname::text from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attname = 'tenant_id'
         where (c.relname ~ '^(past_)?chunk_embeddings_[0-9]+$' or c.relname in ('contexts', 'chunks', 'context_versions', 'past_chunks'))
           and c.relkind = 'r' and a.attoptions is distinct from '{n_distinct=10}'",
    )
    .fetch_all(&mut app.database.superuser().await)
    .await
    .unwrap();
    assert!(others.is_empty(), "{others:?}");
}

#[tokio::test]
async fn the_nearest_neighbour_index_serves_the_unfiltered_search_under_row_level_security() {
    let stub = StubProvider::start(Behaviour::Work);
    let app = App::start_with(stub.provider()).await;
    app.embedded(&app.note("an otter").await.id()).await;
    let mut session = app.database.superuser().await;
    sqlx::raw_sql(
        "set role context_app; set context.tenant_id = '00000000-0000-7000-8000-000000000001'; set enable_seqscan = off;
         set enable_sort = off; set hnsw.iterative_scan = 'relaxed_order'",
    )
    .execute(&mut session)
    .await
    .unwrap();
    let order = |hidden: &str| {
        format!(
            "explain select context_id from chunk_embeddings k
             where k.tenant_id = '00000000-0000-7000-8000-000000000001' and k.space_id = 1
               and (select set_config('hnsw.ef_search', '300', true)) is not null
             order by (k.embedding::halfvec(8) <#> '[1,0,0,0,0,0,0,0]'::halfvec(8)){hidden} limit 10"
        )
    };
    let mut plan = async |hidden: &str| {
        let lines: Vec<String> =
            sqlx::query_scalar(AssertSqlSafe(order(hidden))).fetch_all(&mut session).await.unwrap();
        lines.join("\n")
    };
    let nearest = plan("").await;
    assert!(nearest.contains("Order By") && nearest.contains("<#>"), "{nearest}");
    let (asked_once, index) = (nearest.find("One-Time Filter"), nearest.find("Index Scan"));
    assert!(
        asked_once.is_some() && asked_once < index,
        "how far to look is set before the index is asked: {nearest}"
    );
    let exact = plan(" + 0").await;
    assert!(!exact.contains("Order By"), "the exact plan must not use the index of neighbours: {exact}");
}
