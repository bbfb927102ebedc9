//! The examples of the OpenAPI document: each request is sent as it stands there, and is answered like the answer beside it.

use std::collections::BTreeSet;

use reqwest::{Method, StatusCode};
use serde_json::{Map, Value};

use crate::{
    spaces::Change,
    support::{App, answer},
};

/// The context of the examples, which an import makes.
const CONTEXT: &str = "0190d5a0-0000-7000-8000-0000000000c1";
const USER: &str = "0190d5a0-0000-7000-8000-000000000001";
/// An erasure of nobody that nobody has begun.
const QUEUED: &str = "0190d5a0-0000-7000-8000-0000000000e1";

/// What no request of the examples is answered with: the erasure of so much that it takes longer than an answer.
const UNSEEN: [(&str, &str); 1] = [("erase_user", "202")];

/// Lists that are empty here, because nothing has failed.
const EMPTY: [&str; 1] = ["list_embedding_space_failures/data"];

/// Every operation, in an order in which each finds what it is about, with what its path names.
const ORDER: [(&str, &str); 44] = [
    ("import_contexts", ""),
    ("get_context", CONTEXT),
    ("list_contexts", ""),
    ("count_contexts", ""),
    ("search_contexts", ""),
    ("pack_contexts", ""),
    ("export_contexts", ""),
    ("create_context", ""),
    // Its key exists by now.
    ("create_context", ""),
    ("replace_context", CONTEXT),
    ("patch_context", CONTEXT),
    ("list_versions", CONTEXT),
    ("restore_context", CONTEXT),
    ("write_batch", ""),
    ("delete_context", CONTEXT),
    ("retry_embeddings", ""),
    ("get_usage", ""),
    ("list_operations", ""),
    ("cancel_operation", QUEUED),
    ("retry_operation", QUEUED),
    ("get_operation", QUEUED),
    ("follow_operation", QUEUED),
    ("create_api_key", ""),
    ("list_api_keys", ""),
    ("rotate_api_key", "the new key"),
    ("revoke_api_key", "the new key"),
    ("create_tenant", ""),
    ("list_tenants", ""),
    ("create_embedding_space", ""),
    ("list_embedding_spaces", ""),
    ("get_embedding_space", "2"),
    ("list_embedding_space_failures", "2"),
    ("compare_embedding_space", "2"),
    ("change_embedding_space", "2"),
    ("activate_embedding_space", "2"),
    ("retry_embedding_space", "2"),
    ("delete_embedding_space", "1"),
    ("list_audit_log", ""),
    ("erase_user", USER),
    ("get_health", ""),
    ("get_liveness", ""),
    ("get_readiness", ""),
    ("get_openapi", ""),
    ("get_error_code", "context_not_found"),
];

/// An operation of the document, with where it is.
struct Operation {
    method: Method,
    path: String,
    said: Value,
}

fn operations(document: &Value) -> Map<String, Value> {
    let mut found = Map::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let mut operation = operation.clone();
            operation["method"] = method.to_uppercase().into();
            operation["path"] = path.clone().into();
            found.insert(operation["operationId"].as_str().unwrap().to_owned(), operation);
        }
    }
    found
}

/// Those of success.
fn statuses(operation: &Value) -> impl Iterator<Item = &str> {
    let all = operation["responses"].as_object().unwrap().keys();
    all.map(String::as_str).filter(|status| status.starts_with('2'))
}

impl Operation {
    fn new(said: &Value, named: &str) -> Self {
        let path = said["path"].as_str().unwrap();
        let filled = match (path.find('{'), path.find('}')) {
            (Some(begin), Some(end)) => format!("{}{named}{}", &path[..begin], &path[end + 1..]),
            _ => path.to_owned(),
        };
        Self { method: said["method"].as_str().unwrap().parse().unwrap(), path: filled, said: said.clone() }
    }

    /// The media types of the body with their examples; none when it takes none.
    fn requests(&self) -> Vec<Option<(String, Value)>> {
        match self.said["requestBody"]["content"].as_object() {
            None => vec![None],
            Some(contents) => {
                let example = |(kind, content): (&String, &Value)| (kind.clone(), content["example"].clone());
                contents.iter().map(example).map(Some).collect()
            }
        }
    }

