//! How long a context is visible, and when what it says holds.

use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};

use super::limits::TTL_SECONDS_MAX;
use crate::error::{Error, Result};

/// A time that can be stored and written down again: the years 1970 to 9999, cut to the microsecond, which is all that the
/// database keeps. Those two years in UTC alone, because an offset leads out of them, into a year that does not exist. So a
/// schema can say it, with a pattern.
pub(super) fn storable_time(pointer: &str, at: OffsetDateTime) -> Result<OffsetDateTime> {
    let years = if at.offset().is_utc() { 1970..=9999 } else { 1971..=9998 };
    match at.checked_to_offset(UtcOffset::UTC) {
        Some(in_utc) if years.contains(&at.year()) => {
            Ok(in_utc.replace_nanosecond(in_utc.nanosecond() / 1_000 * 1_000).unwrap_or(in_utc))
        }
        _ => Err(Error::invalid(
            pointer,
            "the year must be 1970 to 9999; in these two the time must be in UTC",
        )),
    }
}

/// The time in the parameter `name`, RFC 3339.
///
/// # Errors
/// [`crate::error::Code::InvalidParameter`].
pub fn time_parameter(name: &str, text: &str) -> Result<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok().and_then(|at| storable_time(name, at).ok()).ok_or_else(|| {
        Error::parameter(name, "must be a time such as 2026-11-21T09:30:00Z, in the years 1970 to 9999")
    })
}

/// When a context stops being visible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    Never,
    At(OffsetDateTime),
    /// Seconds from the moment of the write, by the database's clock.
    After(i64),
    /// Seconds from the moment of the last read; until the first one, from the write or at `first`.
    Sliding {
        seconds: i64,
        first: Option<OffsetDateTime>,
    },
}

impl Expiry {
    /// # Errors
    /// [`crate::error::Code::InvalidRequest`] when they contradict each other or one is out of range.
    pub fn new(
        expires_at: Option<OffsetDateTime>,
        ttl_seconds: Option<i64>,
        sliding_ttl_seconds: Option<i64>,
    ) -> Result<Self> {
        let expires_at = expires_at.map(|at| storable_time("/expires_at", at)).transpose()?;
        let in_range = |pointer, seconds| match seconds {
            Some(1..=TTL_SECONDS_MAX) | None => Ok(()),
            Some(_) => Err(Error::invalid(pointer, format!("must be 1 to {TTL_SECONDS_MAX} seconds"))),
        };
        in_range("/ttl_seconds", ttl_seconds)?;
        in_range("/sliding_ttl_seconds", sliding_ttl_seconds)?;
        match (expires_at, ttl_seconds, sliding_ttl_seconds) {
            (None, None, None) => Ok(Self::Never),
            (Some(at), None, None) => Ok(Self::At(at)),
            (None, Some(seconds), None) => Ok(Self::After(seconds)),
            (first, None, Some(seconds)) => Ok(Self::Sliding { seconds, first }),
            (Some(_), Some(_), _) => {
                Err(Error::invalid("/ttl_seconds", "give either `expires_at` or `ttl_seconds`, not both"))
            }
            (None, Some(_), Some(_)) => Err(Error::invalid(
                "/sliding_ttl_seconds",
                "give either `ttl_seconds` or `sliding_ttl_seconds`, not both",
            )),
        }
    }

    pub fn at(self) -> Option<OffsetDateTime> {
        match self {
            Self::At(at) => Some(at),
            Self::Sliding { first, .. } => first,
            Self::Never | Self::After(_) => None,
        }
    }

    /// Seconds from the write, when [`Expiry::at`] does not say.
    pub fn ttl_seconds(self) -> Option<i64> {
        match self {
            Self::After(seconds) | Self::Sliding { seconds, first: None } => Some(seconds),
            _ => None,
        }
    }

    pub fn sliding_seconds(self) -> Option<i64> {
        match self {
            Self::Sliding { seconds, .. } => Some(seconds),
            _ => None,
        }
    }
}

/// When what a context says holds: from `from` on, before `to`; either may be open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Validity {
    pub from: Option<OffsetDateTime>,
    pub to: Option<OffsetDateTime>,
}

impl Validity {
    /// # Errors
    /// [`crate::error::Code::InvalidRequest`] when it ends before it begins, or a time is out of range.
    pub fn new(from: Option<OffsetDateTime>, to: Option<OffsetDateTime>) -> Result<Self> {
        let from = from.map(|at| storable_time("/valid_from", at)).transpose()?;
        let to = to.map(|at| storable_time("/valid_to", at)).transpose()?;
        match (from, to) {
            (Some(from), Some(to)) if from >= to => {
                Err(Error::invalid("/valid_to", "must be after `valid_from`"))
            }
            _ => Ok(Self { from, to }),
        }
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn an_expiry_is_one_of_its_kinds_and_in_range() {
        assert_eq!(Expiry::new(None, Some(1), None).unwrap(), Expiry::After(1));
        assert_eq!(Expiry::new(None, Some(TTL_SECONDS_MAX), None).unwrap(), Expiry::After(TTL_SECONDS_MAX));
        for ttl in [0, -1, TTL_SECONDS_MAX + 1, i64::MAX] {
            assert!(Expiry::new(None, Some(ttl), None).is_err());
            assert!(Expiry::new(None, None, Some(ttl)).is_err());
        }
        assert!(Expiry::new(Some(OffsetDateTime::UNIX_EPOCH), Some(1), None).is_err());
        assert!(Expiry::new(None, Some(1), Some(1)).is_err());
        let last = datetime!(9999-12-31 23:59:59 UTC);
        assert_eq!(Expiry::new(Some(last), None, None).unwrap(), Expiry::At(last));
        let sliding = Expiry::new(Some(last), None, Some(60)).unwrap();
        assert_eq!(
            (sliding.at(), sliding.ttl_seconds(), sliding.sliding_seconds()),
            (Some(last), None, Some(60))
        );
        for beyond in [datetime!(9999-06-30 0:00 -01:00), datetime!(1970-12-31 0:00 +01:00)] {
            assert!(Expiry::new(Some(beyond), None, None).is_err());
        }
        for within in [datetime!(1971-01-01 0:00 +23:59), datetime!(9998-12-31 23:59:59 -23:59)] {
            assert!(Expiry::new(Some(within), None, None).is_ok());
        }
    }

    #[test]
    fn validity_begins_before_it_ends() {
        let (earlier, later) = (datetime!(2026-01-01 0:00 UTC), datetime!(2026-01-01 0:00:01 UTC));
        assert!(Validity::new(Some(earlier), Some(later)).is_ok());
        assert!(Validity::new(Some(later), None).is_ok() && Validity::new(None, Some(earlier)).is_ok());
        assert!(Validity::new(Some(later), Some(later)).is_err());
        assert!(Validity::new(Some(later), Some(earlier)).is_err());
        assert!(Validity::new(Some(datetime!(1969-12-31 23:59 UTC)), None).is_err());
    }
}
