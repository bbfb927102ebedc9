//! What a caller sends to be stored, and what it is once it was checked.

use serde::Deserialize;
use serde_json::value::RawValue;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    Context, ContextKey, ContextType, Expiry, JsonDocument, Language, UserId, Validity, Vector,
    limits::{CONTENT_BYTES_MAX, METADATA_BYTES_MAX, TEXT_BYTES_MAX},
    optional_whole,
};
use crate::error::{Code, Error, Result};

/// A context to be written.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ContextInput {
    /// The end user that it belongs to. It stays with this user.
    pub user_id: Uuid,
    /// Its kind, in your own words.
    #[schema(min_length = 1, max_length = 50, pattern = r"^[^\x00]*[^\s\x00][^\x00]*$")]
    pub context_type: String,
    /// Your own name for it, unique per user. When it exists already, its context is updated.
    #[schema(min_length = 1, max_length = 255, pattern = r"^[^\x00]*[^\s\x00][^\x00]*$")]
    pub key: Option<String>,
    /// Any JSON.
    #[schema(value_type = Value)]
    pub content: Box<RawValue>,
    /// An object of at most 16 KiB.
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<Box<RawValue>>,
    /// What search reads, at most 256 KiB. Left out: every string in `content`, in the order sent.
    #[schema(max_length = 262_144, pattern = r"^[^\x00]*$")]
    pub text: Option<String>,
    /// The language of the text, for search by words. Left out: `en`.
    pub language: Option<Language>,
    /// From when on it is not visible any more.
    #[serde(default, with = "time::serde::rfc3339::option")]
    pub expires_at: Option<OffsetDateTime>,
    /// The same, in seconds from now: up to ten years.
    #[serde(default, deserialize_with = "optional_whole")]
    #[schema(minimum = 1, maximum = 316_224_000)]
    pub ttl_seconds: Option<i64>,
    /// The same, in seconds from when it was last read by its id or found by a search. `expires_at` may say when it
    /// expires if nobody reads it at all.
    #[serde(default, deserialize_with = "optional_whole")]
    #[schema(minimum = 1, maximum = 316_224_000)]
    pub sliding_ttl_seconds: Option<i64>,
    /// From when on what it says holds. Search takes only what holds now.
    #[serde(default, with = "time::serde::rfc3339::option")]
    pub valid_from: Option<OffsetDateTime>,
    /// Until when it holds, this moment excluded.
    #[serde(default, with = "time::serde::rfc3339::option")]
    pub valid_to: Option<OffsetDateTime>,
    /// The embedding of the text, of the active embedding space. Left out: the service makes it. The text is then one
    /// chunk, whatever its length.
    #[schema(min_items = 1, max_items = 4000)]
    pub embedding: Option<Vec<f32>>,
}

/// A context to be written, checked.
#[derive(Clone, Debug)]
pub struct NewContext {
    pub user_id: UserId,
    pub context_type: ContextType,
    pub key: Option<ContextKey>,
    pub content: JsonDocument,
    pub metadata: JsonDocument,
    /// What search reads: the caller's `text`, or what [`JsonDocument::extract_text`] finds in `content`.
    pub text: String,
    pub text_given: bool,
    pub language: Language,
    pub expiry: Expiry,
    pub validity: Validity,
    /// The caller's own; none when the service has to make it.
    pub embedding: Option<Vector>,
}

impl ContextInput {
    /// # Errors
    /// [`Code::InvalidRequest`], [`Code::InvalidJson`], [`Code::InvalidVector`] or [`Code::TextTooLong`] with the pointer
    /// to the field.
    pub fn check(self) -> Result<NewContext> {
        let content = JsonDocument::parse(self.content).map_err(|error| error.at("/content"))?;
        if content.compact_bytes() > CONTENT_BYTES_MAX {
            return Err(Error::new(Code::BodyTooLarge, "The content is too large.").with_violation(
                "/content",
                format!("{CONTENT_BYTES_MAX} bytes at most, numbers written out"),
            ));
        }
        let text_given = self.text.is_some();
        let text = match self.text {
            Some(text) => checked_text("/text", text)?,
            None => checked_text("/content", content.extract_text())?,
        };
        Ok(NewContext {
            user_id: UserId(self.user_id),
            context_type: ContextType::new(self.context_type)?,
            key: self.key.map(ContextKey::new).transpose()?,
            content,
            metadata: checked_metadata(self.metadata)?,
            text,
            text_given,
            language: self.language.unwrap_or_default(),
            expiry: Expiry::new(self.expires_at, self.ttl_seconds, self.sliding_ttl_seconds)?,
            validity: Validity::new(self.valid_from, self.valid_to)?,
            embedding: self
                .embedding
                .map(|values| Vector::new(values).map_err(|error| error.at("/embedding")))
                .transpose()?,
        })
    }
}

