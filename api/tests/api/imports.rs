//! Imports under way: watched, cancelled, taken over, and beside what takes their key or their user away.

use std::{collections::HashSet, future::Future, time::Duration};

use context_api::{
    domain::{Actor, DEFAULT_TENANT, Scope},
    service::{ImportRequest, LineError},
};
use futures_util::stream;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::{
    support::{App, USER, eventually},
    transfer::{app, count, export, import, line, lines},
};

/// The service's side of an import whose lines the test gives one by one, to be run beside the test.
fn begin(
    app: &App,
    key: &str,
    actor: Actor,
) -> (mpsc::UnboundedSender<String>, impl Future<Output = context_api::error::Result<u64>>) {
    let (sender, receiver) = mpsc::unbounded_channel::<String>();
    let service = app.service.clone();
    let request = ImportRequest { key: Some(key.parse().unwrap()), first_line: 1 };
    let importing = async move {
        let lines = stream::unfold(receiver, |mut receiver| async {
            receiver.recv().await.map(|line| (Ok::<_, LineError>(line), receiver))
        });
        let report = service.import_contexts(&actor, &request, Box::pin(lines), |_| {}).await?;
        Ok(report.counts.created)
    };
    (sender, importing)
}

#[tokio::test]
async fn an_import_can_be_watched_and_cancelled_and_what_it_stored_stays() {
    let app = app().await;
    let (sender, importing) = begin(&app, "watched", Actor::operator(DEFAULT_TENANT));
    let driving = async {
        for number in 0..1_200 {
            sender.send(line(number).to_string()).unwrap();
        }
        let id = eventually("progress", Duration::from_secs(20), async || {
            let operations = app.get("/v1/operations").await.body;
            let operation = operations["data"].get(0)?;
            let enough = operation["progress"]["created"].as_u64()? >= 500;
            enough.then(|| operation["id"].as_str().unwrap().to_owned())
        })
        .await;
        let cancelled = app.post(&format!("/v1/operations/{id}/cancel"), json!({})).await;
        assert_eq!((cancelled.status, &cancelled.body["cancel_requested"]), (StatusCode::OK, &json!(true)));
        for number in 1_200..2_400 {
            // It may have ended already.
            sender.send(line(number).to_string()).ok();
        }
        drop(sender);
        id
    };
    let (ended, id) = tokio::join!(importing, driving);
    let error = ended.unwrap_err();
    assert_eq!(error.code.as_str(), "operation_conflict");
    let operation = app.get(&format!("/v1/operations/{id}")).await.body;
    assert_eq!(operation["status"], "cancelled");
    let stored = count(&app).await;
    assert!((500..2_400).contains(&stored), "{stored}");
    let retried = app.post(&format!("/v1/operations/{id}/retry"), json!({})).await;
    assert_eq!((retried.status, retried.code()), (StatusCode::CONFLICT, "operation_conflict"));
    let whole = import(&app, "", Some("watched"), lines((0..2_400).map(line))).await;
    assert_eq!(whole.body["operation_id"], json!(id), "{:?}", whole.body);
    assert_eq!(count(&app).await, 2_400);
    app.stop().await;
}

#[tokio::test]
async fn an_import_ends_with_its_key() {
    let app = app().await;
    let key = app.new_key(DEFAULT_TENANT, vec![Scope::Write]).await;
    let principal = app.service.keys().authenticate(&key.parse().unwrap()).await.unwrap();
    let (sender, importing) = begin(&app, "revoked", principal.actor(None));
    let driving = async {
        for number in 0..600 {
            sender.send(line(number).to_string()).unwrap();
        }
        eventually("the first batch", Duration::from_secs(20), async || {
            (count(&app).await >= 500).then_some(())
        })
        .await;
        app.service.keys().revoke(&Actor::operator(DEFAULT_TENANT), principal.api_key).await.unwrap();
        for number in 600..1_200 {
            sender.send(line(number).to_string()).ok();
        }
        drop(sender);
    };
    let (ended, ()) = tokio::join!(importing, driving);
    assert_eq!(ended.unwrap_err().code.as_str(), "operation_conflict");
    assert!(count(&app).await <= 600, "what came after the revocation is not stored");
    app.stop().await;
}

#[tokio::test]
async fn a_user_can_be_erased_while_an_import_writes_for_them() {
    let app = app().await;
    let (sender, importing) = begin(&app, "of-a-tenant", Actor::operator(DEFAULT_TENANT));
    let driving = async {
        for number in 0..1_000 {
            sender.send(line(number).to_string()).unwrap();
        }
        eventually("the first batch", Duration::from_secs(20), async || {
            (count(&app).await >= 500).then_some(())
        })
        .await;
        let erased = app.delete(&format!("/v1/users/{USER}")).await;
        assert_eq!(erased.body["status"], "succeeded", "{:?}", erased.body);
        assert!(erased.body["result"]["erased"]["contexts"].as_u64().unwrap() >= 500, "{:?}", erased.body);
        for number in 1_000..1_010 {
            sender.send(line(number).to_string()).unwrap();
        }
        drop(sender);
    };
    let (ended, ()) = tokio::join!(importing, driving);
    assert_eq!(ended.unwrap(), 1_010, "the import is the tenant's, and goes on");
    let left = count(&app).await;
    assert!((10..=510).contains(&left), "what was written afterwards: {left}");
    app.delete(&format!("/v1/users/{USER}")).await;
    assert_eq!(count(&app).await, 0);
    app.stop().await;
}

#[tokio::test]
async fn the_same_import_sent_again_takes_over_from_the_one_that_hangs() {
    let app = app().await;
    let (sender, importing) = begin(&app, "hanging", Actor::operator(DEFAULT_TENANT));
    let driving = async {
        for number in 0..600 {
            sender.send(line(number).to_string()).unwrap();
        }
        eventually("the first batch", Duration::from_secs(20), async || {
            (count(&app).await >= 500).then_some(())
        })
        .await;
        let second = import(&app, "", Some("hanging"), lines((0..700).map(line))).await;
        assert_eq!(second.status, StatusCode::OK, "{:?}", second.body);
        for number in 600..700 {
            sender.send(line(number).to_string()).ok();
        }
        drop(sender);
    };
    let (ended, ()) = tokio::join!(importing, driving);
    assert!(ended.is_err(), "the first one notices");
    assert_eq!(count(&app).await, 700);
    let numbers: HashSet<u64> = export(&app, "")
        .await
        .0
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["content"]["n"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers.len(), 700);
    app.stop().await;
}
