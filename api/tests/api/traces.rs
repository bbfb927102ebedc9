//! Traces, as a collector gets them from the binary: what is in them, what is not, and that nobody waits for a collector.

use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use reqwest::Client;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    Behaviour, Collector, Database, KEY, Process, Received, StubProvider, Taking, USER, client, command,
    eventually, free_port,
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// A service with traces, and those that it talks to.
struct Traced {
    process: Process,
    client: Client,
    _database: Database,
    _folder: TempDir,
}

impl Traced {
    async fn start(collector_url: &str, provider_url: &str, variables: &[(&str, &str)]) -> Self {
        let database = Database::create().await;
        let folder = TempDir::new().unwrap();
        let all = [
            &[
                database.variable(),
                ("BOOTSTRAP_API_KEY", KEY),
                ("EMBEDDING_SERVICE_URL", provider_url),
                ("LOG_FORMAT", "json"),
                ("OTEL_EXPORTER_OTLP_ENDPOINT", collector_url),
                ("OTEL_BSP_SCHEDULE_DELAY", "20"),
            ],
            variables,
        ]
        .concat();
        let mut process = Process::serve(folder.path(), free_port(), &all);
        process.ready().await;
        Self { process, client: client(), _database: database, _folder: folder }
    }

    async fn post(&self, path: &str, traceparent: Option<&str>, body: &Value) -> Value {
        let mut request = self.client.post(format!("{}{path}", self.process.url)).bearer_auth(KEY).json(body);
        if let Some(traceparent) = traceparent {
            request = request.header("traceparent", traceparent);
        }
        let response = request.header("X-Request-ID", "asked-by-a-test").send().await.unwrap();
        assert!(response.status().is_success(), "{:?}", response.text().await);
        response.json().await.unwrap()
    }

    /// A context that is embedded when this returns.
    async fn write(&self, text: &str, traceparent: Option<&str>) -> Value {
        let body = json!({"user_id": USER, "context_type": "note", "content": {"text": text}});
        let written = self.post("/v1/contexts?wait=ready", traceparent, &body).await;
        assert_eq!(written["embedding_status"], "ready", "{written}");
        written
    }
}

fn sampled() -> String {
    format!("00-{TRACE}-{CALLER}-01")
}

fn attribute<'s>(span: &'s Received, name: &str) -> &'s str {
    span.attributes.get(name).map_or("", String::as_str)
}

#[tokio::test]
async fn a_write_goes_on_with_its_callers_trace_and_its_embedding_points_back_to_it() {
    let (collector, stub) = (Collector::start(Taking::All), StubProvider::start(Behaviour::Work));
    let secret = [
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20hunter2"),
        ("OTEL_SERVICE_NAME", "context-api-test"),
    ];
    let service = Traced::start(&collector.url, &stub.url, &secret).await;
    let written = service.write("the unspeakable words", Some(&sampled())).await;

    let server = collector.span("POST /v1/contexts").await;
    assert_eq!((server.trace_id.as_str(), server.parent.as_str()), (TRACE, CALLER));
    assert_eq!((server.kind, server.service.as_str()), (SpanKind::Server, "context-api-test"));
    for (name, value) in [
        ("http.request.method", "POST"),
        ("http.route", "/v1/contexts"),
        ("http.response.status_code", "201"),
        ("request.id", "asked-by-a-test"),
    ] {
        assert_eq!(attribute(&server, name), value, "{name}");
    }
    let write = collector.child(&server, "write context").await;
    assert_eq!((write.kind, attribute(&write, "db.system.name")), (SpanKind::Client, "postgresql"));

    let batch = collector.span("embed batch").await;
    assert!(batch.trace_id != TRACE && batch.parent.is_empty(), "{batch:?}");
    assert_eq!(batch.links, [(TRACE.to_owned(), server.span_id.clone())]);
    collector.child(&batch, "save embeddings").await;
    let call = collector.child(&batch, "POST").await;
    assert_eq!((call.kind, attribute(&call, "http.response.status_code")), (SpanKind::Client, "200"));
    let sent = format!("00-{}-{}-01", call.trace_id, call.span_id);
    assert!(stub.traceparents().contains(&sent), "{sent} {:?}", stub.traceparents());

    assert_eq!(collector.authorization().as_deref(), Some("Bearer hunter2"));
    let line = eventually("the request's line in the log", Duration::from_secs(30), async || {
        let log = service.process.log();
        let is_it = |line: &&str| line.contains("\"message\":\"request\"") && line.contains(TRACE);
        log.lines().find(is_it).map(str::to_owned)
    })
    .await;
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&line["trace_id"], &line["span_id"]), (&json!(TRACE), &json!(server.span_id)), "{line}");
    assert_eq!(line["request.id"], "asked-by-a-test", "{line}");
    let log = service.process.log();
    assert!(service.process.terminate().success());
    let all = format!("{:?}", collector.spans());
    for hidden in ["unspeakable", KEY, "hunter2", USER, written["id"].as_str().unwrap()] {
        assert!(!all.contains(hidden) && !log.contains("hunter2"), "{hidden}: {all}");
    }
}

