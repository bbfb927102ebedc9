//! What must be refused, clearly, and without a trace of a panic.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    pin::pin,
    time::Duration,
};

use context_api::domain::{DEFAULT_TENANT, Scope};
use reqwest::{Method, StatusCode};
use serde_json::json;
use socket2::SockRef;
use uuid::Uuid;

use crate::support::{Answer, App, USER, answer, give_up_after};

fn assert_problem(answer: &Answer, status: u16, code: &str, what: &str) {
    assert_eq!((answer.status.as_u16(), answer.code()), (status, code), "{what}: {:?}", answer.body);
    assert_eq!(answer.headers["content-type"], "application/problem+json", "{what}");
    assert_eq!(answer.body["status"], json!(status));
    assert_eq!(answer.body["type"], json!(format!("/errors/{code}")));
    assert!(answer.body["title"].is_string() && answer.body["detail"].is_string(), "{what}");
    assert_eq!(answer.body["request_id"].as_str(), answer.headers["x-request-id"].to_str().ok(), "{what}");
}

fn context(extra: &str) -> String {
    format!(r#"{{"user_id":"{USER}","context_type":"note","content":{{"a":1}}{extra}}}"#)
}

#[tokio::test]
async fn bad_bodies_are_refused_with_the_place() {
    let app = App::start().await;
    let cases: Vec<(String, u16, &str, Option<&str>)> = vec![
        (String::new(), 400, "invalid_json", None),
        ("{".into(), 400, "invalid_json", None),
        ("not json".into(), 400, "invalid_json", None),
        (format!("{} trailing", context("")), 400, "invalid_json", None),
        ("[]".into(), 400, "invalid_request", Some("")),
        ("null".into(), 400, "invalid_request", Some("")),
        ("{}".into(), 400, "invalid_request", Some("")),
        (context(r#","unknown":1"#), 400, "invalid_request", Some("/unknown")),
        (context(r#","key":5"#), 400, "invalid_request", Some("/key")),
        (context(r#","key":"""#), 400, "invalid_request", Some("/key")),
        (context(r#","key":"a\u0000b""#), 400, "invalid_request", Some("/key")),
        (context(r#","metadata":[]"#), 400, "invalid_request", Some("/metadata")),
        (context(r#","metadata":{"a/b":"\u0000"}"#), 400, "invalid_json", Some("/metadata/a~1b")),
        (context(r#","text":"a\u0000""#), 400, "invalid_json", Some("/text")),
        (context(r#","text":"\ud800""#), 400, "invalid_json", None),
        (context(r#","ttl_seconds":0"#), 400, "invalid_request", Some("/ttl_seconds")),
        (context(r#","ttl_seconds":1e400"#), 400, "invalid_json", None),
        (context(r#","ttl_seconds":9223372036854775807"#), 400, "invalid_request", Some("/ttl_seconds")),
        (
            context(r#","ttl_seconds":5,"expires_at":"2030-01-01T00:00:00Z""#),
            400,
            "invalid_request",
            Some("/ttl_seconds"),
        ),
        (
            context(r#","expires_at":"9999-12-31T23:59:59-01:00""#),
            400,
            "invalid_request",
            Some("/expires_at"),
        ),
        (context(r#","metadata":{"n":1e-20000}"#), 400, "invalid_json", Some("/metadata")),
        (context(r#","expires_at":"tomorrow""#), 400, "invalid_request", Some("/expires_at")),
        (context(r#","expires_at":"0001-01-01T00:00:00Z""#), 400, "invalid_request", Some("/expires_at")),
        (context(r#","user_id":"x""#), 400, "invalid_request", Some("")),
        (
            r#"{"user_id":"x","context_type":"note","content":1}"#.into(),
            400,
            "invalid_request",
            Some("/user_id"),
        ),
        (
            format!(r#"{{"user_id":"{USER}","context_type":"note","content":"\u0000"}}"#),
            400,
            "invalid_json",
            Some("/content"),
        ),
        (
            format!(r#"{{"user_id":"{USER}","context_type":"note","content":1e999}}"#),
            400,
            "invalid_json",
            Some("/content"),
        ),
        (
            format!(r#"{{"user_id":"{USER}","context_type":"note","content":{}}}"#, "[".repeat(5000)),
            400,
            "invalid_json",
            None,
        ),
        (
            format!(r#"{{"user_id":"{USER}","context_type":"{}","content":1}}"#, "x".repeat(51)),
            400,
            "invalid_request",
            Some("/context_type"),
        ),
        (
            context(&format!(r#","text":"{}""#, "x".repeat(256 * 1024 + 1))),
            413,
            "text_too_long",
            Some("/text"),
        ),
    ];
    for (body, status, code, pointer) in cases {
        let shown: String = body.chars().take(120).collect();
        let answer = app.send(Method::POST, "/v1/contexts", body).await;
        assert_problem(&answer, status, code, &shown);
        if let Some(pointer) = pointer {
            assert_eq!(answer.body["errors"][0]["pointer"], json!(pointer), "{shown}: {:?}", answer.body);
        }
    }
    assert_eq!(app.get("/v1/contexts").await.body["data"], json!([]), "nothing was stored");
}

#[tokio::test]
async fn the_largest_text_is_accepted_and_searchable() {
    let app =
        App::start_with(crate::support::StubProvider::start(crate::support::Behaviour::Work).provider())
            .await;
    // Of words with many letters for each token; of shorter ones it would make too many chunks.
    let text = "of considerable importance ".repeat(9_708) + "needle";
    assert!((256 * 1024 - 30..=256 * 1024).contains(&text.len()), "{}", text.len());
    let created = app.send(Method::POST, "/v1/contexts", context(&format!(r#","text":"{text}""#))).await;
    assert_eq!(created.status, StatusCode::CREATED, "{:?}", created.body["detail"]);
    let hits = app.search(json!({"query": "needle", "mode": "keyword"})).await;
    assert_eq!(hits.body["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused_whether_its_length_is_said_or_not() {
    let app = App::start().await;
    let large = vec![b' '; 10 * 1024 * 1024];
    let said = app.send(Method::POST, "/v1/contexts", large.clone()).await;
    assert_problem(&said, 413, "body_too_large", "10 MB");
    let exact = 2 * 1024 * 1024;
    for (bytes, code) in [(exact, "invalid_json"), (exact + 1, "body_too_large")] {
        let answer = app.send(Method::POST, "/v1/contexts", vec![b' '; bytes]).await;
        assert_eq!(answer.code(), code, "{bytes}");
    }
    let (url, key) = (app.url.clone(), app.key.clone());
    let status_line = tokio::task::spawn_blocking(move || send_in_chunks(&url, &key, 3)).await.unwrap();
    assert!(status_line.starts_with("HTTP/1.1 413"), "{status_line}");
}

/// Sends so many chunks of a mebibyte without saying how many there will be; answers the status line.
fn send_in_chunks(url: &str, key: &str, mebibytes: usize) -> String {
    let mut stream = TcpStream::connect(url.trim_start_matches("http://")).unwrap();
    write!(
        stream,
        "POST /v1/contexts HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {key}\r\n\
         Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    .unwrap();
    let chunk = [b"100000\r\n".as_slice(), &vec![b' '; 1024 * 1024], b"\r\n"].concat();
    for _ in 0..mebibytes {
        // The server may answer and hang up before all is sent.
        if stream.write_all(&chunk).is_err() {
            break;
        }
    }
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line
}

#[tokio::test]
async fn bad_searches_are_refused_with_the_place() {
    let app = App::start().await;
    for (body, pointer) in [
        (json!({}), "/query"),
        (json!({"query": ""}), "/query"),
        (json!({"query": "a\u{0}"}), "/query"),
        (json!({"query": "x".repeat(8193)}), "/query"),
        (json!({"query": "x", "limit": 0}), "/limit"),
        (json!({"query": "x", "limit": 101}), "/limit"),
        (json!({"query": "x", "limit": -1}), "/limit"),
        (json!({"query": "x", "limit": 1.5}), "/limit"),
        (json!({"query": "x", "mode": "psychic"}), "/mode"),
        (json!({"query": "x", "mode": null}), "/mode"),
        (json!({"query": "x", "context_types": ["ok", ""]}), "/context_types/1"),
        (json!({"query": "x", "context_types": vec!["t"; 21]}), "/context_types"),
        (json!({"query": "x", "filters": {}}), "/filters"),
        (json!({"vector": [1.0]}), "/mode"),
    ] {
        let answer = app.post("/v1/contexts/search", body.clone()).await;
        assert_problem(&answer, 400, "invalid_request", &body.to_string());
        assert_eq!(answer.body["errors"][0]["pointer"], json!(pointer), "{body}");
    }
    for body in ["{\"vector\":[NaN],\"mode\":\"semantic\"}", "{\"vector\":[1e999],\"mode\":\"semantic\"}"] {
        let answer = app.send(Method::POST, "/v1/contexts/search", body).await;
        assert_problem(&answer, 400, "invalid_json", body);
    }
}

#[tokio::test]
async fn wrong_paths_methods_parameters_and_types_are_refused() {
    let app = App::start().await;
    let unknown = format!("/v1/contexts/{}", Uuid::new_v4());
    for (method, path, status, code) in [
        (Method::GET, unknown.as_str(), 404, "context_not_found"),
        (Method::DELETE, &unknown, 404, "context_not_found"),
        (Method::GET, "/v1/contexts/not-an-id", 400, "invalid_parameter"),
        (Method::GET, "/v1/contexts?limit=0", 400, "invalid_parameter"),
        (Method::GET, "/v1/contexts?limit=201", 400, "invalid_parameter"),
        (Method::GET, "/v1/contexts?limit=x", 400, "invalid_parameter"),
        (Method::GET, "/v1/contexts?cursor=x", 400, "invalid_parameter"),
        (Method::GET, "/v1/contexts?offset=5", 400, "invalid_parameter"),
        (Method::GET, "/v1/contexts?user_id=me", 400, "invalid_parameter"),
        (Method::GET, "/v1/contexts?context_type=", 400, "invalid_parameter"),
        (Method::GET, "/v1/contexts/search", 405, "method_not_allowed"),
        (Method::DELETE, "/v1/contexts/batch", 405, "method_not_allowed"),
        (Method::GET, "/v1/nothing", 404, "route_not_found"),
        (Method::GET, "/v2/contexts", 404, "route_not_found"),
        (Method::PUT, "/v1/contexts", 405, "method_not_allowed"),
        (Method::POST, &unknown, 405, "method_not_allowed"),
        (Method::GET, "/errors/nonsense", 404, "route_not_found"),
    ] {
        let answer = app.send_as(&app.key, method.clone(), path, None).await;
        assert_problem(&answer, status, code, &format!("{method} {path}"));
    }
    for (path, allowed) in [("/v1/contexts", "GET, POST"), ("/v1/contexts/search", "POST")] {
        let wrong_method = app.send_as(&app.key, Method::OPTIONS, path, None).await;
        assert_eq!(wrong_method.headers["allow"], allowed, "{path}");
    }
    for content_type in ["text/plain", "application/x-www-form-urlencoded", ""] {
        let request = app
            .request(Method::POST, "/v1/contexts")
            .bearer_auth(&app.key)
            .header("content-type", content_type)
            .body(context(""));
        assert_problem(&answer(request).await, 415, "unsupported_media_type", content_type);
    }
    let explained = answer(app.request(Method::GET, "/errors/context_not_found")).await;
    assert!(explained.status.is_success() && explained.body.as_str().unwrap().contains("404"));
}

#[tokio::test]
async fn one_answer_stays_small_however_large_the_contexts_are() {
    let app = App::start().await;
    let large = format!(
        r#"{{"user_id":"{USER}","context_type":"large","text":"","content":"{}"}}"#,
        "x".repeat(1_900_000)
    );
    for _ in 0..6 {
        assert_eq!(app.send(Method::POST, "/v1/contexts", large.clone()).await.status, StatusCode::CREATED);
    }
    let (mut seen, mut pages, mut path) = (0, 0, "/v1/contexts?limit=200".to_owned());
    loop {
        let page = app.get(&path).await.body;
        let data = page["data"].as_array().unwrap().len();
        assert!((1..=4).contains(&data), "{data} contexts of 1.9 MB in one page");
        (seen, pages) = (seen + data, pages + 1);
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/v1/contexts?limit=200&cursor={cursor}");
    }
    assert_eq!((seen, pages), (6, 2));
}

#[tokio::test]
async fn invented_methods_are_answered_like_any_wrong_one() {
    let app = App::start().await;
    for method in ["FOO1", "FOO2"] {
        let answer =
            app.send_as(&app.key, Method::from_bytes(method.as_bytes()).unwrap(), "/v1/contexts", None).await;
        assert_problem(&answer, 405, "method_not_allowed", method);
    }
}

#[tokio::test]
async fn a_number_without_a_fraction_is_an_integer_and_null_is_no_body() {
    let app = App::start().await;
    let created = app.send(Method::POST, "/v1/contexts", context(r#","ttl_seconds":60.0"#)).await;
    assert_eq!(created.status, StatusCode::CREATED, "{:?}", created.body);
    let searched = app.post("/v1/contexts/search", json!({"query": "x", "limit": 5.0})).await;
    assert_eq!(searched.status, StatusCode::OK, "{:?}", searched.body);
    let path = format!("/v1/contexts/{}", created.id());
    app.delete(&path).await;
    let restored = app.send(Method::POST, &format!("{path}/restore"), "null").await;
    assert_eq!(
        (restored.status, &restored.body["version"]),
        (StatusCode::OK, &json!(3)),
        "{:?}",
        restored.body
    );
}

/// Connects, asks, and hangs up with a reset some microseconds later, as often as it is told to.
fn hang_up_again_and_again(address: &str, key: &str, times: u64) {
    for time in 0..times {
        let mut client = TcpStream::connect(address).unwrap();
        // A key that nobody has looked up yet.
        let request =
            format!("GET /v1/contexts HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}{time:08}\r\n\r\n");
        client.write_all(request.as_bytes()).unwrap();
        std::thread::sleep(Duration::from_micros(time * 37 % 4_000));
        SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

#[tokio::test]
async fn clients_that_hang_up_cost_nobody_else_anything() {
    let app = App::start().await;
    let address = app.url.trim_start_matches("http://").to_owned();
    let strangers = tokio::task::spawn_blocking(move || {
        hang_up_again_and_again(&address, "ctx_unknownunknownunknown", 1_500);
    });
    let mut strangers = pin!(strangers);
    while give_up_after(1, strangers.as_mut()).await.is_none() {
        // Nothing is known of this key yet, so the database is asked.
        let key = app.new_key(DEFAULT_TENANT, vec![Scope::Read, Scope::Write]).await;
        let body = Some(context("").into());
        let answer = app.send_as(&key, Method::POST, "/v1/contexts", body).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{:?}", answer.body);
    }
}
