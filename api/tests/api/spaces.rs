//! Changing the embedding model: a space for the new one beside the one that search reads, filled, compared, activated, rolled
//! back, deleted.

use std::time::Duration;

use context_api::domain::{DEFAULT_TENANT, Scope};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Answer, App, Behaviour, StubProvider, USER, eventually};

mod late;
mod surveys;

pub const SPACES: &str = "/v1/embedding-spaces";

/// An application between two models, the present one of 8 dimensions and one of 16.
pub struct Change {
    pub app: App,
    pub old: StubProvider,
    pub new: StubProvider,
}

impl Change {
    /// With so many contexts in the present model's space, which is number 1.
    pub async fn begin(contexts: usize) -> Self {
        let (old, new) = (StubProvider::start(Behaviour::Work), StubProvider::start_of(16, Behaviour::Work));
        let app = App::start_with_next(old.provider(), new.provider()).await;
        let change = Self { app, old, new };
        for n in 0..contexts {
            change.write(&format!("k{n}"), &format!("heron number {n}")).await;
        }
        if contexts > 0 {
            change.settled().await;
        }
        change
    }

    pub async fn write(&self, key: &str, text: &str) -> String {
        let body = json!({"user_id": USER, "context_type": "note", "key": key, "content": {"t": text}});
        let answer = self.app.post("/v1/contexts", body).await;
        assert!(answer.status.is_success(), "{:?}", answer.body);
        answer.id()
    }

    /// Waits until nothing waits in the active space.
    pub async fn settled(&self) {
        eventually("an empty queue", Duration::from_secs(20), async || {
            let usage = self.app.get("/v1/usage").await.body;
            (usage["embedding"]["pending"] == 0).then_some(())
        })
        .await;
    }

    pub async fn create(&self, body: Value) -> Answer {
        self.app.post(SPACES, body).await
    }

    pub async fn space(&self, id: i64) -> Value {
        self.app.get(&format!("{SPACES}/{id}")).await.body
    }

    /// Waits until the space has all that was there, and all that was written since.
    pub async fn filled(&self, id: i64) -> Value {
        eventually("a full space", Duration::from_secs(20), async || {
            let space = self.space(id).await;
            let backfill = &space["backfill"];
            let done = !backfill["complete_at"].is_null()
                && [&backfill["pending"], &backfill["pending_fresh"]].iter().all(|count| **count == 0)
                && backfill["contexts_seen"] == backfill["contexts_total"];
            done.then_some(space)
        })
        .await
    }

    /// Waits until so many contexts were looked at for a space: all, and not one twice.
    pub async fn looked_at(&self, space: i64, contexts: u64) -> Value {
        eventually("a look at all of it", Duration::from_secs(10), async || {
            let space = self.space(space).await;
            (space["backfill"]["contexts_seen"] == contexts).then_some(space)
        })
        .await
    }

    pub async fn activate(&self, id: i64, body: Value) -> Answer {
        self.app.post(&format!("{SPACES}/{id}/activate"), body).await
    }

