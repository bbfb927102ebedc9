//! The OpenAPI document: committed, complete, and served.

use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::support::{App, answer, command};

#[test]
fn the_committed_document_is_the_one_that_the_code_makes() {
    let folder = tempfile::TempDir::new().unwrap();
    // With a broken configuration: the command needs none.
    let output = command(folder.path(), &[("DATABASE_URL", "nonsense")]).arg("openapi").output().unwrap();
    assert!(output.status.success());
    let made = String::from_utf8(output.stdout).unwrap();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../openapi/openapi.json");
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        made == committed,
        "openapi/openapi.json is out of date: run `cargo run -- openapi > openapi/openapi.json`"
    );
}

#[test]
fn every_operation_says_what_it_does_and_answers() {
    let document = serde_json::to_value(context_api::http::document()).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let name = format!("{method} {path}");
            for field in ["operationId", "summary", "description", "tags", "responses", "security"] {
                assert!(!operation[field].is_null(), "{name} has no {field}");
            }
            for (status, response) in operation["responses"].as_object().unwrap() {
                let shared = &document["components"]["responses"];
                let response = match response["$ref"].as_str() {
                    Some(reference) => &shared[reference.rsplit('/').next().unwrap()],
                    None => response,
                };
                assert!(response["description"].as_str().is_some_and(|d| !d.is_empty()), "{name} {status}");
                if status.starts_with('4') {
                    let problem = &response["content"]["application/problem+json"]["schema"];
                    assert_eq!(problem["$ref"], "#/components/schemas/ProblemDetails", "{name} {status}");
                }
            }
        }
    }
}

#[tokio::test]
async fn the_document_and_its_explorer_are_served() {
    let app = App::start().await;
    let served = answer(app.request(Method::GET, "/openapi.json")).await;
    // Parsed likewise, which may round the largest numbers.
    let made: Value = serde_json::from_str(&context_api::http::document().to_string()).unwrap();
    assert_eq!(served.body, made);
    let page = answer(app.request(Method::GET, "/docs")).await;
    let text = page.body.as_str().unwrap();
    assert!(!text.contains("://"), "the explorer must load nothing from elsewhere");
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'self'; "), "{policy}");
    let parts = ["swagger-ui-bundle.js", "swagger-ui.css", "explorer.js", "explorer.css"];
    for part in parts {
        assert!(text.contains(&format!("\"{part}\"")), "{text}");
        let part = answer(app.request(Method::GET, &format!("/docs/{part}"))).await;
        assert!(part.status.is_success() && part.body != Value::Null);
        assert_eq!(part.headers["x-content-type-options"], "nosniff");
    }
    assert_eq!(text.matches("src=").count() + text.matches("rel=\"stylesheet\"").count(), parts.len());
    let missing = answer(app.request(Method::GET, "/docs/index.html")).await;
    assert_eq!((missing.status, missing.code()), (StatusCode::NOT_FOUND, "route_not_found"));
}
