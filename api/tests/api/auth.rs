//! Who gets in, and how far. Every route, with every wrong key.

use context_api::domain::{DEFAULT_TENANT, Scope};
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::support::{App, USER, eventually};

/// Every route with a key: method, path, body, the scope that it needs.
fn routes(id: &str) -> Vec<(Method, String, Option<String>, Scope)> {
    let create = json!({"user_id": USER, "context_type": "note", "content": {"t": "x"}}).to_string();
    vec![
        (Method::POST, "/v1/contexts".into(), Some(create), Scope::Write),
        (Method::GET, "/v1/contexts".into(), None, Scope::Read),
        (Method::GET, format!("/v1/contexts/{id}"), None, Scope::Read),
        (Method::POST, "/v1/contexts/search".into(), Some(json!({"query": "x"}).to_string()), Scope::Read),
        (Method::DELETE, format!("/v1/contexts/{id}"), None, Scope::Write),
    ]
}

#[tokio::test]
async fn the_table_of_routes_is_that_of_the_document() {
    let document = serde_json::to_value(context_api::http::document()).unwrap();
    let mut documented = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            // An empty requirement means that no key is needed.
            if operation["security"].as_array().is_some_and(|s| s.iter().any(|r| r.get("api_key").is_some()))
            {
                documented.push(format!("{} {path}", method.to_uppercase()));
            }
        }
    }
    let mut tested: Vec<String> =
        routes("{id}").into_iter().map(|(m, path, ..)| format!("{m} {path}")).collect();
    documented.sort();
    tested.sort();
    assert_eq!(tested, documented);
}

#[tokio::test]
async fn every_route_refuses_who_has_no_key_or_a_wrong_one() {
    let app = App::start().await;
    let id = app.note("mine").await.id();
    for (method, path, body, _) in routes(&id) {
        let bare = app
            .request(method.clone(), &path)
            .header("content-type", "application/json")
            .body(body.clone().unwrap_or_default());
        let answer = crate::support::answer(bare).await;
        assert_eq!(
            (answer.status, answer.code()),
            (StatusCode::UNAUTHORIZED, "missing_api_key"),
            "{method} {path}"
        );
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
        for key in ["ctx_unknownunknownunknownunknown", "nonsense", "ctx_", "' or 1=1 --"] {
            let answer = app.send_as(key, method.clone(), &path, body.clone().map(Into::into)).await;
            assert_eq!(
                (answer.status, answer.code()),
                (StatusCode::UNAUTHORIZED, "invalid_api_key"),
                "{method} {path}"
            );
        }
    }
    assert_eq!(app.get(&format!("/v1/contexts/{id}")).await.status, StatusCode::OK, "nothing happened to it");
}

#[tokio::test]
async fn every_route_refuses_a_key_without_its_scope() {
    let app = App::start().await;
    let id = app.note("mine").await.id();
    for (method, path, body, needed) in routes(&id) {
        let others = Scope::all().into_iter().filter(|scope| *scope != needed).collect();
        let key = app.new_key(DEFAULT_TENANT, others).await;
        let answer = app.send_as(&key, method.clone(), &path, body.clone().map(Into::into)).await;
        assert_eq!(
            (answer.status, answer.code()),
            (StatusCode::FORBIDDEN, "missing_scope"),
            "{method} {path}"
        );
        assert_eq!(app.get(&format!("/v1/contexts/{id}")).await.status, StatusCode::OK);
    }
    for (method, path, body, needed) in routes(&id) {
        let key = app.new_key(DEFAULT_TENANT, vec![needed]).await;
        let answer = app.send_as(&key, method.clone(), &path, body.map(Into::into)).await;
        assert!(answer.status.is_success(), "{method} {path}: {:?}", answer.body);
    }
}

#[tokio::test]
async fn a_revoked_key_stops_working() {
    let app = App::start().await;
    let key = app.new_key(DEFAULT_TENANT, vec![Scope::Read]).await;
    let list = async || app.send_as(&key, Method::GET, "/v1/contexts", None).await;
    assert_eq!(list().await.status, StatusCode::OK);
    assert_eq!(app.service.keys().revoke(DEFAULT_TENANT, &key[..12]).await.unwrap(), 1);
    eventually("the revocation", std::time::Duration::from_secs(3), async || {
        (list().await.code() == "invalid_api_key").then_some(())
    })
    .await;
    assert_eq!(app.service.keys().revoke(DEFAULT_TENANT, &key[..12]).await.unwrap(), 0, "once is enough");
}

#[tokio::test]
async fn the_scheme_is_read_as_the_standard_says() {
    let app = App::start().await;
    for (value, status) in [
        (format!("bearer {}", app.key), StatusCode::OK),
        (format!("BEARER {}", app.key), StatusCode::OK),
        (format!("Basic {}", app.key), StatusCode::UNAUTHORIZED),
        (app.key.clone(), StatusCode::UNAUTHORIZED),
    ] {
        let request = app.request(Method::GET, "/v1/contexts").header("authorization", value);
        assert_eq!(crate::support::answer(request).await.status, status);
    }
}
