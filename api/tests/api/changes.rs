//! Changing a context, whole or in part: what comes of it, and what is refused.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Answer, App, Behaviour, StubProvider, USER, answer};

async fn quick() -> App {
    App::start_with(StubProvider::start(Behaviour::Work).provider()).await
}

async fn put(app: &App, path: &str, body: &Value) -> Answer {
    app.send(Method::PUT, path, body.to_string()).await
}

async fn patch(app: &App, path: &str, body: &Value) -> Answer {
    app.send(Method::PATCH, path, body.to_string()).await
}

#[tokio::test]
async fn a_put_leaves_nothing_of_what_it_does_not_say() {
    let app = quick().await;
    let path = app
        .created(json!({"key": "k", "metadata": {"a": 1}, "text": "given", "ttl_seconds": 1000,
               "valid_from": "2020-01-01T00:00:00Z", "valid_to": "2999-01-01T00:00:00Z"}))
        .await;
    let before = app.get(&path).await.body;
    let body = json!({"user_id": USER, "context_type": "memo", "content": {"t": "another text"}});
    let replaced = put(&app, &path, &body).await;
    assert_eq!(replaced.status, StatusCode::OK, "{:?}", replaced.body);
    assert_eq!(replaced.headers["etag"], "\"2\"");
    for (field, value) in [
        ("id", &before["id"]),
        ("created_at", &before["created_at"]),
        ("context_type", &json!("memo")),
        ("key", &Value::Null),
        ("metadata", &json!({})),
        ("text", &json!("another text")),
        ("expires_at", &Value::Null),
        ("valid_from", &Value::Null),
        ("valid_to", &Value::Null),
        ("version", &json!(2)),
    ] {
        assert_eq!(&replaced.body[field], value, "{field}");
    }
    let again = put(&app, &path, &body).await;
    assert_eq!(again.body["version"], 2, "nothing differed");
    assert_eq!(again.body["updated_at"], replaced.body["updated_at"]);
}

#[tokio::test]
async fn a_patch_merges_and_leaves_alone_what_it_does_not_name() {
    let app = quick().await;
    let number = "123456789012345678901234567890.123456789012345678901234567890";
    let body = format!(
        r#"{{"user_id":"{USER}","context_type":"note","content":{{"n":{number},"o":{{"x":1,"y":null}},"l":[1,2]}},
            "metadata":{{"a":1,"b":{{"c":1,"d":2}},"n":null}}}}"#
    );
    let id = app.send(Method::POST, "/v1/contexts", body).await.id();
    let path = format!("/v1/contexts/{id}");
    let change = json!({"content": {"o": {"x": null, "z": [{"q": null}]}, "l": [3], "new": {"in": {"deep": null}}},
                        "metadata": {"a": null, "b": {"c": null, "e": {}}, "f": [null]}});
    let request = app.request(Method::PATCH, &path).bearer_auth(&app.key);
    let request = request.header("content-type", "application/merge-patch+json").body(change.to_string());
    let text = request.send().await.unwrap().text().await.unwrap();
    assert!(text.contains(number), "{text}");
    let patched: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(patched["content"]["o"], json!({"y": null, "z": [{"q": null}]}));
    assert_eq!((&patched["content"]["l"], &patched["content"]["new"]), (&json!([3]), &json!({"in": {}})));
    assert_eq!(patched["metadata"], json!({"b": {"d": 2, "e": {}}, "n": null, "f": [null]}));
    assert_eq!(patched["version"], 2);
    let stays = patch(&app, &path, &json!({})).await;
    assert_eq!((stays.status, &stays.body["version"]), (StatusCode::OK, &json!(2)));
    let replaced = patch(&app, &path, &json!({"content": "no object any more"})).await;
    assert_eq!(replaced.body["content"], "no object any more");
}

#[tokio::test]
async fn the_text_follows_the_content_only_while_nobody_gave_one() {
    let app = quick().await;
    // Their names in an order that is not the database's.
    let path = app.created(json!({"content": {"title": "zebra", "body": "apple", "a": 1}})).await;
    let text = app.get(&path).await.body["text"].clone();
    assert_eq!(text, "zebra\napple");
    let patched = patch(&app, &path, &json!({"metadata": {"a": 1}})).await;
    assert_eq!(patched.body["text"], text, "the content did not change, so its text did not either");
    let patched = patch(&app, &path, &json!({"content": {"body": null, "title": "horse"}})).await;
    assert_eq!(patched.body["text"], "horse");
    let patched = patch(&app, &path, &json!({"text": "given"})).await;
    assert_eq!(patched.body["text"], "given");
    let patched = patch(&app, &path, &json!({"content": {"title": "donkey"}})).await;
    assert_eq!(patched.body["text"], "given");
    let patched = patch(&app, &path, &json!({"text": null})).await;
    assert_eq!(patched.body["text"], "donkey");
}

