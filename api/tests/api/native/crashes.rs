//! PostgreSQL is killed while the service goes on.

use context_api::domain::{Access, DEFAULT_TENANT};
use futures_util::future;
use reqwest::{Method, StatusCode};
use tempfile::TempDir;

use crate::{
    crashes::{batches_outlive, import_outlives},
    support::{App, Behaviour, PostgresServer, Process, StubProvider, answer, free_port},
};

#[tokio::test]
async fn batches_outlive_a_killed_database() {
    let (mut server, folder) = (PostgresServer::start().await, TempDir::new().unwrap());
    let service = Process::serve_on(folder.path(), free_port(), ("DATABASE_URL", &server.url()));
    batches_outlive(&service.url, async || server.crash().await).await;
}

#[tokio::test]
async fn an_import_outlives_a_killed_database() {
    let (mut server, folder) = (PostgresServer::start().await, TempDir::new().unwrap());
    let service = Process::serve_on(folder.path(), free_port(), ("DATABASE_URL", &server.url()));
    import_outlives(folder.path(), &service.url, async || server.crash().await).await;
}

/// Those of the service's pool.
const CONNECTIONS: i64 = 8;

#[tokio::test]
async fn sessions_that_end_together_cost_one_request_and_not_one_each() {
    let mut app = App::start_with(StubProvider::start(Behaviour::Work).provider()).await;
    let path = format!("/v1/contexts/{}", app.note("a heron").await.id());
    // They would be the first to notice, half-way through, and be taken for the one request.
    app.end_background().await;
    for _ in 0..5 {
        // As many connections as there are: each unit holds one.
        let access = Access { tenant: DEFAULT_TENANT, user: None };
        let units = future::join_all((0..CONNECTIONS).map(|_| app.service.store().begin(access))).await;
        for unit in units {
            unit.unwrap().roll_back().await.unwrap();
        }
        let ended: i64 = sqlx::query_scalar(
            "select count(pg_terminate_backend(pid, 5000)) from pg_stat_activity
             where datname = current_database() and application_name = 'context-api'",
        )
        .fetch_one(&mut app.database.superuser().await)
        .await
        .unwrap();
        assert_eq!(ended, CONNECTIONS);
        let mut failed = 0;
        for _ in 0..ended {
            // An answer from memory would not notice, and leave the next round the dead connections.
            let request =
                app.request(Method::GET, &path).bearer_auth(&app.key).header("cache-control", "no-cache");
            failed += i32::from(answer(request).await.status != StatusCode::OK);
        }
        assert!(failed <= 1, "{failed} of {ended} requests failed");
    }
}
