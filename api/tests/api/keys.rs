//! API keys, tenants and the audit log, over HTTP.

use std::time::Duration;

use context_api::domain::{DEFAULT_TENANT, Scope};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Answer, App, Behaviour, StubProvider, USER, answer, eventually};

/// A second is promised; the rest is for the test.
const REVOCATION: Duration = Duration::from_millis(1_500);

async fn quick() -> App {
    App::start_with(StubProvider::start(Behaviour::Work).provider()).await
}

async fn new_key(app: &App, fields: Value) -> Value {
    let mut body = json!({"name": "the website", "scopes": ["read", "write"]});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let answer = app.post("/v1/api-keys", body).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{:?}", answer.body);
    answer.body
}

async fn rotate(app: &App, key: &Value, body: Value) -> Answer {
    app.post(&format!("/v1/api-keys/{}/rotate", key["id"].as_str().unwrap()), body).await
}

async fn revoke(app: &App, key: &Value) -> Answer {
    app.delete(&format!("/v1/api-keys/{}", key["id"].as_str().unwrap())).await
}

/// A read, a write and a look at the keys with this key's secret.
async fn tries(app: &App, key: &Value) -> [u16; 3] {
    let secret = key["key"].as_str().unwrap();
    let context = json!({"user_id": USER, "context_type": "note", "content": 1}).to_string();
    let send = async |method: Method, path: &str, body: Option<String>| {
        app.send_as(secret, method, path, body.map(Into::into)).await.status.as_u16()
    };
    [
        send(Method::GET, "/v1/contexts", None).await,
        send(Method::POST, "/v1/contexts", Some(context)).await,
        send(Method::GET, "/v1/api-keys", None).await,
    ]
}

async fn until_refused(app: &App, key: &Value) {
    eventually("the end of the key", REVOCATION, async || (tries(app, key).await == [401; 3]).then_some(()))
        .await;
}

/// The key as the list shows it.
async fn listed(app: &App, key: &Value) -> Value {
    let list = app.get("/v1/api-keys?limit=200").await.body;
    list["data"]
        .as_array()
        .unwrap()
        .iter()
        .find(|listed| listed["id"] == key["id"])
        .cloned()
        .unwrap_or_default()
}

async fn log(app: &App, secret: &str, query: &str) -> Vec<Value> {
    let answer = app.send_as(secret, Method::GET, &format!("/v1/audit-log{query}"), None).await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    answer.body["data"].as_array().unwrap().clone()
}

