//! Embedding spaces and transactions that a superuser holds open.

use std::time::{Duration, Instant};

use context_api::{cache::Cache, domain::SpaceId, embedding, service::Service};
use reqwest::StatusCode;
use serde_json::json;
use sqlx::{AssertSqlSafe, PgConnection};

use crate::{
    spaces::{Change, SPACES},
    support::{Database, StubProvider, USER, eventually},
};

async fn run(session: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(session).await.unwrap();
}

/// Waits until so many sessions wait for a lock.
async fn waiting(database: &Database, sessions: i64) {
    let mut superuser = database.superuser().await;
    eventually("sessions that wait for a lock", Duration::from_secs(10), async || {
        let waiting: i64 = sqlx::query_scalar(
            "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'",
        )
        .fetch_one(&mut superuser)
        .await
        .unwrap();
        (waiting == sessions).then_some(())
    })
    .await;
}

/// With a space for the new model that has everything.
async fn filled(contexts: usize) -> (Change, i64) {
    let change = Change::begin(contexts).await;
    let id = change.create(json!({})).await.body["id"].as_i64().unwrap();
    change.filled(id).await;
    (change, id)
}

#[tokio::test]
async fn an_activation_waits_for_a_write_under_way_and_gives_up_soon() {
    let (change, id) = Box::pin(filled(1)).await;
    let mut writer = change.app.database.superuser().await;
    run(&mut writer, "begin; update contexts set expires_at = null").await;
    let begun = Instant::now();
    let busy = change.activate(id, json!({})).await;
    let took = begun.elapsed();
    assert_eq!((busy.status, busy.code()), (StatusCode::SERVICE_UNAVAILABLE, "database_busy"));
    assert!(busy.headers.contains_key("retry-after"));
    assert!((Duration::from_secs(2)..Duration::from_secs(6)).contains(&took), "{took:?}");
    assert_eq!(change.space(id).await["status"], "building");
    run(&mut writer, "rollback").await;
    assert_eq!(change.activate(id, json!({})).await.status, StatusCode::OK);
}

#[tokio::test]
async fn two_activations_at_once_are_one() {
    let (change, id) = Box::pin(filled(1)).await;
    let mut superuser = change.app.database.superuser().await;
    let both = async { tokio::join!(change.activate(id, json!({})), change.activate(id, json!({}))) };
    run(&mut superuser, "select pg_advisory_lock(hashtext('context-api embedding_spaces'))").await;
    let release = async {
        waiting(&change.app.database, 2).await;
        run(&mut superuser, "select pg_advisory_unlock(hashtext('context-api embedding_spaces'))").await;
    };
    let ((one, two), ()) = tokio::join!(both, release);
    for answer in [one, two] {
        assert_eq!((answer.status, &answer.body["status"]), (StatusCode::OK, &json!("active")));
    }
    let target = format!("00000000-0000-0000-0000-{id:012x}");
    let log = change.app.get(&format!("/v1/audit-log?target_id={target}")).await.body;
    let actions: Vec<_> = log["data"].as_array().unwrap().iter().map(|entry| &entry["action"]).collect();
    assert_eq!(actions, ["embedding_space.activate", "embedding_space.create"]);
}

/// The write has its vector's space from before the switch, and goes on after it.
#[tokio::test]
async fn a_vector_that_is_given_during_a_switch_is_not_taken_for_one_of_the_new_space() {
    let (change, id) = Box::pin(filled(3)).await;
    let mut superuser = change.app.database.superuser().await;
    run(&mut superuser, &format!("begin; select activate_embedding_space({id})")).await;
    let body = json!({"user_id": USER, "context_type": "note", "key": "given", "content": "a plover",
                      "embedding": StubProvider::vector_of("something else").as_slice()});
    let switch = async {
        waiting(&change.app.database, 1).await;
        run(&mut superuser, "commit").await;
    };
    let (written, ()) = tokio::join!(change.app.post("/v1/contexts", body), switch);
    assert_eq!(
        (written.status, &written.body["embedding_status"]),
        (StatusCode::CREATED, &json!("pending")),
        "{:?}",
        written.body
    );
    assert_eq!(change.app.embedded(&written.id()).await["embedding_status"], "ready");
    eventually("the new space's answer", Duration::from_secs(5), async || {
        let (keys, space) = change.find("a plover").await;
        (space == json!(id)).then(|| assert_eq!((keys.len(), &keys[0][..]), (4, "given")))
    })
    .await;
}

