//! Where an answer leads: which operations take an id that stands in it. Readers see what comes next, and the fuzzer walks
//! from operation to operation as clients do, with ids that exist.

use serde_json::{Map, Value, json};

/// Operations that take the same id, by the name of their parameter.
struct Takers {
    parameter: &'static str,
    operations: &'static [&'static str],
}

const CONTEXT: Takers = Takers {
    parameter: "id",
    operations: &[
        "get_context",
        "replace_context",
        "patch_context",
        "delete_context",
        "list_versions",
        "restore_context",
    ],
};
const USER: Takers = Takers { parameter: "user_id", operations: &["erase_user"] };
const OPERATION: Takers = Takers {
    parameter: "id",
    operations: &["get_operation", "follow_operation", "cancel_operation", "retry_operation"],
};
const API_KEY: Takers = Takers { parameter: "id", operations: &["rotate_api_key", "revoke_api_key"] };
const EMBEDDING_SPACE: Takers = Takers {
    parameter: "id",
    operations: &[
        "get_embedding_space",
        "change_embedding_space",
        "delete_embedding_space",
        "list_embedding_space_failures",
        "retry_embedding_space",
        "compare_embedding_space",
        "activate_embedding_space",
    ],
};

/// An operation, its answers that have the id, where it stands in them, and what takes it. Of several that stand in an answer
/// it is the first, because a link cannot name all.
type Source = (&'static str, &'static [&'static str], &'static str, Takers);

const SOURCES: &[Source] = &[
    ("create_context", &["200", "201"], "/id", CONTEXT),
    ("create_context", &["201"], "/user_id", USER),
    ("list_contexts", &["200"], "/data/0/id", CONTEXT),
    ("write_batch", &["200"], "/results/0/id", CONTEXT),
    ("search_contexts", &["200"], "/data/0/context/id", CONTEXT),
    ("pack_contexts", &["200"], "/citations/0/context_id", CONTEXT),
    ("import_contexts", &["200"], "/operation_id", OPERATION),
    ("erase_user", &["200", "202"], "/id", OPERATION),
    ("list_operations", &["200"], "/data/0/id", OPERATION),
    ("create_api_key", &["201"], "/id", API_KEY),
    ("rotate_api_key", &["201"], "/id", API_KEY),
    ("list_api_keys", &["200"], "/data/0/id", API_KEY),
    ("create_embedding_space", &["201"], "/id", EMBEDDING_SPACE),
    ("list_embedding_spaces", &["200"], "/data/0/id", EMBEDDING_SPACE),
];

/// Adds to each answer its links, which are called like the operations that they lead to.
pub(super) fn add_to(paths: &mut Value) {
    let items = paths.as_object_mut().into_iter().flat_map(Map::values_mut);
    for operation in items.filter_map(Value::as_object_mut).flat_map(Map::values_mut) {
        let name = operation["operationId"].clone();
        for (_, statuses, pointer, takers) in SOURCES.iter().filter(|(source, ..)| name == **source) {
            for status in *statuses {
                let Some(response) = operation["responses"].get_mut(*status) else { continue };
                let parameter = takers.parameter;
                for target in takers.operations {
                    response["links"][target] = json!({
                        "operationId": target, "parameters": {parameter: format!("$response.body#{pointer}")},
                    });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    /// Takes no id, but one of the codes that the document lists.
    const NOT_LINKED: &str = "get_error_code";

    fn operations(document: &Value) -> BTreeMap<&str, &Value> {
        let items = document["paths"].as_object().unwrap().values().filter_map(Value::as_object);
        let operations = items.flat_map(Map::values);
        operations.map(|operation| (operation["operationId"].as_str().unwrap(), operation)).collect()
    }

    fn path_parameters(operation: &Value) -> BTreeSet<&str> {
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        parameters.filter(|p| p["in"] == "path").map(|p| p["name"].as_str().unwrap()).collect()
    }

    #[test]
    fn each_link_leads_from_an_id_to_an_operation_that_takes_it() {
        let document = crate::http::document();
        let operations = operations(&document);
        let responses = operations.values().flat_map(|operation| operation["responses"].as_object().unwrap());
        let mut number = 0;
        for (status, response) in responses {
            let example = &response["content"]["application/json"]["example"];
            for (name, link) in response["links"].as_object().into_iter().flatten() {
                let target = link["operationId"].as_str().unwrap();
                let taken = path_parameters(operations.get(target).unwrap());
                let given = link["parameters"].as_object().unwrap();
                assert_eq!(
                    given.keys().map(String::as_str).collect::<BTreeSet<_>>(),
                    taken,
                    "{status} {name}"
                );
                for expression in given.values() {
                    let pointer = expression.as_str().unwrap().strip_prefix("$response.body#").unwrap();
                    let id = example.pointer(pointer).unwrap_or(&Value::Null);
                    assert!(id.is_string() || id.is_number(), "{status} {name}: {expression} is {id}");
                }
                number += 1;
            }
        }
        let meant = SOURCES.iter().map(|(_, statuses, _, takers)| statuses.len() * takers.operations.len());
        assert_eq!(number, meant.sum::<usize>());
    }

    #[test]
    fn each_operation_that_takes_an_id_is_led_to() {
        let document = crate::http::document();
        let linked = SOURCES.iter().flat_map(|(.., takers)| takers.operations.iter().copied());
        let take_an_id = operations(&document);
        let take_an_id = take_an_id.iter().filter(|(_, operation)| !path_parameters(operation).is_empty());
        let take_an_id = take_an_id.map(|(name, _)| *name).filter(|name| *name != NOT_LINKED);
        assert_eq!(linked.collect::<BTreeSet<_>>(), take_an_id.collect::<BTreeSet<_>>());
    }
}
