//! Which contexts are meant: a filter in JSON, read into a tree whose operands are checked and typed, so that what
//! turns it into SQL can neither fail nor be fooled. `docs/filters.md` says what the language means. Imports the domain
//! and `error`.

mod condition;
mod field;
mod operand;
mod parse;

use serde_json::value::RawValue;
use time::OffsetDateTime;
use uuid::Uuid;

pub use self::field::{Column, Document, JsonPath};
use super::JsonDocument;
use crate::error::Result;

/// Bytes of a filter.
pub const FILTER_BYTES_MAX: usize = 8 * 1024;
/// How deep `$and`, `$or` and `$not` may stand in each other.
pub const FILTER_DEPTH_MAX: usize = 8;
/// Tests in one filter: each operator that compares, and each bare value, is one.
pub const FILTER_TESTS_MAX: usize = 64;
/// Values of one `$in` or `$nin`.
pub const FILTER_VALUES_MAX: usize = 256;
/// Segments of one path, after `metadata` or `content`.
pub const FILTER_PATH_SEGMENTS_MAX: usize = 16;

/// A condition on contexts. For every context it is true or false, never unknown: what tests a field that is missing
/// is false, and the negation of it is true.
#[derive(Clone, Debug)]
pub enum Filter {
    /// True when empty.
    All(Vec<Filter>),
    /// Never empty.
    Any(Vec<Filter>),
    Not(Box<Filter>),
    Uuid(Column, ColumnTest<Uuid>),
    /// Text, or one of a few words.
    Text(Column, ColumnTest<String>),
    Time(Column, ColumnTest<OffsetDateTime>),
    Integer(Column, ColumnTest<i64>),
    /// A column of text holds this text somewhere.
    Contains(Column, String),
    Json(JsonPath, JsonTest),
}

/// What a column is compared with. A column that is null passes [`Self::Null`] alone, and what lists null.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ColumnTest<T> {
    Null,
    Equal(T),
    Ordered(Order, T),
    OneOf { values: Vec<T>, or_null: bool },
}

/// What a place in a JSON document is compared with.
#[derive(Clone, Debug)]
pub enum JsonTest {
    /// There is something, if only a null.
    Exists,
    /// Null means that there is a null or nothing.
    Equal(JsonDocument),
    /// Null among them means the same.
    OneOf(Vec<JsonDocument>),
    /// A number there compares so with this number. The document is one.
    OrderedNumber(Order, JsonDocument),
    /// A string there compares so with this text, by code points.
    OrderedText(Order, String),
    /// An array or an object there contains this, which is not a string.
    Contains(JsonDocument),
    /// An array there has this text as an element, or a string there holds it somewhere.
    ContainsText(String),
}

/// How two values are ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

impl Filter {
    /// Reads a filter. Takes the JSON as it was sent, so that its numbers keep every digit.
    ///
    /// # Errors
    /// [`crate::error::Code::InvalidRequest`], or `InvalidJson` for an operand that could not be stored either, with
    /// pointers relative to the filter.
    pub fn parse(raw: &RawValue) -> Result<Self> {
        parse::filter(raw)
    }

    /// The contrary. Two negations are none, because nothing is unknown.
    fn negated(self) -> Self {
        match self {
            Self::Not(inner) => *inner,
            other => Self::Not(Box::new(other)),
        }
    }

