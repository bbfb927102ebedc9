//! What was seen of a run.

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::outcome::{Outcome, Verdict};

/// Microseconds: a day, which is the longest that a run may last, and an hour. Who waits for a connection may wait for as long.
const LONGEST: u64 = 25 * 3_600 * 1_000_000;
/// A timeline has so many steps at most, each of whole seconds.
const STEPS_MAX: u64 = 600;

/// One request.
#[derive(Clone, Debug)]
pub struct Observation {
    pub operation: &'static str,
    pub outcome: Outcome,
    /// From when it was due until all of the answer was there. A service that is busy makes others wait, and their time counts:
    /// else the slowest moments would hardly show ("coordinated omission", Gil Tene, 2013).
    pub latency: Duration,
    /// From when it was sent.
    pub service: Duration,
    pub bytes: usize,
    /// When it was due, or sent in a closed loop: since the start of the measurement.
    pub at: Duration,
}

/// Times of requests, in microseconds.
struct Times(Histogram<u64>);

/// Of the requests of one operation, or of all.
struct Group {
    latency: Times,
    service: Times,
    refusals: Times,
    statuses: BTreeMap<String, u64>,
    errors: u64,
    empty: u64,
    degraded: u64,
    bytes: u64,
}

/// Of what was due in one step of time.
struct Step {
    requests: u64,
    errors: u64,
    refused: u64,
    latency: Times,
}

/// Collects observations.
pub struct Recorder {
    length: Duration,
    all: Group,
    operations: BTreeMap<&'static str, Group>,
    /// Of so many seconds each.
    step_seconds: u64,
    steps: Vec<Step>,
}

#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Percentiles {
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p95: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Summary {
    /// Answered or not.
    pub requests: u64,
    /// Answers a second other than refusals and errors.
    pub throughput: f64,
    /// 5xx other than 503, 4xx other than 429, and no answer.
    pub errors: u64,
    /// 429 and 503: the service said that it has too much to do.
    pub refused: u64,
    /// Found nothing.
    pub empty: u64,
    /// The service had to do without something, the model for instance.
    pub degraded: u64,
    pub bytes: u64,
    /// By status, or by why there was none.
    pub statuses: BTreeMap<String, u64>,
    /// Of what was neither refused nor an error: from when it was due. None when there was nothing such.
    pub latency_ms: Option<Percentiles>,
    /// The same from when it was sent.
    pub service_ms: Option<Percentiles>,
    /// Of what was refused: from when it was due. None when there was nothing such.
    pub refused_latency_ms: Option<Percentiles>,
}

#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Moment {
    /// When it began, since the start.
    pub second: u64,
    pub seconds: u64,
    pub requests: u64,
    pub errors: u64,
    pub refused: u64,
    /// None when nothing was answered.
    pub p50_ms: Option<f64>,
    pub p99_ms: Option<f64>,
}

/// What a run showed.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Measured {
    #[serde(flatten)]
    pub all: Summary,
    pub operations: BTreeMap<String, Summary>,
    pub timeline: Vec<Moment>,
    /// Latency at shares of the requests: `[0.5, ms]`, more and more of them towards 1.
    pub distribution: Vec<(f64, f64)>,
}

impl Times {
    fn new(digits: u8) -> Self {
        // The bounds are constants that the library accepts.
        Self(
            Histogram::new_with_bounds(1, LONGEST, digits)
                .unwrap_or_else(|_| unreachable!("bounds of a histogram")),
        )
    }

    fn add(&mut self, other: &Self) {
        // Both have the same bounds.
        self.0.add(&other.0).ok();
    }

    fn record(&mut self, time: Duration) {
        self.0.saturating_record((time.as_micros() as u64).clamp(1, LONGEST));
    }

    fn at(&self, share: f64) -> Option<f64> {
        (!self.0.is_empty()).then(|| self.0.value_at_quantile(share) as f64 / 1e3)
    }

