//! Every limit on input of `docs/limits.md`, over HTTP: what lies on it passes, and what lies one above is refused. Those
//! of bodies, texts, batches and idempotency keys are tested beside what they limit.

use context_api::domain::{
    filter::{
        FILTER_BYTES_MAX, FILTER_DEPTH_MAX, FILTER_PATH_SEGMENTS_MAX, FILTER_TESTS_MAX, FILTER_VALUES_MAX,
    },
    limits::{
        API_KEY_NAME_CHARS_MAX, BODY_BYTES_MAX, CONTENT_BYTES_MAX, CONTEXT_TYPE_CHARS_MAX, CONTEXT_TYPES_MAX,
        DIMENSIONS_MAX, IMPORT_LINE_BYTES_MAX, JSON_DEPTH_MAX, KEY_CHARS_MAX, METADATA_BYTES_MAX,
        NUMBER_EXPONENT_MAX, PAGE_LIMIT_MAX, QUERY_BYTES_MAX, ROTATION_OVERLAP_SECONDS_MAX, SEARCH_LIMIT_MAX,
        TENANT_NAME_CHARS_MAX, TTL_SECONDS_MAX,
    },
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::filters::percent_encoded;
use crate::support::{Answer, App, Behaviour, StubProvider, USER, answer};

/// Those of the stub's vectors.
const DIMENSIONS: usize = 8;

async fn quick() -> App {
    App::start_with(StubProvider::start(Behaviour::Work).provider()).await
}

fn shown(body: &str) -> String {
    body.chars().take(100).collect()
}

fn assert_refused(answer: &Answer, status: u16, code: &str, pointer: &str, what: &str) {
    assert_eq!((answer.status.as_u16(), answer.code()), (status, code), "{what}: {:?}", answer.body);
    assert_eq!(answer.body["errors"][0]["pointer"], json!(pointer), "{what}: {:?}", answer.body);
}

#[tokio::test]
async fn fields_of_a_context() {
    let app = quick().await;
    let deep = |levels: usize| format!("{}1{}", "[".repeat(levels - 1), "]".repeat(levels - 1));
    let metadata = |bytes: usize| format!(r#"{{"a":"{}"}}"#, "b".repeat(bytes - 8));
    let text = |unit: &str, chars: usize| format!("\"{}\"", unit.repeat(chars));
    let out_of_range = TTL_SECONDS_MAX + 1;
    for (field, good, bad, code) in [
        (
            "context_type",
            vec![text("ä", 1), text("ä", CONTEXT_TYPE_CHARS_MAX)],
            vec![text("x", 0), text(" ", 3), text("ä", CONTEXT_TYPE_CHARS_MAX + 1)],
            "invalid_request",
        ),
        (
            "key",
            vec![text("語", KEY_CHARS_MAX)],
            vec![text("\\n", 3), text("x", KEY_CHARS_MAX + 1)],
            "invalid_request",
        ),
        (
            "metadata",
            vec![metadata(METADATA_BYTES_MAX)],
            vec![metadata(METADATA_BYTES_MAX + 1)],
            "invalid_request",
        ),
        ("content", vec![deep(JSON_DEPTH_MAX)], vec![deep(JSON_DEPTH_MAX + 1)], "invalid_request"),
        (
            "content",
            // A double ends at 1.8e308 and begins at 4.9e-324.
            vec!["1e308".to_owned(), format!("5e-{NUMBER_EXPONENT_MAX}")],
            vec!["1e309".to_owned(), format!("1e-{}", NUMBER_EXPONENT_MAX + 1)],
            "invalid_json",
        ),
        (
            "ttl_seconds",
            vec!["1".to_owned(), TTL_SECONDS_MAX.to_string()],
            vec!["0".to_owned(), "-1".to_owned(), out_of_range.to_string(), i64::MAX.to_string()],
            "invalid_request",
        ),
        (
            "sliding_ttl_seconds",
            vec!["1".to_owned(), TTL_SECONDS_MAX.to_string()],
            vec!["0".to_owned(), "-1".to_owned(), out_of_range.to_string(), i64::MAX.to_string()],
            "invalid_request",
        ),
        (
            "valid_to",
            vec!["\"9999-12-31T23:59:59.999999Z\"".to_owned(), "\"1970-01-01T00:00:00Z\"".to_owned()],
            vec!["\"9999-12-31T23:59:59-01:00\"".to_owned(), "\"1969-12-31T23:59:59Z\"".to_owned()],
            "invalid_request",
        ),
    ] {
        let id = app.note("a heron").await.id();
        let whole = |value: &str| {
            let mut members = vec![
                ("user_id", text(USER, 1)),
                ("context_type", text("note", 1)),
                ("content", "1".to_owned()),
            ];
            members.retain(|(name, _)| *name != field);
            members.push((field, value.to_owned()));
            let members: Vec<String> =
                members.into_iter().map(|(name, value)| format!(r#""{name}":{value}"#)).collect();
            format!("{{{}}}", members.join(","))
        };
        let part = |value: &str| format!(r#"{{"{field}":{value}}}"#);
        for value in good {
            let created = app.send(Method::POST, "/v1/contexts", whole(&value)).await;
            assert_eq!(
                created.status,
                StatusCode::CREATED,
                "{field} {}: {:?}",
                shown(&value),
                created.body["errors"]
            );
            // The key of the one that was created is taken.
            app.delete(&format!("/v1/contexts/{}?purge=true", created.id())).await;
            let patched = app.send(Method::PATCH, &format!("/v1/contexts/{id}"), part(&value)).await;
            assert_eq!(
                patched.status,
                StatusCode::OK,
                "{field} {}: {:?}",
                shown(&value),
                patched.body["errors"]
            );
        }
        for value in bad {
            for (method, path, body) in [
                (Method::POST, "/v1/contexts".to_owned(), whole(&value)),
                (Method::PUT, format!("/v1/contexts/{id}"), whole(&value)),
                (Method::PATCH, format!("/v1/contexts/{id}"), part(&value)),
            ] {
                let refused = app.send(method, &path, body).await;
                let place = refused.body["errors"][0]["pointer"].as_str().unwrap_or_default().to_owned();
                assert!(
                    place.starts_with(&format!("/{field}")),
                    "{field} {}: {:?}",
                    shown(&value),
                    refused.body
                );
                assert_refused(&refused, 400, code, &place, field);
            }
        }
    }
}

#[tokio::test]
async fn dimensions_of_a_vector() {
    let app = quick().await;
    app.embedded(&app.note("the first one makes the space").await.id()).await;
    for (count, says) in
        [(DIMENSIONS_MAX, DIMENSIONS.to_string()), (DIMENSIONS_MAX + 1, "1 to 4000".to_owned())]
    {
        let embedding =
            json!({"user_id": USER, "context_type": "note", "content": 1, "embedding": vec![1; count]});
        let search = json!({"vector": vec![1; count], "mode": "semantic"});
        for (path, body, pointer) in
            [("/v1/contexts", embedding, "/embedding"), ("/v1/contexts/search", search, "/vector")]
        {
            let refused = app.post(path, body).await;
            assert_refused(&refused, 422, "invalid_vector", pointer, path);
            let detail = refused.body["errors"][0]["detail"].as_str().unwrap().to_owned();
            assert!(detail.contains(&says), "{count}: {detail}");
        }
    }
}

#[tokio::test]
async fn a_search() {
    let app = quick().await;
    for (body, pointer) in [
        (json!({"query": "x".repeat(QUERY_BYTES_MAX)}), None),
        (json!({"query": "x".repeat(QUERY_BYTES_MAX + 1)}), Some("/query")),
        (json!({"query": "ä".repeat(QUERY_BYTES_MAX / 2)}), None),
        (json!({"query": "ä".repeat(QUERY_BYTES_MAX / 2 + 1)}), Some("/query")),
        (json!({"query": " "}), Some("/query")),
        (json!({"query": "x", "limit": SEARCH_LIMIT_MAX}), None),
        (json!({"query": "x", "limit": SEARCH_LIMIT_MAX + 1}), Some("/limit")),
        (json!({"query": "x", "context_types": vec!["t"; CONTEXT_TYPES_MAX]}), None),
        (json!({"query": "x", "context_types": vec!["t"; CONTEXT_TYPES_MAX + 1]}), Some("/context_types")),
        (json!({"query": "x", "context_types": ["x".repeat(CONTEXT_TYPE_CHARS_MAX)]}), None),
        (
            json!({"query": "x", "context_types": ["x".repeat(CONTEXT_TYPE_CHARS_MAX + 1)]}),
            Some("/context_types/0"),
        ),
    ] {
        let searched = app.post("/v1/contexts/search", body.clone()).await;
        match pointer {
            None => assert_eq!(searched.status, StatusCode::OK, "{}", shown(&body.to_string())),
            Some(pointer) => {
                assert_refused(&searched, 400, "invalid_request", pointer, &shown(&body.to_string()));
            }
        }
    }
}

#[tokio::test]
async fn a_filter() {
    let app = quick().await;
    let bytes = |bytes: usize| {
        let (start, end) = (r#"{"metadata.a":""#, r#""}"#);
        format!("{start}{}{end}", "x".repeat(bytes - start.len() - end.len()))
    };
    let deep = |levels: usize| format!("{}{{}}{}", r#"{"$not":"#.repeat(levels), "}".repeat(levels));
    let tests = |count: usize| format!(r#"{{"$or":[{}]}}"#, vec![r#"{"metadata.a":1}"#; count].join(","));
    let values = |count: usize| format!(r#"{{"metadata.a":{{"$in":[{}]}}}}"#, vec!["1"; count].join(","));
    let segments = |count: usize| format!(r#"{{"metadata{}":1}}"#, ".a".repeat(count));
    for (filter, passes) in [
        (bytes(FILTER_BYTES_MAX), true),
        (bytes(FILTER_BYTES_MAX + 1), false),
        (deep(FILTER_DEPTH_MAX), true),
        (deep(FILTER_DEPTH_MAX + 1), false),
        (tests(FILTER_TESTS_MAX), true),
        (tests(FILTER_TESTS_MAX + 1), false),
        (values(FILTER_VALUES_MAX), true),
        (values(FILTER_VALUES_MAX + 1), false),
        (segments(FILTER_PATH_SEGMENTS_MAX), true),
        (segments(FILTER_PATH_SEGMENTS_MAX + 1), false),
    ] {
        let counted = app.send(Method::POST, "/v1/contexts/count", format!(r#"{{"filter":{filter}}}"#)).await;
        let encoded = percent_encoded(&filter);
        let listed = app.get(&format!("/v1/contexts?filter={encoded}")).await;
        for answer in [counted, listed] {
            if passes {
                assert_eq!(answer.status, StatusCode::OK, "{}: {:?}", shown(&filter), answer.body);
            } else {
                assert_eq!(
                    (answer.status.as_u16(), answer.code()),
                    (400, "invalid_request"),
                    "{}",
                    shown(&filter)
                );
                let place = answer.body["errors"][0]["pointer"].as_str().unwrap();
                assert!(place.starts_with("/filter"), "{place}");
            }
        }
    }
}

#[tokio::test]
async fn a_page() {
    let app = quick().await;
    let id = app.note("a heron").await.id();
    let versions = format!("/v1/contexts/{id}/versions");
    for path in ["/v1/contexts", &versions, "/v1/api-keys", "/v1/tenants", "/v1/audit-log"] {
        for (limit, passes) in [
            ("0", false),
            ("1", true),
            (&*PAGE_LIMIT_MAX.to_string(), true),
            (&*(PAGE_LIMIT_MAX + 1).to_string(), false),
            ("-1", false),
        ] {
            let page = app.get(&format!("{path}?limit={limit}")).await;
            if passes {
                assert_eq!(page.status, StatusCode::OK, "{path} {limit}");
            } else {
                assert_eq!((page.status.as_u16(), page.code()), (400, "invalid_parameter"), "{path} {limit}");
            }
        }
    }
}

#[tokio::test]
async fn names_and_times_of_keys_and_tenants() {
    let app = quick().await;
    let old = app.post("/v1/api-keys", json!({"name": "old", "scopes": ["read"]})).await.id();
    let key = |name: String| json!({"name": name, "scopes": ["read"]});
    let tenant = |name: String| json!({"name": name});
    let overlap = |seconds: i64| json!({"overlap_seconds": seconds});
    let rotation = format!("/v1/api-keys/{old}/rotate");
    let seconds_max = i64::from(ROTATION_OVERLAP_SECONDS_MAX);
    for (path, good, bad, pointer) in [
        (
            "/v1/api-keys",
            vec![key("ä".repeat(API_KEY_NAME_CHARS_MAX))],
            vec![
                key("x".repeat(API_KEY_NAME_CHARS_MAX + 1)),
                key(String::new()),
                key(" ".into()),
                key("a\0".into()),
            ],
            "/name",
        ),
        (
            "/v1/tenants",
            vec![tenant("ä".repeat(TENANT_NAME_CHARS_MAX))],
            vec![
                tenant("x".repeat(TENANT_NAME_CHARS_MAX + 1)),
                tenant(String::new()),
                tenant(" ".into()),
                tenant("a\0".into()),
            ],
            "/name",
        ),
        (&rotation, vec![], vec![overlap(seconds_max + 1), overlap(-1)], "/overlap_seconds"),
        (&rotation, vec![overlap(seconds_max)], vec![], "/overlap_seconds"),
    ] {
        for body in bad {
            let refused = app.post(path, body).await;
            assert_refused(&refused, 400, "invalid_request", pointer, path);
        }
        for body in good {
            let made = app.post(path, body).await;
            assert_eq!(made.status, StatusCode::CREATED, "{path}: {:?}", made.body);
        }
    }
}

#[tokio::test]
async fn a_line_of_an_import() {
    let app = quick().await;
    let context = format!(r#"{{"user_id":"{USER}","context_type":"note","text":"","content":1"#);
    let line = |bytes: usize| format!("{context}{}}}", " ".repeat(bytes - context.len() - 1));
    for (bytes, created) in
        [(BODY_BYTES_MAX + 1, 1), (IMPORT_LINE_BYTES_MAX, 1), (IMPORT_LINE_BYTES_MAX + 1, 0)]
    {
        let request = app.request(Method::POST, "/v1/contexts/import").bearer_auth(&app.key);
        let request = request.header("content-type", "application/x-ndjson").body(line(bytes));
        let imported = answer(request).await.body;
        assert_eq!((&imported["created"], &imported["lines"]), (&json!(created), &json!(1)), "{imported}");
        assert!(created == 1 || imported["errors"][0]["error"]["code"] == "body_too_large", "{imported}");
    }
}

#[tokio::test]
async fn what_patches_add_up_to() {
    let app = quick().await;
    let body = json!({"user_id": USER, "context_type": "note", "text": "", "content": {"a": 1}});
    let path = format!("/v1/contexts/{}", app.post("/v1/contexts", body).await.id());
    let frame = r#"{"a":1,"b":"","c":""}"#.len();
    let patch = |key: &str, bytes: usize| json!({"content": {key: "x".repeat(bytes)}}).to_string();
    let half = CONTENT_BYTES_MAX / 2;
    let rest = CONTENT_BYTES_MAX - half - frame;
    assert_eq!(app.send(Method::PATCH, &path, patch("b", half)).await.status, StatusCode::OK);
    let beyond = app.send(Method::PATCH, &path, patch("c", rest + 1)).await;
    assert_refused(&beyond, 413, "body_too_large", "/content", "one byte beyond");
    assert_eq!(app.get(&path).await.body["version"], 2, "what is refused changes nothing");
    assert_eq!(app.send(Method::PATCH, &path, patch("c", rest)).await.status, StatusCode::OK);
}

#[tokio::test]
async fn headers() {
    let app = quick().await;
    for (length, kept) in [(1, true), (64, true), (65, false)] {
        let id = "x".repeat(length);
        let request =
            app.request(Method::GET, "/v1/contexts").bearer_auth(&app.key).header("x-request-id", &id);
        assert_eq!(answer(request).await.headers["x-request-id"] == id.as_str(), kept, "{length}");
    }
    for (length, says) in [(23, "24 to 200"), (24, "not known"), (200, "not known"), (201, "24 to 200")] {
        let key = format!("ctx_{}", "x".repeat(length - 4));
        let refused: Value = app.send_as(&key, Method::GET, "/v1/contexts", None).await.body;
        assert_eq!(refused["code"], "invalid_api_key", "{length}");
        assert!(refused["detail"].as_str().unwrap().contains(says), "{length}: {refused}");
    }
}
