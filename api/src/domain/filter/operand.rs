//! What stands right of an operator, checked and typed; and the JSON pointers by which errors say where. Imports the
//! domain and `error`.

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;
use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};
use uuid::Uuid;

use crate::{
    domain::{EmbeddingStatus, JsonDocument, Language, whole_number},
    error::{Error, Result},
};

/// The pointer to what is called `token` within what is at `at`: RFC 6901.
pub(super) fn child(at: &str, token: &str) -> String {
    format!("{at}/{}", token.replace('~', "~0").replace('/', "~1").replace('\0', "\\u0000"))
}

/// What a JSON value is, by its first character, which is never blank in a `RawValue`.
pub(super) fn starts_with(raw: &RawValue, character: char) -> bool {
    raw.get().starts_with(character)
}

pub(super) fn is_null(raw: &RawValue) -> bool {
    raw.get() == "null"
}

/// The members of an object in their order, repeated ones included, with their values unread.
pub(super) struct Members<'a>(pub Vec<(String, &'a RawValue)>);

impl<'a> Members<'a> {
    /// `None` when it is not an object.
    pub(super) fn read(raw: &'a RawValue, at: &str) -> Result<Option<Self>> {
        if !starts_with(raw, '{') {
            return Ok(None);
        }
        serde_json::from_str(raw.get())
            .map(Some)
            .map_err(|_| Error::invalid(at, "has a name with half a surrogate pair, which is no text"))
    }

    /// Refuses names that stand there twice: which of them counts would be a guess.
    pub(super) fn unique(self, at: &str) -> Result<Vec<(String, &'a RawValue)>> {
        let mut seen = std::collections::HashSet::new();
        match self.0.iter().find(|(name, _)| !seen.insert(name)) {
            Some((name, _)) => {
                Err(Error::invalid(child(at, name), "is there twice; join the two conditions by `$and`"))
            }
            None => Ok(self.0),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(members)
            }
        }

        deserializer.deserialize_map(InOrder).map(Self)
    }
}

/// The elements of an array.
pub(super) fn elements<'a>(raw: &'a RawValue, at: &str, expected: &str) -> Result<Vec<&'a RawValue>> {
    serde_json::from_str(raw.get()).map_err(|_| Error::invalid(at, expected))
}

/// Any JSON that could be stored.
pub(super) fn json(raw: &RawValue, at: &str) -> Result<JsonDocument> {
    JsonDocument::parse(raw.to_owned()).map_err(|error| error.at(at))
}

fn string(raw: &RawValue, at: &str, expected: &str) -> Result<String> {
    if !starts_with(raw, '"') {
        return Err(Error::invalid(at, expected));
    }
    let document = json(raw, at)?;
    serde_json::from_str(document.as_str()).map_err(|_| Error::invalid(at, expected))
}

pub(super) fn text(raw: &RawValue, at: &str) -> Result<String> {
    string(raw, at, "must be a string")
}

pub(super) fn boolean(raw: &RawValue, at: &str) -> Result<bool> {
    serde_json::from_str(raw.get()).map_err(|_| Error::invalid(at, "must be true or false"))
}

pub(super) fn uuid(raw: &RawValue, at: &str) -> Result<Uuid> {
    let expected = "must be a UUID in a string, such as \"0190d5a0-0000-7000-8000-000000000001\"";
    string(raw, at, expected)?.parse().map_err(|_| Error::invalid(at, expected))
}

/// Cut to the microsecond, as times are when they are stored.
pub(super) fn time(raw: &RawValue, at: &str) -> Result<OffsetDateTime> {
    let expected = "must be a time of RFC 3339 in a string, such as \"2026-01-31T12:00:00Z\"";
    OffsetDateTime::parse(&string(raw, at, expected)?, &Rfc3339)
        .ok()
        // An offset may lead out of it into a year that does not exist; a schema cannot tell whether it does.
        .filter(|time| time.year() < 9999 || time.offset().is_utc())
        .and_then(|time| time.checked_to_offset(UtcOffset::UTC))
        .and_then(|time| time.replace_nanosecond(time.nanosecond() / 1_000 * 1_000).ok())
        .ok_or_else(|| Error::invalid(at, expected))
}

pub(super) fn integer(raw: &RawValue, at: &str) -> Result<i64> {
    let text = raw.get();
    let number = text.parse().ok().or_else(|| whole_number(text.parse().ok()?));
    number.ok_or_else(|| Error::invalid(at, "must be an integer, at most 9223372036854775807"))
}

pub(super) fn status(raw: &RawValue, at: &str) -> Result<String> {
    let expected = "must be one of \"pending\", \"ready\", \"failed\"";
    let text = string(raw, at, expected)?;
    if text.parse::<EmbeddingStatus>().is_ok() { Ok(text) } else { Err(Error::invalid(at, expected)) }
}

/// As it is stored: by the name of its configuration.
pub(super) fn language(raw: &RawValue, at: &str) -> Result<String> {
    serde_json::from_str::<Language>(raw.get()).map(|language| language.as_str().to_owned()).map_err(|_| {
        Error::invalid(at, "must be the code of a language in a string, such as \"en\" or \"und\"")
    })
}
