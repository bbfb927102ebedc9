//! Who gets in, and how far. Every route, with every wrong key.

use context_api::{
    domain::{DEFAULT_TENANT, Scope, UserId},
    error::Code,
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Answer, App, USER, eventually};

/// Every route with a key: method, path, body, the scope that it needs. `{id}` stands for a context, `{key}` for an API key,
/// `{operation}` for an operation that has ended, `{space}` for the active embedding space.
fn routes() -> Vec<(Method, &'static str, Option<Value>, Scope)> {
    let context = || json!({"user_id": USER, "context_type": "note", "content": {"t": "x"}});
    let batch = json!({"operations": [{"op": "create", "context": context()}]});
    let pack = json!({"query": "x", "budget": {"max_tokens": 100}});
    let new_key = json!({"name": "new", "scopes": ["read"]});
    let name = uuid::Uuid::now_v7().to_string();
    vec![
        (Method::POST, "/v1/contexts", Some(context()), Scope::Write),
        (Method::GET, "/v1/contexts", None, Scope::Read),
        (Method::POST, "/v1/contexts/count", Some(json!({})), Scope::Read),
        (Method::POST, "/v1/contexts/batch", Some(batch), Scope::Write),
        (Method::POST, "/v1/contexts/retry-embeddings", None, Scope::Write),
        (Method::GET, "/v1/usage", None, Scope::Read),
        (Method::POST, "/v1/contexts/search", Some(json!({"query": "x"})), Scope::Read),
        (Method::POST, "/v1/contexts/pack", Some(pack), Scope::Read),
        (Method::POST, "/v1/contexts/import", Some(context()), Scope::Write),
        (Method::GET, "/v1/contexts/export", None, Scope::Read),
        (Method::GET, "/v1/operations", None, Scope::Read),
        (Method::GET, "/v1/operations/{operation}", None, Scope::Read),
        (Method::GET, "/v1/operations/{operation}/events", None, Scope::Read),
        (Method::POST, "/v1/operations/{operation}/cancel", None, Scope::Write),
        (Method::POST, "/v1/operations/{operation}/retry", None, Scope::Write),
        (Method::GET, "/v1/contexts/{id}", None, Scope::Read),
        (Method::PUT, "/v1/contexts/{id}", Some(context()), Scope::Write),
        (Method::PATCH, "/v1/contexts/{id}", Some(json!({"metadata": {"a": 1}})), Scope::Write),
        (Method::GET, "/v1/contexts/{id}/versions", None, Scope::Read),
        (Method::POST, "/v1/contexts/{id}/restore", Some(json!({})), Scope::Write),
        (Method::DELETE, "/v1/contexts/{id}", None, Scope::Write),
        (Method::POST, "/v1/api-keys", Some(new_key), Scope::Admin),
        (Method::GET, "/v1/api-keys", None, Scope::Admin),
        (Method::POST, "/v1/api-keys/{key}/rotate", Some(json!({"overlap_seconds": 60})), Scope::Admin),
        (Method::DELETE, "/v1/api-keys/{key}", None, Scope::Admin),
        (Method::POST, "/v1/tenants", Some(json!({"name": name})), Scope::Admin),
        (Method::GET, "/v1/tenants", None, Scope::Admin),
        (Method::POST, "/v1/embedding-spaces", None, Scope::Admin),
        (Method::GET, "/v1/embedding-spaces", None, Scope::Admin),
        (Method::GET, "/v1/embedding-spaces/{space}", None, Scope::Admin),
        (Method::PATCH, "/v1/embedding-spaces/{space}", Some(json!({"is_paused": false})), Scope::Admin),
        (Method::GET, "/v1/embedding-spaces/{space}/failures", None, Scope::Admin),
        (Method::POST, "/v1/embedding-spaces/{space}/retry", None, Scope::Admin),
        (Method::POST, "/v1/embedding-spaces/{space}/compare", None, Scope::Admin),
        (Method::POST, "/v1/embedding-spaces/{space}/activate", None, Scope::Admin),
        (Method::DELETE, "/v1/embedding-spaces/{space}", None, Scope::Admin),
        (Method::GET, "/v1/audit-log", None, Scope::Admin),
        (Method::DELETE, "/v1/users/{user_id}", None, Scope::Admin),
    ]
}

