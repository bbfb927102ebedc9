//! What comes too late: what a provider says of a text that was written again, or for a space that search does not read any
//! more.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Change, SPACES};
use crate::support::{Behaviour, eventually};

const PATIENCE: Duration = Duration::from_secs(10);

impl Change {
    /// Waits until the provider of the old model, or of the new one, has been called so often.
    async fn calls(&self, of_new: bool, calls: usize) {
        let provider = if of_new { &self.new } else { &self.old };
        eventually("a call", PATIENCE, async || (provider.calls() >= calls).then_some(())).await;
    }

    async fn status(&self, id: &str) -> Value {
        self.app.get(&format!("/v1/contexts/{id}")).await.body["embedding_status"].clone()
    }
}

/// One of the two loops of a provider waits with the old text, the other one with the new text, and then the old text is refused.
/// When the first one has done something else, it has noted the refusal before.
#[tokio::test]
async fn a_refusal_of_an_old_text_is_none_of_the_new_one() {
    let change = Change::begin(1).await;
    let calls = change.old.calls();
    change.old.hold("");
    change.write("k", "a poisoned text").await;
    change.calls(false, calls + 1).await;
    let id = change.write("k", "a plover").await;
    change.calls(false, calls + 2).await;
    change.old.behave(Behaviour::Poison("poisoned"));
    change.old.hold("plover");
    let sequel = change.write("sequel", "a sequel").await;
    assert_eq!(change.app.embedded(&sequel).await["embedding_status"], "ready");
    assert_eq!(change.status(&id).await, "pending", "nobody has refused this text");
    change.old.release();
    assert_eq!(change.app.embedded(&id).await["embedding_status"], "ready");
}

#[tokio::test]
async fn a_refusal_of_an_old_text_is_none_of_the_new_one_in_a_space_that_is_filled() {
    let change = Change::begin(1).await;
    let space = change.create(json!({})).await.body["id"].as_i64().unwrap();
    change.filled(space).await;
    let calls = change.new.calls();
    change.new.hold("");
    change.write("k", "a poisoned text").await;
    change.calls(true, calls + 1).await;
    change.write("k", "a plover").await;
    change.calls(true, calls + 2).await;
    change.new.behave(Behaviour::Poison("poisoned"));
    change.new.hold("plover");
    change.write("sequel", "a sequel").await;
    eventually("the sequel alone", PATIENCE, async || {
        let backfill = change.space(space).await["backfill"].clone();
        assert_eq!(backfill["failed"], 0, "nobody has refused this text");
        (backfill["pending_fresh"] == 1).then_some(())
    })
    .await;
    change.new.release();
    assert_eq!(change.filled(space).await["backfill"]["failed"], 0);
}

/// The new model has the text as well, and does not refuse it. Of the old one's loops the second is kept waiting, so that the
/// first has noted the refusal when it has done something else.
#[tokio::test]
async fn a_refusal_by_the_old_model_is_none_of_the_one_that_search_has_changed_to() {
    let change = Change::begin(1).await;
    let space = change.create(json!({})).await.body["id"].as_i64().unwrap();
    change.filled(space).await;
    let (of_old, of_new) = (change.old.calls(), change.new.calls());
    change.old.hold("");
    change.new.hold("poisoned");
    let id = change.write("k", "a poisoned text").await;
    change.calls(false, of_old + 1).await;
    change.calls(true, of_new + 1).await;
    change.write("crane", "a crane").await;
    change.calls(false, of_old + 2).await;
    assert_eq!(change.activate(space, json!({})).await.status, StatusCode::OK);
    // What the old space lacks is of no interest here, and what failed in the new one has been looked at.
    change.app.send(Method::PATCH, &format!("{SPACES}/1"), r#"{"is_paused": true}"#).await;
    change.looked_at(space, 3).await;
    change.old.behave(Behaviour::Poison("poisoned"));
    change.old.hold("crane");
    change.write("sequel", "a sequel").await;
    eventually("the sequel, in the old space", PATIENCE, async || {
        (change.space(1).await["backfill"]["pending_fresh"] == 0).then_some(())
    })
    .await;
    assert_eq!(change.status(&id).await, "pending", "nobody has refused it in the space that counts");
}
