//! A context: a piece of JSON that belongs to a user of a tenant, and the text by which it is found.

use std::str::FromStr;

use serde::Serialize;
use serde_json::value::RawValue;
use strum::{EnumString, IntoStaticStr};
use time::{OffsetDateTime, UtcOffset};
use utoipa::ToSchema;

use super::{
    ContextId, Cursor, JsonDocument, Limit, UserId,
    limits::{CONTEXT_TYPE_CHARS_MAX, KEY_CHARS_MAX, METADATA_BYTES_MAX, TEXT_BYTES_MAX, TTL_SECONDS_MAX},
};
use crate::error::{Code, Error, Result};

/// A text of 1 to `chars_max` characters that PostgreSQL can keep.
fn bounded_name(pointer: &str, text: String, chars_max: usize) -> Result<String> {
    if text.trim().is_empty() || text.chars().count() > chars_max {
        return Err(Error::invalid(pointer, format!("must have 1 to {chars_max} characters, not all blank")));
    }
    if text.contains('\0') {
        return Err(Error::invalid(pointer, "must not hold the character U+0000"));
    }
    Ok(text)
}

/// The kind of a context, in the caller's own words: `note`, `message`, `profile` …
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextType(String);

impl ContextType {
    /// # Errors
    /// [`Code::InvalidRequest`] at `/context_type`.
    pub fn new(text: String) -> Result<Self> {
        bounded_name("/context_type", text, CONTEXT_TYPE_CHARS_MAX).map(Self)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The caller's own name for a context, unique per user. Writing to a key that exists updates its context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextKey(String);

impl ContextKey {
    /// # Errors
    /// [`Code::InvalidRequest`] at `/key`.
    pub fn new(text: String) -> Result<Self> {
        bounded_name("/key", text, KEY_CHARS_MAX).map(Self)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// When a context stops being visible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    Never,
    At(OffsetDateTime),
    /// Seconds from the moment of the write, by the database's clock.
    After(i64),
}

impl Expiry {
    /// # Errors
    /// [`Code::InvalidRequest`] when both are given or one is out of range.
    pub fn new(expires_at: Option<OffsetDateTime>, ttl_seconds: Option<i64>) -> Result<Self> {
        match (expires_at, ttl_seconds) {
            (None, None) => Ok(Self::Never),
            (Some(_), Some(_)) => {
                Err(Error::invalid("/ttl_seconds", "give either `expires_at` or `ttl_seconds`, not both"))
            }
            // In UTC first: an offset may carry the last hour of 9999 into a year that does not exist.
            (Some(at), None) => match at.checked_to_offset(UtcOffset::UTC) {
                Some(at) if (1970..=9999).contains(&at.year()) => Ok(Self::At(at)),
                _ => Err(Error::invalid("/expires_at", "the year must be 1970 to 9999, in UTC")),
            },
            (None, Some(seconds @ 1..=TTL_SECONDS_MAX)) => Ok(Self::After(seconds)),
            (None, Some(_)) => {
                Err(Error::invalid("/ttl_seconds", format!("must be 1 to {TTL_SECONDS_MAX} seconds")))
            }
        }
    }
}

/// A context to be written.
#[derive(Clone, Debug)]
pub struct NewContext {
    pub user_id: UserId,
    pub context_type: ContextType,
    pub key: Option<ContextKey>,
    pub content: JsonDocument,
    pub metadata: JsonDocument,
    /// What search reads: the caller's `text`, or what [`JsonDocument::extract_text`] finds in `content`.
    pub text: String,
    pub expiry: Expiry,
}

impl NewContext {
    /// # Errors
    /// [`Code::InvalidRequest`], [`Code::InvalidJson`] or [`Code::TextTooLong`] with the pointer to the field.
    pub fn new(
        user_id: UserId,
        context_type: ContextType,
        key: Option<ContextKey>,
        content: Box<RawValue>,
        metadata: Option<Box<RawValue>>,
        text: Option<String>,
        expiry: Expiry,
    ) -> Result<Self> {
        let content = JsonDocument::parse(content).map_err(|error| error.at("/content"))?;
        let metadata = match metadata {
            None => JsonDocument::empty_object(),
            Some(raw) if raw.get().len() > METADATA_BYTES_MAX => {
                return Err(Error::invalid(
                    "/metadata",
                    format!(
                        "is {} bytes, {METADATA_BYTES_MAX} at most; larger data belongs into `content`",
                        raw.get().len()
                    ),
                ));
            }
            Some(raw) => JsonDocument::parse(raw).map_err(|error| error.at("/metadata"))?,
        };
        if !metadata.is_object() {
            return Err(Error::invalid("/metadata", "must be an object"));
        }
        let text_at = if text.is_some() { "/text" } else { "/content" };
        let text = text.unwrap_or_else(|| content.extract_text());
        if text.contains('\0') {
            return Err(Error::new(
                Code::InvalidJson,
                "The text holds the character U+0000, which PostgreSQL cannot store.",
            )
            .with_violation(text_at, "remove \\u0000"));
        }
        if text.len() > TEXT_BYTES_MAX {
            return Err(Error::new(
                Code::TextTooLong,
                "The text of the context is too long; split it into several contexts.",
            )
            .with_violation(
                text_at,
                format!("holds {} bytes of text, {TEXT_BYTES_MAX} at most", text.len()),
            ));
        }
        Ok(Self { user_id, context_type, key, content, metadata, text, expiry })
    }
}

/// Whether a context can be found by meaning yet. By words it can be found at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema, EnumString, IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum EmbeddingStatus {
    /// Waiting for its embedding.
    Pending,
    /// Embedded in the active space, or without any text to embed.
    Ready,
    /// The embedding service refused the text; `embedding_error` says why.
    Failed,
}

/// A stored context.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Context {
    #[schema(value_type = Uuid)]
    pub id: ContextId,
    #[schema(value_type = Uuid)]
    pub user_id: UserId,
    #[schema(max_length = 50)]
    pub context_type: String,
    /// The caller's own name for it, unique per user.
    #[schema(required, max_length = 255)]
    pub key: Option<String>,
    /// Any JSON, exactly as precise as it was sent.
    #[schema(value_type = Value)]
    pub content: Box<RawValue>,
    #[schema(value_type = Object)]
    pub metadata: Box<RawValue>,
    /// What search reads.
    pub text: String,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(required)]
    pub expires_at: Option<OffsetDateTime>,
    /// False once it was deleted.
    pub is_active: bool,
    /// Counts the writes, from 1.
    #[schema(minimum = 1)]
    pub version: i64,
    pub embedding_status: EmbeddingStatus,
    /// Why the embedding failed, in the embedding service's words.
    #[schema(required)]
    pub embedding_error: Option<String>,
}

