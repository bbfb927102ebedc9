//! How long what is over is kept.

use std::time::Duration;

/// What an operator decides about the past.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// Superseded versions, deleted contexts and finished operations.
    pub history: Duration,
    /// Superseded versions of one context.
    pub versions_max: i64,
    pub audit_log: Duration,
}

impl Retention {
    pub const HISTORY_DAYS_DEFAULT: u32 = 90;
    pub const VERSIONS_DEFAULT: i64 = 10_000;
    pub const AUDIT_LOG_DAYS_DEFAULT: u32 = 365;

    /// `days` as a time.
    pub fn days(days: u32) -> Duration {
        Duration::from_secs(u64::from(days) * 24 * 3600)
    }
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            history: Self::days(Self::HISTORY_DAYS_DEFAULT),
            versions_max: Self::VERSIONS_DEFAULT,
            audit_log: Self::days(Self::AUDIT_LOG_DAYS_DEFAULT),
        }
    }
}
