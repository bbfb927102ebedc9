//! Where the texts and embeddings of the past are kept, and when they go, seen in the tables themselves.

use std::time::Duration;

use context_api::domain::Retention;
use reqwest::{Method, StatusCode};
use serde_json::json;
use sqlx::{AssertSqlSafe, PgConnection};

use crate::support::{App, Behaviour, StubProvider, USER, eventually};

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

/// The versions of the texts that are kept with a chunk and an embedding.
async fn past_texts(superuser: &mut PgConnection) -> Vec<i64> {
    let chunks = sqlx::query_scalar("select version from past_chunks order by version");
    let chunks: Vec<i64> = chunks.fetch_all(&mut *superuser).await.unwrap();
    let embeddings = sqlx::query_scalar("select version from past_chunk_embeddings order by version");
    assert_eq!(chunks, embeddings.fetch_all(superuser).await.unwrap() as Vec<i64>);
    chunks
}

async fn patch(app: &App, id: &str, body: serde_json::Value) {
    let answer = app.send(Method::PATCH, &format!("/v1/contexts/{id}"), body.to_string()).await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    app.embedded(id).await;
}

/// A context of six versions and three texts, the last of them the present one; each of two versions.
async fn three_texts(app: &App) -> String {
    let id = app.note("an otter").await.id();
    app.embedded(&id).await;
    for (n, text) in ["an otter", "a heron", "a heron", "a badger", "a badger"].into_iter().enumerate() {
        patch(app, &id, json!({"content": {"text": text}, "metadata": {"n": n}})).await;
    }
    id
}

#[tokio::test]
async fn a_past_text_goes_with_the_last_version_that_had_it() {
    let app = quick().await;
    let id = three_texts(&app).await;
    let mut superuser = app.database.superuser().await;
    assert_eq!(past_texts(&mut superuser).await, [1, 3]);
    assert_eq!(
        (count(&mut superuser, "chunks").await, count(&mut superuser, "chunk_embeddings").await),
        (1, 1)
    );
    for (version, left) in [(1, vec![1, 3]), (2, vec![3]), (3, vec![3]), (4, vec![]), (5, vec![])] {
        let age = format!("update context_versions set superseded_at = 'epoch' where version = {version}");
        run(&mut superuser, &age).await;
        assert_eq!(app.service.remove_outdated(&Retention::default()).await.unwrap().versions, 1);
        assert_eq!(past_texts(&mut superuser).await, left, "without version {version}");
    }
    assert_eq!(
        (count(&mut superuser, "chunks").await, count(&mut superuser, "chunk_embeddings").await),
        (1, 1)
    );
    assert_eq!(app.get(&format!("/v1/contexts/{id}")).await.body["text"], "a badger");
}

#[tokio::test]
async fn a_text_in_another_language_is_another_text_with_the_same_embedding() {
    let app = quick().await;
    let id = app.note("alte Häuser").await.id();
    app.embedded(&id).await;
    for change in [
        json!({"language": "de"}),
        json!({"metadata": {"n": 1}}),
        json!({"language": "en", "context_type": "memo"}),
    ] {
        patch(&app, &id, change).await;
    }
    let mut superuser = app.database.superuser().await;
    assert_eq!(past_texts(&mut superuser).await, [1, 2]);
    for present in [
        "chunks where version = 4 and language = 'english' and context_type = 'memo'",
        "chunk_embeddings where version = 4 and context_type = 'memo'",
        "(select distinct embedding::text from (select embedding from chunk_embeddings
                                                union all select embedding from past_chunk_embeddings) e) e",
    ] {
        assert_eq!(count(&mut superuser, present).await, 1, "{present}");
    }
    run(&mut superuser, "update context_versions set superseded_at = 'epoch' where version = 1").await;
    assert_eq!(app.service.remove_outdated(&Retention::default()).await.unwrap().versions, 1);
    assert_eq!(past_texts(&mut superuser).await, [2]);
}

#[tokio::test]
async fn the_number_of_versions_bounds_past_texts_too() {
    let app = quick().await;
    let id = app.note("the first text").await.id();
    for n in 0..130 {
        let body = json!({"content": {"text": format!("text {}", n / 2)}}).to_string();
        app.send(Method::PATCH, &format!("/v1/contexts/{id}"), body).await;
        let body = json!({"metadata": {"n": n}}).to_string();
        app.send(Method::PATCH, &format!("/v1/contexts/{id}"), body).await;
    }
    app.embedded(&id).await;
    let mut superuser = app.database.superuser().await;
    run(&mut superuser, "update context_versions set superseded_at = superseded_at - interval '2 hours'")
        .await;
    let retention = Retention { versions_max: 100, ..Retention::default() };
    assert!(app.service.remove_outdated(&retention).await.unwrap().versions > 0);
    let orphans =
        "past_chunks k where not exists (select from context_versions v where v.text_version = k.version)";
    assert_eq!(count(&mut superuser, orphans).await, 0);
    let lost =
        "context_versions v where not exists (select from past_chunks k where k.version = v.text_version)
                and not exists (select from chunks k where k.version = v.text_version)";
    assert_eq!(count(&mut superuser, lost).await, 0);
}

