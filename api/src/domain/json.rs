//! JSON that a client stores: kept as the text that was sent, so that no number loses a digit on its way, but checked
//! for what a database cannot keep before it gets there.

use serde_json::{Value, value::RawValue};

use super::limits::{JSON_DEPTH_MAX, NUMBER_BYTES_MAX, NUMBER_EXPONENT_MAX};
use crate::error::{Code, Error, Result};

/// A checked JSON text. Never holds `\u0000`, a lone surrogate, a number beyond a double, or more than
/// [`JSON_DEPTH_MAX`] levels.
#[derive(Clone, Debug)]
pub struct JsonDocument {
    raw: Box<RawValue>,
    value: Value,
}

impl JsonDocument {
    /// Checks `raw`.
    ///
    /// # Errors
    /// [`Code::InvalidJson`] or [`Code::InvalidRequest`], with pointers relative to the document.
    pub fn parse(raw: Box<RawValue>) -> Result<Self> {
        let value: Value = serde_json::from_str(raw.get()).map_err(|error| {
            Error::new(Code::InvalidJson, "The JSON holds a value that cannot be stored.")
                .with_violation("", error.to_string())
        })?;
        check(&value, &mut String::new(), 1)?;
        check_numbers(raw.get())?;
        Ok(Self { raw, value })
    }

    /// The empty object.
    pub fn empty_object() -> Self {
        let raw = RawValue::from_string("{}".to_owned()).unwrap_or_default();
        Self { raw, value: Value::Object(serde_json::Map::new()) }
    }

    /// The JSON as it was sent.
    pub fn as_str(&self) -> &str {
        self.raw.get()
    }

    /// Whether `other` is the same value, in whatever order its members stand.
    pub fn equals(&self, other: &RawValue) -> bool {
        serde_json::from_str::<Value>(other.get()).is_ok_and(|other| other == self.value)
    }

    /// Bytes of the document without blanks between its values and with its numbers written out: the same for the document
    /// as it was sent and as it comes back from the database.
    pub fn compact_bytes(&self) -> usize {
        let (mut in_string, mut escaped, mut bytes) = (false, false, 0);
        for byte in self.raw.get().bytes() {
            bytes += usize::from(in_string || !byte.is_ascii_whitespace());
            in_string ^= byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
        }
        bytes + numbers(self.raw.get()).filter_map(exponent).map(|exponent| exponent as usize).sum::<usize>()
    }

    pub fn is_object(&self) -> bool {
        self.value.is_object()
    }

    /// The text that a context is found by when the client gives none: every string value, depth first, in the order
    /// in which it was sent, one per line. Keys, numbers and booleans say little about meaning and are left out.
    pub fn extract_text(&self) -> String {
        let mut text = String::new();
        collect_strings(&self.value, &mut text);
        text
    }
}

fn check(value: &Value, pointer: &mut String, depth: usize) -> Result<()> {
    if depth > JSON_DEPTH_MAX {
        return Err(Error::invalid(
            pointer.clone(),
            format!("nested deeper than {JSON_DEPTH_MAX} levels; flatten the document"),
        ));
    }
    match value {
        Value::String(text) if text.contains('\0') => Err(nul_error(pointer)),
        Value::Array(items) => items.iter().enumerate().try_for_each(|(index, item)| {
            descend(pointer, &index.to_string(), |pointer| check(item, pointer, depth + 1))
        }),
        Value::Object(fields) => fields.iter().try_for_each(|(name, item)| {
            descend(pointer, name, |pointer| {
                if name.contains('\0') {
                    return Err(nul_error(pointer));
                }
                check(item, pointer, depth + 1)
            })
        }),
        _ => Ok(()),
    }
}

/// PostgreSQL keeps every digit of a number and writes out its exponent, so a few bytes can become many.
fn check_numbers(json: &str) -> Result<()> {
    let mut written_out = 0;
    for number in numbers(json) {
        let Some(exponent) = exponent(number).filter(|exponent| *exponent <= NUMBER_EXPONENT_MAX) else {
            return Err(Error::new(Code::InvalidJson, "The JSON holds a number that cannot be stored.")
                .with_violation(
                    "",
                    format!("an exponent is beyond {NUMBER_EXPONENT_MAX}; send the number as a string"),
                ));
        };
        written_out += number.len() + exponent as usize;
    }
    if written_out > NUMBER_BYTES_MAX {
        return Err(Error::new(Code::InvalidJson, "The JSON holds more digits than can be stored.")
            .with_violation(
                "",
                format!("its numbers, written out, take {written_out} bytes, {NUMBER_BYTES_MAX} at most"),
            ));
    }
    Ok(())
}

/// The exponent of a number, of either sign; none when it is beyond all bounds.
fn exponent(number: &str) -> Option<u32> {
    match number.split_once(['e', 'E']) {
        Some((_, exponent)) => exponent.trim_start_matches(['+', '-']).parse().ok(),
        None => Some(0),
    }
}

