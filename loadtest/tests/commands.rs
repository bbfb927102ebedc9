//! The program as people run it. The service is a stand-in: it does what a real one does not on request, such as standing still
//! for half a second. The scenarios run against a real one in `scripts/measure-load smoke`.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

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
use hyper::{
    Method, Request, Response, body::Bytes, body::Incoming, server::conn::http1, service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    net::TcpListener,
    sync::{Barrier, RwLock},
};

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
    /// From this one on it never answers.
    hangs_from: usize,
    /// From this one on it says that it has too much to do.
    refuses_from: usize,
    /// The first so many are answered when all of them are there.
    together: usize,
}

const STOP: Duration = Duration::from_millis(500);

struct Service {
    manners: Manners,
    reads: AtomicUsize,
    under_way: AtomicUsize,
    most_under_way: Arc<AtomicUsize>,
    still: RwLock<()>,
    gathered: Barrier,
}

impl Service {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (path, is_write) = (request.uri().path().to_owned(), request.method() == Method::POST);
        request.into_body().collect().await.ok();
        let body = match path.as_str() {
            "/v1/contexts/count" => r#"{"count": 2}"#,
            "/v1/contexts" if is_write => return self.create(),
            "/v1/contexts" => r#"{"data": [{"id": "a"}, {"id": "b"}], "next_cursor": null}"#,
            "/v1/contexts/a" | "/v1/contexts/b" | "/v1/contexts/search" => return self.read().await,
            _ => return Response::default(),
        };
        Response::new(Full::from(body))
    }

    /// Every other one was there already.
    fn create(&self) -> Response<Full<Bytes>> {
        let is_new = self.reads.fetch_add(1, Ordering::Relaxed).is_multiple_of(2);
        let mut response = Response::new(Full::from("{}"));
        *response.status_mut() = if is_new { hyper::StatusCode::CREATED } else { hyper::StatusCode::OK };
        response
    }

    async fn read(&self) -> Response<Full<Bytes>> {
        let number = self.reads.fetch_add(1, Ordering::Relaxed);
        if number >= self.manners.hangs_from {
            std::future::pending::<()>().await;
        }
        if number == self.manners.stops_at {
            let _still = self.still.write().await;
            tokio::time::sleep(STOP).await;
        }
        let under_way = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_under_way.fetch_max(under_way, Ordering::SeqCst);
        let _moving = self.still.read().await;
        if number < self.manners.together {
            self.gathered.wait().await;
        }
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        let mut response = Response::new(Full::from(r#"{"data":[],"more":"of it"}"#));
        if number >= self.manners.refuses_from {
            *response.status_mut() = hyper::StatusCode::SERVICE_UNAVAILABLE;
        }
        response
    }
}

/// Starts a stand-in in a thread of its own; it ends with the process. Answers where it is, and the most requests that it had
/// under way at once.
fn serve(manners: Manners) -> (SocketAddr, Arc<AtomicUsize>) {
    let most_under_way = Arc::new(AtomicUsize::new(0));
    let service = Arc::new(Service {
        manners,
        reads: AtomicUsize::new(0),
        under_way: AtomicUsize::new(0),
        most_under_way: Arc::clone(&most_under_way),
        still: RwLock::new(()),
        gathered: Barrier::new(manners.together),
    });
    let (address, known) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            address.send(listener.local_addr().unwrap()).unwrap();
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
    (known.recv().unwrap(), most_under_way)
}

const WELL: Manners =
    Manners { stops_at: usize::MAX, hangs_from: usize::MAX, refuses_from: usize::MAX, together: 0 };

struct Ran {
    output: Output,
    report: Value,
    most_under_way: usize,
}

/// Runs a scenario for some seconds, and reads its report.
fn run(manners: Manners, folder: &Path, arguments: &[&str]) -> Ran {
    let (address, most_under_way) = serve(manners);
    let url = format!("http://{address}");
    let (json, html) = (folder.join("report.json"), folder.join("report.html"));
    let files = ["--json", json.to_str().unwrap(), "--html", html.to_str().unwrap()];
    let output = loadtest(&[&["run"], arguments, &["--url", &url], &files].concat());
    let report = std::fs::read(json).unwrap_or_else(|error| panic!("{error}: {}", words(&output)));
    let report = serde_json::from_slice(&report).unwrap_or(Value::Null);
    Ran { output, report, most_under_way: most_under_way.load(Ordering::SeqCst) }
}

const AT_ONCE: [&str; 2] = ["--warm-up-seconds", "0"];

#[test]
fn the_time_of_those_who_come_while_the_service_stands_still_counts() {
    let folder = tempfile::tempdir().unwrap();
    let open = [&["get", "--rate", "200", "--clients", "4", "--seconds", "3"], &AT_ONCE[..]].concat();
    let manners = Manners { stops_at: 200, ..WELL };
    let Ran { output, report, most_under_way } = run(manners, folder.path(), &open);
    assert!(output.status.success(), "{}", words(&output));
    assert!(most_under_way <= 4, "{most_under_way}");
    let at = |pointer: &str| report.pointer(pointer).and_then(Value::as_f64).unwrap();
    assert!((450.0..750.0).contains(&at("/requests")), "{report}");
    assert_eq!(at("/errors").to_string(), "0");
    // Four connections stood still; some hundred requests were due meanwhile, the first of which waited the longest.
    assert!(at("/latency_ms/p95") > at("/service_ms/p95") + 100.0, "{report}");
    assert!(at("/latency_ms/max") >= 450.0, "{report}");
    let page = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
    assert!(page.contains("<svg") && page.contains("200 requests a second"), "{page}");
    assert!(!page.contains("src=") && !page.contains("href="), "it needs nothing else");
}

#[test]
fn what_a_service_that_hangs_leaves_unsent_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let open = [
        "get",
        "--rate",
        "100",
        "--burst",
        "3",
        "--clients",
        "2",
        "--seconds",
        "1",
        "--deadline-seconds",
        "2",
    ];
    let manners = Manners { hangs_from: 0, ..WELL };
    let Ran { report, .. } = run(manners, folder.path(), &[&open[..], &AT_ONCE].concat());
    let statuses = |name: &str| report["statuses"][name].as_u64().unwrap_or_default();
    assert_eq!(statuses("no answer in time"), 2, "{report}");
    // A hundred, and for a fifth of the time thrice as many.
    assert!((90..200).contains(&statuses("not sent in time")), "{report}");
    assert_eq!((&report["latency_ms"], &report["errors"]), (&Value::Null, &report["requests"]));
}

