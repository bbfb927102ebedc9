//! Several workers on one database.

use std::time::Duration;

use context_api::{cache::Cache, embedding, service::Service, store::Store, worker};
use serde_json::json;
use tokio::sync::watch;

use crate::support::{App, Behaviour, StubProvider, USER, eventually, options};

#[tokio::test]
async fn four_workers_embed_each_version_once_and_only_the_last_remains() {
    let stub = StubProvider::start(Behaviour::Answer(503, ""));
    let app = App::start_with(stub.provider()).await;
    let (stop, stopped) = watch::channel(false);
    for _ in 0..3 {
        let store = Store::new(&options(&app.database.url)).unwrap();
        let service =
            Service::new(store, Cache::new(None).unwrap(), [embedding::connect(&stub.provider()).unwrap()]);
        let watched = service.clone();
        tokio::spawn(async move { watched.watch_providers().await });
        tokio::spawn(worker::embed(service, stopped.clone()));
    }
    let write = async |number: usize, text: &str| {
        let body = json!({"user_id": USER, "context_type": "note", "key": format!("k{number}"), "content": {"t": text}});
        app.post("/v1/contexts", body).await.id()
    };
    for number in 0..200 {
        write(number, &format!("first {number}")).await;
    }
    stub.behave(Behaviour::Work);
    for number in (0..200).step_by(4) {
        write(number, &format!("second {number}")).await;
    }
    let mut superuser = app.database.superuser().await;
    eventually("an empty queue", Duration::from_secs(30), async || {
        let pending: i64 =
            sqlx::query_scalar("select count(*) from contexts where embedding_status <> 'ready'")
                .fetch_one(&mut app.database.superuser().await)
                .await
                .unwrap();
        (pending == 0).then_some(())
    })
    .await;
    let wrong: i64 = sqlx::query_scalar(
        "select count(*) from contexts c
         full join chunk_embeddings e on e.tenant_id = c.tenant_id and e.context_id = c.id and e.version = c.version
         where c.id is null or e.context_id is null",
    )
    .fetch_one(&mut superuser)
    .await
    .unwrap();
    assert_eq!(wrong, 0, "each context has exactly the embedding of its last version");
    // The first attempts, while the provider was away, and one probe for the dimension; no text twice but the updated.
    assert!((200..=270).contains(&stub.texts()), "{} texts were embedded", stub.texts());
    stop.send_replace(true);
}
