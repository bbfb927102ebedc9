//! Counts requests against their limits: in Redis for all replicas, and in this process when Redis is not there. Both by the
//! generic cell rate algorithm (ITU-T I.371), which is a token bucket that keeps one time instead of a count.

use std::{num::NonZeroU32, time::Duration};

use governor::{
    Quota,
    clock::{Clock, DefaultClock},
    middleware::StateInformationMiddleware,
    state::keyed::DashMapStateStore,
};
use redis::Script;
use uuid::Uuid;

use super::remote::Remote;
use crate::domain::{Allowance, Rate, RateLimits, TenantId};

/// Of each bucket: the microseconds that a request takes, and what it holds. Answers of each how many are left, and for how many
/// microseconds to wait. A request that one bucket refuses takes nothing from the others.
const TAKE: &str = r"
    local time = redis.call('TIME')
    local now = time[1] * 1000000 + time[2]
    local due, answer, passes = {}, {}, true
    for i, bucket in ipairs(KEYS) do
        local interval, burst = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
        due[i] = math.max(tonumber(redis.call('GET', bucket) or 0), now)
        -- A clock that was set back must not lock anybody out.
        due[i] = math.min(due[i], now + interval * burst)
        local wait = due[i] + interval - interval * burst - now
        passes = passes and wait <= 0
        answer[2 * i] = math.max(wait, 0)
    end
    for i, bucket in ipairs(KEYS) do
        local interval, burst = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
        if passes then
            due[i] = due[i] + interval
            redis.call('SET', bucket, string.format('%.0f', due[i]), 'PX', math.ceil((due[i] - now) / 1000) + 1000)
        end
        answer[2 * i - 1] = math.floor((now + interval * burst - due[i]) / interval)
    end
    return answer";

/// In this process. As many entries as there are keys and tenants that came: few and small.
type Counts = governor::RateLimiter<Uuid, DashMapStateStore<Uuid>, DefaultClock, StateInformationMiddleware>;

struct Bucket {
    kind: &'static str,
    rate: Rate,
    here: Counts,
}

impl Bucket {
    fn new(kind: &'static str, rate: Rate) -> Self {
        // Only a period of nothing is none.
        let quota = Quota::with_period(rate.interval).unwrap_or(Quota::per_second(NonZeroU32::MAX));
        let here = governor::RateLimiter::keyed(quota.allow_burst(rate.burst));
        Self { kind, rate, here: here.with_middleware::<StateInformationMiddleware>() }
    }

    fn take_here(&self, id: Uuid) -> Allowance {
        match self.here.check_key(&id) {
            Ok(state) => Allowance::new(self.rate, state.remaining_burst_capacity(), None),
            Err(until) => {
                let wait = until.wait_time_from(DefaultClock::default().now());
                Allowance::new(self.rate, 0, Some(wait.max(Duration::from_millis(1))))
            }
        }
    }
}

/// The limits on requests. None of them, and it costs nothing.
pub struct RateLimiter {
    api_keys: Option<Bucket>,
    tenants: Option<Bucket>,
    remote: Option<Remote>,
    take: Script,
}

impl RateLimiter {
    pub(super) fn new(limits: RateLimits, remote: Option<Remote>) -> Self {
        Self {
            api_keys: limits.api_key.map(|rate| Bucket::new("api_key", rate)),
            tenants: limits.tenant.map(|rate| Bucket::new("tenant", rate)),
            remote,
            take: Script::new(TAKE),
        }
    }

    /// Counts a request of `tenant` with `api_key`; none without limits.
    pub async fn take(&self, tenant: TenantId, api_key: Uuid) -> Option<Allowance> {
        let buckets: Vec<(&Bucket, Uuid)> = [(&self.api_keys, api_key), (&self.tenants, tenant.0)]
            .into_iter()
            .filter_map(|(bucket, id)| Some((bucket.as_ref()?, id)))
            .collect();
        if buckets.is_empty() {
            return None;
        }
        let taken = match self.take_remotely(tenant, &buckets).await {
            Some(taken) => taken,
            None => take_here(&buckets),
        };
        for ((bucket, _), allowance) in buckets.iter().zip(&taken) {
            if allowance.wait.is_some() {
                metrics::counter!("rate_limited_total", "limit" => bucket.kind).increment(1);
            }
        }
        taken.into_iter().reduce(Allowance::tighter)
    }

    /// None when Redis is not there.
    async fn take_remotely(&self, tenant: TenantId, buckets: &[(&Bucket, Uuid)]) -> Option<Vec<Allowance>> {
        let remote = self.remote.as_ref()?;
        let mut call = self.take.prepare_invoke();
        for (bucket, id) in buckets {
            // What stands in braces decides which node of a cluster has a key: the same for both.
            call.key(format!("context-api:v1:rate:{{{}}}:{}:{id}", tenant.0, bucket.kind));
            call.arg(bucket.rate.interval.as_micros() as u64).arg(bucket.rate.burst.get());
        }
        let answer: Vec<i64> = remote.run(&call).await?;
        let (pairs, []) = answer.as_chunks::<2>() else { return None };
        let allowances = pairs.iter().zip(buckets).map(|(&[remaining, wait], (bucket, _))| {
            let wait = u64::try_from(wait).ok().filter(|wait| *wait > 0).map(Duration::from_micros);
            Allowance::new(bucket.rate, u32::try_from(remaining).unwrap_or(0), wait)
        });
        (pairs.len() == buckets.len()).then(|| allowances.collect())
    }
}

/// Of each bucket in turn, up to the one that refuses: what a key may not send takes nothing from its tenant.
fn take_here(buckets: &[(&Bucket, Uuid)]) -> Vec<Allowance> {
    let mut taken: Vec<Allowance> = Vec::new();
    for (bucket, id) in buckets {
        taken.push(bucket.take_here(*id));
        if taken.last().is_some_and(|allowance| allowance.wait.is_some()) {
            break;
        }
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::DEFAULT_TENANT;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn hourly(burst: u32) -> Rate {
        Rate { interval: HOUR, burst: burst.try_into().unwrap() }
    }

    #[tokio::test]
    async fn without_limits_nothing_is_counted() {
        let limiter = RateLimiter::new(RateLimits::default(), None);
        assert_eq!(limiter.take(DEFAULT_TENANT, Uuid::nil()).await, None);
    }

    #[tokio::test]
    async fn a_bucket_gives_what_it_holds_and_says_when_there_is_more() {
        let limits = RateLimits { api_key: Some(hourly(3)), tenant: Some(hourly(5)) };
        let limiter = RateLimiter::new(limits, None);
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        for left in [2, 1, 0] {
            let allowance = limiter.take(DEFAULT_TENANT, one).await.unwrap();
            assert_eq!((allowance.limit, allowance.remaining, allowance.wait), (3, left, None));
        }
        let refused = limiter.take(DEFAULT_TENANT, one).await.unwrap();
        assert!(refused.wait.is_some_and(|wait| wait <= HOUR), "{refused:?}");
        assert_eq!((refused.remaining, refused.reset), (0, HOUR * 3));
        let tenant = limiter.take(DEFAULT_TENANT, other).await.unwrap();
        assert_eq!(
            (tenant.limit, tenant.remaining),
            (5, 1),
            "of the tenant's, what was refused took nothing"
        );
    }
}
