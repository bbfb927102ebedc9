//! PostgreSQL is killed while the service goes on.

use std::time::Duration;

use context_api::domain::{Access, DEFAULT_TENANT};
use futures_util::future;
use reqwest::{Method, StatusCode};
use tempfile::TempDir;

use crate::{
    crashes::{batches_outlive, import_outlives},
    support::{
        App, Behaviour, PostgresServer, Process, StubProvider, answer, command, eventually, free_port,
    },
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

#[tokio::test]
async fn a_worker_tells_whether_it_can_work() {
    let (server, folder, port) = (PostgresServer::start().await, TempDir::new().unwrap(), free_port());
    let provider = StubProvider::start(Behaviour::Work);
    let variables = [
        ("DATABASE_URL", server.url()),
        ("EMBEDDING_PROVIDER", "tei".to_owned()),
        ("EMBEDDING_SERVICE_URL", provider.url.clone()),
    ];
    let variables = variables.each_ref().map(|(name, value)| (*name, value.as_str()));
    let mut worker = Process::worker(folder.path(), port, &variables);
    worker.ready().await;
    let address = format!("127.0.0.1:{port}");
    let says_so = || {
        let mut healthcheck = command(folder.path(), &[("METRICS_ADDR", &address)]);
        healthcheck.args(["healthcheck", "--worker"]).output().unwrap().status.success()
    };
    assert!(says_so());
    drop(server);
    eventually("a worker that cannot work", Duration::from_secs(30), async || (!says_so()).then_some(()))
        .await;
    assert!(worker.terminate().success());
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
