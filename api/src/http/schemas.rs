//! What the derives cannot say of requests: patterns that are shared, rules between fields, JSON in JSON. Completes the
//! OpenAPI document, so that what a schema takes is what the service takes.

mod examples;
mod filter;
mod links;

use serde_json::{Map, Value, json};
use strum::IntoEnumIterator;

use super::problem::responses;
use crate::{domain::limits::CONTENT_BYTES_MAX, error::Code};

/// Text that PostgreSQL can keep.
const TEXT: &str = r"^[^\u0000]*$";
/// How the derives write [`NAME`]. What `\s` means is not the same everywhere.
const NAME_IN_SHORT: &str = r"^[^\x00]*[^\s\x00][^\x00]*$";
/// Such text with something in it that is not blank.
const NAME: &str = r"^[^\u0000]*[^\u0000\u0009-\u000d\u0020\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000][^\u0000]*$";
/// Times in the years 1970 to 9999; in these two without an offset, which could lead out of them.
const TIME: &str = r"^((197[1-9]|19[89][0-9]|[2-8][0-9]{3}|9[0-8][0-9]{2}|99[0-8][0-9]|999[0-8])-|(1970|9999)-.*([Zz]|[+-]00:00)$)";
/// The base64 of 16 bytes.
const CURSOR: &str = "^[A-Za-z0-9_-]{21}[AQgw]$";
/// RFC 9110, section 8.8.3, in ASCII.
const ENTITY_TAGS: &str = r#"^(W/)?"[!#-~]*"([ \t]*,[ \t]*(W/)?"[!#-~]*")*$"#;
const IDEMPOTENCY_KEY: &str = "^[!-~]{1,255}$";

/// Completes what was derived.
pub(super) fn complete(document: &mut Value) {
    spell_out_names(document);
    if let Some(paths) = document["paths"].as_object_mut() {
        for operation in paths.values_mut().filter_map(Value::as_object_mut).flat_map(Map::values_mut) {
            complete_parameters(operation);
            // What the standard takes for granted is not what every reader does.
            if let Some(body) = operation.get_mut("requestBody").and_then(Value::as_object_mut) {
                body.entry("required").or_insert(false.into());
            }
        }
    }
    responses::add_to(&mut document["components"]);
    let schemas = &mut document["components"]["schemas"];
    for (name, addition) in additions().into_iter().chain(pack_additions()) {
        merge(&mut schemas[name], addition);
    }
    schemas["Json"] = json_schema();
    filter::add_to(schemas);
    schemas["Pack"] = pack_of(&schemas["Search"], &schemas["Pack"]);
    schemas["ContextPatch"] = patch_of(&schemas["ContextInput"]);
    say_what_may_be_null(schemas);
    for content in document["paths"]["/v1/contexts/{id}"]["patch"]["requestBody"]["content"]
        .as_object_mut()
        .into_iter()
        .flat_map(Map::values_mut)
    {
        content["schema"] = reference("ContextPatch");
    }
    examples::add_to(&mut document["paths"]);
    links::add_to(&mut document["paths"]);
}