/// Which contexts to list, newest first.
#[derive(Clone, Debug)]
pub struct ListRequest {
    pub user_id: Option<UserId>,
    pub context_type: Option<ContextType>,
    pub limit: Limit,
    pub cursor: Option<Cursor>,
}

impl TryFrom<&str> for ContextType {
    type Error = Error;

    fn try_from(text: &str) -> Result<Self> {
        Self::new(text.to_owned())
    }
}

impl EmbeddingStatus {
    /// # Errors
    /// When the database holds a status that this version does not know.
    pub fn parse(text: &str) -> Result<Self> {
        Self::from_str(text).map_err(|_| Error::internal(format!("unknown embedding status `{text}`")))
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    fn context(content: &str, metadata: Option<&str>, text: Option<String>) -> Result<NewContext> {
        NewContext::new(
            UserId(Uuid::nil()),
            ContextType::new("note".into())?,
            None,
            raw(content),
            metadata.map(raw),
            text,
            Expiry::Never,
        )
    }

    #[test]
    fn text_is_extracted_only_when_none_is_given() {
        assert_eq!(context(r#"{"a":"x"}"#, None, None).unwrap().text, "x");
        assert_eq!(context(r#"{"a":"x"}"#, None, Some("y".into())).unwrap().text, "y");
        assert_eq!(context(r#"{"a":"x"}"#, None, Some(String::new())).unwrap().text, "");
    }

    #[test]
    fn text_and_metadata_at_the_limit_pass_and_one_byte_more_fails() {
        assert!(context("1", None, Some("a".repeat(TEXT_BYTES_MAX))).is_ok());
        let error = context("1", None, Some("a".repeat(TEXT_BYTES_MAX + 1))).unwrap_err();
        assert_eq!(error.code, Code::TextTooLong);
        let metadata = |bytes: usize| format!(r#"{{"a":"{}"}}"#, "b".repeat(bytes - 8));
        assert!(context("1", Some(&metadata(METADATA_BYTES_MAX)), None).is_ok());
        assert!(context("1", Some(&metadata(METADATA_BYTES_MAX + 1)), None).is_err());
    }

    #[test]
    fn metadata_must_be_an_object_and_pointers_name_the_field() {
        assert_eq!(context("1", Some("[]"), None).unwrap_err().violations[0].pointer, "/metadata");
        let error = context(r#"{"a":"\u0000"}"#, None, None).unwrap_err();
        assert_eq!(error.violations[0].pointer, "/content/a");
    }

    #[test]
    fn names_are_bounded_in_characters_not_bytes() {
        assert!(ContextType::new("ä".repeat(CONTEXT_TYPE_CHARS_MAX)).is_ok());
        assert!(ContextType::new("ä".repeat(CONTEXT_TYPE_CHARS_MAX + 1)).is_err());
        assert!(ContextKey::new("ä".repeat(KEY_CHARS_MAX)).is_ok());
        assert!(ContextKey::new("ä".repeat(KEY_CHARS_MAX + 1)).is_err());
        assert!(ContextKey::new(" ".into()).is_err() && ContextKey::new("a\0".into()).is_err());
    }

    #[test]
    fn an_expiry_is_one_of_two_and_in_range() {
        assert_eq!(Expiry::new(None, Some(1)).unwrap(), Expiry::After(1));
        assert_eq!(Expiry::new(None, Some(TTL_SECONDS_MAX)).unwrap(), Expiry::After(TTL_SECONDS_MAX));
        for ttl in [0, -1, TTL_SECONDS_MAX + 1, i64::MAX] {
            assert!(Expiry::new(None, Some(ttl)).is_err());
        }
        assert!(Expiry::new(Some(OffsetDateTime::UNIX_EPOCH), Some(1)).is_err());
        let last = time::macros::datetime!(9999-12-31 23:59:59 UTC);
        assert_eq!(Expiry::new(Some(last), None).unwrap(), Expiry::At(last));
        for beyond in [
            time::macros::datetime!(9999-12-31 23:59:59 -01:00),
            time::macros::datetime!(1970-01-01 0:00 +01:00),
        ] {
            assert!(Expiry::new(Some(beyond), None).is_err());
        }
    }
}