    fn percentiles(&self) -> Option<Percentiles> {
        Some(Percentiles {
            mean: self.0.mean() / 1e3,
            p50: self.at(0.5)?,
            p90: self.at(0.9)?,
            p95: self.at(0.95)?,
            p99: self.at(0.99)?,
            p999: self.at(0.999)?,
            max: self.0.max() as f64 / 1e3,
        })
    }
}

impl Group {
    fn new() -> Self {
        Self {
            latency: Times::new(3),
            service: Times::new(3),
            refusals: Times::new(3),
            statuses: BTreeMap::new(),
            errors: 0,
            empty: 0,
            degraded: 0,
            bytes: 0,
        }
    }

    fn record(&mut self, seen: &Observation) {
        *self.statuses.entry(seen.outcome.name()).or_default() += 1;
        self.bytes += seen.bytes as u64;
        match seen.outcome.verdict() {
            Verdict::Good => {
                self.latency.record(seen.latency);
                self.service.record(seen.service);
            }
            Verdict::Refused => self.refusals.record(seen.latency),
            Verdict::Error => self.errors += 1,
        }
        if let Outcome::Answered { empty, degraded, .. } = seen.outcome {
            self.empty += u64::from(empty);
            self.degraded += u64::from(degraded);
        }
    }

    fn add(&mut self, other: &Self) {
        self.latency.add(&other.latency);
        self.service.add(&other.service);
        self.refusals.add(&other.refusals);
        for (status, count) in &other.statuses {
            *self.statuses.entry(status.clone()).or_default() += count;
        }
        self.errors += other.errors;
        self.empty += other.empty;
        self.degraded += other.degraded;
        self.bytes += other.bytes;
    }

    fn summary(&self, length: Duration) -> Summary {
        let (good, refused) = (self.latency.0.len(), self.refusals.0.len());
        Summary {
            requests: good + self.errors + refused,
            throughput: good as f64 / length.as_secs_f64(),
            errors: self.errors,
            refused,
            empty: self.empty,
            degraded: self.degraded,
            bytes: self.bytes,
            statuses: self.statuses.clone(),
            latency_ms: self.latency.percentiles(),
            service_ms: self.service.percentiles(),
            refused_latency_ms: self.refusals.percentiles(),
        }
    }
}

impl Recorder {
    /// For a measurement of this length.
    pub fn new(length: Duration) -> Self {
        let step_seconds = length.as_secs().div_ceil(STEPS_MAX).max(1);
        Self { length, all: Group::new(), operations: BTreeMap::new(), step_seconds, steps: Vec::new() }
    }

    pub fn record(&mut self, seen: &Observation) {
        self.all.record(seen);
        self.operations.entry(seen.operation).or_insert_with(Group::new).record(seen);
        let step = self.step((seen.at.as_secs() / self.step_seconds) as usize);
        step.requests += 1;
        match seen.outcome.verdict() {
            Verdict::Good => step.latency.record(seen.latency),
            Verdict::Refused => step.refused += 1,
            Verdict::Error => step.errors += 1,
        }
    }

    fn step(&mut self, number: usize) -> &mut Step {
        if self.steps.len() <= number {
            let empty = || Step { requests: 0, errors: 0, refused: 0, latency: Times::new(2) };
            self.steps.resize_with(number + 1, empty);
        }
        &mut self.steps[number]
    }

    /// Adds what another thread has seen of the same measurement.
    pub fn add(&mut self, other: &Self) {
        self.all.add(&other.all);
        for (operation, group) in &other.operations {
            self.operations.entry(operation).or_insert_with(Group::new).add(group);
        }
        for (number, theirs) in other.steps.iter().enumerate() {
            let step = self.step(number);
            step.requests += theirs.requests;
            step.errors += theirs.errors;
            step.refused += theirs.refused;
            step.latency.add(&theirs.latency);
        }
    }