impl NewContext {
    /// Keeps the text of `present` where it was extracted from this very content: the order of its members, in which it was
    /// extracted, is not stored.
    #[must_use]
    pub fn with_text_of(mut self, present: &Context) -> Self {
        if !self.text_given && !present.text_given && self.content.equals(&present.content) {
            self.text.clone_from(&present.text);
        }
        self
    }

    /// What makes `context` again what it was in content: of the caller's fields all but the life, which is that of
    /// `present`.
    ///
    /// # Errors
    /// When the database holds what could not have been stored.
    pub fn restored(context: Context, embedding: Option<Vector>, present: &Context) -> Result<Self> {
        Ok(Self {
            user_id: context.user_id,
            context_type: ContextType::new(context.context_type)?,
            key: context.key.map(ContextKey::new).transpose()?,
            content: JsonDocument::parse(context.content)?,
            metadata: JsonDocument::parse(context.metadata)?,
            text: context.text,
            text_given: context.text_given,
            language: context.language,
            expiry: match (present.sliding_ttl_seconds, present.expires_at) {
                (Some(seconds), first) => Expiry::Sliding { seconds, first },
                (None, Some(at)) => Expiry::At(at),
                (None, None) => Expiry::Never,
            },
            validity: Validity { from: context.valid_from, to: context.valid_to },
            embedding,
        })
    }
}

fn checked_metadata(raw: Option<Box<RawValue>>) -> Result<JsonDocument> {
    let Some(raw) = raw.filter(|raw| raw.get() != "null") else { return Ok(JsonDocument::empty_object()) };
    let metadata = JsonDocument::parse(raw).map_err(|error| error.at("/metadata"))?;
    let bytes = metadata.compact_bytes();
    if bytes > METADATA_BYTES_MAX {
        let detail =
            format!("is {bytes} bytes, {METADATA_BYTES_MAX} at most; larger data belongs into `content`");
        return Err(Error::invalid("/metadata", detail));
    }
    if metadata.is_object() { Ok(metadata) } else { Err(Error::invalid("/metadata", "must be an object")) }
}

fn checked_text(pointer: &str, text: String) -> Result<String> {
    if text.contains('\0') {
        return Err(Error::new(
            Code::InvalidJson,
            "The text holds the character U+0000, which PostgreSQL cannot store.",
        )
        .with_violation(pointer, "remove \\u0000"));
    }
    if text.len() > TEXT_BYTES_MAX {
        return Err(Error::new(
            Code::TextTooLong,
            "The text of the context is too long; split it into several contexts.",
        )
        .with_violation(pointer, format!("holds {} bytes of text, {TEXT_BYTES_MAX} at most", text.len())));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(content: &str, metadata: Option<&str>, text: Option<String>) -> Result<NewContext> {
        let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
        ContextInput {
            user_id: Uuid::nil(),
            context_type: "note".to_owned(),
            key: None,
            content: raw(content),
            metadata: metadata.map(raw),
            text,
            language: None,
            expires_at: None,
            ttl_seconds: None,
            sliding_ttl_seconds: None,
            valid_from: None,
            valid_to: None,
            embedding: None,
        }
        .check()
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
    fn content_at_the_limit_passes_and_one_byte_more_fails() {
        let content =
            |bytes: usize| context(&format!("\"{}\"", "a".repeat(bytes - 2)), None, Some(String::new()));
        assert!(content(CONTENT_BYTES_MAX).is_ok());
        assert_eq!(content(CONTENT_BYTES_MAX + 1).unwrap_err().code, Code::BodyTooLarge);
        let blanks = format!("[1,{}2]", " ".repeat(CONTENT_BYTES_MAX));
        assert!(context(&blanks, None, None).is_ok(), "blanks are not stored");
    }

    #[test]
    fn metadata_must_be_an_object_and_pointers_name_the_field() {
        assert_eq!(context("1", Some("[]"), None).unwrap_err().violations[0].pointer, "/metadata");
        assert!(context("1", Some("null"), None).unwrap().metadata.is_object());
        let error = context(r#"{"a":"\u0000"}"#, None, None).unwrap_err();
        assert_eq!(error.violations[0].pointer, "/content/a");
    }
}