    /// The keys that a search by meaning finds, and the space that answered. Each text is nearest to itself.
    pub async fn find(&self, text: &str) -> (Vec<String>, Value) {
        let found = self.app.search(json!({"query": text, "mode": "semantic", "limit": 100})).await.body;
        assert_eq!(found["degraded"], json!([]), "{found}");
        let keys = found["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|hit| hit["context"]["key"].as_str().expect("a key").to_owned());
        (keys.collect(), found["space"]["id"].clone())
    }
}

#[tokio::test]
async fn a_model_is_changed_and_changed_back_while_everything_goes_on() {
    let change = Change::begin(30).await;
    let app = &change.app;
    let stranger = app.new_tenant().await;
    let key = app.new_key(stranger, Scope::all()).await;
    let theirs = json!({"user_id": USER, "context_type": "note", "key": "theirs", "content": "a bittern"});
    app.send_as(&key, Method::POST, "/v1/contexts?wait=ready", Some(theirs.to_string().into())).await;

    let made = change.create(json!({})).await;
    assert_eq!(made.status, StatusCode::CREATED, "{:?}", made.body);
    assert_eq!((&made.body["status"], &made.body["dims"]), (&json!("building"), &json!(16)));
    let id = made.body["id"].as_i64().unwrap();
    change.write("k3", "a plover").await;
    change.write("new", "a new gull").await;
    let full = change.filled(id).await;
    assert_eq!((&full["status"], &full["is_served"]), (&json!("building"), &json!(true)));
    change.settled().await;
    let (keys, space) = change.find("a plover").await;
    assert_eq!((keys.len(), &keys[0][..], space), (31, "k3", json!(1)));

    let compared = app.post(&format!("{SPACES}/{id}/compare"), json!({"limit": 31})).await;
    assert_eq!(compared.status, StatusCode::OK, "{:?}", compared.body);
    assert_eq!(compared.body["overlap"], json!(1.0), "both have everything");
    let queries = compared.body["queries"].as_array().unwrap();
    assert_eq!(queries.len(), 20, "of the newest contexts");
    assert_eq!(queries[0]["active"][0]["context_id"], queries[0]["space"][0]["context_id"]);

    let activated = change.activate(id, json!({})).await;
    assert_eq!((activated.status, &activated.body["status"]), (StatusCode::OK, &json!("active")));
    eventually("the switch", Duration::from_secs(5), async || {
        let (keys, space) = change.find("a plover").await;
        // Search never stops, and never finds less.
        assert_eq!((keys.len(), &keys[0][..]), (31, "k3"));
        (space == json!(id)).then_some(())
    })
    .await;
    let found = json!({"query": "a bittern", "mode": "semantic"}).to_string();
    let found = app.send_as(&key, Method::POST, "/v1/contexts/search", Some(found.into())).await;
    assert_eq!(found.body["data"][0]["context"]["key"], "theirs", "{:?}", found.body);

    // What is written now is in the old one, too.
    change.write("k4", "a tern").await;
    app.delete(&format!("/v1/contexts/{}", change.write("k5", "an avocet").await)).await;
    change.settled().await;
    assert_eq!(change.filled(1).await["status"], "standby");
    let back = change.activate(1, json!({})).await;
    assert_eq!(back.status, StatusCode::OK, "{:?}", back.body);
    eventually("the roll-back", Duration::from_secs(5), async || {
        let (keys, space) = change.find("a tern").await;
        assert_eq!((keys.len(), &keys[0][..]), (30, "k4"));
        (space == json!(1)).then_some(())
    })
    .await;

    let active = app.delete(&format!("{SPACES}/1")).await;
    assert_eq!((active.status, active.code()), (StatusCode::CONFLICT, "embedding_space_conflict"));
    assert_eq!(app.delete(&format!("{SPACES}/{id}")).await.status, StatusCode::NO_CONTENT);
    assert_eq!(app.delete(&format!("{SPACES}/{id}")).await.code(), "embedding_space_not_found");
    assert_eq!(change.activate(id, json!({"force": true})).await.code(), "embedding_space_not_found");
    eventually("the end of the space", Duration::from_secs(30), async || {
        let gone = app.get(&format!("{SPACES}/{id}")).await;
        (gone.code() == "embedding_space_not_found").then_some(())
    })
    .await;
    // The same model may come again.
    assert_eq!(change.create(json!({"is_paused": true})).await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn what_is_written_now_goes_to_a_space_whose_backfill_is_paused() {
    let change = Change::begin(10).await;
    let id = change.create(json!({"is_paused": true})).await.body["id"].as_i64().unwrap();
    change.write("k3", "a plover").await;
    change.write("new", "a gull").await;
    eventually("the fresh ones", Duration::from_secs(10), async || {
        (change.new.texts() >= 3 && change.space(id).await["backfill"]["pending_fresh"] == 0).then_some(())
    })
    .await;
    // One for the dimension.
    assert_eq!(change.new.texts(), 3, "nothing of what was there before");
    let early = change.activate(id, json!({})).await;
    assert_eq!((early.status, early.code()), (StatusCode::CONFLICT, "embedding_space_incomplete"));

    let resumed = change.app.send(Method::PATCH, &format!("{SPACES}/{id}"), r#"{"is_paused": false}"#).await;
    assert_eq!(resumed.body["backfill"]["is_paused"], false, "{:?}", resumed.body);
    change.filled(id).await;
    assert_eq!(change.new.texts(), 12, "each once");
    assert_eq!(change.activate(id, json!({})).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_backfill_keeps_its_pace() {
    let change = Change::begin(24).await;
    let begun = tokio::time::Instant::now();
    let made = change.create(json!({"contexts_per_second": 8})).await;
    assert_eq!(made.body["backfill"]["contexts_per_second"], 8);
    let id = made.body["id"].as_i64().unwrap();
    change.filled(id).await;
    assert!(begun.elapsed() >= Duration::from_millis(2_500), "24 at 8 a second: {:?}", begun.elapsed());
    let patched =
        change.app.send(Method::PATCH, &format!("{SPACES}/{id}"), r#"{"contexts_per_second": null}"#).await;
    assert_eq!(patched.body["backfill"]["contexts_per_second"], Value::Null);
}

#[tokio::test]
async fn what_the_new_model_cannot_embed_is_shown_and_tried_again() {
    let change = Change::begin(10).await;
    let bad = change.write("bad", "a poisoned text").await;
    change.settled().await;
    change.new.behave(Behaviour::Poison("poisoned"));
    let id = change.create(json!({})).await.body["id"].as_i64().unwrap();
    let full = change.filled(id).await;
    assert_eq!(full["backfill"]["failed"], 1);
    let failures = change.app.get(&format!("{SPACES}/{id}/failures")).await.body;
    assert_eq!(failures["data"][0]["context_id"], json!(bad));
    assert!(failures["data"][0]["reason"].as_str().unwrap().contains("poisoned"), "{failures}");
    let refused = change.activate(id, json!({})).await;
    assert_eq!((refused.status, refused.code()), (StatusCode::CONFLICT, "embedding_space_incomplete"));

    change.new.behave(Behaviour::Work);
    let retried = change.app.post(&format!("{SPACES}/{id}/retry"), json!({})).await;
    assert_eq!(retried.status, StatusCode::OK, "{:?}", retried.body);
    eventually("the failure's end", Duration::from_secs(10), async || {
        (change.filled(id).await["backfill"]["failed"] == 0).then_some(())
    })
    .await;
    assert_eq!(change.activate(id, json!({})).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_space_that_is_activated_by_force_is_completed_afterwards() {
    let change = Change::begin(20).await;
    let bad = change.write("bad", "a poisoned text").await;
    change.settled().await;
    change.new.behave(Behaviour::Poison("poisoned"));
    let id = change.create(json!({"is_paused": true})).await.body["id"].as_i64().unwrap();
    assert_eq!(change.activate(id, json!({"force": true})).await.status, StatusCode::OK);
    // Found by their words meanwhile.
    let found = change.app.search(json!({"query": "heron", "mode": "hybrid", "limit": 50})).await.body;
    assert_eq!(found["data"].as_array().unwrap().len(), 20);
    eventually("all of it in the new space", Duration::from_secs(20), async || {
        let usage = change.app.get("/v1/usage").await.body;
        let done = usage["embedding"]["space"]["id"] == id
            && (&usage["embedding"]["pending"], &usage["embedding"]["failed"]) == (&json!(0), &json!(1));
        done.then_some(())
    })
    .await;
    let (keys, space) = change.find("heron number 7").await;
    assert_eq!((keys.len(), &keys[0][..], space), (20, "k7", json!(id)));
    let context = change.app.get(&format!("/v1/contexts/{bad}")).await.body;
    assert_eq!(context["embedding_status"], "failed", "in the space that search reads now");
}

#[tokio::test]
async fn a_space_that_was_forced_is_still_incomplete_when_it_comes_again() {
    let change = Change::begin(20).await;
    let id = change.create(json!({"is_paused": true})).await.body["id"].as_i64().unwrap();
    change.new.behave(Behaviour::Hang(Duration::from_secs(30)));
    assert_eq!(change.activate(id, json!({"force": true})).await.status, StatusCode::OK);
    change.looked_at(id, 20).await;
    eventually("the way back", Duration::from_secs(10), async || {
        (change.activate(1, json!({})).await.status == StatusCode::OK).then_some(())
    })
    .await;
    let early = change.activate(id, json!({})).await;
    assert_eq!((early.status, early.code()), (StatusCode::CONFLICT, "embedding_space_incomplete"));
    eventually("the old space's answers", Duration::from_secs(5), async || {
        let found = change
            .app
            .search(json!({"query": "heron number 7", "mode": "semantic", "limit": 100}))
            .await
            .body;
        (found["space"]["id"] == 1).then(|| assert_eq!(found["data"].as_array().unwrap().len(), 20))
    })
    .await;
}

#[tokio::test]
async fn a_switch_leaves_no_write_behind() {
    let change = Change::begin(40).await;
    let id = change.create(json!({})).await.body["id"].as_i64().unwrap();
    change.filled(id).await;
    let mut written = 40;
    for turn in 0..6 {
        let to = if turn % 2 == 0 { id } else { 1 };
        let writes = async {
            for n in 0..30 {
                change.write(&format!("t{turn}-{n}"), &format!("avocet {turn} {n}")).await;
            }
        };
        let switch = async {
            eventually("a space that may be activated", Duration::from_secs(20), async || {
                let activated = change.activate(to, json!({})).await;
                assert!(
                    activated.status == StatusCode::OK || activated.code() == "embedding_space_incomplete"
                );
                (activated.status == StatusCode::OK).then_some(())
            })
            .await;
        };
        tokio::join!(writes, switch);
        written += 30;
    }
    change.settled().await;
    change.filled(id).await;
    change.filled(1).await;
    for to in [id, 1] {
        eventually("a space that was looked at", Duration::from_secs(10), async || {
            (change.activate(to, json!({})).await.status == StatusCode::OK).then_some(())
        })
        .await;
        eventually("every context in this space", Duration::from_secs(10), async || {
            let body = json!({"query": "avocet", "mode": "semantic", "limit": 100});
            let found = change.app.search(body).await.body;
            (found["space"]["id"] == to && found["candidates"] == written).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn only_what_makes_sense_is_done() {
    let (old, new) = (StubProvider::start(Behaviour::Work), StubProvider::start_of(16, Behaviour::Work));
    let app = App::start_with_next(old.provider(), new.provider()).await;
    let early = app.post(SPACES, json!({})).await;
    assert_eq!((early.status, early.code()), (StatusCode::CONFLICT, "embedding_space_conflict"));
    let id = app.note("a heron").await.id();
    app.embedded(&id).await;
    new.behave(Behaviour::Answer(503, ""));
    let away = app.post(SPACES, json!({})).await;
    assert_eq!(
        (away.status, away.code()),
        (StatusCode::SERVICE_UNAVAILABLE, "embedding_provider_unavailable")
    );
    new.behave(Behaviour::Work);
    for (body, pointer) in [
        (json!({"contexts_per_second": 0}), "/contexts_per_second"),
        (json!({"contexts_per_second": 100_001}), "/contexts_per_second"),
        (json!({"is_paused": "yes"}), "/is_paused"),
    ] {
        let refused = app.post(SPACES, body).await;
        assert_eq!((refused.status, refused.code()), (StatusCode::BAD_REQUEST, "invalid_request"));
        assert_eq!(refused.body["errors"][0]["pointer"], pointer);
    }
    // Sent again by its name, it is one space.
    let send = async || {
        let request =
            app.request(Method::POST, SPACES).bearer_auth(&app.key).header("idempotency-key", "once");
        crate::support::answer(request).await
    };
    let (first, again) = (send().await, send().await);
    assert_eq!((first.status, &first.body), (StatusCode::CREATED, &again.body), "{:?}", first.body);
    let second = app.post(SPACES, json!({})).await;
    assert_eq!((second.status, second.code()), (StatusCode::CONFLICT, "embedding_space_conflict"));
    assert_eq!(app.get(SPACES).await.body["data"].as_array().unwrap().len(), 2);
    assert_eq!(app.get(&format!("{SPACES}/99")).await.code(), "embedding_space_not_found");
    let itself = app.post(&format!("{SPACES}/1/compare"), json!({})).await;
    assert_eq!((itself.status, itself.code()), (StatusCode::CONFLICT, "embedding_space_conflict"));
    let blank = app.post(&format!("{SPACES}/2/compare"), json!({"queries": ["x", " "]})).await;
    assert_eq!(blank.body["errors"][0]["pointer"], "/queries/1");

    // Of the default tenant alone.
    let admin = app.new_key(app.new_tenant().await, Scope::all()).await;
    for (method, path) in [
        (Method::POST, SPACES.to_owned()),
        (Method::PATCH, format!("{SPACES}/2")),
        (Method::POST, format!("{SPACES}/2/activate")),
        (Method::POST, format!("{SPACES}/2/retry")),
        (Method::POST, format!("{SPACES}/2/compare")),
        (Method::GET, SPACES.to_owned()),
        (Method::GET, format!("{SPACES}/2")),
        (Method::GET, format!("{SPACES}/2/failures")),
        (Method::DELETE, format!("{SPACES}/2")),
    ] {
        let refused = app.send_as(&admin, method.clone(), &path, Some("{}".into())).await;
        assert_eq!(
            (refused.status, refused.code()),
            (StatusCode::FORBIDDEN, "not_operator"),
            "{method} {path}"
        );
    }
    let log = app.get("/v1/audit-log?target_id=00000000-0000-0000-0000-000000000002").await.body;
    assert_eq!(log["data"][0]["action"], "embedding_space.create");
    let reader = app.new_key(DEFAULT_TENANT, vec![Scope::Read]).await;
    assert_eq!(app.send_as(&reader, Method::GET, SPACES, None).await.code(), "missing_scope");
    drop(old);
}
