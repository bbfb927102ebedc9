//! `/health` and its kin.

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::support::{App, answer};

#[tokio::test]
async fn health_needs_no_key_and_tells_each_dependency() {
    let app = App::start().await;
    crate::support::eventually("a whole service", std::time::Duration::from_secs(5), async || {
        let health = answer(app.request(Method::GET, "/health")).await;
        (health.body["status"] == "ok").then_some(())
    })
    .await;
    for path in ["/health", "/health/ready"] {
        let health = answer(app.request(Method::GET, path)).await;
        assert_eq!(health.status, StatusCode::OK);
        assert_eq!(health.body["checks"]["database"]["status"], "ok");
        assert_eq!(
            health.body["checks"]["embeddings"]["detail"],
            "builtin: sentence-transformers/all-MiniLM-L6-v2"
        );
        assert_eq!(health.body["version"], env!("CARGO_PKG_VERSION"));
        assert!(health.body["uptime_seconds"].is_u64() && health.body["timestamp"].is_string());
    }
    let live = answer(app.request(Method::GET, "/health/live")).await;
    assert_eq!((live.status, live.body), (StatusCode::OK, json!({"status": "ok"})));
}

#[tokio::test]
async fn a_request_id_is_echoed_when_it_is_a_plain_word() {
    let app = App::start().await;
    let ask =
        async |id: &str| answer(app.request(Method::GET, "/v1/contexts").header("x-request-id", id)).await;
    let given = ask("order-17.b").await;
    assert_eq!(
        (&given.headers["x-request-id"], &given.body["request_id"]),
        (&"order-17.b".parse().unwrap(), &json!("order-17.b"))
    );
    for forged in ["", "a b", &"x".repeat(65), "{\"level\":\"info\"}"] {
        let own = ask(forged).await.headers["x-request-id"].to_str().unwrap().to_owned();
        assert!(uuid::Uuid::parse_str(&own).is_ok(), "{forged} became {own}");
    }
}
