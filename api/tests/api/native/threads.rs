//! The HTTP server ends its threads one by one, each with the runtime that it opened connections on.

use std::time::Duration;

use tokio::runtime::Builder;

use crate::support::{Database, Engine};

#[tokio::test]
async fn connections_outlive_the_thread_that_opened_them() {
    let database = Database::create_on(Engine::Native).await;
    let store = database.open().await;
    for moved in [true, false] {
        let thread = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let there = store.clone();
        thread.spawn(async move { there.ping().await }).await.unwrap().unwrap();
        if moved {
            assert!(store.outlive_threads(Duration::from_secs(10)).await);
        }
        // From the first time on they are opened where they last.
        thread.shutdown_background();
        store.ping().await.unwrap();
    }
    store.close().await;
    database.remove().await;
}