    /// The example of what came with this status.
    fn answer(&self, status: StatusCode) -> Option<Value> {
        let response = &self.said["responses"][status.as_str()];
        assert!(!response.is_null(), "{status} of {} is not in the document", self.path);
        response["content"].as_object()?.values().next().map(|content| content["example"].clone())
    }

    async fn send(&self, app: &App, request: Option<(String, Value)>) -> (StatusCode, Value) {
        let mut sent = app.request(self.method.clone(), &self.path).bearer_auth(&app.key);
        if let Some((kind, example)) = request {
            let body = example.as_str().map_or_else(|| example.to_string(), str::to_owned);
            sent = sent.header("content-type", kind).body(body);
        }
        let answered = answer(sent).await;
        let is_stream = answered.headers.get("content-type").is_some_and(|kind| kind == "text/event-stream");
        (answered.status, if is_stream { first_event(&answered.body) } else { answered.body })
    }
}

/// The first of server-sent events, as the document describes each.
fn first_event(stream: &Value) -> Value {
    let event = stream.as_str().unwrap().split("\n\n").next().unwrap();
    event
        .lines()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_owned(), Value::from(value)))
        .collect()
}

/// Whether an answer has the members and the kinds of values of its example. What is null in one may be there in the other, and
/// what is in a document of the caller's is the caller's.
fn same_shape(example: &Value, answered: &Value, at: &str) {
    match (example, answered) {
        (Value::Null, _) | (_, Value::Null) => {}
        (Value::Object(example), Value::Object(answered)) => {
            let names = |members: &Map<String, Value>| {
                let mut names: Vec<String> = members.keys().cloned().collect();
                names.sort();
                names
            };
            assert_eq!(names(example), names(answered), "at {at}");
            for (name, value) in example {
                if !["content", "metadata", "progress", "result"].contains(&name.as_str()) {
                    same_shape(value, &answered[name], &format!("{at}/{name}"));
                }
            }
        }
        (Value::Array(example), Value::Array(answered)) => {
            if let Some(example) = example.first().filter(|_| !EMPTY.contains(&at)) {
                let answered =
                    answered.first().unwrap_or_else(|| panic!("{at} is empty; its example is not"));
                same_shape(example, answered, &format!("{at}/0"));
            }
        }
        _ => {
            let kind = |value: &Value| std::mem::discriminant(value);
            assert_eq!(kind(example), kind(answered), "at {at}: {example} and {answered}");
        }
    }
}

#[tokio::test]
async fn every_example_is_taken_and_answered_as_the_document_shows() {
    let change = Change::begin(0).await;
    let app = &change.app;
    let insert = "insert into operations (tenant_id, id, kind, status, user_id)
                  select id, $1::uuid, 'erase', 'queued', $1::uuid from tenants where name = 'default'";
    let mut superuser = app.database.superuser().await;
    sqlx::query(insert).bind(QUEUED).execute(&mut superuser).await.unwrap();

    let document = context_api::http::document();
    let documented = operations(&document);
    let mut unseen: BTreeSet<(&str, &str)> = documented
        .iter()
        .flat_map(|(name, said)| statuses(said).map(move |status| (name.as_str(), status)))
        .collect();
    let mut new_key = String::new();
    for (name, named) in ORDER {
        let said = documented.get(name).unwrap_or_else(|| panic!("there is no operation {name}"));
        let operation = Operation::new(said, if named == "the new key" { &new_key } else { named });
        for request in operation.requests() {
            let (status, answered) = operation.send(app, request).await;
            assert!(status.is_success(), "{name}: {status} {answered}");
            unseen.retain(|seen| *seen != (name, status.as_str()));
            match operation.answer(status) {
                None => assert_eq!(answered, Value::Null, "{name}"),
                Some(example) => {
                    assert!(!example.is_null(), "{name} has no example of its {status}");
                    // Of the document itself the example is a part.
                    if name == "get_openapi" {
                        assert_eq!(example["openapi"], answered["openapi"]);
                    } else {
                        same_shape(&example, &answered, name);
                    }
                }
            }
            match name {
                "import_contexts" => drop(app.embedded(CONTEXT).await),
                "create_api_key" => answered["id"].as_str().unwrap().clone_into(&mut new_key),
                "create_embedding_space" => drop(change.filled(2).await),
                _ => {}
            }
        }
    }
    assert_eq!(unseen, BTreeSet::from(UNSEEN), "nobody has tried them");
    change.app.stop().await;
}
