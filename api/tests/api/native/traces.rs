//! Traces over two processes: the API writes, a worker embeds.

use serde_json::json;
use tempfile::TempDir;

use crate::support::{
    Behaviour, Collector, Database, KEY, Process, StubProvider, Taking, USER, client, free_port,
};

#[tokio::test]
async fn the_trace_of_a_worker_points_back_to_those_of_the_api_and_goes_on_at_the_provider() {
    let (collector, stub) = (Collector::start(Taking::All), StubProvider::start(Behaviour::Work));
    let database = Database::create().await;
    let common = [
        database.variable(),
        ("EMBEDDING_SERVICE_URL", stub.url.as_str()),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.as_str()),
        ("OTEL_BSP_SCHEDULE_DELAY", "20"),
    ];
    let (api_folder, worker_folder) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let api = [&common[..], &[("BOOTSTRAP_API_KEY", KEY), ("WORKER_INLINE", "false")]].concat();
    let mut api = Process::serve(api_folder.path(), free_port(), &api);
    api.ready().await;
    let client = client();
    for key in ["first", "second"] {
        let body = json!({"user_id": USER, "context_type": "note", "key": key, "content": key});
        let url = format!("{}/v1/contexts", api.url);
        let response = client.post(url).bearer_auth(KEY).json(&body).send().await.unwrap();
        assert!(response.status().is_success());
    }
    // A change that leaves the text as it is takes nothing from where it was written.
    let changed = json!({"user_id": USER, "context_type": "task", "key": "first", "content": "first"});
    let url = format!("{}/v1/contexts", api.url);
    client.post(url).bearer_auth(KEY).json(&changed).send().await.unwrap();
    assert!(api.terminate().success());
    let spans = collector.spans();
    let servers: Vec<_> = spans.iter().filter(|span| span.name == "POST /v1/contexts").collect();
    assert_eq!(servers.len(), 3);
    assert!(spans.iter().all(|span| span.name != "embed batch"));

    let worker = [&common[..], &[("OTEL_SERVICE_NAME", "the-worker")]].concat();
    let mut worker = Process::worker(worker_folder.path(), free_port(), &worker);
    worker.ready().await;
    let batch = collector.span("embed batch").await;
    assert_eq!(batch.service, "the-worker");
    let mut links = batch.links.clone();
    links.sort();
    let mut written: Vec<_> =
        servers[..2].iter().map(|server| (server.trace_id.clone(), server.span_id.clone())).collect();
    written.sort();
    assert_eq!(links, written);
    let call = collector.child(&batch, "POST").await;
    assert!(stub.traceparents().contains(&format!("00-{}-{}-01", call.trace_id, call.span_id)));
    assert!(worker.terminate().success());
}