    fn all(mut parts: Vec<Self>) -> Self {
        match parts.pop() {
            Some(only) if parts.is_empty() => only,
            Some(last) => {
                parts.push(last);
                Self::All(parts)
            }
            None => Self::All(parts),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Code, Error};

    fn parse(text: &str) -> Result<Filter> {
        Filter::parse(&RawValue::from_string(text.to_owned()).unwrap())
    }

    /// The pointer and the sentence of what is wrong.
    fn refused(text: &str) -> (String, String) {
        let error: Error = parse(text).expect_err(text);
        assert!(matches!(error.code, Code::InvalidRequest | Code::InvalidJson), "{error}");
        (error.violations[0].pointer.clone(), error.violations[0].detail.clone())
    }

    #[test]
    fn errors_say_where_and_what_is_allowed() {
        for (filter, pointer, says) in [
            ("[]", "", "object"),
            ("null", "", "object"),
            ("\"x\"", "", "object"),
            (r#"{"colour":1}"#, "/colour", "expires_at"),
            (r#"{"a/b~c":1}"#, "/a~1b~0c", "`metadata.`"),
            (r#"{"$nor":[]}"#, "/$nor", "$and, $or, $not"),
            (r#"{"$or":[]}"#, "/$or", "at least one"),
            (r#"{"$and":{}}"#, "/$and", "list"),
            (r#"{"$or":[{},{"created_at":{"$gt":"soon"}}]}"#, "/$or/1/created_at/$gt", "RFC 3339"),
            (r#"{"$or":[{},7]}"#, "/$or/1", "object"),
            (r#"{"$not":[]}"#, "/$not", "object"),
            (r#"{"metadata.a":{"$foo":1}}"#, "/metadata.a/$foo", "$eq, $ne, $gt"),
            (r#"{"metadata.a/b":{"$exists":1}}"#, "/metadata.a~1b/$exists", "true or false"),
            (r#"{"metadata.a":{"$gt":1,"b":2}}"#, "/metadata.a", "mixes"),
            (r#"{"metadata.a":{"$gt":true}}"#, "/metadata.a/$gt", "number or a string"),
            (r#"{"metadata.a":{"$lte":null}}"#, "/metadata.a/$lte", "number or a string"),
            (r#"{"metadata.a":{"$in":1}}"#, "/metadata.a/$in", "list"),
            (r#"{"metadata.a":{"$not":1}}"#, "/metadata.a/$not", "$ne"),
            (r#"{"metadata.a":{"$not":{}}}"#, "/metadata.a/$not", "$ne"),
            (r#"{"metadata.a":{"$not":{"$foo":1}}}"#, "/metadata.a/$not/$foo", "$eq"),
            (r#"{"metadata.a":1,"metadata.a":2}"#, "/metadata.a", "twice"),
            (r#"{"metadata.a":{"$eq":1,"$eq":2}}"#, "/metadata.a/$eq", "twice"),
            (r#"{"metadata.a\\":1}"#, r"/metadata.a\", "backslash"),
            (r#"{"metadata.a":["b",{"c":"\u0000"}]}"#, "/metadata.a/1/c", "u0000"),
            (r#"{"metadata.a\u0000":1}"#, r"/metadata.a\u0000", "U+0000"),
            (r#"{"metadata.a":{"$in":[1,1e400]}}"#, "/metadata.a/$in/1", "number out of range"),
            (r#"{"metadata.\ud800":1}"#, "", "surrogate"),
            (r#"{"id":"x"}"#, "/id", "UUID"),
            (r#"{"id":{}}"#, "/id", "UUID"),
            (r#"{"user_id":{"$in":["0190d5a0-0000-7000-8000-000000000001",1]}}"#, "/user_id/$in/1", "UUID"),
            (r#"{"id":{"$contains":"0"}}"#, "/id/$contains", "$exists, $not"),
            (r#"{"key":1}"#, "/key", "string"),
            (r#"{"text":{"$contains":null}}"#, "/text/$contains", "string"),
            (r#"{"version":1.5}"#, "/version", "integer"),
            (r#"{"version":9223372036854775808}"#, "/version", "integer"),
            (r#"{"version":{"$gt":"1"}}"#, "/version/$gt", "integer"),
            (r#"{"valid_to":"2026-01-31"}"#, "/valid_to", "RFC 3339"),
            (r#"{"expires_at":"9999-12-31T23:59:59-01:00"}"#, "/expires_at", "RFC 3339"),
            (r#"{"embedding_status":"done"}"#, "/embedding_status", "pending"),
            (r#"{"embedding_status":{"$gt":"ready"}}"#, "/embedding_status/$gt", "$eq, $ne, $in, $nin, $not"),
        ] {
            let (at, detail) = refused(filter);
            assert_eq!(at, pointer, "{filter}: {detail}");
            assert!(detail.contains(says), "{filter}: {detail}");
        }
    }

    #[test]
    fn each_limit_passes_and_one_more_is_refused() {
        let padded = |bytes: usize| format!(r#"{{"text":"{}"}}"#, "x".repeat(bytes - 11));
        assert!(parse(&padded(FILTER_BYTES_MAX)).is_ok());
        assert_eq!(refused(&padded(FILTER_BYTES_MAX + 1)).0, "");

        let nested = |levels: usize| format!("{}{{}}{}", r#"{"$not":"#.repeat(levels), "}".repeat(levels));
        assert!(parse(&nested(FILTER_DEPTH_MAX)).is_ok());
        assert_eq!(refused(&nested(FILTER_DEPTH_MAX + 1)).0, "/$not".repeat(FILTER_DEPTH_MAX + 1));
        // The operator between conditions counts as well.
        let inner = |levels: usize| {
            let (open, close) = (r#"{"$not":"#.repeat(levels), "}".repeat(levels));
            format!(r#"{{"$or":[{{"key":{open}{{"$eq":"k"}}{close}}}]}}"#)
        };
        assert!(parse(&inner(FILTER_DEPTH_MAX - 1)).is_ok());
        assert!(refused(&inner(FILTER_DEPTH_MAX)).1.contains("nested"));

        let tests = |count: usize| format!(r#"{{"$and":[{}{{}}]}}"#, r#"{"metadata.a":1},"#.repeat(count));
        assert!(parse(&tests(FILTER_TESTS_MAX)).is_ok());
        assert_eq!(refused(&tests(FILTER_TESTS_MAX + 1)).0, format!("/$and/{FILTER_TESTS_MAX}/metadata.a"));

        let values = |count: usize| format!(r#"{{"version":{{"$nin":[{}0]}}}}"#, "1,".repeat(count - 1));
        assert!(parse(&values(FILTER_VALUES_MAX)).is_ok());
        assert_eq!(refused(&values(FILTER_VALUES_MAX + 1)).0, "/version/$nin");
    }

    #[test]
    fn nothing_deep_exhausts_the_stack() {
        for levels in [100, 1_000, 10_000, 100_000] {
            for (open, close) in
                [(r#"{"$not":"#, "}"), (r#"{"$and":["#, "]}"), (r#"{"content":["#, "]}"), ("[", "]")]
            {
                refused(&format!("{}{{}}{}", open.repeat(levels), close.repeat(levels)));
            }
            let operand = format!(r#"{{"content":{}{}}}"#, "[".repeat(levels), "]".repeat(levels));
            refused(&operand);
        }
    }

    #[test]
    fn a_filter_becomes_typed_tests() {
        assert!(matches!(parse("{}").unwrap(), Filter::All(parts) if parts.is_empty()));
        let time = time::macros::datetime!(2026-01-31 11:00:00.123456 UTC);
        assert!(matches!(
            parse(r#"{"created_at":{"$lt":"2026-01-31T12:00:00.123456789+01:00"}}"#).unwrap(),
            Filter::Time(Column::CreatedAt, ColumnTest::Ordered(Order::Less, at)) if at == time
        ));
        assert!(matches!(
            parse(r#"{"key":{"$in":["a",null]}}"#).unwrap(),
            Filter::Text(Column::Key, ColumnTest::OneOf { values, or_null: true }) if values == ["a"]
        ));
        assert!(matches!(
            parse(r#"{"key":{"$exists":false}}"#).unwrap(),
            Filter::Text(Column::Key, ColumnTest::Null)
        ));
        let digits = "12345678901234567890.123456789012345678901";
        assert!(matches!(
            parse(&format!(r#"{{"metadata.n":{{"$ne":{digits}}}}}"#)).unwrap(),
            Filter::Not(inner) if matches!(&*inner, Filter::Json(_, JsonTest::Equal(n)) if n.as_str() == digits)
        ));
    }

    #[test]
    fn an_object_is_operators_when_its_names_say_so() {
        let equals = |filter: &str, json: &str| {
            assert!(
                matches!(parse(filter).unwrap(), Filter::Json(_, JsonTest::Equal(value)) if value.as_str() == json),
                "{filter}"
            );
        };
        equals(r#"{"metadata.a":{}}"#, "{}");
        equals(r#"{"metadata.a":{"b":{"$gt":1}}}"#, r#"{"b":{"$gt":1}}"#);
        equals(r#"{"metadata.a":{"$eq":{"$gt":1}}}"#, r#"{"$gt":1}"#);
        equals(r#"{"metadata.a":{"$not":{"$ne":[1]}}}"#, "[1]");
    }
}
