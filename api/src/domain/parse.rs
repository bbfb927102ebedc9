//! JSON into types, with errors that say where.

use std::{collections::HashSet, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error as _, MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::{error::Category, value::RawValue};
use serde_path_to_error::Segment;

use crate::error::{Code, Error, Result};

/// An object of JSON. (serde would take an array, too, for the fields one after the other.)
///
/// # Errors
/// [`Code::InvalidJson`] when it is not JSON; [`Code::InvalidRequest`], with the pointer, when it is no `T`.
pub fn from_json<T: DeserializeOwned>(json: &[u8]) -> Result<T> {
    if json.is_empty() {
        return Err(Error::new(Code::InvalidJson, "The body is empty; send a JSON object."));
    }
    // Where something is wrong is found out only when something is: to keep track of it costs more than the reading itself.
    let value = serde_json::from_slice(json).or_else(|_| from_json_tracked(json))?;
    if json.trim_ascii_start().starts_with(b"[") {
        return Err(Error::invalid("", "must be an object"));
    }
    Ok(value)
}

/// The same, with the place of what is wrong.
fn from_json_tracked<T: DeserializeOwned>(json: &[u8]) -> Result<T> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let pointer = pointer(error.path());
        let error = error.into_inner();
        match error.classify() {
            Category::Data => Error::invalid(pointer, sentence(&error)),
            // Of a null where one of a few words should be, the parser says that there is no value.
            _ if serde_json::from_slice::<serde_json::Value>(json).is_ok() => {
                Error::invalid(pointer, "is not of the type that it should be")
            }
            _ => not_json(&error),
        }
    })?;
    deserializer.end().map_err(|error| not_json(&error))?;
    Ok(value)
}

/// Something within a body that has to be an object, too.
#[derive(Clone, Copy, Debug)]
pub struct ObjectOf<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for ObjectOf<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }

        deserializer.deserialize_map(Fields(PhantomData)).map(Self)
    }
}

/// The members of an object, in order, each name once.
#[derive(Debug)]
pub struct Members<T>(pub Vec<(String, T)>);

impl Members<Box<RawValue>> {
    /// The object that they are the members of.
    ///
    /// # Errors
    /// None for names and values that came from JSON.
    pub fn to_json(&self) -> Result<String> {
        let members = self.0.iter().map(|(name, value)| {
            let name = serde_json::to_string(name).map_err(Error::internal)?;
            Ok(format!("{name}:{value}"))
        });
        Ok(format!("{{{}}}", members.collect::<Result<Vec<_>>>()?.join(",")))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Members<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
            type Value = Members<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let (mut members, mut names) = (Vec::new(), HashSet::new());
                while let Some((name, value)) = map.next_entry::<String, T>()? {
                    if !names.insert(name.clone()) {
                        return Err(A::Error::custom(format_args!("duplicate field `{name}`")));
                    }
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Entries(PhantomData))
    }
}

fn not_json(error: &serde_json::Error) -> Error {
    Error::new(Code::InvalidJson, format!("The body is not JSON: {error}."))
}

/// The parser's words without the position, which the pointer gives better.
fn sentence(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

/// RFC 6901.
fn pointer(path: &serde_path_to_error::Path) -> String {
    path.iter()
        .filter_map(|segment| match segment {
            Segment::Seq { index } => Some(format!("/{index}")),
            Segment::Map { key } => Some(format!("/{}", key.replace('~', "~0").replace('/', "~1"))),
            Segment::Enum { .. } | Segment::Unknown => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only whether it parses matters")]
    struct Sample {
        name: String,
        numbers: Vec<u8>,
        #[serde(default)]
        word: Word,
        inner: Option<ObjectOf<Inner>>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only whether it parses matters")]
    struct Inner {
        number: Option<u8>,
    }

    #[derive(Debug, Default, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Word {
        #[default]
        One,
    }

    #[test]
    fn errors_say_where() {
        for (body, code, pointer) in [
            ("", Code::InvalidJson, None),
            ("{", Code::InvalidJson, None),
            ("nonsense", Code::InvalidJson, None),
            (r#"{"name":"a","numbers":[1]} x"#, Code::InvalidJson, None),
            ("[]", Code::InvalidRequest, Some("")),
            (r#" ["a", [1], "one"]"#, Code::InvalidRequest, Some("")),
            (r#"{"name":"a","numbers":[1,"2"]}"#, Code::InvalidRequest, Some("/numbers/1")),
            (r#"{"name":"a","numbers":[300]}"#, Code::InvalidRequest, Some("/numbers/0")),
            (r#"{"name":"a","numbers":[],"word":null}"#, Code::InvalidRequest, Some("/word")),
            (r#"{"name":"a","numbers":[],"word":"two"}"#, Code::InvalidRequest, Some("/word")),
            (r#"{"name":"a","numbers":[],"word":null"#, Code::InvalidJson, None),
            (r#"{"name":"a"}"#, Code::InvalidRequest, Some("")),
            (r#"{"name":"a","numbers":[],"other":1}"#, Code::InvalidRequest, Some("/other")),
            (r#"{"name":"a","numbers":[],"inner":[1]}"#, Code::InvalidRequest, Some("/inner")),
            (r#"{"name":"a","numbers":[],"inner":[null]}"#, Code::InvalidRequest, Some("/inner")),
            (
                r#"{"name":"a","numbers":[],"inner":{"number":"1"}}"#,
                Code::InvalidRequest,
                Some("/inner/number"),
            ),
            (r#"{"name":"a","numbers":[],"inner":{"other":1}}"#, Code::InvalidRequest, Some("/inner/other")),
        ] {
            let error = from_json::<Sample>(body.as_bytes()).unwrap_err();
            assert_eq!(error.code, code, "{body}");
            assert_eq!(error.violations.first().map(|v| v.pointer.as_str()), pointer, "{body}: {error}");
        }
        for body in [
            r#"{"name":"a","numbers":[1]}"#,
            r#"{"name":"a","numbers":[],"inner":{"number":1}}"#,
            r#"{"name":"a","numbers":[],"inner":null}"#,
        ] {
            assert!(from_json::<Sample>(body.as_bytes()).is_ok(), "{body}");
        }
        assert_eq!(
            from_json::<Sample>(b"{\"name\":\"\xff\",\"numbers\":[]}").unwrap_err().code,
            Code::InvalidJson
        );
    }
}