/// The numbers of a JSON text that is known to be well formed.
fn numbers(json: &str) -> impl Iterator<Item = &str> {
    let mut rest = json;
    std::iter::from_fn(move || {
        loop {
            let start = rest.find(|c: char| c == '"' || c == '-' || c.is_ascii_digit())?;
            rest = &rest[start..];
            if !rest.starts_with('"') {
                let is_part = |c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.' | 'e' | 'E');
                let (number, after) = rest.split_at(rest.find(|c| !is_part(c)).unwrap_or(rest.len()));
                rest = after;
                return Some(number);
            }
            let mut escaped = false;
            let end = rest[1..].find(|c| {
                let ends = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            })?;
            rest = &rest[end + 2..];
        }
    })
}

/// Runs `inner` with `pointer` extended by `token`, escaped as RFC 6901 asks.
fn descend(pointer: &mut String, token: &str, inner: impl FnOnce(&mut String) -> Result<()>) -> Result<()> {
    let length = pointer.len();
    pointer.push('/');
    pointer.push_str(&token.replace('~', "~0").replace('/', "~1").replace('\0', "\\u0000"));
    let result = inner(pointer);
    pointer.truncate(length);
    result
}

fn nul_error(pointer: &str) -> Error {
    Error::new(Code::InvalidJson, "The JSON holds the character U+0000, which PostgreSQL cannot store.")
        .with_violation(pointer, "remove \\u0000")
}

fn collect_strings(value: &Value, text: &mut String) {
    match value {
        Value::String(string) if !string.trim().is_empty() => {
            if !text.is_empty() {
                text.push('\n');
            }
            text.push_str(string);
        }
        Value::Array(items) => items.iter().for_each(|item| collect_strings(item, text)),
        Value::Object(fields) => fields.values().for_each(|item| collect_strings(item, text)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<JsonDocument> {
        JsonDocument::parse(RawValue::from_string(text.to_owned()).unwrap())
    }

    #[test]
    fn keeps_every_digit() {
        let text = r#"{"n":12345678901234567890.123456789012345678901}"#;
        assert_eq!(parse(text).unwrap().as_str(), text);
    }

    #[test]
    fn extracts_strings_in_the_order_sent() {
        let document = parse(r#"{"b":"one","a":["two",{"c":"three","n":4}],"e":" "}"#).unwrap();
        assert_eq!(document.extract_text(), "one\ntwo\nthree");
    }

    #[test]
    fn refuses_nul_in_values_and_names_with_a_pointer() {
        let error = parse(r#"{"a/b":["x\u0000"]}"#).unwrap_err();
        assert_eq!((error.code, error.violations[0].pointer.as_str()), (Code::InvalidJson, "/a~1b/0"));
        assert_eq!(parse(r#"{"x\u0000":1}"#).unwrap_err().code, Code::InvalidJson);
    }

    #[test]
    fn depth_at_the_limit_passes_and_one_more_fails() {
        let nested = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
        assert!(parse(&nested(JSON_DEPTH_MAX - 1)).is_ok());
        assert_eq!(parse(&nested(JSON_DEPTH_MAX)).unwrap_err().code, Code::InvalidRequest);
        assert_eq!(parse(&nested(10_000)).unwrap_err().code, Code::InvalidJson);
    }

    #[test]
    fn numbers_are_found_outside_of_strings() {
        let json = r#"{"a1":[-1.5e+3,20,"3 \" 4","\\"],"b":{"c":6E-7},"d":true}"#;
        assert_eq!(numbers(json).collect::<Vec<_>>(), ["-1.5e+3", "20", "6E-7"]);
        assert_eq!(numbers("42").collect::<Vec<_>>(), ["42"]);
    }

    #[test]
    fn the_size_is_that_of_what_is_stored_whatever_the_blanks() {
        let bytes = |text: &str| parse(text).unwrap().compact_bytes();
        assert_eq!(bytes(r#"{"a":[1,"x y \" z"]}"#), bytes("{ \"a\" :\n[1, \"x y \\\" z\"] }"));
        assert_eq!(bytes(r#"{"a":[1,"x y \" z"]}"#), 20);
        assert!(bytes("1e300") >= 301 && bytes("1e300") <= 310);
    }

    #[test]
    fn numbers_that_would_grow_are_refused() {
        assert!(parse("[1e308, 5e-324, 0.1]").is_ok());
        for number in ["1e-325", "1e-20000", "0e99999999999"] {
            assert_eq!(parse(number).unwrap_err().code, Code::InvalidJson, "{number}");
        }
        let many = |count: usize| format!("[{}1]", "1e-300,".repeat(count));
        assert!(parse(&many(6_000)).is_ok());
        assert_eq!(parse(&many(8_000)).unwrap_err().code, Code::InvalidJson);
    }

    #[test]
    fn refuses_numbers_beyond_a_double_and_lone_surrogates() {
        assert_eq!(parse("1e400").unwrap_err().code, Code::InvalidJson);
        assert_eq!(parse(r#""\ud800""#).unwrap_err().code, Code::InvalidJson);
    }
}
