//! What a filter can test: the columns of a context, and places within its two JSON documents. Imports `error`.

use strum::{EnumIter, EnumString, IntoEnumIterator, IntoStaticStr};

use super::FILTER_PATH_SEGMENTS_MAX;
use crate::error::{Error, Result};

/// A column, by the name that it has in answers and in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, EnumString, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Column {
    Id,
    UserId,
    ContextType,
    Key,
    Text,
    CreatedAt,
    UpdatedAt,
    ExpiresAt,
    ValidFrom,
    ValidTo,
    Version,
    EmbeddingStatus,
    Language,
}

/// What kind of value a field holds, which says what it can be compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Uuid,
    Text,
    Time,
    Integer,
    /// One of a few words, without an order.
    Status,
    /// A code, without an order.
    Language,
    Json,
}

impl Column {
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    pub(super) fn kind(self) -> Kind {
        match self {
            Self::Id | Self::UserId => Kind::Uuid,
            Self::ContextType | Self::Key | Self::Text => Kind::Text,
            Self::CreatedAt | Self::UpdatedAt | Self::ExpiresAt | Self::ValidFrom | Self::ValidTo => {
                Kind::Time
            }
            Self::Version => Kind::Integer,
            Self::EmbeddingStatus => Kind::Status,
            Self::Language => Kind::Language,
        }
    }
}

/// A JSON document of a context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Document {
    Content,
    Metadata,
}

impl Document {
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// A place in a JSON document; without segments the whole of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonPath {
    pub document: Document,
    /// Each is the name of a field; an integer is also the place of an element, from 0, or from the end below 0.
    pub segments: Vec<String>,
}

impl JsonPath {
    /// Whether a segment could be an integer. PostgreSQL reads them as C does, with blanks and signs in front, so this
    /// is generous: what it denies is a name for certain.
    pub fn may_name_an_element(&self) -> bool {
        self.segments.iter().any(|segment| {
            segment.trim_start().trim_start_matches(['+', '-']).bytes().all(|byte| byte.is_ascii_digit())
        })
    }
}

/// What stands left of the colon.
#[derive(Clone, Debug)]
pub(super) enum Field {
    Column(Column),
    Json(JsonPath),
}

impl Field {
    pub(super) fn parse(name: &str, at: &str) -> Result<Self> {
        if name.contains('\0') {
            return Err(Error::invalid(at, "must not hold the character U+0000, which nothing stored does"));
        }
        if let Ok(column) = name.parse() {
            return Ok(Self::Column(column));
        }
        for document in [Document::Metadata, Document::Content] {
            match name.strip_prefix(document.as_str()) {
                Some("") => return Ok(Self::Json(JsonPath { document, segments: Vec::new() })),
                Some(rest) if rest.starts_with('.') => {
                    return Ok(Self::Json(JsonPath { document, segments: segments(&rest[1..], at)? }));
                }
                _ => {}
            }
        }
        let columns: Vec<&str> = Column::iter().map(Column::as_str).collect();
        Err(Error::invalid(
            at,
            format!(
                "is no field; use one of {}, or a path that begins with `metadata.` or `content.`",
                columns.join(", ")
            ),
        ))
    }

    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Column(column) => column.kind(),
            Self::Json(_) => Kind::Json,
        }
    }
}

fn segments(path: &str, at: &str) -> Result<Vec<String>> {
    let (mut segments, mut segment) = (Vec::new(), String::new());
    let mut characters = path.chars();
    while let Some(character) = characters.next() {
        match character {
            '.' => segments.push(std::mem::take(&mut segment)),
            '\\' => match characters.next() {
                Some(escaped @ ('.' | '\\')) => segment.push(escaped),
                _ => {
                    return Err(Error::invalid(
                        at,
                        r"has a lone backslash; in a path write `\\` for one, and `\.` for a dot within a name",
                    ));
                }
            },
            character => segment.push(character),
        }
    }
    segments.push(segment);
    if segments.len() > FILTER_PATH_SEGMENTS_MAX {
        return Err(Error::invalid(
            at,
            format!("has {} segments after the first, {FILTER_PATH_SEGMENTS_MAX} at most", segments.len()),
        ));
    }
    Ok(segments)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> Option<(Document, Vec<String>)> {
        match Field::parse(name, "").unwrap() {
            Field::Json(path) => Some((path.document, path.segments)),
            Field::Column(_) => None,
        }
    }

    #[test]
    fn paths_are_split_at_dots_that_are_not_escaped() {
        let owned = |segments: &[&str]| segments.iter().map(|&segment| segment.to_owned()).collect();
        for (name, document, segments) in [
            ("metadata", Document::Metadata, owned(&[])),
            ("content", Document::Content, owned(&[])),
            ("metadata.a.b", Document::Metadata, owned(&["a", "b"])),
            (r"content.a\.b.c\\", Document::Content, owned(&["a.b", r"c\"])),
            ("content.", Document::Content, owned(&[""])),
            ("content..é", Document::Content, owned(&["", "é"])),
        ] {
            assert_eq!(path(name), Some((document, segments)), "{name}");
        }
    }

    #[test]
    fn every_column_is_a_field_and_nothing_else_is() {
        for column in Column::iter() {
            assert_eq!(path(column.as_str()), None);
        }
        for name in ["", "metadatax", "metadata/a", r"metadata\.a", "is_active", "ID", "tenant_id"] {
            let error = Field::parse(name, "/x").unwrap_err();
            assert_eq!(error.violations[0].pointer, "/x");
            for allowed in ["embedding_status", "`metadata.`", "`content.`"] {
                assert!(error.violations[0].detail.contains(allowed), "{error}");
            }
        }
    }

    #[test]
    fn a_lone_backslash_and_one_segment_too_many_are_refused() {
        for name in [r"metadata.a\", r"metadata.a\b"] {
            assert!(Field::parse(name, "").is_err(), "{name}");
        }
        let of = |count: usize| format!("metadata{}", ".a".repeat(count));
        assert!(Field::parse(&of(FILTER_PATH_SEGMENTS_MAX), "").is_ok());
        assert!(Field::parse(&of(FILTER_PATH_SEGMENTS_MAX + 1), "").is_err());
    }

    #[test]
    fn what_postgresql_reads_as_an_integer_may_name_an_element() {
        let may = |segment: &str| {
            JsonPath { document: Document::Metadata, segments: vec!["a".into(), segment.into()] }
                .may_name_an_element()
        };
        for segment in ["0", "-1", "+1", " 1", "\t-07", "99999999999"] {
            assert!(may(segment), "{segment}");
        }
        for segment in ["a", "1a", "1 ", "1.5", "0x1", "٣"] {
            assert!(!may(segment), "{segment}");
        }
    }
}
