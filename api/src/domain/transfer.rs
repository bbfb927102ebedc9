//! Lines of an export, which are lines of an import.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    BatchResultKind, Context, ContextId, ContextInput, Language, NewContext, OperationId, UserId,
    life::storable_time, limits::IMPORT_VERSION_MAX, parse::from_json,
};
use crate::error::{Error, Result};

/// A line of an import: what a create takes, and what an export says besides.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportLine {
    /// Of the context to be made or changed; made by the service when left out.
    id: Option<Uuid>,
    user_id: Uuid,
    context_type: String,
    key: Option<String>,
    content: Box<RawValue>,
    metadata: Option<Box<RawValue>>,
    text: Option<String>,
    /// False: `text` was extracted from `content`, not given.
    text_given: Option<bool>,
    language: Option<Language>,
    /// Of a context that is new here: the version that it begins with.
    version: Option<i64>,
    #[serde(default, with = "time::serde::rfc3339::option")]
    created_at: Option<OffsetDateTime>,
    #[serde(default, with = "time::serde::rfc3339::option")]
    updated_at: Option<OffsetDateTime>,
    #[serde(default, with = "time::serde::rfc3339::option")]
    expires_at: Option<OffsetDateTime>,
    ttl_seconds: Option<i64>,
    sliding_ttl_seconds: Option<i64>,
    #[serde(default, with = "time::serde::rfc3339::option")]
    valid_from: Option<OffsetDateTime>,
    #[serde(default, with = "time::serde::rfc3339::option")]
    valid_to: Option<OffsetDateTime>,
    embedding: Option<Vec<f32>>,
}

/// What a context that comes from elsewhere brings along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    pub version: i64,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
}

/// A line that was checked.
#[derive(Debug)]
pub struct Imported {
    pub id: Option<ContextId>,
    /// Whether the id was made of the line: what has it is the line itself, stored earlier.
    pub is_derived: bool,
    pub new: NewContext,
    pub origin: Option<Origin>,
}

impl Imported {
    /// Whether nothing names it but its place in the import.
    pub fn is_nameless(&self) -> bool {
        self.id.is_none() && self.new.key.is_none()
    }
}

impl ImportLine {
    /// # Errors
    /// Those of a create, with pointers into the line.
    pub fn parse(json: &[u8]) -> Result<Imported> {
        let line: Self = from_json(json)?;
        let origin = line.origin()?;
        if line.text_given == Some(true) && line.text.is_none() {
            return Err(Error::invalid("/text", "is missing, although `text_given` says that it was given"));
        }
        let text_given = line.text_given.unwrap_or(line.text.is_some());
        let input = ContextInput {
            user_id: line.user_id,
            context_type: line.context_type,
            key: line.key,
            content: line.content,
            metadata: line.metadata,
            text: line.text,
            language: line.language,
            expires_at: line.expires_at,
            ttl_seconds: line.ttl_seconds,
            sliding_ttl_seconds: line.sliding_ttl_seconds,
            valid_from: line.valid_from,
            valid_to: line.valid_to,
            embedding: line.embedding,
        };
        let new = NewContext { text_given, ..input.check()? };
        Ok(Imported { id: line.id.map(ContextId), is_derived: false, new, origin })
    }

    fn origin(&self) -> Result<Option<Origin>> {
        match (self.version, self.created_at, self.updated_at) {
            (None, None, None) => Ok(None),
            (Some(version @ 1..=IMPORT_VERSION_MAX), Some(created_at), Some(updated_at)) => {
                let created_at = storable_time("/created_at", created_at)?;
                let updated_at = storable_time("/updated_at", updated_at)?;
                if created_at > updated_at {
                    return Err(Error::invalid("/updated_at", "must not be before `created_at`"));
                }
                Ok(Some(Origin { version, created_at, updated_at }))
            }
            (Some(_), Some(_), Some(_)) => {
                Err(Error::invalid("/version", format!("must be 1 to {IMPORT_VERSION_MAX}")))
            }
            _ => Err(Error::invalid("/version", "`version`, `created_at` and `updated_at` go together")),
        }
    }
}

/// The id of a context that has none, made of the import, the line and its place: sent again, the line names the same. A uuid
/// v7 (RFC 9562, section 5.7) of the time of the import; what is random there is the line's number and a hash here, so that
/// ids sort as the lines stand.
pub fn derived_id(import: OperationId, line: u64, json: &[u8]) -> ContextId {
    const HASH_BITS: u32 = 42;
    const B_BITS: u32 = 62;
    let mut digest = Sha256::new();
    digest.update(import.0.as_bytes());
    digest.update(line.to_be_bytes());
    digest.update(json);
    let hash = digest.finalize().iter().take(8).fold(0_u128, |hash, byte| hash << 8 | u128::from(*byte));
    let number = u128::from(line as u32) << HASH_BITS | hash & ((1 << HASH_BITS) - 1);
    let time = import.0.as_u128() >> 80 << 80;
    let (version, variant) = (0x7 << 76, 0b10 << B_BITS);
    ContextId(Uuid::from_u128(
        time | version | number >> B_BITS << 64 | variant | number & ((1 << B_BITS) - 1),
    ))
}