fn actions(log: &[Value]) -> Vec<&str> {
    log.iter().map(|entry| entry["action"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_new_key_works_within_its_scopes_and_its_secret_is_shown_once() {
    let app = quick().await;
    for (scopes, expected) in [
        (json!(["read"]), [200, 403, 403]),
        (json!(["write"]), [403, 201, 403]),
        (json!(["admin"]), [403, 403, 200]),
        (json!(["write", "read", "read"]), [200, 201, 403]),
    ] {
        let key = new_key(&app, json!({"scopes": scopes})).await;
        assert_eq!(tries(&app, &key).await, expected, "{scopes}");
        let secret = key["key"].as_str().unwrap();
        assert!(secret.starts_with(key["prefix"].as_str().unwrap()), "{key}");
        let listed = listed(&app, &key).await;
        assert!(listed.get("key").is_none() && !listed.to_string().contains(secret), "{listed}");
        for field in ["name", "prefix", "scopes", "user_id", "created_at", "expires_at", "revoked_at"] {
            assert_eq!(listed[field], key[field], "{field}");
        }
    }
    let mut keys = Vec::new();
    let mut path = "/v1/api-keys?limit=2".to_owned();
    loop {
        let page = app.get(&path).await.body;
        keys.extend(
            page["data"].as_array().unwrap().iter().map(|key| key["id"].as_str().unwrap().to_owned()),
        );
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/v1/api-keys?limit=2&cursor={cursor}");
    }
    // The application's own, too.
    assert!(keys.len() == 5 && keys.is_sorted_by(|newer, older| newer > older), "{keys:?}");
}

#[tokio::test]
async fn a_key_that_makes_no_sense_is_refused() {
    let app = quick().await;
    for (fields, pointer) in [
        (json!({"name": "x", "scopes": []}), "/scopes"),
        (json!({"name": "x", "scopes": ["fly"]}), "/scopes/0"),
        (json!({"name": "x", "scopes": ["read", "admin"], "user_id": USER}), "/scopes"),
        (json!({"name": "x", "scopes": ["read"], "user_id": "me"}), "/user_id"),
        (json!({"name": "x", "scopes": ["read"], "expires_at": "tomorrow"}), "/expires_at"),
        (json!({"name": "x", "scopes": ["read"], "tenant_id": Uuid::new_v4()}), "/tenant_id"),
        (json!({"name": "x", "scopes": ["read"], "key": "ctx_of_my_own_choice_0123456789"}), "/key"),
        (json!({"scopes": ["read"]}), ""),
    ] {
        let refused = app.post("/v1/api-keys", fields.clone()).await;
        assert_eq!((refused.status.as_u16(), refused.code()), (400, "invalid_request"), "{fields}");
        assert_eq!(refused.body["errors"][0]["pointer"], json!(pointer), "{fields}");
    }
}

#[tokio::test]
async fn a_key_is_bound_to_its_user_and_ends_when_it_should() {
    let app = quick().await;
    let mine = app.note("mine").await.id();
    let user = "0190d5a0-0000-7000-8000-0000000000bb";
    let bound = new_key(&app, json!({"user_id": user})).await;
    assert_eq!(tries(&app, &bound).await, [200, 403, 403], "it may not write for another");
    let secret = bound["key"].as_str().unwrap();
    let other = app.send_as(secret, Method::GET, &format!("/v1/contexts/{mine}"), None).await;
    assert_eq!(other.code(), "context_not_found");
    let over = new_key(&app, json!({"expires_at": "2020-01-01T00:00:00Z"})).await;
    assert_eq!(tries(&app, &over).await, [401; 3], "a key that has expired");
    let ahead = new_key(&app, json!({"expires_at": "2999-01-01T00:00:00Z"})).await;
    assert_eq!(tries(&app, &ahead).await, [200, 201, 403]);
    let bound_again = rotate(&app, &bound, json!({})).await.body;
    assert_eq!(bound_again["user_id"], user);
    assert_eq!(tries(&app, &bound_again).await, [200, 403, 403], "the new secret is bound, too");
}

#[tokio::test]
async fn a_revoked_key_stops_within_a_second_and_is_revoked_once() {
    let app = quick().await;
    let key = new_key(&app, json!({})).await;
    // Known to the server by now.
    assert_eq!(tries(&app, &key).await, [200, 201, 403]);
    assert_eq!(revoke(&app, &key).await.status, StatusCode::NO_CONTENT);
    until_refused(&app, &key).await;
    assert!(listed(&app, &key).await["revoked_at"].is_string());
    let theirs = app.service.keys();
    let tenant = app.new_tenant().await;
    let new = context_api::domain::NewApiKey::new("theirs", Scope::all(), None, None).unwrap();
    theirs.create_for_operator(tenant, &new).await.unwrap();
    let stranger = app.new_key(tenant, Scope::all()).await;
    let own = app.send_as(&stranger, Method::GET, "/v1/api-keys", None).await.body["data"][1].clone();
    assert_eq!(own["name"], "theirs");
    let unknown = json!({"id": Uuid::new_v4()});
    for gone in [&key, &unknown, &own] {
        for answer in [revoke(&app, gone).await, rotate(&app, gone, json!({})).await] {
            assert_eq!((answer.status.as_u16(), answer.code()), (404, "api_key_not_found"), "{gone}");
        }
    }
    let over = new_key(&app, json!({"expires_at": "2020-01-01T00:00:00Z"})).await;
    for answer in [rotate(&app, &over, json!({})).await, revoke(&app, &over).await] {
        assert_eq!(answer.code(), "api_key_not_found", "nothing has to be done to end it");
    }
}

#[tokio::test]
async fn a_rotated_key_goes_on_for_as_long_as_it_is_told() {
    let app = quick().await;
    let rights = json!({"expires_at": "2999-01-01T00:00:00Z"});
    let (old, sudden) = (new_key(&app, rights.clone()).await, new_key(&app, rights).await);
    assert_eq!(tries(&app, &sudden).await, [200, 201, 403]);
    let with_overlap = rotate(&app, &old, json!({"overlap_seconds": 3600})).await;
    assert_eq!(with_overlap.status, StatusCode::CREATED, "{:?}", with_overlap.body);
    for field in ["name", "scopes", "user_id", "expires_at"] {
        assert_eq!(with_overlap.body[field], old[field], "{field}");
    }
    assert_ne!(with_overlap.body["id"], old["id"]);
    for key in [&old, &with_overlap.body] {
        assert_eq!(tries(&app, key).await, [200, 201, 403], "both work");
    }
    let of_old = listed(&app, &old).await;
    let ends = ["expires_at", "revoked_at"].map(|field| of_old[field].as_str().is_some_and(|at| at < "2900"));
    assert!(ends.contains(&true), "the old one has an end now: {of_old}");
    let request =
        app.request(Method::POST, &format!("/v1/api-keys/{}/rotate", sudden["id"].as_str().unwrap()));
    let at_once = answer(request.bearer_auth(&app.key)).await;
    assert_eq!(at_once.status, StatusCode::CREATED, "without a body: {:?}", at_once.body);
    until_refused(&app, &sudden).await;
    assert_eq!(tries(&app, &at_once.body).await, [200, 201, 403]);
    let short = rotate(&app, &at_once.body, json!({"overlap_seconds": 1})).await.body;
    eventually("the end of the overlap", Duration::from_secs(4), async || {
        (tries(&app, &at_once.body).await == [401; 3]).then_some(())
    })
    .await;
    assert_eq!(tries(&app, &short).await, [200, 201, 403]);
    assert_eq!(rotate(&app, &sudden, json!({})).await.code(), "api_key_not_found");
    // The old one ends with the overlap, which a new key must not inherit in silence.
    let again = rotate(&app, &old, json!({"overlap_seconds": 60})).await;
    let kept = again.status == StatusCode::CREATED && again.body["expires_at"] == old["expires_at"];
    assert!(kept || again.status.is_client_error(), "{:?}", again.body);
}

#[tokio::test]
async fn the_last_use_of_a_key_is_written_down() {
    let app = quick().await;
    let key = new_key(&app, json!({})).await;
    assert_eq!(listed(&app, &key).await["last_used_at"], Value::Null);
    tries(&app, &key).await;
    let used = eventually("the last use", Duration::from_secs(5), async || {
        listed(&app, &key).await["last_used_at"].as_str().map(str::to_owned)
    });
    assert!(used.await.ends_with('Z'));
}

#[tokio::test]
async fn operators_make_tenants_and_their_first_keys_and_nobody_else_does() {
    let app = quick().await;
    let name = Uuid::new_v4().to_string();
    let made = app.post("/v1/tenants", json!({"name": name})).await;
    assert_eq!((made.status, &made.body["name"]), (StatusCode::CREATED, &json!(name)));
    let taken = app.post("/v1/tenants", json!({"name": format!(" {name} ")})).await;
    assert_eq!(
        (taken.status.as_u16(), taken.code()),
        (409, "tenant_exists"),
        "blanks around a name do not count"
    );
    assert_eq!(taken.body["errors"][0]["pointer"], "/name");
    let rights = json!({"scopes": ["read", "write", "admin"], "tenant_id": made.body["id"]});
    let theirs = new_key(&app, rights).await;
    assert_eq!(tries(&app, &theirs).await, [200, 201, 200]);
    let secret = theirs["key"].as_str().unwrap();
    let send = async |method: Method, path: &str, body: Option<Value>| {
        app.send_as(secret, method, path, body.map(|body| body.to_string().into())).await
    };
    let seen = send(Method::GET, "/v1/tenants", None).await.body;
    assert_eq!(seen, json!({"data": [made.body], "next_cursor": null, "has_more": false}));
    for (path, body) in [
        ("/v1/tenants", json!({"name": Uuid::new_v4()})),
        ("/v1/tenants", json!({"name": "default"})),
        ("/v1/api-keys", json!({"name": "x", "scopes": ["read"], "tenant_id": DEFAULT_TENANT})),
        ("/v1/api-keys", json!({"name": "x", "scopes": ["read"], "tenant_id": Uuid::new_v4()})),
    ] {
        let refused = send(Method::POST, path, Some(body.clone())).await;
        assert_eq!((refused.status.as_u16(), refused.code()), (403, "not_operator"), "{body}");
    }
    let own = json!({"name": "own", "scopes": ["read"], "tenant_id": made.body["id"]});
    assert_eq!(send(Method::POST, "/v1/api-keys", Some(own)).await.status, StatusCode::CREATED);
    assert_eq!(send(Method::GET, "/v1/api-keys", None).await.body["data"].as_array().unwrap().len(), 2);
    assert_eq!(listed(&app, &theirs).await, Value::Null, "an operator lists his own tenant's keys");
    let (mut names, mut path) = (Vec::new(), "/v1/tenants?limit=1".to_owned());
    loop {
        let page = app.get(&path).await.body;
        names.extend(page["data"].as_array().unwrap().iter().map(|tenant| tenant["name"].clone()));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/v1/tenants?limit=1&cursor={cursor}");
    }
    assert_eq!(names, [json!("default"), json!(name)]);
}

#[tokio::test]
async fn every_write_leaves_a_line_that_says_who_did_what() {
    let app = quick().await;
    let own = app.get("/v1/api-keys").await.body["data"][0]["id"].clone();
    let sent = async |method: Method, path: &str, id: &str, body: Value| {
        let request = app.request(method, path).bearer_auth(&app.key).header("x-request-id", id);
        let answer = answer(request.json(&body)).await;
        assert!(answer.status.is_success(), "{path}: {:?}", answer.body);
        answer
    };
    let body =
        |content: &str| json!({"user_id": USER, "context_type": "note", "key": "k", "content": content});
    let id = sent(Method::POST, "/v1/contexts", "r1", body("one")).await.id();
    let path = format!("/v1/contexts/{id}");
    sent(Method::POST, "/v1/contexts", "unchanged", body("one")).await;
    sent(Method::POST, "/v1/contexts", "r2", body("two")).await;
    sent(Method::PUT, &path, "r3", body("three")).await;
    sent(Method::PATCH, &path, "r4", json!({"content": "four"})).await;
    sent(Method::DELETE, &path, "r5", Value::Null).await;
    sent(Method::POST, &format!("{path}/restore"), "r6", json!({})).await;
    let operations =
        json!({"operations": [{"op": "upsert", "context": body("seven")}, {"op": "delete", "id": id}]});
    sent(Method::POST, "/v1/contexts/batch", "r7", operations).await;
    sent(Method::DELETE, &format!("{path}?purge=true"), "r9", Value::Null).await;
    app.delete(&path).await;
    let mut lines = log(&app, &app.key, &format!("?target_id={id}")).await;
    lines.reverse();
    let expected = [
        ("context.create", "r1", 1),
        ("context.update", "r2", 2),
        ("context.update", "r3", 3),
        ("context.update", "r4", 4),
        ("context.delete", "r5", 5),
        ("context.restore", "r6", 6),
        ("context.update", "r7", 7),
        ("context.delete", "r7", 8),
        ("context.purge", "r9", 8),
    ];
    assert_eq!(lines.len(), expected.len(), "{lines:?}");
    for (line, (action, request, version)) in lines.iter().zip(expected) {
        assert_eq!((&line["action"], &line["request_id"]), (&json!(action), &json!(request)));
        assert_eq!((&line["target_version"], &line["api_key_id"]), (&json!(version), &own), "{action}");
        assert_eq!(line["target_id"], json!(id));
    }
    let key = new_key(&app, json!({})).await;
    let rotated = rotate(&app, &key, json!({})).await.body;
    let revoked = revoke(&app, &rotated).await;
    let about = async |thing: &Value| {
        log(&app, &app.key, &format!("?target_id={}", thing["id"].as_str().unwrap())).await
    };
    let (of_key, of_rotated) = (about(&key).await, about(&rotated).await);
    assert_eq!(actions(&of_key), ["api_key.rotate", "api_key.create"]);
    assert_eq!(actions(&of_rotated), ["api_key.revoke", "api_key.create"]);
    assert_eq!(of_rotated[0]["request_id"].as_str(), revoked.headers["x-request-id"].to_str().ok());
    let tenant = app.post("/v1/tenants", json!({"name": Uuid::new_v4()})).await.body;
    assert_eq!(actions(&about(&tenant).await), ["tenant.create"]);
}

#[tokio::test]
async fn the_log_is_paged_and_each_tenant_sees_its_own() {
    let app = quick().await;
    for n in 0..5 {
        app.note(&format!("note {n}")).await;
    }
    let whole = log(&app, &app.key, "?limit=200").await;
    let (mut seen, mut path) = (Vec::new(), "/v1/audit-log?limit=2".to_owned());
    loop {
        let page = app.get(&path).await.body;
        seen.extend(page["data"].as_array().unwrap().clone());
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/v1/audit-log?limit=2&cursor={cursor}");
        // A line that comes while somebody pages does not shift the pages.
        app.note("a newcomer").await;
    }
    assert_eq!(seen, whole);
    let tenant = app.new_tenant().await;
    let stranger = app.new_key(tenant, Scope::all()).await;
    let theirs = log(&app, &stranger, "?limit=200").await;
    assert_eq!(actions(&theirs), ["api_key.create"], "that of the key they look with");
    assert_eq!(theirs[0]["api_key_id"], Value::Null, "it was an operator's command");
    let target = whole[0]["target_id"].as_str().unwrap();
    assert_eq!(log(&app, &stranger, &format!("?target_id={target}")).await, Vec::<Value>::new());
    for query in ["?limit=0", "?limit=201", "?cursor=x", "?target_id=x", "?action=x"] {
        let refused = app.get(&format!("/v1/audit-log{query}")).await;
        assert_eq!((refused.status.as_u16(), refused.code()), (400, "invalid_parameter"), "{query}");
    }
}
