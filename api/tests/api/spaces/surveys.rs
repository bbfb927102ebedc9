//! The look at all contexts that finds what a space lacks: of many of them, begun anew, and of what a space has missed.

use std::time::Duration;

use context_api::domain::{SpaceId, Survey};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Change, SPACES};
use crate::support::{Behaviour, StubProvider, USER, eventually};

/// More than are looked at in one step. Most have no text, so nobody has to embed them.
#[tokio::test]
async fn more_contexts_than_one_step_takes_are_all_looked_at() {
    let change = Change::begin(1).await;
    let context = |number: usize| {
        let text = if number.is_multiple_of(150) { format!("heron {number}") } else { String::new() };
        json!({"op": "create", "context": {"user_id": USER, "context_type": "note", "key": format!("n{number}"),
                                           "content": {}, "text": text}})
    };
    for batch in [0..700, 700..1_400] {
        let operations: Vec<Value> = batch.map(context).collect();
        let written = change.app.post("/v1/contexts/batch", json!({"operations": operations})).await;
        assert_eq!(written.status, StatusCode::OK, "{:?}", written.body);
    }
    change.settled().await;
    let id = change.create(json!({})).await.body["id"].as_i64().unwrap();
    let full = change.filled(id).await;
    assert_eq!((&full["backfill"]["contexts_seen"], change.new.texts()), (&json!(1_401), 12), "{full}");
    assert_eq!(change.activate(id, json!({})).await.status, StatusCode::OK);
    // And all again: what search read before, and what it reads now.
    for space in [1, id] {
        change.looked_at(space, 1_401).await;
    }
    assert_eq!(change.new.texts(), 12, "nothing was lacking");
}

/// A worker that has looked at the last contexts for the survey before says so when the next one has begun.
#[tokio::test]
async fn a_step_of_a_survey_that_was_begun_anew_does_not_move_the_next_one() {
    let change = Change::begin(3).await;
    let id = change.create(json!({})).await.body["id"].as_i64().unwrap();
    change.filled(id).await;
    let survey = async || -> Survey {
        let spaces = change.app.service.store().list_spaces().await.unwrap();
        spaces.into_iter().find(|space| i64::from(space.info.id) == id).unwrap().survey
    };
    let done = survey().await;
    // So that it stays where it begins.
    let paused = change.app.send(Method::PATCH, &format!("{SPACES}/{id}"), r#"{"is_paused": true}"#).await;
    assert_eq!(paused.status, StatusCode::OK);
    let retried = change.app.post(&format!("{SPACES}/{id}/retry"), json!({})).await;
    assert_eq!(retried.status, StatusCode::OK, "{:?}", retried.body);
    let begun = survey().await;
    assert_eq!((begun.is_done, begun.contexts_seen, begun.number), (false, 0, done.number + 1));

    let stale = Survey { number: done.number, ..begun };
    let space = SpaceId(i32::try_from(id).unwrap());
    change.app.service.store().move_survey(space, &stale, &done).await.unwrap();
    assert_eq!(survey().await, begun);
    change.app.send(Method::PATCH, &format!("{SPACES}/{id}"), r#"{"is_paused": false}"#).await;
    change.looked_at(id, 3).await;
}

/// A space was complete, was read for a time in which its provider did nothing, and has stood by since.
#[tokio::test]
async fn what_a_space_has_missed_while_search_read_it_keeps_it_from_being_activated_again() {
    let change = Change::begin(3).await;
    let id = change.create(json!({})).await.body["id"].as_i64().unwrap();
    change.filled(id).await;
    assert_eq!(change.activate(id, json!({})).await.status, StatusCode::OK);
    change.settled().await;
    change.filled(id).await;
    change.new.hold("");
    for number in 0..5 {
        change.write(&format!("missed {number}"), &format!("avocet number {number}")).await;
    }
    eventually("all of it in the old space", Duration::from_secs(10), async || {
        (change.activate(1, json!({})).await.status == StatusCode::OK).then_some(())
    })
    .await;
    let refused = async || {
        let early = change.activate(id, json!({})).await;
        assert_eq!((early.status, early.code()), (StatusCode::CONFLICT, "embedding_space_incomplete"));
    };
    refused().await;
    let space = change.looked_at(id, 8).await;
    assert!(!space["backfill"]["complete_at"].is_null(), "it was, once");
    assert_eq!(space["backfill"]["pending"], 5);
    refused().await;
    change.new.release();
    change.filled(id).await;
    assert_eq!(change.activate(id, json!({})).await.status, StatusCode::OK);
}

/// A text with a vector of its own is one chunk, however long it is, and the other model reads much less of a text at once.
#[tokio::test]
async fn a_long_text_with_a_vector_of_its_own_is_embedded_by_the_other_model_too() {
    const BYTES_READ: usize = 512;
    let change = Change::begin(1).await;
    change.new.behave(Behaviour::ReadAtMost(BYTES_READ));
    let id = change.create(json!({})).await.body["id"].as_i64().unwrap();
    let text = "a heron stands in the shallow water. ".repeat(256 * 1024 / 37);
    let given = StubProvider::vector_of("given");
    let body = json!({"user_id": USER, "context_type": "note", "key": "long", "content": {}, "text": text,
                      "embedding": given.as_slice()});
    let written = change.app.post("/v1/contexts", body).await;
    assert_eq!((written.status, &written.body["embedding_status"]), (StatusCode::CREATED, &json!("ready")));
    let full = change.filled(id).await;
    assert_eq!(full["backfill"]["failed"], 0, "{full}");
    assert_eq!(change.activate(id, json!({})).await.status, StatusCode::OK);
    eventually("both by the new model", Duration::from_secs(10), async || {
        let (keys, space) = change.find("a heron").await;
        (space == json!(id)).then(|| assert!(keys.contains(&"long".to_owned()), "{keys:?}"))
    })
    .await;
}