#[tokio::test]
async fn what_is_deleted_is_kept_for_the_past_until_it_is_purged() {
    let app = quick().await;
    let id = three_texts(&app).await;
    app.delete(&format!("/v1/contexts/{id}")).await;
    let mut superuser = app.database.superuser().await;
    assert_eq!(past_texts(&mut superuser).await, [1, 3, 5]);
    assert_eq!(
        (count(&mut superuser, "chunks").await, count(&mut superuser, "chunk_embeddings").await),
        (0, 0)
    );
    let restored = app.post(&format!("/v1/contexts/{id}/restore"), json!({})).await;
    assert_eq!(restored.status, StatusCode::OK);
    app.embedded(&id).await;
    assert_eq!(past_texts(&mut superuser).await, [1, 3, 5], "it has a text of its own now");
    assert_eq!(count(&mut superuser, "chunks where version = 8").await, 1);
    app.delete(&format!("/v1/contexts/{id}?purge=true")).await;
    assert_eq!(past_texts(&mut superuser).await, Vec::<i64>::new());
}

#[tokio::test]
async fn an_erased_user_is_in_no_table() {
    let app = quick().await;
    let id = three_texts(&app).await;
    let deleted = app.note("a marmot").await.id();
    app.embedded(&deleted).await;
    app.delete(&format!("/v1/contexts/{deleted}")).await;
    let erased = app.delete(&format!("/v1/users/{USER}")).await;
    let counts = &erased.body["result"]["erased"];
    assert_eq!((&counts["chunks"], &counts["embeddings"]), (&json!(4), &json!(4)), "{counts}");
    let mut superuser = app.database.superuser().await;
    let columns: Vec<(String, String)> = sqlx::query_as(
        "select c.relname::text, a.attname::text from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0
         where c.relkind in ('r', 'p') and not c.relispartition and c.relnamespace = 'public'::regnamespace
           and not a.attisdropped and a.atttypid in ('text'::regtype, 'varchar'::regtype, 'jsonb'::regtype, 'uuid'::regtype)",
    )
    .fetch_all(&mut superuser)
    .await
    .unwrap();
    assert!(columns.contains(&("past_chunks".to_owned(), "text".to_owned())), "{columns:?}");
    for (table, column) in columns {
        // The receipt names the user; the log keeps ids.
        if ["operations", "audit_log"].contains(&table.as_str()) {
            continue;
        }
        for trace in [USER, &id, &deleted, "otter", "heron", "badger", "marmot"] {
            let left = count(&mut superuser, &format!("{table} where {column}::text like '%{trace}%'")).await;
            assert_eq!(left, 0, "{trace} in {table}.{column}");
        }
    }
    for table in ["past_chunk_embeddings", "chunk_embeddings"] {
        assert_eq!(count(&mut superuser, table).await, 0, "{table}");
    }
}

#[tokio::test]
async fn a_space_that_is_deleted_takes_its_past_embeddings_along() {
    let (old, new) = (StubProvider::start(Behaviour::Work), StubProvider::start_of(16, Behaviour::Work));
    let app = App::start_with_next(old.provider(), new.provider()).await;
    let id = three_texts(&app).await;
    let mut superuser = app.database.superuser().await;
    let made = app.post("/v1/embedding-spaces", json!({})).await;
    assert_eq!((made.status, &made.body["id"]), (StatusCode::CREATED, &json!(2)));
    eventually("the text in the new space", Duration::from_secs(20), async || {
        (count(&mut app.database.superuser().await, "chunk_embeddings_2").await == 1).then_some(())
    })
    .await;
    patch(&app, &id, json!({"content": {"text": "a plover"}})).await;
    // What the space had of the text that was goes with it; what was before the space, it never had.
    let mut of = async |space: i64| {
        let versions = sqlx::query_scalar(
            "select version from past_chunk_embeddings where space_id = $1 order by version",
        );
        versions.bind(space as i32).fetch_all(&mut superuser).await.unwrap() as Vec<i64>
    };
    assert_eq!((of(1).await, of(2).await), (vec![1, 3, 5], vec![5]));
    assert_eq!(app.delete("/v1/embedding-spaces/2").await.status, StatusCode::NO_CONTENT);
    run(&mut superuser, "update embedding_spaces set retired_at = now() - interval '1 minute' where id = 2")
        .await;
    eventually("the end of the space", Duration::from_secs(20), async || {
        (count(&mut app.database.superuser().await, "embedding_spaces").await == 1).then_some(())
    })
    .await;
    let left: Vec<String> = sqlx::query_scalar(
        "select relname::text from pg_class where relname ~ '^(past_)?chunk_embeddings_2'",
    )
    .fetch_all(&mut superuser)
    .await
    .unwrap();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(past_texts(&mut superuser).await, [1, 3, 5]);
}
