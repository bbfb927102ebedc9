//! The schema of filters: `docs/filters.md` in JSON Schema, but for the limits on a filter as a whole.

use serde_json::{Value, json};

use super::{TEXT, reference};
use crate::domain::filter::{FILTER_BYTES_MAX, FILTER_PATH_SEGMENTS_MAX, FILTER_VALUES_MAX};

/// A time that has one in UTC: in the year 9999 without an offset, which could lead out of it.
const TIME: &str = r"^([0-8][0-9]{3}-|9[0-8][0-9]{2}-|99[0-8][0-9]-|999[0-8]-|9999-.*([Zz]|[+-]00:00)$)";

/// What a kind of field can be asked.
struct Kind {
    name: &'static str,
    /// What fields of this kind are, for people.
    words: &'static str,
    value: Value,
    ordered: Option<Value>,
    contains: Option<Value>,
    may_be_missing: bool,
}

fn kinds() -> [Kind; 7] {
    let kind = |name, words, value: Value, contains| {
        let ordered = Some(value.clone());
        Kind { name, words, value, ordered, contains, may_be_missing: true }
    };
    let text = json!({"type": "string", "pattern": TEXT});
    let number = json!({"type": "number", "minimum": f64::MIN, "maximum": f64::MAX});
    let integer = json!({"type": "integer", "format": "int64", "minimum": i64::MIN, "maximum": i64::MAX});
    let status = json!({"type": "string", "enum": ["pending", "ready", "failed"]});
    [
        kind("Uuid", "an id", json!({"type": "string", "format": "uuid"}), None),
        kind("Text", "text", text.clone(), Some(text.clone())),
        kind("Time", "a time", json!({"type": "string", "format": "date-time", "pattern": TIME}), None),
        kind("Integer", "a whole number", integer, None),
        Kind {
            name: "Status",
            words: "a status",
            value: status,
            ordered: None,
            contains: None,
            may_be_missing: false,
        },
        Kind {
            name: "Language",
            words: "a language",
            value: reference("Language"),
            ordered: None,
            contains: None,
            may_be_missing: false,
        },
        Kind {
            name: "Json",
            words: "a part of `metadata` or `content`",
            value: reference("Json"),
            ordered: Some(json!({"anyOf": [text, number]})),
            contains: Some(reference("Json")),
            may_be_missing: true,
        },
    ]
}

/// Adds `Filter` and what it needs.
pub(super) fn add_to(schemas: &mut Value) {
    for kind in kinds() {
        schemas[format!("{}Operators", kind.name)] = operators(&kind);
        schemas[format!("{}Condition", kind.name)] = condition(&kind);
    }
    let filters = |description| {
        json!({"type": "array", "description": description, "minItems": 1, "maxItems": FILTER_BYTES_MAX,
            "items": reference("Filter")})
    };
    let of = |kind: &str| reference(&format!("{kind}Condition"));
    let path = format!(r"^(metadata|content)(\.([^.\\\u0000]|\\[.\\])*){{0,{FILTER_PATH_SEGMENTS_MAX}}}$");
    schemas["Filter"] = json!({
        "type": "object",
        "description": "Which contexts are meant; all of its members have to hold. The guide says what each means, \
            and how much one filter may hold.",
        "properties": {
            "$and": filters("All of these hold."), "$or": filters("At least one of these holds."),
            "$not": {"$ref": "#/components/schemas/Filter", "description": "This does not hold."},
            "id": of("Uuid"), "user_id": of("Uuid"),
            "context_type": of("Text"), "key": of("Text"), "text": of("Text"),
            "created_at": of("Time"), "updated_at": of("Time"), "expires_at": of("Time"),
            "valid_from": of("Time"), "valid_to": of("Time"),
            "version": of("Integer"), "embedding_status": of("Status"),
            "language": of("Language"),
        },
        "patternProperties": {path: of("Json")},
        "additionalProperties": false,
        "example": {"metadata.source": "manual"},
    });
}

fn operators(kind: &Kind) -> Value {
    let value = nullable(&kind.value);
    let list = json!({"type": "array", "maxItems": FILTER_VALUES_MAX, "items": value});
    let itself = reference(&format!("{}Operators", kind.name));
    let mut properties = json!({"$eq": value, "$ne": value, "$in": list, "$nin": list, "$not": itself});
    if let Some(ordered) = &kind.ordered {
        for operator in ["$gt", "$gte", "$lt", "$lte"] {
            properties[operator] = ordered.clone();
        }
    }
    if let Some(contains) = &kind.contains {
        properties["$contains"] = contains.clone();
    }
    if kind.may_be_missing {
        properties["$exists"] = json!({"type": "boolean"});
    }
    for (operator, schema) in properties.as_object_mut().into_iter().flatten() {
        schema["description"] = meaning(operator).into();
    }
    json!({
        "type": "object",
        "description": format!("Operators on {}; all of them have to hold.", kind.words),
        "minProperties": 1, "properties": properties, "additionalProperties": false,
    })
}

fn meaning(operator: &str) -> &'static str {
    match operator {
        "$eq" => "Is equal to this.",
        "$ne" => "Is not equal to this, or is missing.",
        "$in" => "Is equal to one of these.",
        "$nin" => "Is equal to none of these, or is missing.",
        "$gt" => "Is greater than this.",
        "$gte" => "Is greater than this or equal to it.",
        "$lt" => "Is less than this.",
        "$lte" => "Is less than this or equal to it.",
        "$contains" => "Contains this.",
        "$exists" => "Whether it is there.",
        _ => "These do not hold.",
    }
}

fn condition(kind: &Kind) -> Value {
    let operators = reference(&format!("{}Operators", kind.name));
    let description = format!("What {} has to be: a value that it is equal to, or operators.", kind.words);
    if kind.name == "Json" {
        // An object whose names all begin with `$` is operators, one with some such names is refused.
        let name = r"^([^$\u0000][^\u0000]*)?$";
        let value = json!({"allOf": [
            kind.value,
            {"anyOf": [
                {"type": ["null", "boolean", "number", "string", "array"], "items": {}},
                {"type": "object", "propertyNames": {"pattern": name}},
            ]},
        ]});
        return json!({"description": description, "anyOf": [value, operators]});
    }
    json!({"description": description, "anyOf": [nullable(&kind.value), operators]})
}

fn nullable(value: &Value) -> Value {
    if *value == reference("Json") { value.clone() } else { json!({"anyOf": [value, {"type": "null"}]}) }
}
