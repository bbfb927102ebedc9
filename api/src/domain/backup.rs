//! How the backups are, for those who ask.

use serde::Serialize;
use time::OffsetDateTime;

/// In a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BackupStatus {
    Ok,
    /// The newest good one is too old, or a stored one is damaged.
    Failing,
}

/// How the backups are.
#[derive(Clone, Debug, Serialize)]
pub struct BackupReport {
    pub status: BackupStatus,
    #[serde(with = "time::serde::rfc3339::option")]
    pub last_success_at: Option<OffsetDateTime>,
    pub age_seconds: Option<f64>,
    #[serde(with = "time::serde::rfc3339::option")]
    pub next_at: Option<OffsetDateTime>,
    /// Why the last one failed, unless one has succeeded since.
    pub problem: Option<String>,
    /// Stored backups that are not what was written, and why.
    pub damaged: Vec<String>,
}
