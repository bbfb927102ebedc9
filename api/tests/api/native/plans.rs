//! The hot statements use their indexes, as the role that the service runs as: row-level security hides an index from
//! a condition whose function is not leakproof, and nothing but speed would tell.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::support::{App, Behaviour, Database, StubProvider, USER, answer, eventually};

async fn scans(superuser: &mut PgConnection, index: &str) -> i64 {
    sqlx::query_scalar(
        "select coalesce(sum(idx_scan), 0)::bigint from pg_stat_user_indexes where indexrelname ~ $1",
    )
    .bind(index)
    .fetch_one(superuser)
    .await
    .unwrap()
}

async fn import_otters(app: &App, number: u32) {
    let line = |number| {
        json!({"user_id": USER, "context_type": "note", "content": format!("otter {number}")}).to_string()
    };
    let lines: Vec<String> = (0..number).map(line).collect();
    let import = app.request(Method::POST, "/v1/contexts/import").bearer_auth(&app.key);
    let import = import.header("content-type", "application/x-ndjson").body(lines.join("\n"));
    assert_eq!(answer(import).await.body["created"], number);
}

#[tokio::test]
async fn hot_statements_use_their_indexes() {
    let stub = StubProvider::start(Behaviour::Work);
    let app = App::start_with(stub.provider()).await;
    let id = app.note("an otter").await.id();
    app.embedded(&id).await;
    // As many as make the way by the tenant longer than that by the word.
    import_otters(&app, 3_000).await;
    let database = app.stop().await;
    let mut superuser = database.superuser().await;
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

const ROWS_OF_ANOTHER: i64 = 30_000;

/// Gives rows to another tenant: copies of one of what is there. So many that PostgreSQL would read the whole table for what it takes for
/// the share of one of two tenants.
async fn add_rows_of_another(database: &Database) {
    let mut superuser = database.superuser().await;
    let fill = format!(
        "set session_replication_role = replica;
         -- A worker would read them, too.
         update contexts set embedding_status = 'ready';
         create temp table other as
             select gen_random_uuid() as id, t.tenant
             from (select gen_random_uuid() as tenant) t cross join generate_series(1, {ROWS_OF_ANOTHER});
         insert into tenants (id, name) select distinct tenant, 'another' from other;
         insert into contexts
         select (jsonb_populate_record(c, jsonb_build_object('tenant_id', o.tenant, 'id', o.id))).*
         from (select c as c from contexts c limit 1) c, other o;
         insert into chunks
         select (jsonb_populate_record(k, jsonb_build_object(
             'tenant_id', o.tenant, 'context_id', o.id,
             'terms', (terms_of(o.tenant, (k).language, (k).text)).terms::text))).*
         from (select k as k from chunks k limit 1) k, other o;
         insert into chunk_embeddings
         select (jsonb_populate_record(e, jsonb_build_object('tenant_id', o.tenant, 'context_id', o.id))).*
         from (select e as e from chunk_embeddings e limit 1) e, other o;
         analyze"
    );
    sqlx::raw_sql(AssertSqlSafe(fill)).execute(&mut superuser).await.unwrap();
    superuser.close().await.unwrap();
    // Of a session of its own: what that one has done is counted when it has ended.
    let mut superuser = database.superuser().await;
    until_alone(&mut superuser).await;
    sqlx::raw_sql("select pg_stat_reset()").execute(&mut superuser).await.unwrap();
    superuser.close().await.unwrap();
}

/// A session's figures are written down before it is gone.
async fn until_alone(superuser: &mut PgConnection) {
    eventually("the end of all other sessions", Duration::from_secs(10), async || {
        sqlx::query_scalar::<_, bool>(
            "select true where not exists (
                 select from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()
                     and backend_type = 'client backend')",
        )
        .fetch_optional(&mut *superuser)
        .await
        .unwrap()
    })
    .await;
}