async fn send_as(app: &App, key: &str, method: &Method, path: &str, body: Option<&Value>) -> Answer {
    let content_type = if path.ends_with("/import") { "application/x-ndjson" } else { "application/json" };
    let mut request = app.request(method.clone(), path).bearer_auth(key);
    if let Some(body) = body {
        request = request.header("content-type", content_type).body(body.to_string());
    }
    crate::support::answer(request).await
}

/// An application, a context in it, and an API key that does nothing.
struct Scene {
    app: App,
    context: String,
    api_key: String,
    operation: String,
}

impl Scene {
    async fn set() -> Self {
        let app = App::start().await;
        let context = app.note("mine").await.id();
        let new = app.post("/v1/api-keys", json!({"name": "bystander", "scopes": ["read"]})).await;
        let line = json!({"user_id": USER, "context_type": "note", "content": "mine, too"});
        let imported = send_as(&app, &app.key, &Method::POST, "/v1/contexts/import", Some(&line)).await;
        let operation = imported.body["operation_id"].as_str().expect("an operation").to_owned();
        // The first embedding makes the space.
        app.embedded(&context).await;
        Self { context, api_key: new.id(), operation, app }
    }

    fn path(&self, path: &str) -> String {
        path.replace("{id}", &self.context)
            .replace("{key}", &self.api_key)
            .replace("{operation}", &self.operation)
            .replace("{space}", "1")
            .replace("{user_id}", USER)
    }

    async fn send(&self, key: &str, method: &Method, path: &str, body: Option<&Value>) -> Answer {
        send_as(&self.app, key, method, &self.path(path), body).await
    }

    /// All that a route could have changed.
    async fn state(&self) -> Value {
        let read = async |path: &str| self.app.get(path).await.body;
        let mut keys = read("/v1/api-keys?limit=200").await;
        // What the tests' own keys did is no side effect of a refused request.
        for key in keys["data"].as_array_mut().unwrap() {
            key["last_used_at"] = Value::Null;
        }
        keys["data"].as_array_mut().unwrap().retain(|key| key["name"] != "test");
        let audit = self.app.get("/v1/audit-log?limit=200").await.body;
        let done =
            audit["data"].as_array().unwrap().iter().filter(|entry| !entry["api_key_id"].is_null()).count();
        let mut contexts = read("/v1/contexts?limit=200").await;
        for context in contexts["data"].as_array_mut().unwrap() {
            context["embedding_status"] = Value::Null;
        }
        json!([contexts, keys, done, read("/v1/tenants?limit=200").await["data"].as_array().unwrap().len()])
    }
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
    let mut tested: Vec<String> = routes()
        .into_iter()
        .map(|(method, path, ..)| {
            format!(
                "{method} {}",
                path.replace("{key}", "{id}").replace("{operation}", "{id}").replace("{space}", "{id}")
            )
        })
        .collect();
    documented.sort();
    tested.sort();
    assert_eq!(tested, documented);
}

#[tokio::test]
async fn every_route_refuses_who_has_no_key_or_a_wrong_one() {
    let scene = Scene::set().await;
    let before = scene.state().await;
    for (method, path, body, _) in routes() {
        let bare = scene
            .app
            .request(method.clone(), &scene.path(path))
            .header(
                "content-type",
                if path.ends_with("import") { "application/x-ndjson" } else { "application/json" },
            )
            .body(body.clone().unwrap_or_default().to_string());
        let answer = crate::support::answer(bare).await;
        assert_eq!(
            (answer.status, answer.code()),
            (StatusCode::UNAUTHORIZED, "missing_api_key"),
            "{method} {path}"
        );
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
        for key in ["ctx_unknownunknownunknownunknown", "nonsense", "ctx_", "' or 1=1 --"] {
            let answer = scene.send(key, &method, path, body.as_ref()).await;
            assert_eq!(
                (answer.status, answer.code()),
                (StatusCode::UNAUTHORIZED, "invalid_api_key"),
                "{method} {path}"
            );
        }
    }
    assert_eq!(scene.state().await, before, "nothing happened");
}

