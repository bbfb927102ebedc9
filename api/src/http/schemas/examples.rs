//! What each operation may be asked and what it answers then, from `examples.json`. A test asks all of it.

use serde_json::{Map, Value};

const EXAMPLES: &str = include_str!("examples.json");

/// Adds to each operation the examples of its name: of its body, and of each answer that has one.
pub(super) fn add_to(paths: &mut Value) {
    let examples: Value = serde_json::from_str(EXAMPLES).unwrap_or_default();
    let items = paths.as_object_mut().into_iter().flat_map(Map::values_mut);
    for operation in items.filter_map(Value::as_object_mut).flat_map(Map::values_mut) {
        let own = &examples[operation["operationId"].as_str().unwrap_or_default()];
        if let Some(request) = own.get("request") {
            put(operation.get_mut("requestBody"), request);
        }
        for (status, answer) in own["responses"].as_object().into_iter().flatten() {
            put(operation["responses"].get_mut(status), answer);
        }
    }
}

/// In each media type, because they are different names for the same.
fn put(target: Option<&mut Value>, example: &Value) {
    let contents = target.and_then(|target| target.get_mut("content")).and_then(Value::as_object_mut);
    for content in contents.into_iter().flat_map(Map::values_mut) {
        content["example"] = example.clone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_stands_in_the_document() {
        let examples: Value = serde_json::from_str(EXAMPLES).unwrap();
        let document = crate::http::document();
        let items = document["paths"].as_object().unwrap().values().filter_map(Value::as_object);
        let operations: Vec<&Value> = items.flat_map(Map::values).collect();
        for (name, own) in examples.as_object().unwrap() {
            let operation = operations.iter().find(|operation| operation["operationId"] == **name);
            let operation = operation.unwrap_or_else(|| panic!("there is no operation {name}"));
            let shown = |place: &Value| {
                let contents = place["content"].as_object().into_iter().flat_map(Map::values);
                contents.map(|content| content["example"].clone()).collect::<Vec<_>>()
            };
            if let Some(request) = own.get("request") {
                assert!(shown(&operation["requestBody"]).contains(request), "the request of {name}");
            }
            for (status, answer) in own["responses"].as_object().unwrap() {
                assert!(shown(&operation["responses"][status]).contains(answer), "{status} of {name}");
            }
        }
    }
}
