//! Which backups are kept: the newest of each of the last days, weeks and months that have one. Counted by what is there and not by
//! the calendar, so that a service that was off for a year does not remove its last backups when it comes back.

use std::collections::{BTreeMap, BTreeSet};

use time::{OffsetDateTime, UtcOffset};

use super::{Manifest, State};

/// How many are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// The newest of so many days.
    pub days: usize,
    pub weeks: usize,
    pub months: usize,
}

impl Keep {
    /// Names of those that are to be removed. The newest one that is not known to be bad always stays, and so does the newest one that was
    /// checked. Of those known to be bad the newest stays, to be looked at, until there is a newer one that is not.
    pub(super) fn outdated(self, backups: &[Manifest]) -> Vec<String> {
        let good = backups.iter().filter(|backup| backup.state != State::Failed);
        let good: BTreeMap<(OffsetDateTime, &str), &Manifest> =
            good.map(|backup| ((backup.taken_at, backup.name.as_str()), backup)).collect();
        let newest_first: Vec<&Manifest> = good.values().rev().copied().collect();
        let newest_checked = newest_first.iter().find(|backup| backup.state == State::Checked);
        let mut kept: BTreeSet<&str> = newest_first
            .first()
            .into_iter()
            .chain(newest_checked)
            .map(|backup| backup.name.as_str())
            .collect();
        kept.extend(best_of_each(&newest_first, self.days, |at| i64::from(at.to_julian_day())));
        // Julian days begin with a Monday.
        kept.extend(best_of_each(&newest_first, self.weeks, |at| {
            i64::from(at.to_julian_day().div_euclid(7))
        }));
        kept.extend(best_of_each(&newest_first, self.months, |at| {
            i64::from(at.year()) * 12 + i64::from(u8::from(at.month()))
        }));
        let newest = newest_first.first().map(|backup| backup.taken_at);
        let newest_bad =
            backups.iter().filter(|backup| backup.state == State::Failed).map(|backup| backup.taken_at).max();
        let to_go = |backup: &&Manifest| match backup.state {
            State::Failed => newest.max(newest_bad) != Some(backup.taken_at),
            State::Checked | State::NotChecked => !kept.contains(backup.name.as_str()),
        };
        backups.iter().filter(to_go).map(|backup| backup.name.clone()).collect()
    }
}