/// Somebody reads for long what is to be dropped. Whoever waits for the table stands in the way of those who come after.
#[tokio::test]
async fn a_space_that_is_in_use_is_dropped_later_and_nobody_waits_for_that() {
    let (change, id) = Box::pin(filled(3)).await;
    let Change { app, old, .. } = change;
    assert_eq!(app.delete(&format!("{SPACES}/{id}")).await.status, StatusCode::NO_CONTENT);
    let mut reader = app.database.superuser().await;
    run(&mut reader, &format!("begin; select count(*) from chunk_embeddings_{id}")).await;
    let mut superuser = app.database.superuser().await;
    run(
        &mut superuser,
        "update embedding_spaces set retired_at = now() - interval '1 h' where status = 'retired'",
    )
    .await;
    // The worker of the application looks twice a second.
    let until = Instant::now() + Duration::from_millis(1_500);
    while Instant::now() < until {
        let begun = Instant::now();
        let found = app.search(json!({"query": "heron", "mode": "semantic"})).await.body;
        assert_eq!(found["data"].as_array().unwrap().len(), 3, "{found}");
        assert!(begun.elapsed() < Duration::from_secs(1), "a search took {:?}", begun.elapsed());
    }
    let database = app.stop().await;

    let is_there = async || {
        let spaces = database.open().await.list_spaces().await.unwrap();
        spaces.iter().any(|space| i64::from(space.info.id) == id)
    };
    let service = async || {
        let embedder = embedding::connect(&old.provider()).unwrap();
        Service::new(database.open().await, Cache::new(None).unwrap(), [embedder])
    };
    let first = service().await;
    first.survey_spaces().await.unwrap();
    run(&mut reader, "commit").await;
    first.survey_spaces().await.unwrap();
    assert!(is_there().await, "it is not tried again so soon");
    service().await.survey_spaces().await.unwrap();
    assert!(!is_there().await);
}

/// The queue of what was there before a space holds no more than so much.
#[tokio::test]
async fn a_survey_waits_while_its_queue_is_full() {
    const FULL: i64 = 20_000;
    let change = Change::begin(1).await;
    let made = change.create(json!({"is_paused": true})).await;
    let id = made.body["id"].as_i64().unwrap();
    let Change { app, old, .. } = change;
    let database = app.stop().await;
    let mut superuser = database.superuser().await;
    let fill = format!(
        "insert into contexts (tenant_id, id, user_id, context_type, content, text, embedding_status)
         select t.id, gen_random_uuid(), '{USER}', 'note', '{{}}', '', 'ready' from tenants t, generate_series(1, {FULL});
         insert into embedding_work (tenant_id, space_id, context_id, is_fresh)
         select tenant_id, {id}, id, false from contexts order by created_at desc limit {FULL};
         update embedding_spaces set is_paused = false"
    );
    run(&mut superuser, &fill).await;
    let embedder = embedding::connect(&old.provider()).unwrap();
    let service = Service::new(database.open().await, Cache::new(None).unwrap(), [embedder]);
    let seen =
        async || service.get_space(SpaceId(i32::try_from(id).unwrap())).await.unwrap().backfill.contexts_seen;
    assert!(!service.survey_spaces().await.unwrap(), "there is nothing to do now");
    assert_eq!(seen().await, 0);
    run(&mut superuser, "delete from embedding_work where ctid = (select ctid from embedding_work limit 1)")
        .await;
    assert!(service.survey_spaces().await.unwrap());
    assert_eq!(seen().await, 1_000);
}
