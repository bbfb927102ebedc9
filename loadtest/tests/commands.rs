//! The program as people run it. The service is a stand-in: it does what a real one does not on request, such as standing still
//! for half a second. The scenarios run against a real one in `scripts/measure-load smoke`.

use std::{
    convert::Infallible,
    net::SocketAddr,
    path::Path,
    process::{Command, Output},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Bytes, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::TcpListener, sync::RwLock};

fn loadtest(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args(arguments)
        .env("CONTEXT_API_KEY", "ctx_key")
        .output()
        .expect("the program")
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What the stand-in does.
#[derive(Clone, Copy)]
struct Manners {
    /// At this request it stands still for half a second, and nobody is answered meanwhile.
    stops_at: usize,
    /// From this one on it says that it has too much to do.
    refuses_from: usize,
}

const STOP: Duration = Duration::from_millis(500);

struct Service {
    manners: Manners,
    reads: AtomicUsize,
    still: RwLock<()>,
}

impl Service {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path().to_owned();
        request.into_body().collect().await.ok();
        let body = match path.as_str() {
            "/v1/contexts/count" => r#"{"count": 2}"#,
            "/v1/contexts" => r#"{"data": [{"id": "a"}, {"id": "b"}], "next_cursor": null}"#,
            _ => return self.read().await,
        };
        Response::new(Full::from(body))
    }

    async fn read(&self) -> Response<Full<Bytes>> {
        let number = self.reads.fetch_add(1, Ordering::Relaxed);
        if number == self.manners.stops_at {
            let _still = self.still.write().await;
            tokio::time::sleep(STOP).await;
        }
        let _moving = self.still.read().await;
        let mut response = Response::new(Full::from(r#"{"data":[],"more":"of it"}"#));
        if number >= self.manners.refuses_from {
            *response.status_mut() = hyper::StatusCode::SERVICE_UNAVAILABLE;
        }
        response
    }
}

/// Starts a stand-in in a thread of its own; it ends with the process.
fn serve(manners: Manners) -> SocketAddr {
    let (address, known) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            address.send(listener.local_addr().unwrap()).unwrap();
            let service = Arc::new(Service { manners, reads: AtomicUsize::new(0), still: RwLock::new(()) });
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let service = Arc::clone(&service);
                tokio::spawn(async move {
                    let handler = service_fn(|request| {
                        let service = Arc::clone(&service);
                        async move { Ok::<_, Infallible>(service.answer(request).await) }
                    });
                    http1::Builder::new().serve_connection(TokioIo::new(stream), handler).await.ok();
                });
            }
        });
    });
    known.recv().unwrap()
}

const WELL: Manners = Manners { stops_at: usize::MAX, refuses_from: usize::MAX };

/// Runs a scenario for some seconds, and reads its report.
fn run(manners: Manners, folder: &Path, arguments: &[&str]) -> (Output, Value) {
    let url = format!("http://{}", serve(manners));
    let (json, html) = (folder.join("report.json"), folder.join("report.html"));
    let common = [
        "--url",
        &url,
        "--warm-up-seconds",
        "0",
        "--json",
        json.to_str().unwrap(),
        "--html",
        html.to_str().unwrap(),
    ];
    let output = loadtest(&[&["run"], arguments, &common].concat());
    let report = std::fs::read(json).unwrap_or_else(|error| panic!("{error}: {}", words(&output)));
    (output, serde_json::from_slice(&report).unwrap())
}

#[test]
fn the_time_of_those_who_come_while_the_service_stands_still_counts() {
    let folder = tempfile::tempdir().unwrap();
    let open = ["get", "--rate", "200", "--clients", "4", "--seconds", "3"];
    let (output, report) = run(Manners { stops_at: 200, ..WELL }, folder.path(), &open);
    assert!(output.status.success(), "{}", words(&output));
    let at = |pointer: &str| report.pointer(pointer).and_then(Value::as_f64).unwrap();
    assert!((450.0..750.0).contains(&at("/requests")), "{report}");
    assert_eq!(at("/errors").to_string(), "0");
    // Four connections stood still; some hundred requests were due meanwhile, the first of which waited the longest.
    assert!(at("/service_ms/p95") < 100.0, "{report}");
    assert!(at("/latency_ms/p95") > 150.0 && at("/latency_ms/max") >= 450.0, "{report}");
    let page = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
    assert!(page.contains("<svg") && page.contains("200 requests a second"), "{page}");
    assert!(!page.contains("src=") && !page.contains("href="), "it needs nothing else");
}

#[test]
fn a_closed_loop_has_so_many_requests_under_way_and_refusals_are_no_answers() {
    let folder = tempfile::tempdir().unwrap();
    let closed = ["search-keyword", "--clients", "3", "--threads", "2", "--seconds", "1"];
    let (output, report) = run(Manners { refuses_from: 100, ..WELL }, folder.path(), &closed);
    assert!(output.status.success(), "{}", words(&output));
    let count = |name: &str| report[name].as_u64().unwrap();
    assert_eq!((count("empty"), count("errors")), (100, 0), "{report}");
    assert_eq!(count("refused") + 100, count("requests"));
    assert_eq!(report["statuses"]["503"], report["refused"]);
}

#[test]
fn a_bound_that_is_not_kept_fails_the_run_and_a_comparison() {
    let folder = tempfile::tempdir().unwrap();
    let bounds = ["get", "--seconds", "1", "--at-least", "/requests=1", "--at-most", "/throughput=1"];
    let (output, _) = run(WELL, folder.path(), &bounds);
    assert!(!output.status.success());
    let complaint = words(&output);
    assert!(complaint.contains("/throughput is") && !complaint.contains("/requests"), "{complaint}");

    let report = folder.path().join("report.json");
    let report = report.to_str().unwrap();
    assert!(loadtest(&["compare", report, report, "--throughput-at-least", "0.99"]).status.success());
    let slower = loadtest(&["compare", report, report, "--p99-at-most", "0.99"]);
    assert!(words(&slower).contains("1.00 times"), "{}", words(&slower));
}

#[test]
fn what_cannot_be_done_is_said_in_a_sentence() {
    let nobody = loadtest(&["run", "get", "--url", "http://127.0.0.1:9"]);
    assert!(!nobody.status.success());
    assert!(words(&nobody).contains("127.0.0.1:9 cannot be reached"), "{}", words(&nobody));
    let wrong = loadtest(&["run", "get", "--url", "https://localhost"]);
    assert!(words(&wrong).contains("not of the form http://host:port"), "{}", words(&wrong));
    let missing = loadtest(&["compare", "nowhere.json", "nowhere.json"]);
    assert!(words(&missing).contains("nowhere.json"), "{}", words(&missing));
}

#[test]
fn data_is_lines_of_json_from_any_number_on() {
    let lines = |arguments: &[&str]| -> Vec<Value> {
        let output = loadtest(&[&["data", "--dims", "8"], arguments].concat());
        String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    let (all, rest) = (lines(&["--contexts", "5"]), lines(&["--contexts", "2", "--from", "3"]));
    assert_eq!((all.len(), all[0]["embedding"].as_array().unwrap().len()), (5, 8));
    assert_eq!(all[3..], rest);
}
