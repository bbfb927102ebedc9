//! When something is to be done: a cron expression, in UTC.

use std::{fmt, str::FromStr};

use croner::Cron;
use jiff::civil;
use time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time, UtcOffset};

/// A cron expression of five fields, or of six with seconds before them. UTC, so that no hour comes twice and none is left out.
#[derive(Clone, Debug)]
pub struct Schedule(Cron);

impl FromStr for Schedule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Cron::from_str(text).map(Self).map_err(|error| error.to_string())
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

impl Schedule {
    /// The first time after `moment`; none when it never comes again.
    pub fn next_after(&self, moment: OffsetDateTime) -> Option<OffsetDateTime> {
        from_civil(self.0.find_next_occurrence(&to_civil(moment)?, false).ok()?)
    }
}

fn to_civil(moment: OffsetDateTime) -> Option<civil::DateTime> {
    let moment = moment.to_offset(UtcOffset::UTC);
    let year = i16::try_from(moment.year()).ok()?;
    let signed = |part: u8| i8::try_from(part).ok();
    let (month, day) = (signed(moment.month().into())?, signed(moment.day())?);
    let (hour, minute, second) = (signed(moment.hour())?, signed(moment.minute())?, signed(moment.second())?);
    civil::DateTime::new(year, month, day, hour, minute, second, 0).ok()
}

fn from_civil(moment: civil::DateTime) -> Option<OffsetDateTime> {
    let unsigned = |part: i8| u8::try_from(part).ok();
    let month = Month::try_from(unsigned(moment.month())?).ok()?;
    let date = Date::from_calendar_date(moment.year().into(), month, unsigned(moment.day())?).ok()?;
    let time =
        Time::from_hms(unsigned(moment.hour())?, unsigned(moment.minute())?, unsigned(moment.second())?)
            .ok()?;
    Some(PrimitiveDateTime::new(date, time).assume_utc())
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn the_next_time_is_after_now_and_in_utc() {
        for (cron, now, next) in [
            ("0 2 * * *", datetime!(2026-11-27 01:59:59.5 UTC), datetime!(2026-11-27 02:00 UTC)),
            ("0 2 * * *", datetime!(2026-11-27 02:00 UTC), datetime!(2026-11-28 02:00 UTC)),
            ("0 2 * * *", datetime!(2026-11-27 02:30 +01:00), datetime!(2026-11-27 02:00 UTC)),
            ("30 3 * * SUN", datetime!(2026-11-27 00:00 UTC), datetime!(2026-11-29 03:30 UTC)),
            ("*/5 * * * * *", datetime!(2026-12-31 23:59:57 UTC), datetime!(2027-01-01 00:00 UTC)),
            ("0 0 29 2 *", datetime!(2026-01-01 00:00 UTC), datetime!(2028-02-29 00:00 UTC)),
        ] {
            assert_eq!(cron.parse::<Schedule>().unwrap().next_after(now), Some(next), "{cron}");
        }
    }

    #[test]
    fn what_is_no_expression_is_refused() {
        for text in ["", "daily", "61 * * * *", "* * *", "0 25 * * *"] {
            assert!(text.parse::<Schedule>().is_err(), "{text}");
        }
    }
}