/// What became of the lines so far.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
pub struct ImportCounts {
    /// Lines that were read, blank ones included.
    pub lines: u64,
    /// Lines that made a context.
    pub created: u64,
    /// Lines that changed one.
    pub updated: u64,
    /// They were there already.
    pub unchanged: u64,
    /// They were not stored.
    pub failed: u64,
    /// The number of the first line that was not read yet: where to go on.
    pub next_line: u64,
}

impl ImportCounts {
    pub fn note(&mut self, kind: BatchResultKind) {
        match kind {
            BatchResultKind::Created => self.created += 1,
            BatchResultKind::Changed | BatchResultKind::Deleted => self.updated += 1,
            BatchResultKind::Unchanged => self.unchanged += 1,
        }
    }
}

/// An import that has ended.
#[derive(Clone, Copy, Debug)]
pub struct ImportReport {
    pub operation: OperationId,
    pub counts: ImportCounts,
}

impl ImportReport {
    pub fn new(operation: OperationId) -> Self {
        Self { operation, counts: ImportCounts::default() }
    }
}

/// A line of an export.
#[derive(Serialize)]
pub struct ExportLine<'a> {
    id: ContextId,
    user_id: UserId,
    context_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    content: &'a RawValue,
    metadata: &'a RawValue,
    text: &'a str,
    text_given: bool,
    language: Language,
    version: i64,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    updated_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    expires_at: Option<OffsetDateTime>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sliding_ttl_seconds: Option<i64>,
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    valid_from: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    valid_to: Option<OffsetDateTime>,
    #[serde(skip_serializing_if = "Option::is_none")]
    embedding: Option<&'a [f32]>,
}

impl<'a> ExportLine<'a> {
    pub fn new(context: &'a Context, embedding: Option<&'a [f32]>) -> Self {
        Self {
            id: context.id,
            user_id: context.user_id,
            context_type: &context.context_type,
            key: context.key.as_deref(),
            content: &context.content,
            metadata: &context.metadata,
            text: &context.text,
            text_given: context.text_given,
            language: context.language,
            version: context.version,
            created_at: context.created_at,
            updated_at: context.updated_at,
            expires_at: context.expires_at,
            sliding_ttl_seconds: context.sliding_ttl_seconds,
            valid_from: context.valid_from,
            valid_to: context.valid_to,
            embedding,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn derived_ids_differ_sort_by_line_and_are_of_version_seven() {
        let import = OperationId(Uuid::now_v7());
        let ids: Vec<ContextId> = (0..2_000).map(|line| derived_id(import, line, b"{}")).collect();
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
        assert!(ids.iter().all(|id| id.0.get_version_num() == 7 && id.0.as_bytes()[8] >> 6 == 0b10));
        assert!(
            ids.is_sorted() && derived_id(import, u64::from(u32::MAX), b"") > derived_id(import, 70_000, b"")
        );
        assert_eq!(ids[7], derived_id(import, 7, b"{}"));
        assert_ne!(ids[7], derived_id(import, 7, b"{} "), "another line");
        assert_ne!(ids[7], derived_id(OperationId(Uuid::now_v7()), 7, b"{}"));
        assert_eq!(&ids[0].0.as_bytes()[..6], &import.0.as_bytes()[..6], "the time of the import");
    }

    #[test]
    fn a_line_is_what_a_create_takes_or_what_an_export_says() {
        let parse = |rest: &str| {
            let start =
                r#"{"user_id":"0190d5a0-0000-7000-8000-000000000001","context_type":"t","content":{"a":"x"}"#;
            ImportLine::parse(format!("{start}{rest}}}").as_bytes())
        };
        let plain = parse("").unwrap();
        assert!(plain.id.is_none() && plain.origin.is_none() && !plain.new.text_given);
        assert!(parse(r#","text":"y""#).unwrap().new.text_given);
        let extracted = parse(r#","text":"y","text_given":false"#).unwrap().new;
        assert!(extracted.text == "y" && !extracted.text_given);
        assert!(parse(r#","text_given":true"#).is_err());
        let times = r#","created_at":"2026-01-01T00:00:00Z","updated_at":"2026-01-02T00:00:00Z""#;
        assert_eq!(parse(&format!(r#"{times},"version":7"#)).unwrap().origin.unwrap().version, 7);
        assert!(parse(times).is_err() && parse(r#","version":1"#).is_err());
        for (version, is_fine) in
            [(0, false), (1, true), (IMPORT_VERSION_MAX, true), (IMPORT_VERSION_MAX + 1, false)]
        {
            assert_eq!(parse(&format!(r#"{times},"version":{version}"#)).is_ok(), is_fine, "{version}");
        }
        assert!(parse(r#","surprise":1"#).is_err());
    }
}