fn optional_filter() -> Value {
    json!({"type": null, "anyOf": [reference("Filter"), {"type": "null"}]})
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn spell_out_names(value: &mut Value) {
    match value {
        Value::String(text) if text == NAME_IN_SHORT => NAME.clone_into(text),
        Value::Array(items) => items.iter_mut().for_each(spell_out_names),
        Value::Object(members) => members.values_mut().for_each(spell_out_names),
        _ => {}
    }
}

/// Of what may be null the derives describe only what it is otherwise, where many readers do not look.
fn say_what_may_be_null(value: &mut Value) {
    if let Some([reference, null]) =
        value.get_mut("oneOf").and_then(Value::as_array_mut).map(Vec::as_mut_slice)
        && *null == json!({"type": "null"})
        && let Some(description) = reference.as_object_mut().and_then(|choice| choice.remove("description"))
    {
        value["description"] = description;
    }
    match value {
        Value::Array(items) => items.iter_mut().for_each(say_what_may_be_null),
        Value::Object(members) => members.values_mut().for_each(say_what_may_be_null),
        _ => {}
    }
}

/// Adds the members of `addition`, those of objects in both one by one; null removes one.
fn merge(target: &mut Value, addition: Value) {
    match (target, addition) {
        (Value::Object(target), Value::Object(addition)) => {
            for (name, value) in addition {
                if value.is_null() {
                    target.shift_remove(&name);
                } else {
                    merge(target.entry(name).or_insert(Value::Null), value);
                }
            }
        }
        (target, addition) => *target = addition,
    }
}

/// A parameter of one name is the same everywhere.
fn complete_parameters(operation: &mut Value) {
    let creates = operation["operationId"] == "create_context";
    let parameters = operation.get_mut("parameters").and_then(Value::as_array_mut);
    for parameter in parameters.into_iter().flatten() {
        let schema = match parameter["name"].as_str().unwrap_or_default() {
            "Idempotency-Key" => json!({"type": "string", "pattern": IDEMPOTENCY_KEY}),
            "If-None-Match" if creates => json!({"type": "string", "enum": ["*"]}),
            "If-Match" | "If-None-Match" => {
                json!({"type": "string", "anyOf": [{"enum": ["*"]}, {"pattern": ENTITY_TAGS}]})
            }
            // A header is left out; it is never null.
            "Cache-Control" => json!({"type": "string"}),
            "cursor" => json!({"minLength": 22, "maxLength": 22, "pattern": CURSOR}),
            "as_of" | "valid_at" => json!({"pattern": TIME}),
            "code" => json!({"enum": Code::iter().map(Code::as_str).collect::<Vec<_>>()}),
            "filter" => {
                // JSON in a URL.
                parameter["content"] = json!({"application/json": {"schema": reference("Filter")}});
                parameter.as_object_mut().map(|parameter| parameter.remove("schema"));
                continue;
            }
            _ => continue,
        };
        merge(&mut parameter["schema"], schema);
    }
}

/// What is added to derived schemas.
fn additions() -> [(&'static str, Value); 9] {
    let time = || json!({"pattern": TIME});
    let numbers = || json!({"items": {"minimum": f64::from(f32::MIN), "maximum": f64::from(f32::MAX)}});
    let version = || json!({"maximum": i64::MAX});
    [
        (
            "ContextInput",
            json!({
                "properties": {
                    "content": reference("Json"),
                    "metadata": {"propertyNames": {"pattern": TEXT}, "additionalProperties": reference("Json")},
                    "text": {"pattern": TEXT},
                    "expires_at": time(), "valid_from": time(), "valid_to": time(),
                    "embedding": numbers(),
                },
                "anyOf": [
                    {"properties": {"ttl_seconds": {"type": "null"}}},
                    {"properties": {"expires_at": {"type": "null"}, "sliding_ttl_seconds": {"type": "null"}}},
                ],
            }),
        ),
        ("Count", json!({"properties": {"as_of": time(), "valid_at": time(), "filter": optional_filter()}})),
        (
            "CompareEmbeddingSpace",
            json!({"properties": {"queries": {"items": {"minLength": 1, "maxLength": 8192, "pattern": NAME}}}}),
        ),
        ("RetryEmbeddings", json!({"properties": {"filter": optional_filter()}})),
        (
            "Search",
            json!({
                "properties": {
                    "query": {"pattern": NAME},
                    "vector": numbers(), "min_score": {"minimum": f64::MIN, "maximum": f64::MAX},
                    "context_types": {"items": {"minLength": 1, "maxLength": 50, "pattern": NAME}},
                    "filter": optional_filter(), "as_of": time(), "valid_at": time(),
                },
                "anyOf": [
                    {"required": ["query"], "properties": {"query": {"type": "string"}, "vector": {"type": "null"}}},
                    {"required": ["vector", "mode"], "properties": {
                        "vector": {"type": "array", "items": {}}, "query": {"type": "null"}, "mode": {"enum": ["semantic"]},
                        "rerank": {"enum": [false]},
                    }},
                ],
            }),
        ),
        (
            "SearchWeights",
            // What is left out is above 0.
            json!({"properties": {}, "anyOf": [
                {"properties": {"semantic": {"exclusiveMinimum": 0}}},
                {"properties": {"keyword": {"exclusiveMinimum": 0}}},
            ]}),
        ),
        (
            "BatchOperationInput",
            json!({"properties": {"if_version": version()}, "anyOf": batch_operations()}),
        ),
        ("Restore", json!({"properties": {"version": version()}})),
        (
            "CreateApiKey",
            json!({
                "properties": {"expires_at": time()},
                "anyOf": [
                    {"properties": {"user_id": {"type": "null"}}},
                    {"properties": {"scopes": {"items": {"enum": ["read", "write"]}}}},
                ],
            }),
        ),
    ]
}

/// What is added to those of a pack.
fn pack_additions() -> [(&'static str, Value); 3] {
    [
        (
            "Pack",
            json!({"properties": {"quotas": {
                "maxProperties": 20, "propertyNames": {"minLength": 1, "maxLength": 50, "pattern": NAME},
            }}}),
        ),
        (
            "PackBudget",
            json!({"anyOf": [
                {"properties": {"max_tokens": {"maximum": 200_000}}},
                {"required": ["tokenizer"], "properties": {"tokenizer": {"enum": ["chars"]}}},
            ]}),
        ),
        (
            "PackQuota",
            json!({"anyOf": [
                {"required": ["max_tokens"], "properties": {"max_tokens": {"type": "integer"}}},
                {"required": ["max_items"], "properties": {"max_items": {"type": "integer"}}},
            ]}),
        ),
    ]
}

/// What belongs to each operation of a batch.
fn batch_operations() -> Value {
    let (nothing, context, id) =
        (json!({"type": "null"}), json!({"type": "object"}), json!({"type": "string"}));
    json!([
        {"required": ["context"], "properties": {
            "op": {"enum": ["create"]}, "id": nothing, "if_version": nothing, "context": context,
        }},
        {"required": ["context"], "properties": {"op": {"enum": ["upsert"]}, "id": nothing, "context": context}},
        {"required": ["id", "context"], "properties": {"op": {"enum": ["update"]}, "id": id, "context": context}},
        {"required": ["id"], "properties": {"op": {"enum": ["delete"]}, "id": id, "context": nothing}},
    ])
}

/// Any JSON that can be stored.
fn json_schema() -> Value {
    json!({
        "description": "Any JSON, without the character U+0000 and with numbers that a double can hold.",
        "anyOf": [
            {"type": ["null", "boolean"]},
            {"type": "number", "minimum": f64::MIN, "maximum": f64::MAX},
            {"type": "string", "pattern": TEXT},
            {"type": "array", "maxItems": CONTENT_BYTES_MAX, "items": reference("Json")},
            {"type": "object", "propertyNames": {"pattern": TEXT}, "additionalProperties": reference("Json")},
        ],
    })
}

/// All that a search takes, and what is a pack's own.
fn pack_of(search: &Value, own: &Value) -> Value {
    let mut pack = search.clone();
    merge(&mut pack, own.clone());
    pack["properties"]["limit"]["description"] = "Hits that are looked at; 100 when left out.".into();
    pack["properties"]["limit"]["default"] = 100.into();
    pack["properties"]["include"]["description"] = "As in a search; here it changes nothing.".into();
    pack
}

/// A merge patch: every field may be left out, and null removes those that are not obligatory. The user stays.
fn patch_of(input: &Value) -> Value {
    let mut patch = input.clone();
    if let Some(patch) = patch.as_object_mut() {
        patch.shift_remove("required");
    }
    patch["description"] = "Fields of a context to change; null removes one.".into();
    if let Some(properties) = patch["properties"].as_object_mut() {
        properties.remove("user_id");
    }
    // Nothing but null is not one of these.
    let something = json!(["boolean", "number", "string", "array", "object"]);
    merge(&mut patch["properties"]["content"], json!({"type": something, "items": {}}));
    patch
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::openapi::routes;

    #[test]
    fn what_is_added_belongs_to_what_is_there() {
        let derived = serde_json::to_value(routes()).unwrap();
        for (name, addition) in additions().into_iter().chain(pack_additions()) {
            let schema = &derived["components"]["schemas"][name];
            for (property, _) in addition["properties"].as_object().into_iter().flatten() {
                assert!(schema["properties"][property].is_object(), "{name} has no {property}");
            }
        }
        let text = derived.to_string();
        assert!(text.contains(&Value::from(NAME_IN_SHORT).to_string()));
        assert!(!crate::http::document().to_string().contains(r"\\s"));
    }
}