    pub fn measured(&self) -> Measured {
        let moment = |(number, seen): (usize, &Step)| Moment {
            second: number as u64 * self.step_seconds,
            seconds: self.step_seconds,
            requests: seen.requests,
            errors: seen.errors,
            refused: seen.refused,
            p50_ms: seen.latency.at(0.5),
            p99_ms: seen.latency.at(0.99),
        };
        let latency = &self.all.latency;
        let shares = latency.0.iter_quantiles(5).map(|step| step.quantile_iterated_to());
        let mut distribution: Vec<(f64, f64)> =
            shares.filter_map(|share| Some((share, latency.at(share)?))).collect();
        distribution.dedup();
        let summaries = self.operations.iter();
        Measured {
            all: self.all.summary(self.length),
            operations: summaries
                .map(|(name, group)| ((*name).to_owned(), group.summary(self.length)))
                .collect(),
            timeline: self.steps.iter().enumerate().map(moment).collect(),
            distribution,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(operation: &'static str, status: u16, milliseconds: u64, second: u64) -> Observation {
        let odd = milliseconds == 1;
        Observation {
            operation,
            outcome: Outcome::Answered { status, empty: odd, degraded: odd },
            latency: Duration::from_millis(milliseconds),
            service: Duration::from_millis(1),
            bytes: 10,
            at: Duration::from_secs(second),
        }
    }

    #[test]
    fn percentiles_are_of_what_was_answered_and_refusals_and_errors_are_told_apart() {
        let length = Duration::from_secs(4);
        let (mut one, mut other) = (Recorder::new(length), Recorder::new(length));
        for milliseconds in 1..=100 {
            let recorder = if milliseconds % 2 == 0 { &mut one } else { &mut other };
            recorder.record(&seen("get", 200, milliseconds, milliseconds / 50));
        }
        for status in [429, 503, 500, 404] {
            one.record(&seen("search", status, 5_000, 0));
        }
        one.record(&Observation { outcome: Outcome::Failed("not reached"), ..seen("search", 0, 0, 4) });
        one.add(&other);
        let Measured { all, operations, timeline, distribution } = one.measured();
        assert_eq!((all.requests, all.refused, all.errors), (105, 2, 3));
        assert_eq!((all.empty, all.degraded), (1, 1));
        assert!((all.refused_latency_ms.unwrap().p50 - 5_000.0).abs() < 5.0);
        assert!((all.throughput - 25.0).abs() < 1e-9);
        let (latency, service) = (all.latency_ms.unwrap(), all.service_ms.unwrap());
        assert!((latency.p50 - 50.0).abs() < 0.1 && (latency.p99 - 99.0).abs() < 0.2);
        assert!((latency.max - 100.0).abs() < 0.2 && (service.max - 1.0).abs() < 0.01);
        assert_eq!((all.statuses["200"], all.statuses["not reached"]), (100, 1));
        assert_eq!((operations["get"].requests, operations["search"].requests), (100, 5));
        assert_eq!(operations["search"].latency_ms, None, "nothing was answered");
        assert_eq!(timeline.len(), 5);
        assert_eq!((timeline[0].requests, timeline[0].refused, timeline[0].errors), (53, 2, 2));
        assert_eq!((timeline[3].requests, timeline[3].p99_ms, timeline[4].errors), (0, None, 1));
        assert!(
            distribution.windows(2).all(|two| two[0].0 < two[1].0 && two[0].1 <= two[1].1),
            "{distribution:?}"
        );
    }

    #[test]
    fn a_long_run_has_no_longer_timeline() {
        let day = Duration::from_secs(86_400);
        let mut recorder = Recorder::new(day);
        recorder.record(&seen("get", 200, 1, 86_399));
        let timeline = recorder.measured().timeline;
        assert_eq!((timeline.len(), timeline[599].seconds, timeline[599].requests), (600, 144, 1));
    }
}
