//! What is known of a backup: a small file beside its dump, written last, so that a dump without one is not finished.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, UtcOffset, macros::format_description};

use super::{Failure, Result, Stage};
use crate::domain::{ContextId, TenantId};

/// Of the manifests that this version writes; it reads no newer ones.
const FORMAT: u32 = 1;
/// Bytes of a manifest: some hundred tables and a few searches.
pub(super) const MANIFEST_BYTES_MAX: u64 = 4 * 1024 * 1024;
const SUFFIX: &str = ".json";

/// How far a backup can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nobody knows: the check is switched off, was cut off, or could not be made, and then [`Manifest::problem`] says why.
    NotChecked,
    /// It was restored and is what it was made of.
    Checked,
    /// It was restored and is not, or cannot be restored at all; [`Manifest::problem`] says why.
    Failed,
}

/// A search, and what it found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    pub tenant: TenantId,
    /// Whose text and embedding are searched for.
    pub context: ContextId,
    pub by_words: Vec<ContextId>,
    /// None where it has no embedding.
    pub by_meaning: Option<Vec<ContextId>>,
}

impl Probe {
    /// Whether the context that it looks for is among those that it found, in every way that it was looked for.
    pub(super) fn finds_itself(&self) -> bool {
        let is_in = |found: &Vec<ContextId>| found.contains(&self.context);
        is_in(&self.by_words) && self.by_meaning.as_ref().is_none_or(is_in)
    }
}

/// What is known of a backup.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    pub format: u32,
    pub name: String,
    /// The moment that it shows.
    #[serde(with = "time::serde::rfc3339")]
    pub taken_at: OffsetDateTime,
    /// The version of this program.
    pub version: String,
    pub server_version: String,
    pub database: String,
    /// Of the schema, ascending.
    pub migrations: Vec<i64>,
    /// The migration that a program has to know to work with that schema; none when it does not say.
    #[serde(default)]
    pub needs: Option<i64>,
    /// Where the dump is, beside this.
    pub file: String,
    pub bytes: u64,
    /// Of the file as it is stored, in hexadecimal.
    pub sha256: String,
    pub encrypted: bool,
    /// Rows of each table.
    pub tables: BTreeMap<String, i64>,
    pub probes: Vec<Probe>,
    pub state: State,
    #[serde(with = "time::serde::rfc3339::option")]
    pub checked_at: Option<OffsetDateTime>,
    pub problem: Option<String>,
}

/// What is in the storage under a manifest's name.
#[derive(Clone, Debug)]
pub struct Listed {
    pub name: String,
    pub manifest: std::result::Result<Manifest, Unusable>,
}

/// Why there is no manifest to be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Another time it may be.
    #[error("its manifest cannot be read: {0}")]
    Unread(String),
    /// What is stored is none that this version could use.
    #[error("{0}")]
    Wrong(String),
}

/// The name of a backup of this moment.
pub(super) fn name_at(moment: OffsetDateTime) -> String {
    let format = format_description!("[year][month][day]T[hour][minute][second]Z");
    let moment = moment.to_offset(UtcOffset::UTC);
    format!("context-{}", moment.format(&format).unwrap_or_default())
}

/// The file of a manifest.
pub(super) fn file_of(name: &str) -> String {
    format!("{name}{SUFFIX}")
}

/// The name whose manifest this file is, if it is one.
pub(super) fn name_of(file: &str) -> Option<&str> {
    file.strip_suffix(SUFFIX).filter(|name| is_name(name))
}

/// Whether it could be one of ours: no path, and nothing else that only looks like a file.
pub(super) fn is_name(name: &str) -> bool {
    name.strip_prefix("context-").is_some_and(|rest| {
        (1..=64).contains(&rest.len()) && rest.bytes().all(|byte| byte.is_ascii_alphanumeric())
    })
}

impl Manifest {
    pub(super) const FORMAT: u32 = FORMAT;

    /// # Errors
    /// When it is damaged, or a newer version's.
    pub(super) fn parse(name: &str, bytes: &[u8]) -> std::result::Result<Self, String> {
        let manifest: Self =
            serde_json::from_slice(bytes).map_err(|error| format!("its manifest is damaged: {error}"))?;
        if manifest.format > FORMAT {
            return Err("a newer version of context-api made it".to_owned());
        }
        // It names a file that is read, and removed.
        if manifest.name != name
            || ![".dump", ".dump.age"].iter().any(|end| manifest.file == format!("{name}{end}"))
        {
            return Err("its manifest is that of another backup".to_owned());
        }
        Ok(manifest)
    }

    pub(super) fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes =
            serde_json::to_vec_pretty(self).map_err(|error| Failure::new(Stage::Storage, error))?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// How many rows it has, of all tables.
    pub fn rows(&self) -> i64 {
        self.tables.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn names_are_times_and_stay_where_they_are() {
        let name = name_at(datetime!(2026-11-27 03:04:05 +01:00));
        assert_eq!(name, "context-20261127T020405Z");
        assert_eq!(name_of(&file_of(&name)), Some(name.as_str()));
        for other in
            ["context-20261127T020405Z", "context-/../../etc.json", "notes.json", "context-.json", ".json"]
        {
            assert_eq!(name_of(other), None, "{other}");
        }
    }

    #[test]
    fn a_manifest_that_names_another_file_is_refused() {
        let name = "context-20261127T020405Z";
        let manifest = |file: &str, format: u32| {
            serde_json::json!({
                "format": format, "name": name, "taken_at": "2026-11-27T02:04:05Z", "version": "1", "server_version": "17",
                "database": "context", "migrations": [1], "file": file, "bytes": 1, "sha256": "", "encrypted": false,
                "tables": {}, "probes": [], "state": "checked", "checked_at": null, "problem": null
            })
            .to_string()
        };
        let parse = |file: &str, format| Manifest::parse(name, manifest(file, format).as_bytes());
        assert!(parse("context-20261127T020405Z.dump", 1).is_ok());
        assert!(parse("context-20261127T020405Z.dump.age", 1).is_ok());
        assert!(parse("../secret", 1).unwrap_err().contains("another backup"));
        assert!(parse("context-20261127T020405Z.dump", 2).unwrap_err().contains("newer version"));
        assert!(Manifest::parse(name, b"{").unwrap_err().contains("damaged"));
    }
}