/// Since [`add_rows_of_another`]: rows of contexts, of chunks and of embeddings that were read, and how often a whole table was.
async fn was_read(database: &Database) -> [(i64, i64); 3] {
    let mut superuser = database.superuser().await;
    until_alone(&mut superuser).await;
    let mut read = [(0, 0); 3];
    for (table, read) in ["contexts", "chunks", "chunk_embeddings_1"].into_iter().zip(&mut read) {
        *read = sqlx::query_as(
            "select coalesce(idx_tup_fetch, 0) + seq_tup_read, seq_scan from pg_stat_user_tables where relname = $1",
        )
        .bind(table)
        .fetch_one(&mut superuser)
        .await
        .unwrap();
    }
    superuser.close().await.unwrap();
    read
}

#[tokio::test]
async fn who_has_little_does_not_pay_for_what_others_have() {
    const OWN: i64 = 12;
    const ROUNDS: i64 = 8;
    let stub = StubProvider::start(Behaviour::Work);
    let app = App::start_with(stub.provider()).await;
    let mut then = json!(null);
    for number in 0..OWN {
        let text = format!("river otter {number}");
        let note =
            json!({"user_id": USER, "context_type": "note", "content": text, "metadata": {"state": "wet"}});
        let context = app.embedded(&app.post("/v1/contexts", note).await.id()).await;
        then = context["created_at"].clone();
    }
    let database = app.stop().await;
    add_rows_of_another(&database).await;

    let app = App::start_on(database, stub.provider()).await;
    let searches = [
        json!({"query": "otter", "mode": "keyword"}),
        json!({"query": "otter", "mode": "keyword", "context_types": ["note"]}),
        json!({"query": "\"river otter\"", "mode": "keyword", "user_id": USER}),
        json!({"query": "otter", "mode": "semantic"}),
        json!({"query": "otter", "mode": "semantic", "context_types": ["note"]}),
        json!({"query": "otter", "mode": "hybrid", "user_id": USER}),
        json!({"query": "otter", "mode": "hybrid", "filter": {"metadata.state": "wet"}}),
        json!({"query": "otter", "mode": "hybrid", "as_of": then}),
    ];
    for _ in 0..ROUNDS {
        for search in &searches {
            let found = app.search(search.clone()).await;
            assert_eq!(found.body["data"].as_array().map(Vec::len), Some(10), "{search}: {}", found.body);
        }
        let list = app.get("/v1/contexts?context_type=note&limit=10").await;
        assert_eq!(list.body["data"].as_array().unwrap().len(), 10);
    }
    let database = app.stop().await;
    for (rows, whole) in was_read(&database).await {
        assert_eq!(whole, 0, "a table was read whole");
        // Half of what one of these would read that reads what the other one has. Besides, a worker reads some of it now and then.
        let too_many = ROUNDS / 2 * ROWS_OF_ANOTHER;
        assert!((1..too_many).contains(&rows), "{rows} rows were read for answers out of {OWN}");
    }
}