#[test]
fn a_closed_loop_has_so_many_requests_under_way_and_refusals_are_no_answers() {
    let folder = tempfile::tempdir().unwrap();
    let closed =
        [&["search-keyword", "--clients", "3", "--threads", "2", "--seconds", "1"], &AT_ONCE[..]].concat();
    let manners = Manners { refuses_from: 100, together: 3, ..WELL };
    let Ran { output, report, most_under_way } = run(manners, folder.path(), &closed);
    assert!(output.status.success(), "{}", words(&output));
    let count = |name: &str| report[name].as_u64().unwrap();
    assert_eq!((count("empty"), count("degraded"), count("errors")), (100, 100, 0), "{report}");
    assert_eq!(count("refused") + 100, count("requests"));
    assert_eq!((&report["statuses"]["503"], most_under_way), (&report["refused"], 3));
}

#[test]
fn the_warm_up_does_not_count() {
    let folder = tempfile::tempdir().unwrap();
    let warm = ["get", "--rate", "100", "--seconds", "1", "--warm-up-seconds", "2"];
    let Ran { report, .. } = run(WELL, folder.path(), &warm);
    let requests = report["requests"].as_u64().unwrap();
    assert!((60..150).contains(&requests), "{report}");
    assert!(report["timeline"].as_array().unwrap().len() <= 2, "{report}");
}

#[test]
fn what_was_there_already_is_no_new_context() {
    let folder = tempfile::tempdir().unwrap();
    let ingest = [&["ingest", "--dims", "4", "--seconds", "1", "--clients", "1"], &AT_ONCE[..]].concat();
    let Ran { report, .. } = run(WELL, folder.path(), &ingest);
    let (all, wrong) = (report["requests"].as_u64().unwrap(), report["errors"].as_u64().unwrap());
    assert_eq!(report["statuses"]["not created"], report["errors"]);
    assert!((all / 2).abs_diff(wrong) <= 1, "{report}");
}

#[test]
fn a_bound_that_is_not_kept_fails_the_run_and_a_comparison() {
    let folder = tempfile::tempdir().unwrap();
    let bounds = ["get", "--seconds", "1", "--at-least", "/requests=1", "--at-most", "/throughput=1"];
    let Ran { output, .. } = run(WELL, folder.path(), &[&bounds[..], &AT_ONCE].concat());
    assert!(!output.status.success());
    let complaint = words(&output);
    assert!(complaint.contains("/throughput is") && !complaint.contains("/requests"), "{complaint}");

    let report = folder.path().join("report.json");
    let report = report.to_str().unwrap();
    assert!(loadtest(&["compare", report, report, "--throughput-at-least", "0.99"]).status.success());
    let slower = loadtest(&["compare", report, report, "--p99-at-most", "0.99"]);
    assert!(words(&slower).contains("1.00 times"), "{}", words(&slower));
    assert!(!loadtest(&["compare", report, report, "--p99-at-most", "nan"]).status.success());

    // No answer is not a fast one.
    let refused = ["get", "--seconds", "1", "--at-most", "/latency_ms/p99=1000"];
    let manners = Manners { refuses_from: 0, ..WELL };
    let Ran { output, .. } = run(manners, folder.path(), &[&refused[..], &AT_ONCE].concat());
    assert!(words(&output).contains("no number at /latency_ms/p99"), "{}", words(&output));
    assert!(words(&loadtest(&["compare", report, report])).contains("answered nothing"));
}

#[test]
fn what_cannot_be_done_is_said_in_a_sentence() {
    let nobody = loadtest(&["run", "get", "--url", "http://127.0.0.1:9"]);
    assert!(!nobody.status.success());
    assert!(words(&nobody).contains("127.0.0.1:9 cannot be reached"), "{}", words(&nobody));
    let wrong = loadtest(&["run", "get", "--url", "https://localhost"]);
    assert!(words(&wrong).contains("not of the form http://host:port"), "{}", words(&wrong));
    let nowhere = loadtest(&["run", "get", "--url", "http://127.0.0.1:9", "--json", "/nowhere/report.json"]);
    assert!(words(&nowhere).contains("/nowhere/report.json"), "{}", words(&nowhere));
    let endless = ["run", "get", "--url", "http://127.0.0.1:9", "--rate", "1e9", "--seconds", "86400"];
    assert!(words(&loadtest(&endless)).contains("lower --rate"));
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