#[tokio::test]
async fn one_way_of_ending_takes_the_place_of_another() {
    let app = quick().await;
    let path = app.created(json!({"sliding_ttl_seconds": 100})).await;
    let first = app.get(&path).await.body["expires_at"].clone();
    let end = "2999-01-01T00:00:00Z";
    for (change, sliding, ends) in [
        (json!({"metadata": {"a": 1}}), json!(100), Some(&first)),
        (json!({"expires_at": end}), json!(100), Some(&json!(end))),
        (json!({"sliding_ttl_seconds": null}), Value::Null, Some(&json!(end))),
        (json!({"sliding_ttl_seconds": 50}), json!(50), None),
        (json!({"ttl_seconds": 5000}), Value::Null, None),
        (json!({"sliding_ttl_seconds": 50, "expires_at": end}), json!(50), Some(&json!(end))),
        (json!({"ttl_seconds": 5000, "sliding_ttl_seconds": null}), Value::Null, None),
        (json!({"expires_at": null}), Value::Null, Some(&Value::Null)),
    ] {
        let patched = patch(&app, &path, &change).await;
        assert_eq!(patched.status, StatusCode::OK, "{change}: {:?}", patched.body);
        assert_eq!(patched.body["sliding_ttl_seconds"], sliding, "{change}");
        match ends {
            Some(ends) => assert_eq!(&patched.body["expires_at"], ends, "{change}"),
            None => assert!(
                patched.body["expires_at"].as_str().is_some_and(|at| at < "2900"),
                "{change}: {:?}",
                patched.body
            ),
        }
    }
    let both = patch(&app, &path, &json!({"ttl_seconds": 1, "expires_at": end})).await;
    assert_eq!((both.status.as_u16(), &both.body["errors"][0]["pointer"]), (400, &json!("/ttl_seconds")));
}

#[tokio::test]
async fn a_change_that_makes_no_sense_is_refused_with_the_place() {
    let app = quick().await;
    app.created(json!({"key": "taken"})).await;
    let path = app.created(json!({"key": "k"})).await;
    let stranger = Uuid::new_v4();
    for (change, status, code, pointer) in [
        (json!({"user_id": stranger}), 400, "invalid_request", "/user_id"),
        (json!({"user_id": null}), 400, "invalid_request", ""),
        (json!({"content": null}), 400, "invalid_request", ""),
        (json!({"metadata": []}), 400, "invalid_request", "/metadata"),
        (json!({"id": stranger}), 400, "invalid_request", "/id"),
        (json!({"version": 7}), 400, "invalid_request", "/version"),
        (json!({"content": {"a": "\u{0}"}}), 400, "invalid_json", "/content/a"),
        (json!({"text": "x".repeat(256 * 1024 + 1)}), 413, "text_too_long", "/text"),
        (json!({"key": "taken"}), 409, "key_conflict", "/key"),
        (json!([]), 400, "invalid_request", ""),
    ] {
        let answer = patch(&app, &path, &change).await;
        let shown: String = change.to_string().chars().take(80).collect();
        assert_eq!((answer.status.as_u16(), answer.code()), (status, code), "{shown}: {:?}", answer.body);
        assert_eq!(answer.body["errors"][0]["pointer"], json!(pointer), "{shown}");
    }
    for (user, key, code) in
        [(stranger.to_string(), "k", "invalid_request"), (USER.into(), "taken", "key_conflict")]
    {
        let body = json!({"user_id": user, "context_type": "note", "key": key, "content": 1});
        assert_eq!(put(&app, &path, &body).await.code(), code);
    }
    let text = app.request(Method::PATCH, &path).bearer_auth(&app.key).header("content-type", "text/plain");
    assert_eq!(answer(text.body("{}")).await.code(), "unsupported_media_type");
    let unknown = patch(&app, &format!("/v1/contexts/{stranger}"), &json!({"metadata": {}})).await;
    assert_eq!((unknown.status, unknown.code()), (StatusCode::NOT_FOUND, "context_not_found"));
    assert_eq!(app.get(&path).await.body["version"], 1, "nothing happened");
}

/// Stored, metadata takes more bytes than it was sent with: blanks come in, and exponents are written out.
#[tokio::test]
async fn what_was_accepted_can_be_changed_in_part() {
    let app = quick().await;
    let full = format!(r#"{{"a":"{}"}}"#, "b".repeat(16 * 1024 - 8));
    let numbers: Vec<String> = (0..40).map(|n| format!(r#""k{n}":1e308"#)).collect();
    for metadata in [full, format!("{{{}}}", numbers.join(","))] {
        let body =
            format!(r#"{{"user_id":"{USER}","context_type":"note","content":1,"metadata":{metadata}}}"#);
        let created = app.send(Method::POST, "/v1/contexts", body).await;
        assert_eq!(created.status, StatusCode::CREATED, "{:?}", created.body["errors"]);
        let path = format!("/v1/contexts/{}", created.id());
        let patched = patch(&app, &path, &json!({"context_type": "memo"})).await;
        assert_eq!(patched.status, StatusCode::OK, "{:?}", patched.body["errors"]);
    }
}