/// A policy that lets everything pass tells how the session that reads a row has its statements planned.
#[tokio::test]
async fn a_plan_is_kept_for_what_has_one_good_way_and_made_anew_for_what_has_several() {
    let mut app = App::start_with(StubProvider::start(Behaviour::Work).provider()).await;
    let id = app.note("an otter").await.id();
    let then = app.embedded(&id).await["created_at"].clone();
    app.end_background().await;
    let mut superuser = app.database.superuser().await;
    sqlx::raw_sql(
        "create table seen (mode text);
         create function see() returns boolean language plpgsql security definer as $$
         begin
             insert into seen values (current_setting('plan_cache_mode'));
             return true;
         end $$;
         create policy see on contexts as restrictive for select using (see());
         create policy see on chunks as restrictive for select using (see())",
    )
    .execute(&mut superuser)
    .await
    .unwrap();
    let mut modes = async || -> Vec<String> {
        let taken = "with taken as (delete from seen returning mode) select distinct mode from taken";
        sqlx::query_scalar(taken).fetch_all(&mut superuser).await.unwrap()
    };
    let (kept, anew) = (["force_generic_plan"], ["auto"]);
    // Whoever waited for the embedding has asked for it before.
    let get = app.request(Method::GET, &format!("/v1/contexts/{id}")).bearer_auth(&app.key);
    assert_eq!(answer(get.header("cache-control", "no-cache")).await.body["id"], id);
    assert_eq!(modes().await, kept, "a context");
    for (more, wanted) in [
        (json!({}), kept),
        (json!({"user_id": USER, "context_types": ["note"]}), kept),
        (json!({"filter": {"context_type": "note"}}), anew),
        (json!({"as_of": then}), anew),
    ] {
        for mode in ["keyword", "semantic", "hybrid"] {
            let mut search = json!({"query": "otter", "mode": mode});
            search.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            assert_eq!(app.search(search.clone()).await.body["data"][0]["context"]["id"], id, "{search}");
            assert_eq!(modes().await, wanted, "{search}");
        }
    }
    app.get("/v1/contexts").await;
    assert_eq!(modes().await, anew, "a list");
}

/// A managed PostgreSQL may not let anybody mark them.
#[tokio::test]
async fn where_no_index_of_words_may_be_used_a_search_finds_the_same() {
    let app = App::start_with(StubProvider::start(Behaviour::Work).provider()).await;
    import_otters(&app, 30).await;
    let other = json!({"user_id": uuid::Uuid::new_v4(), "context_type": "log", "content": "otter 7"});
    app.post("/v1/contexts", other).await;
    let answers = async || {
        let mut answers = Vec::new();
        for scope in [json!({}), json!({"user_id": USER}), json!({"context_types": ["log"]})] {
            for query in ["otter 7", "\"otter 7\"", "ott*"] {
                let mut search = json!({"query": query, "mode": "keyword", "limit": 50});
                search.as_object_mut().unwrap().extend(scope.as_object().unwrap().clone());
                // Not from memory.
                let ask =
                    app.request(Method::POST, "/v1/contexts/search").bearer_auth(&app.key).json(&search);
                let answer = answer(ask.header("cache-control", "no-cache")).await.body;
                let ids =
                    answer["data"].as_array().unwrap().iter().map(|hit| hit["context"]["id"].to_string());
                answers.push(ids.collect::<Vec<_>>());
            }
        }
        answers
    };
    assert!(app.service.store().go_by_text_index_if_usable().await.unwrap());
    let with = answers().await;
    assert_eq!(with.iter().map(Vec::len).collect::<Vec<_>>(), [31, 2, 31, 30, 1, 30, 1, 1, 1]);
    let mut superuser = app.database.superuser().await;
    sqlx::raw_sql(
        "alter function pg_catalog.ts_match_vq(tsvector, tsquery) not leakproof;
         alter function pg_catalog.jsonb_contains(jsonb, jsonb) not leakproof",
    )
    .execute(&mut superuser)
    .await
    .unwrap();
    assert!(!app.service.store().go_by_text_index_if_usable().await.unwrap());
    assert_eq!(answers().await, with);
}

#[tokio::test]
async fn chunks_and_embeddings_are_planned_as_if_they_were_one_tenants() {
    let stub = StubProvider::start(Behaviour::Work);
    let app = App::start_with(stub.provider()).await;
    app.embedded(&app.note("an otter").await.id()).await;
    let planned: Vec<String> = sqlx::query_scalar(
        "select c.relname::text from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attname = 'tenant_id'
         where c.relkind = 'r' and a.attoptions = '{n_distinct=1}' order by c.relname",
    )
    .fetch_all(&mut app.database.superuser().await)
    .await
    .unwrap();
    assert_eq!(planned, ["chunk_embeddings_1", "chunks"]);
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