#[tokio::test]
async fn the_key_comes_before_the_body() {
    let app = App::start().await;
    let reader = app.new_key(DEFAULT_TENANT, vec![Scope::Read]).await;
    let stranger = "ctx_unknownunknownunknownunknown";
    for (key, code) in [(stranger, "invalid_api_key"), (&reader, "missing_scope")] {
        for body in ["{", "[]", "{}"] {
            let answer = app.send_as(key, Method::POST, "/v1/contexts", Some(body.into())).await;
            assert_eq!(answer.code(), code, "{body}");
        }
    }
}

#[tokio::test]
async fn a_path_that_is_written_in_another_way_is_the_same_route() {
    let app = App::start().await;
    let id = app.note("a heron").await.id();
    for path in ["/%761/contexts", "/v%31/contexts", "/%76%31/contexts?limit=1"] {
        let answer = app.get(path).await;
        assert_eq!(
            (answer.status, answer.body["data"][0]["id"].as_str()),
            (StatusCode::OK, Some(&id[..])),
            "{path}"
        );
        let stranger = crate::support::answer(app.request(Method::GET, path)).await;
        assert_eq!(
            (stranger.status, stranger.code()),
            (StatusCode::UNAUTHORIZED, "missing_api_key"),
            "{path}"
        );
        let wrong = app.send(Method::OPTIONS, path, "").await;
        assert_eq!(
            (wrong.status, wrong.code()),
            (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
            "{path}"
        );
    }
}

#[tokio::test]
async fn every_route_refuses_a_key_without_its_scope() {
    let scene = Scene::set().await;
    let before = scene.state().await;
    for (method, path, body, needed) in routes() {
        let others = Scope::all().into_iter().filter(|scope| *scope != needed).collect();
        let key = scene.app.new_key(DEFAULT_TENANT, others).await;
        let answer = scene.send(&key, &method, path, body.as_ref()).await;
        assert_eq!(
            (answer.status, answer.code()),
            (StatusCode::FORBIDDEN, "missing_scope"),
            "{method} {path}"
        );
    }
    assert_eq!(scene.state().await, before, "nothing happened");
    for (method, path, body, needed) in routes() {
        let key = scene.app.new_key(DEFAULT_TENANT, vec![needed]).await;
        let answer = scene.send(&key, &method, path, body.as_ref()).await;
        let gone = path.ends_with("{key}") && answer.status == StatusCode::NOT_FOUND;
        // It has ended: nothing to cancel or to retry. It is active, and the only one.
        let ended = ["operation_conflict", "embedding_space_conflict"].contains(&answer.code());
        assert!(answer.status.is_success() || gone || ended, "{method} {path}: {:?}", answer.body);
    }
}

/// What a stranger is answered: nothing is there, or it may not be done. Lists are empty, and what is made is the stranger's.
fn assert_beyond_reach(name: &str, answer: &Answer, own_rows: &[&str]) {
    let refused = [StatusCode::NOT_FOUND, StatusCode::FORBIDDEN].contains(&answer.status);
    if own_rows.contains(&name) || refused {
        return;
    }
    let numbers = ["/count", "/retried", "/stored/contexts"].map(|place| answer.body.pointer(place));
    let lists = ["data", "citations"].map(|list| &answer.body[list]);
    let shows_nothing =
        lists.contains(&&json!([])) || numbers.contains(&Some(&json!(0))) || answer.body.is_null();
    assert!(answer.status == StatusCode::OK && shows_nothing, "{name}: {} {:?}", answer.status, answer.body);
}

#[tokio::test]
async fn nothing_of_a_tenant_can_be_reached_by_another_ones_key() {
    let scene = Scene::set().await;
    let before = scene.state().await;
    let stranger = scene.app.new_tenant().await;
    let key = scene.app.new_key(stranger, Scope::all()).await;
    // What a stranger makes and sees of itself.
    let own = [
        "POST /v1/contexts",
        "POST /v1/contexts/batch",
        "POST /v1/api-keys",
        "GET /v1/api-keys",
        "GET /v1/tenants",
        "GET /v1/audit-log",
        "POST /v1/contexts/import",
        "DELETE /v1/users/{user_id}",
    ];
    // Reads first: afterwards there is something of the stranger's own to see.
    let mut routes = routes();
    routes.sort_by_key(|(method, ..)| *method != Method::GET);
    for (method, path, body, _) in routes {
        let name = format!("{method} {path}");
        let answer = scene.send(&key, &method, path, body.as_ref()).await;
        if !["count", "search", "pack"].contains(&name.trim_start_matches("POST /v1/contexts/")) {
            assert_beyond_reach(&name, &answer, &own);
        }
        let text = answer.body.to_string();
        assert!(!text.contains(&scene.context) && !text.contains(&scene.api_key), "{name}: {text}");
        assert!(!text.contains("mine"), "{name}: {text}");
    }
    let mut after = scene.state().await;
    // The stranger's tenant is one more for the operator to see.
    after[3] = json!(after[3].as_u64().unwrap() - 1);
    assert_eq!(after, before, "nothing happened");
}

#[tokio::test]
async fn nothing_of_a_user_can_be_reached_by_a_key_that_is_bound_to_another() {
    let scene = Scene::set().await;
    let before = scene.state().await;
    let other = UserId("0190d5a0-0000-7000-8000-0000000000bb".parse().unwrap());
    let key = scene.app.new_key_for(DEFAULT_TENANT, vec![Scope::Read, Scope::Write], Some(other)).await;
    let mut routes = routes();
    routes.sort_by_key(|(method, ..)| *method != Method::GET);
    for (method, path, body, scope) in routes {
        let name = format!("{method} {path}");
        let answer = scene.send(&key, &method, path, body.as_ref()).await;
        // A batch answers for each of its operations.
        let own = ["POST /v1/contexts/batch", "POST /v1/contexts/import"];
        assert_beyond_reach(&name, &answer, &own);
        let place = match name.as_str() {
            "POST /v1/contexts/batch" => "/results/0/error/code",
            "POST /v1/contexts/import" => "/errors/0/error/code",
            _ => "",
        };
        if !place.is_empty() {
            assert_eq!(answer.body.pointer(place), Some(&json!("user_not_allowed")), "{:?}", answer.body);
        }
        if scope == Scope::Admin {
            assert_eq!(answer.code(), "missing_scope", "{name}");
        }
        assert!(!answer.body.to_string().contains("mine"), "{name}: {:?}", answer.body);
    }
    let named = scene.app.send_as(&key, Method::GET, &format!("/v1/contexts?user_id={USER}"), None).await;
    assert_eq!((named.status, named.code()), (StatusCode::FORBIDDEN, "user_not_allowed"));
    for (path, body) in [
        ("/v1/contexts/search", json!({"query": "mine", "user_id": USER})),
        ("/v1/contexts/pack", json!({"query": "mine", "user_id": USER, "budget": {"max_tokens": 9}})),
        ("/v1/contexts/count", json!({"user_id": USER})),
    ] {
        let answer = scene.send(&key, &Method::POST, path, Some(&body)).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::FORBIDDEN, "user_not_allowed"), "{path}");
    }
    assert_eq!(scene.state().await, before, "nothing happened");
    let own = json!({"user_id": other, "context_type": "note", "content": "theirs"});
    let made = scene.send(&key, &Method::POST, "/v1/contexts", Some(&own)).await;
    assert_eq!(made.status, StatusCode::CREATED, "its own user's it reaches: {:?}", made.body);
    let listed = scene.send(&key, &Method::GET, "/v1/contexts", None).await;
    assert_eq!(listed.body["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_revoked_key_stops_working() {
    let app = App::start().await;
    let key = app.new_key(DEFAULT_TENANT, vec![Scope::Read]).await;
    let list = async || app.send_as(&key, Method::GET, "/v1/contexts", None).await;
    assert_eq!(list().await.status, StatusCode::OK);
    app.service.keys().revoke_for_operator(DEFAULT_TENANT, &key[..12]).await.unwrap();
    eventually("the revocation", std::time::Duration::from_secs(3), async || {
        (list().await.code() == "invalid_api_key").then_some(())
    })
    .await;
    let again = app.service.keys().revoke_for_operator(DEFAULT_TENANT, &key[..12]).await;
    assert_eq!(again.unwrap_err().code, Code::ApiKeyNotFound, "once is enough");
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
