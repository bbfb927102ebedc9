//! How much a caller may ask for, and how much is remembered of what was answered.

use std::{
    num::{NonZeroU32, NonZeroUsize},
    time::Duration,
};

use super::{ConfigError, Source};
use crate::domain::{AnswerLimits, Limits, Rate, RateLimits, SearchLimits};

/// For how many seconds' worth of requests may come at once when nobody says.
const BURST_SECONDS_DEFAULT: u32 = 10;
/// Searches of a tenant that may wait when nobody says.
const SEARCHES_WAITING_DEFAULT: u32 = 100;
/// What JSON can tell exactly: nine million gigabytes.
const STORED_BYTES_MAX: i64 = (1 << 53) - 1;

pub(super) fn limits(source: &Source) -> Result<Limits, ConfigError> {
    let stored_bytes_max = source.parse_in("TENANT_STORED_BYTES_MAX", 0..=STORED_BYTES_MAX, 0)?;
    Ok(Limits {
        rates: rates(source)?,
        searches: searches(source)?,
        stored_bytes_max: (stored_bytes_max > 0).then_some(stored_bytes_max),
    })
}

fn rates(source: &Source) -> Result<RateLimits, ConfigError> {
    let burst_seconds = source.parse_in("RATE_LIMIT_BURST_SECONDS", 1..=3_600, BURST_SECONDS_DEFAULT)?;
    let rate = |name| {
        let per_second = NonZeroU32::new(source.parse_in(name, 0..=100_000, 0)?);
        Ok(per_second.zip(NonZeroU32::new(burst_seconds)).map(|(rate, burst)| Rate::per_second(rate, burst)))
    };
    Ok(RateLimits { api_key: rate("RATE_LIMIT_API_KEY")?, tenant: rate("RATE_LIMIT_TENANT")? })
}

fn searches(source: &Source) -> Result<SearchLimits, ConfigError> {
    let waiting = source.parse_in("SEARCHES_WAITING_PER_TENANT", 0..=100_000, SEARCHES_WAITING_DEFAULT)?;
    Ok(SearchLimits {
        at_once: NonZeroUsize::new(source.parse_in("SEARCHES_PER_TENANT", 0..=10_000, 0)?),
        waiting,
    })
}

pub(super) fn answers(source: &Source) -> Result<AnswerLimits, ConfigError> {
    let AnswerLimits { bytes_max, ttl } = AnswerLimits::default();
    let megabytes = source.parse_in("ANSWER_CACHE_MB", 0..=65_536, bytes_max >> 20)?;
    Ok(AnswerLimits {
        bytes_max: megabytes << 20,
        ttl: Duration::from_secs(source.parse_in("ANSWER_CACHE_SECONDS", 1..=3_600, ttl.as_secs())?),
    })
}
