//! What operators limit: how many requests may come, how many searches run, and how much a tenant may store.

use std::{
    num::{NonZeroU32, NonZeroUsize},
    time::Duration,
};

/// A token bucket: a request each `interval` in the long run, and so many at once after a rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub interval: Duration,
    pub burst: NonZeroU32,
}

impl Rate {
    /// So many requests a second, and those of so many seconds at once.
    pub fn per_second(requests: NonZeroU32, burst_seconds: NonZeroU32) -> Self {
        Self {
            interval: Duration::from_secs(1) / requests.get(),
            burst: requests.saturating_mul(burst_seconds),
        }
    }
}

/// Whose requests are counted, each apart.
#[derive(Clone, Copy, Debug, Default)]
pub struct RateLimits {
    pub api_key: Option<Rate>,
    pub tenant: Option<Rate>,
}

/// How many searches one tenant may have under way, in each process.
#[derive(Clone, Copy, Debug, Default)]
pub struct SearchLimits {
    /// None for as many as come.
    pub at_once: Option<NonZeroUsize>,
    /// So many more wait for their turn.
    pub waiting: u32,
}

/// All of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    pub rates: RateLimits,
    pub searches: SearchLimits,
    /// Bytes that a tenant may have stored; none for as many as come.
    pub stored_bytes_max: Option<i64>,
}

/// What a request finds in the bucket that has the least: after it, if it may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// What the bucket holds when it is full.
    pub limit: u32,
    pub remaining: u32,
    /// Until it is full again.
    pub reset: Duration,
    /// For a request that may not pass: until one may.
    pub wait: Option<Duration>,
}

impl Allowance {
    pub fn new(rate: Rate, remaining: u32, wait: Option<Duration>) -> Self {
        let limit = rate.burst.get();
        let remaining = remaining.min(limit);
        Self { limit, remaining, reset: rate.interval * (limit - remaining), wait }
    }

    /// The one that says more to the caller: who has to wait longer, then who has less left.
    #[must_use]
    pub fn tighter(self, other: Self) -> Self {
        let first = (self.wait, u32::MAX - self.remaining) >= (other.wait, u32::MAX - other.remaining);
        if first { self } else { other }
    }
}
