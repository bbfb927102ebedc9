//! Whether the OpenAPI document promises what was answered. Every answer that any test gets is looked at, so that the document
//! cannot leave out a status or a code that a test knows of.

use std::sync::LazyLock;

use reqwest::{Method, StatusCode};
use serde_json::Value;

/// The document with each reference to a response replaced by what it refers to.
static OPERATIONS: LazyLock<Vec<Operation>> = LazyLock::new(|| {
    let document = context_api::http::document();
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, said) in item.as_object().expect("operations") {
            let mut responses = said["responses"].clone();
            for response in responses.as_object_mut().expect("responses").values_mut() {
                if let Some(reference) = response["$ref"].as_str() {
                    *response = document.pointer(&reference[1..]).expect("what is referred to").clone();
                }
            }
            let path = path.split('/').map(str::to_owned).collect();
            operations.push(Operation {
                method: method.to_uppercase().parse().expect("a method"),
                path,
                responses,
            });
        }
    }
    // A path as it is written wins over one with a parameter that could be the same.
    operations.sort_by_key(|operation| operation.path.iter().any(|part| part.starts_with('{')));
    operations
});

struct Operation {
    method: Method,
    path: Vec<String>,
    responses: Value,
}

impl Operation {
    fn is_at(&self, path: &str) -> bool {
        let parts: Vec<&str> = path.split('/').collect();
        let fits = |(own, part): (&String, &&str)| own.starts_with('{') && !part.is_empty() || own == part;
        self.path.len() == parts.len() && self.path.iter().zip(&parts).all(fits)
    }
}

/// # Panics
/// When an operation of the document answered what it is not said to answer.
pub fn check(method: &Method, path: &str, status: StatusCode, body: &Value) {
    let Some(route) = OPERATIONS.iter().find(|operation| operation.is_at(path)) else { return };
    let mut at_path = OPERATIONS.iter().filter(|operation| operation.path == route.path);
    let Some(operation) = at_path.find(|operation| operation.method == *method) else { return };
    let response = &operation.responses[status.as_str()];
    assert!(!response.is_null(), "the document does not say that {method} {path} answers {status}: {body}");
    let examples = &response["content"]["application/problem+json"]["examples"];
    if let (Some(code), Some(examples)) = (body["code"].as_str(), examples.as_object()) {
        assert!(
            examples.contains_key(code),
            "the document does not say that {method} {path} answers {code}: {body}"
        );
    }
}
