//! When backups, and looks at them, are to be done again.

use std::time::Duration;

use time::OffsetDateTime;

use super::Schedule;

/// A backup that failed is tried again after so long, and twice as long each time, unless its next turn comes before: each try costs a dump,
/// and as a rule a restore. So is a look at what is stored, where not all of it could be read.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(600);
/// So often the time doubles.
const DOUBLINGS_MAX: u32 = 6;

/// When something is to be done again.
pub(super) struct Turn {
    pub at: Option<OffsetDateTime>,
    /// In a row.
    pub failed: u32,
}

impl Turn {
    pub(super) fn is_due(&self, now: OffsetDateTime) -> bool {
        self.at.is_some_and(|at| at <= now)
    }

    pub(super) fn pass(&mut self, done: bool, now: OffsetDateTime, schedule: &Schedule) {
        self.failed = if done { 0 } else { self.failed + 1 };
        self.at = next_after(now, schedule, self.failed);
    }
}

pub(super) struct Turns {
    pub backup: Turn,
    pub verify: Turn,
}

/// By the schedule, or before, when it has failed so many times in a row.
pub(super) fn next_after(now: OffsetDateTime, schedule: &Schedule, failed: u32) -> Option<OffsetDateTime> {
    let retry = (failed > 0).then(|| now + pause(failed));
    schedule.next_after(now).into_iter().chain(retry).min()
}

/// After so many failures.
fn pause(failed: u32) -> Duration {
    RETRY_AFTER * 2_u32.pow(failed.saturating_sub(1).min(DOUBLINGS_MAX))
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-03-05 12:00 UTC);

    #[test]
    fn each_try_that_fails_is_followed_by_a_longer_pause_up_to_its_turn() {
        let minutes = [1, 2, 3, 7, 8, 1_000].map(|failed| pause(failed).as_secs() / 60);
        assert_eq!(minutes, [10, 20, 40, 640, 640, 640]);
        let hourly: Schedule = "0 * * * *".parse().unwrap();
        let minutes =
            [0, 1, 3, 4].map(|failed| (next_after(NOW, &hourly, failed).unwrap() - NOW).whole_minutes());
        assert_eq!(minutes, [60, 10, 40, 60]);
    }
}