#[tokio::test]
async fn a_search_shows_what_it_waits_for() {
    let (collector, stub) = (Collector::start(Taking::All), StubProvider::start(Behaviour::Work));
    let service = Traced::start(&collector.url, &stub.url, &[]).await;
    service.write("chess on Tuesday", None).await;
    service.post("/v1/contexts/search", Some(&sampled()), &json!({"query": "a game"})).await;
    let server = collector.span("POST /v1/contexts/search").await;
    assert_eq!((server.trace_id.as_str(), server.is_error), (TRACE, false));
    let query = collector.child(&server, "embed query").await;
    let call = collector.child(&query, "POST").await;
    assert!(stub.traceparents().contains(&format!("00-{TRACE}-{}-01", call.span_id)));
    for name in ["search by comparing", "read word statistics", "load hits"] {
        collector.child(&server, name).await;
    }
}

#[tokio::test]
async fn a_callers_word_on_recording_counts_and_a_malformed_one_does_not() {
    let (collector, stub) = (Collector::start(Taking::All), StubProvider::start(Behaviour::Work));
    let service = Traced::start(&collector.url, &stub.url, &[]).await;
    let unsampled = format!("00-{TRACE}-{CALLER}-00");
    service.write("not recorded", Some(&unsampled)).await;
    service.post("/v1/contexts/search", Some(&unsampled), &json!({"query": "x"})).await;
    let told = stub.traceparents();
    assert_eq!(told.len(), 1, "the search's call, and not the worker's: {told:?}");
    assert!(told[0].starts_with(&format!("00-{TRACE}-")) && told[0].ends_with("-00"), "{told:?}");
    for path in ["/health", "/health/live", "/health/ready"] {
        service.client.get(format!("{}{path}", service.process.url)).send().await.unwrap();
    }
    let malformed = format!("00-{TRACE}-{CALLER}-1");
    service.post("/v1/contexts/count", Some(&malformed), &json!({})).await;
    assert!(service.process.terminate().success());
    // All that there was is sent before the end.
    let spans = collector.spans();
    let servers: Vec<_> = spans.iter().filter(|span| span.kind == SpanKind::Server).collect();
    assert_eq!(servers.len(), 1, "{spans:?}");
    assert_eq!((servers[0].name.as_str(), servers[0].parent.as_str()), ("POST /v1/contexts/count", ""));
    assert!(spans.iter().all(|span| span.trace_id != TRACE && span.name != "embed batch"), "{spans:?}");
}

