//! What a filter means, in a few lines that know nothing of SQL: the other opinion in the test of filters. Works on the
//! JSON of the filter and of a context as the API answers it. Takes filters that are known to be acceptable.

use std::cmp::Ordering;

use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

/// Whether the filter takes the context.
pub fn matches(filter: &Value, context: &Value) -> bool {
    filter.as_object().expect("a filter").iter().all(|(name, condition)| match name.as_str() {
        "$and" => list(condition).iter().all(|filter| matches(filter, context)),
        "$or" => list(condition).iter().any(|filter| matches(filter, context)),
        "$not" => !matches(condition, context),
        name => {
            let field = Field::find(name, context);
            match operators(condition) {
                Some(operators) => field.passes_all(operators),
                None => field.equals(condition),
            }
        }
    })
}

type Operators = serde_json::Map<String, Value>;

fn operators(condition: &Value) -> Option<&Operators> {
    condition.as_object().filter(|members| members.keys().next().is_some_and(|name| name.starts_with('$')))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Uuid,
    Text,
    Time,
    Integer,
    Json,
}

struct Field<'a> {
    kind: Kind,
    /// `None` when a column is null or a document has nothing there.
    value: Option<&'a Value>,
}

impl<'a> Field<'a> {
    fn find(name: &str, context: &'a Value) -> Self {
        let segments = segments(name);
        let (first, rest) = segments.split_first().expect("a name");
        let value = &context[first.as_str()];
        let kind = match first.as_str() {
            "metadata" | "content" => {
                let value = rest.iter().try_fold(value, |value, segment| step(value, segment));
                return Self { kind: Kind::Json, value };
            }
            "id" | "user_id" => Kind::Uuid,
            "created_at" | "updated_at" | "expires_at" | "valid_from" | "valid_to" => Kind::Time,
            "version" => Kind::Integer,
            _ => Kind::Text,
        };
        Self { kind, value: Some(value).filter(|value| !value.is_null()) }
    }

    fn passes_all(&self, operators: &Operators) -> bool {
        operators.iter().all(|(name, operand)| match name.as_str() {
            "$eq" => self.equals(operand),
            "$ne" => !self.equals(operand),
            "$in" => list(operand).iter().any(|operand| self.equals(operand)),
            "$nin" => !list(operand).iter().any(|operand| self.equals(operand)),
            "$gt" => self.order(operand).is_some_and(Ordering::is_gt),
            "$gte" => self.order(operand).is_some_and(Ordering::is_ge),
            "$lt" => self.order(operand).is_some_and(Ordering::is_lt),
            "$lte" => self.order(operand).is_some_and(Ordering::is_le),
            "$contains" => self.contains(operand),
            "$exists" => self.value.is_some() == operand.as_bool().expect("a boolean"),
            "$not" => !self.passes_all(operand.as_object().expect("operators")),
            other => panic!("no operator: {other}"),
        })
    }

    fn equals(&self, operand: &Value) -> bool {
        match self.value {
            _ if operand.is_null() => self.value.is_none_or(Value::is_null),
            None => false,
            Some(value) if self.kind == Kind::Json => equal(value, operand),
            Some(_) => self.order(operand) == Some(Ordering::Equal),
        }
    }

    fn order(&self, operand: &Value) -> Option<Ordering> {
        let value = self.value?;
        match self.kind {
            Kind::Json if value.is_number() && operand.is_number() => {
                value.as_f64()?.partial_cmp(&operand.as_f64()?)
            }
            Kind::Json | Kind::Text => Some(value.as_str()?.cmp(operand.as_str()?)),
            Kind::Uuid => Some(uuid(value).cmp(&uuid(operand))),
            Kind::Time => Some(microseconds(value).cmp(&microseconds(operand))),
            Kind::Integer => Some(value.as_i64()?.cmp(&operand.as_i64()?)),
        }
    }

    fn contains(&self, operand: &Value) -> bool {
        match (self.value, operand) {
            (Some(Value::String(value)), Value::String(part)) => value.contains(part),
            (Some(Value::Array(items)), Value::Array(_)) => contains(&Value::Array(items.clone()), operand),
            (Some(Value::Array(items)), scalar) if is_scalar(scalar) => {
                items.iter().any(|item| equal(item, scalar))
            }
            (Some(value @ Value::Object(_)), Value::Object(_)) => contains(value, operand),
            _ => false,
        }
    }
}

/// Splits at dots; a backslash takes the next character as it is.
fn segments(name: &str) -> Vec<String> {
    let mut segments = vec![String::new()];
    let mut characters = name.chars();
    while let Some(character) = characters.next() {
        match character {
            '.' => segments.push(String::new()),
            '\\' => segments.last_mut().expect("one").push(characters.next().expect("an escaped one")),
            character => segments.last_mut().expect("one").push(character),
        }
    }
    segments
}

/// As PostgreSQL's `#>`, which reads the place of an element as C's `strtol` does.
fn step<'a>(value: &'a Value, segment: &str) -> Option<&'a Value> {
    match value {
        Value::Object(members) => members.get(segment),
        Value::Array(items) => {
            let blanks = [' ', '\t', '\n', '\u{b}', '\u{c}', '\r'];
            let index: i64 = segment.trim_start_matches(blanks).parse::<i32>().ok()?.into();
            let from_start = if index < 0 { index + items.len() as i64 } else { index };
            items.get(usize::try_from(from_start).ok()?)
        }
        _ => None,
    }
}

fn is_scalar(value: &Value) -> bool {
    !value.is_array() && !value.is_object()
}

/// Equality of jsonb: numbers by value, objects whatever the order of their members.
fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| equal(a, b)))
        }
        _ => a == b,
    }
}

/// Containment of jsonb below the top, where no array contains a bare scalar.
fn contains(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            part.iter().all(|(name, part)| whole.get(name).is_some_and(|whole| contains(whole, part)))
        }
        (Value::Array(whole), Value::Array(part)) => {
            part.iter().all(|part| whole.iter().any(|whole| contains(whole, part)))
        }
        _ => is_scalar(whole) && equal(whole, part),
    }
}

fn uuid(value: &Value) -> Uuid {
    value.as_str().and_then(|text| text.parse().ok()).expect("a UUID")
}

/// Times are kept to the microsecond.
fn microseconds(value: &Value) -> i128 {
    let text = value.as_str().expect("a time");
    OffsetDateTime::parse(text, &Rfc3339).expect("of RFC 3339").unix_timestamp_nanos().div_euclid(1_000)
}
