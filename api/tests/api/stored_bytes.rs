//! How many bytes a tenant has stored: by the formula, and whatever happens to its contexts.

use std::time::Duration;

use context_api::domain::{DEFAULT_TENANT, Retention, Scope, UserId};
use proptest::{prelude::*, sample::select, strategy::ValueTree};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    quota::{OTHER, bytes, patch, unlimited},
    support::{App, USER, random::runner},
};

#[tokio::test]
async fn bytes_are_those_of_the_json_and_the_text_of_every_version() {
    let app = unlimited().await;
    // As the database writes it: `{"t": "Häher"}` and `{}`.
    let path = app.created(json!({"content": {"t": "Häher"}, "text": "Häher"})).await;
    assert_eq!(bytes(&app).await, 15 + 2 + 6);
    patch(&app, &path, json!({"metadata": {"é": 1.50}, "text": ""})).await;
    assert_eq!(bytes(&app).await, (15 + 2 + 6) + (15 + 11), "the version before is kept");
    patch(&app, &path, json!({"metadata": {"é": 1.50}})).await;
    assert_eq!(bytes(&app).await, 23 + 26, "nothing differs");
    app.delete(&path).await;
    assert_eq!(bytes(&app).await, 23 + 26 + 26, "a deleted one is kept, with what it was");
    app.service.add_up_bytes().await.unwrap();
    assert_eq!(bytes(&app).await, 75);
    app.delete(&format!("{path}?purge=true")).await;
    assert_eq!(bytes(&app).await, 0);
    app.service.add_up_bytes().await.unwrap();
    assert_eq!(bytes(&app).await, 0);
    let stored = app.get("/v1/usage").await.body["stored"].clone();
    assert_eq!(stored["bytes_max"], Value::Null);
    app.stop().await;
}

/// What may happen to contexts.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Create,
    Upsert,
    Replace,
    Patch,
    Delete,
    Purge,
    Restore,
    Batch,
    AddUp,
    Prune,
}

const DEEDS: [Deed; 14] = [
    Deed::Create,
    Deed::Create,
    Deed::Create,
    Deed::Upsert,
    Deed::Upsert,
    Deed::Replace,
    Deed::Patch,
    Deed::Patch,
    Deed::Delete,
    Deed::Purge,
    Deed::Restore,
    Deed::Batch,
    Deed::AddUp,
    Deed::Prune,
];

async fn act(app: &App, deed: Deed, number: usize, text: &str, paths: &mut Vec<String>) {
    let user = [USER, OTHER][number % 2];
    let context =
        json!({"user_id": user, "context_type": "note", "content": {"t": text}, "metadata": {"n": number}});
    let keyed = |number: usize| {
        let mut keyed = context.clone();
        keyed["key"] = json!(format!("key {}", number % 3));
        keyed
    };
    let path =
        paths.get(number % paths.len().max(1)).cloned().unwrap_or_else(|| "/v1/contexts/none".to_owned());
    match deed {
        Deed::Create => {
            paths.push(format!("/v1/contexts/{}", app.post("/v1/contexts", context).await.id()));
        }
        Deed::Upsert => {
            paths.push(format!("/v1/contexts/{}", app.post("/v1/contexts", keyed(number)).await.id()));
        }
        Deed::Replace => {
            let user = app.get(&path).await.body["user_id"].clone();
            let mut context = context;
            context["user_id"] = user;
            app.send(Method::PUT, &path, context.to_string()).await;
        }
        Deed::Patch => {
            patch(app, &path, json!({"metadata": {"note": text}})).await;
        }
        Deed::Delete => {
            app.delete(&path).await;
        }
        Deed::Purge => {
            app.delete(&format!("{path}?purge=true")).await;
        }
        Deed::Restore => {
            app.post(&format!("{path}/restore"), json!({})).await;
        }
        Deed::Batch => {
            let upserts = (0..3).map(|more| json!({"op": "upsert", "context": keyed(number + more)}));
            let creates = (0..2).map(|_| json!({"op": "create", "context": context}));
            let operations: Vec<Value> = upserts.chain(creates).collect();
            app.post("/v1/contexts/batch", json!({"operations": operations})).await;
        }
        Deed::AddUp => {
            app.service.add_up_bytes().await.unwrap();
        }
        Deed::Prune => {
            let retention = Retention { history: Duration::ZERO, ..Retention::default() };
            app.service.remove_outdated(&retention).await.unwrap();
        }
    }
}

#[tokio::test]
async fn what_is_known_of_a_tenant_is_what_is_counted_of_its_users() {
    let app = unlimited().await;
    let mut keys = Vec::new();
    for user in [USER, OTHER] {
        let user = UserId(user.parse().unwrap());
        keys.push(app.new_key_for(DEFAULT_TENANT, vec![Scope::Read], Some(user)).await);
    }
    let counted = async |keys: &[String]| {
        let mut sum = 0;
        for key in keys {
            sum += app.get_as(key, "/v1/usage").await.body["stored"]["bytes"].as_i64().unwrap();
        }
        sum
    };
    let step = (select(DEEDS.to_vec()), 0..1_000_usize, "[a-zé😀 \"]{0,40}");
    let steps = prop::collection::vec(step, 120).new_tree(&mut runner(11, 1)).unwrap().current();
    let mut paths = Vec::new();
    for (number, (deed, seed, text)) in steps.into_iter().enumerate() {
        act(&app, deed, seed, &text, &mut paths).await;
        if number % 10 == 9 {
            assert_eq!(
                bytes(&app).await,
                counted(&keys).await,
                "after {number} steps, the last one {deed:?}"
            );
        }
    }
    assert!(bytes(&app).await > 0);
    for (number, user) in [USER, OTHER].into_iter().enumerate() {
        let erased = app.delete(&format!("/v1/users/{user}")).await;
        assert_eq!(erased.body["status"], "succeeded", "{erased:?}");
        // The user's key went, too.
        assert_eq!(bytes(&app).await, counted(&keys[number + 1..]).await);
    }
    app.service.add_up_bytes().await.unwrap();
    assert_eq!(bytes(&app).await, 0, "nothing is left");
    app.stop().await;
}