#[tokio::test]
async fn what_comes_of_a_recorded_trace_is_recorded_whatever_the_share() {
    let (collector, stub) = (Collector::start(Taking::All), StubProvider::start(Behaviour::Work));
    let none = [("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "0")];
    let service = Traced::start(&collector.url, &stub.url, &none).await;
    service.write("by nobody's wish", None).await;
    service.write("by the caller's wish", Some(&sampled())).await;
    assert!(service.process.terminate().success());
    let spans = collector.spans();
    let of = |name: &str| spans.iter().filter(|span| span.name == name).collect::<Vec<_>>();
    let (servers, batches) = (of("POST /v1/contexts"), of("embed batch"));
    assert_eq!((servers.len(), batches.len()), (1, 1), "{spans:?}");
    assert_eq!(batches[0].links, [(TRACE.to_owned(), servers[0].span_id.clone())]);
}

#[tokio::test]
async fn what_fails_is_marked() {
    let (collector, stub) = (Collector::start(Taking::All), StubProvider::start(Behaviour::Work));
    let service = Traced::start(&collector.url, &stub.url, &[]).await;
    service.write("chess", None).await;
    stub.behave(Behaviour::Answer(503, "{}"));
    service.post("/v1/contexts/search", Some(&sampled()), &json!({"query": "never asked before"})).await;
    let server = collector.span("POST /v1/contexts/search").await;
    let query = collector.child(&server, "embed query").await;
    let call = collector.child(&query, "POST").await;
    assert_eq!((call.is_error, attribute(&call, "error.type")), (true, "503"));
    assert!(query.is_error && !server.is_error, "the search did without");
}

/// A service that sends its spans to `url`, and has answered some requests meanwhile.
async fn busy(url: &str) -> Traced {
    let stub = StubProvider::start(Behaviour::Work);
    let service = Traced::start(url, &stub.url, &[("OTEL_BSP_MAX_QUEUE_SIZE", "4")]).await;
    for _ in 0..50 {
        let began = Instant::now();
        service.post("/v1/contexts/count", None, &json!({})).await;
        // Half of what the first request to the collector may take.
        assert!(began.elapsed() < Duration::from_secs(5));
    }
    service
}

/// The log, once it complains.
async fn complaint(service: &Traced) -> String {
    eventually("a complaint", Duration::from_secs(30), async || {
        let log = service.process.log();
        (complaints(&log) > 0).then_some(log)
    })
    .await
}

fn complaints(log: &str) -> usize {
    log.matches("the collector did not take spans").count()
}

#[tokio::test]
async fn a_collector_that_is_away_is_complained_of_once() {
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let service = busy(&nobody).await;
    let log = complaint(&service).await;
    assert!(!log.contains(&nobody) && complaints(&log) == 1, "{log}");
    stops_in_time(service);
}

#[tokio::test]
async fn a_collector_that_refuses_is_complained_of_once_in_a_while() {
    let collector = Collector::start(Taking::None);
    let service = busy(&collector.url).await;
    eventually("several refusals", Duration::from_secs(30), async || {
        service.post("/v1/contexts/count", None, &json!({})).await;
        (collector.calls() > 3).then_some(())
    })
    .await;
    assert_eq!(complaints(&complaint(&service).await), 1);
    stops_in_time(service);
}

#[tokio::test]
async fn a_collector_that_hangs_or_talks_nonsense_holds_up_nobody() {
    for taking in [Taking::Hanging, Taking::Garbage] {
        let collector = Collector::start(taking);
        let service = busy(&collector.url).await;
        eventually("a call", Duration::from_secs(30), async || (collector.calls() > 0).then_some(())).await;
        stops_in_time(service);
    }
}

fn stops_in_time(service: Traced) {
    let asked = Instant::now();
    assert!(service.process.terminate().success());
    let took = asked.elapsed();
    // Two seconds for the last spans, and what it takes to end without any.
    assert!(took < Duration::from_secs(6), "{took:?}");
}

#[tokio::test]
async fn a_bad_variable_stops_the_start_of_what_has_traces() {
    let folder = TempDir::new().unwrap();
    for (name, value) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "hunter2:4318"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "hunter2"),
        ("OTEL_TRACES_SAMPLER", "sometimes"),
    ] {
        for subcommand in ["serve", "worker"] {
            let output = command(folder.path(), &[(name, value)]).arg(subcommand).output().unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            assert!(!output.status.success() && said.contains(name) && !said.contains("hunter2"), "{said}");
            assert_eq!(said.trim().lines().count(), 1, "{said}");
        }
    }
}
