//! Writes on condition, reads of what one has already, and many clients who change one context at once.

use futures_util::{StreamExt, stream};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Answer, App, Behaviour, StubProvider, USER, answer};

const CLIENTS: i64 = 8;
const INCREMENTS: i64 = 100;

async fn quick() -> App {
    App::start_with(StubProvider::start(Behaviour::Work).provider()).await
}

/// A write with one more header.
async fn write_if(
    app: &App,
    method: Method,
    path: &str,
    (name, value): (&str, &str),
    body: &Value,
) -> Answer {
    answer(app.request(method, path).bearer_auth(&app.key).header(name, value).json(body)).await
}

#[tokio::test]
async fn a_write_on_condition_happens_in_that_version_only() {
    let app = quick().await;
    let path = app.created(json!({"key": "k"})).await;
    let changed = app.send(Method::PATCH, &path, r#"{"metadata":{"a":1}}"#).await;
    assert_eq!(changed.body["version"], 2);
    let whole = |n: i32| json!({"user_id": USER, "context_type": "note", "key": "k", "content": n});
    for (tags, status) in [
        ("\"1\"", 412),
        ("W/\"2\"", 412),
        ("\"x\"", 412),
        ("\"99999999999999999999\"", 412),
        ("\"1\", W/\"2\", \"3\"", 412),
        ("2", 400),
        ("", 400),
        ("\"2", 400),
    ] {
        let condition = ("if-match", tags);
        for (method, path) in [
            (Method::PUT, path.as_str()),
            (Method::PATCH, &path),
            (Method::DELETE, &path),
            (Method::POST, "/v1/contexts"),
        ] {
            let refused = write_if(&app, method.clone(), path, condition, &whole(0)).await;
            let code = if status == 412 { "precondition_failed" } else { "invalid_parameter" };
            assert_eq!((refused.status.as_u16(), refused.code()), (status, code), "{method} if {tags}");
        }
    }
    for (number, tags) in ["\"2\"", "\"1\", \"3\"", "*"].into_iter().enumerate() {
        let written = write_if(&app, Method::PUT, &path, ("if-match", tags), &whole(number as i32)).await;
        assert_eq!(
            (written.status, &written.body["version"]),
            (StatusCode::OK, &json!(number + 3)),
            "{tags}"
        );
    }
    let by_key = write_if(&app, Method::POST, "/v1/contexts", ("if-match", "\"5\""), &whole(9)).await;
    assert_eq!(by_key.status, StatusCode::OK, "{:?}", by_key.body);
    assert_eq!(by_key.headers["etag"], "\"6\"");
    let absent = json!({"user_id": USER, "context_type": "note", "key": "absent", "content": 1});
    for tags in ["*", "\"1\""] {
        let refused = write_if(&app, Method::POST, "/v1/contexts", ("if-match", tags), &absent).await;
        assert_eq!(refused.code(), "precondition_failed", "there is none of this key");
    }
    let both = app.request(Method::PUT, &path).bearer_auth(&app.key).json(&whole(0));
    let both = answer(both.header("if-match", "*").header("if-none-match", "*")).await;
    assert_eq!(both.code(), "precondition_failed", "it cannot be there and not be there");
    let deleted = write_if(&app, Method::DELETE, &path, ("if-match", "\"6\""), &Value::Null).await;
    assert_eq!(deleted.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn what_must_not_exist_is_made_once_and_what_a_reader_has_is_not_sent_again() {
    let app = quick().await;
    let body = json!({"user_id": USER, "context_type": "note", "key": "k", "content": 1});
    let new = ("if-none-match", "*");
    let (first, second) = (
        write_if(&app, Method::POST, "/v1/contexts", new, &body).await,
        write_if(&app, Method::POST, "/v1/contexts", new, &body).await,
    );
    assert_eq!((first.status, second.code()), (StatusCode::CREATED, "precondition_failed"));
    let path = format!("/v1/contexts/{}", first.id());
    for (tags, status) in
        [("\"1\"", 304), ("W/\"1\"", 304), ("\"7\", \"1\"", 304), ("*", 304), ("\"2\"", 200), ("\"x\"", 200)]
    {
        let read = app.request(Method::GET, &path).bearer_auth(&app.key).header("if-none-match", tags);
        let read = answer(read).await;
        assert_eq!(read.status.as_u16(), status, "{tags}");
        assert_eq!(read.headers["etag"], "\"1\"");
        assert_eq!(read.body.is_null(), status == 304, "{tags}: {:?}", read.body);
    }
    app.delete(&path).await;
    let revived = write_if(&app, Method::POST, "/v1/contexts", new, &body).await;
    assert_eq!((revived.status, revived.id()), (StatusCode::OK, first.id()), "a deleted one is none");
    let racing = (0..8).map(|n| {
        let body = json!({"user_id": USER, "context_type": "note", "key": "raced", "content": n});
        let app = &app;
        async move { write_if(app, Method::POST, "/v1/contexts", new, &body).await }
    });
    let answers: Vec<Answer> = stream::iter(racing).buffer_unordered(8).collect().await;
    let made = answers.iter().filter(|answer| answer.status == StatusCode::CREATED).count();
    let refused = answers.iter().filter(|answer| answer.code() == "precondition_failed").count();
    assert_eq!((made, refused), (1, 7), "{answers:?}");
}

async fn increment(app: &App, path: &str, increments: i64) {
    let mut done = 0;
    while done < increments {
        let read = app.get(path).await;
        let tag = read.headers["etag"].to_str().unwrap().to_owned();
        let next = json!({"content": {"n": read.body["content"]["n"].as_i64().unwrap() + 1}});
        let written = write_if(app, Method::PATCH, path, ("if-match", &tag), &next).await;
        match written.status {
            StatusCode::OK => done += 1,
            StatusCode::PRECONDITION_FAILED => {}
            status => panic!("{status}: {:?}", written.body),
        }
    }
}

/// So many clients read a number and write the next one on condition, each so often: no increment is lost, and each has a
/// version of its own.
pub(super) async fn count_up(app: &App, clients: i64, increments: i64) {
    let path = app.created(json!({"content": {"n": 0}})).await;
    let work = (0..clients).map(|_| increment(app, &path, increments));
    stream::iter(work).buffer_unordered(clients as usize).collect::<Vec<()>>().await;
    let (last, total) = (app.get(&path).await.body, clients * increments);
    assert_eq!((&last["content"]["n"], &last["version"]), (&json!(total), &json!(total + 1)));
    let (mut seen, mut page) = (Vec::new(), format!("{path}/versions?limit=200"));
    loop {
        let versions = app.get(&page).await.body;
        let data = versions["data"].as_array().unwrap();
        seen.extend(data.iter().map(|version| version["context"]["content"]["n"].as_i64().unwrap()));
        let Some(cursor) = versions["next_cursor"].as_str() else { break };
        page = format!("{path}/versions?limit=200&cursor={cursor}");
    }
    assert!(seen.into_iter().eq((0..total).rev()), "each number was there once");
}

#[tokio::test]
async fn no_increment_is_lost() {
    count_up(&quick().await, CLIENTS, INCREMENTS).await;
}