/// Of each period the newest one that was checked, or else the newest one, in as many periods as are wanted.
fn best_of_each<'a>(
    newest_first: &[&'a Manifest],
    periods: usize,
    period_of: impl Fn(time::Date) -> i64,
) -> Vec<&'a str> {
    newest_first
        .chunk_by(|a, b| {
            let [a, b] = [a, b].map(|backup| period_of(backup.taken_at.to_offset(UtcOffset::UTC).date()));
            a == b
        })
        .take(periods)
        .filter_map(|of_period| {
            let checked = of_period.iter().find(|backup| backup.state == State::Checked);
            checked.or_else(|| of_period.first()).map(|backup| backup.name.as_str())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::{Duration, macros::datetime};

    use super::*;
    use crate::backup::manifest::name_at;

    fn backup(at: OffsetDateTime, state: State) -> Manifest {
        Manifest {
            format: 1,
            name: name_at(at),
            taken_at: at,
            version: String::new(),
            server_version: String::new(),
            database: String::new(),
            migrations: Vec::new(),
            needs: None,
            file: String::new(),
            bytes: 0,
            sha256: String::new(),
            encrypted: false,
            tables: BTreeMap::new(),
            probes: Vec::new(),
            state,
            checked_at: None,
            problem: None,
        }
    }

    fn kept(keep: Keep, backups: &[Manifest]) -> Vec<String> {
        let outdated = keep.outdated(backups);
        let names = backups.iter().map(|backup| backup.name.clone());
        names.filter(|name| !outdated.contains(name)).collect()
    }

    /// 2026-03-02 is a Monday.
    #[test]
    fn of_a_year_of_nights_days_weeks_and_months_stay() {
        let last = datetime!(2026-03-05 02:00 UTC);
        let nights: Vec<Manifest> =
            (0..400).map(|nights| backup(last - Duration::days(nights), State::Checked)).collect();
        let keep = Keep { days: 3, weeks: 2, months: 3 };
        assert_eq!(
            kept(keep, &nights),
            [
                "context-20260305T020000Z", // day, week and month
                "context-20260304T020000Z",
                "context-20260303T020000Z",
                "context-20260301T020000Z", // the Sunday of the week before
                "context-20260228T020000Z", // the last one of February
                "context-20260131T020000Z",
            ]
        );
    }

    #[test]
    fn of_one_day_the_last_stays_and_after_a_long_rest_the_old_ones_do() {
        let backups: Vec<Manifest> = [
            datetime!(2024-01-01 02:00 UTC),
            datetime!(2024-01-01 14:00 UTC),
            datetime!(2024-01-02 02:00 UTC),
            datetime!(2026-03-05 02:00 UTC),
        ]
        .into_iter()
        .map(|at| backup(at, State::Checked))
        .collect();
        assert_eq!(
            kept(Keep { days: 3, weeks: 0, months: 0 }, &backups),
            ["context-20240101T140000Z", "context-20240102T020000Z", "context-20260305T020000Z"]
        );
        assert_eq!(kept(Keep { days: 0, weeks: 0, months: 0 }, &backups), ["context-20260305T020000Z"]);
    }

    #[test]
    fn bad_ones_count_for_nothing_and_go_when_a_better_one_is_newer() {
        let [old, bad, good, later_bad, newest_bad] =
            [1, 2, 3, 4, 5].map(|day| datetime!(2026-03-01 02:00 UTC) + Duration::days(day));
        let backups = [
            backup(old, State::NotChecked),
            backup(bad, State::Failed),
            backup(good, State::Checked),
            backup(later_bad, State::Failed),
            backup(newest_bad, State::Failed),
        ];
        assert_eq!(
            kept(Keep { days: 2, weeks: 0, months: 0 }, &backups),
            [name_at(old), name_at(good), name_at(newest_bad)]
        );
        let only_bad = [backup(bad, State::Failed)];
        assert_eq!(kept(Keep { days: 1, weeks: 1, months: 1 }, &only_bad), [name_at(bad)]);
    }

    /// Whose checks could not be made for a while: the last good one is still there in the end.
    #[test]
    fn one_that_nobody_checked_takes_no_place_of_one_that_was() {
        let [checked, same_day, next_day, last] = [
            datetime!(2026-03-02 02:00 UTC),
            datetime!(2026-03-02 14:00 UTC),
            datetime!(2026-03-03 02:00 UTC),
            datetime!(2026-03-04 02:00 UTC),
        ];
        let backups = [
            backup(checked, State::Checked),
            backup(same_day, State::NotChecked),
            backup(next_day, State::NotChecked),
            backup(last, State::NotChecked),
        ];
        assert_eq!(
            kept(Keep { days: 3, weeks: 0, months: 0 }, &backups),
            [name_at(checked), name_at(next_day), name_at(last)]
        );
        assert_eq!(kept(Keep { days: 1, weeks: 0, months: 0 }, &backups), [name_at(checked), name_at(last)]);
    }

    proptest! {
        #[test]
        fn never_the_newest_never_more_than_allowed_and_once_is_enough(
            hours in prop::collection::btree_set(0_i64..20_000, 1..200),
            days in 0_usize..10, weeks in 0_usize..10, months in 0_usize..10,
        ) {
            let start = datetime!(2024-01-01 00:00 UTC);
            let backups: Vec<Manifest> =
                hours.iter().map(|hours| backup(start + Duration::hours(*hours), State::Checked)).collect();
            let keep = Keep { days, weeks, months };
            let names = kept(keep, &backups);
            prop_assert!(names.contains(&backups.last().unwrap().name));
            prop_assert!(names.len() <= (days + weeks + months).max(1));
            let distinct_days = backups.iter().map(|backup| backup.taken_at.date()).collect::<BTreeSet<_>>().len();
            prop_assert!(names.len() >= days.min(distinct_days));
            let left: Vec<Manifest> =
                backups.into_iter().filter(|backup| names.contains(&backup.name)).collect();
            prop_assert_eq!(keep.outdated(&left), Vec::<String>::new());
        }
    }
}
