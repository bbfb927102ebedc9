//! What was seen of a run.

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Microseconds. Longer times are counted as this: requests have a deadline below.
const LONGEST: u64 = 120_000_000;

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The status, and whether a search or list found nothing.
    Answered { status: u16, empty: bool },
    /// No answer: why.
    Failed(&'static str),
}

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
    /// Since the start of the measurement, when it was due.
    pub at: Duration,
}

/// Times of requests, in microseconds.
struct Times(Histogram<u64>);

/// Of the requests of one operation, or of all.
struct Group {
    latency: Times,
    service: Times,
    statuses: BTreeMap<String, u64>,
    errors: u64,
    refused: u64,
    empty: u64,
    bytes: u64,
}

/// Of what was due in one second.
struct Second {
    requests: u64,
    errors: u64,
    refused: u64,
    latency: Times,
}

/// Collects observations.
pub struct Recorder {
    all: Group,
    operations: BTreeMap<&'static str, Group>,
    seconds: Vec<Second>,
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
    pub bytes: u64,
    /// By status, or by why there was none.
    pub statuses: BTreeMap<String, u64>,
    /// Of what was neither refused nor an error: from when it was due.
    pub latency_ms: Percentiles,
    /// The same from when it was sent.
    pub service_ms: Percentiles,
}

#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Moment {
    pub second: usize,
    pub requests: u64,
    pub errors: u64,
    pub refused: u64,
    pub p50_ms: f64,
    pub p99_ms: f64,
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

    fn at(&self, share: f64) -> f64 {
        if self.0.is_empty() { 0.0 } else { self.0.value_at_quantile(share) as f64 / 1e3 }
    }

    fn percentiles(&self) -> Percentiles {
        Percentiles {
            mean: self.0.mean() / 1e3,
            p50: self.at(0.5),
            p90: self.at(0.9),
            p95: self.at(0.95),
            p99: self.at(0.99),
            p999: self.at(0.999),
            max: self.0.max() as f64 / 1e3,
        }
    }
}

impl Group {
    fn new() -> Self {
        Self {
            latency: Times::new(3),
            service: Times::new(3),
            statuses: BTreeMap::new(),
            errors: 0,
            refused: 0,
            empty: 0,
            bytes: 0,
        }
    }

    fn record(&mut self, seen: &Observation) {
        let name = match &seen.outcome {
            Outcome::Answered { status, .. } => status.to_string(),
            Outcome::Failed(why) => (*why).to_owned(),
        };
        *self.statuses.entry(name).or_default() += 1;
        self.bytes += seen.bytes as u64;
        match seen.outcome.verdict() {
            Verdict::Good { empty } => {
                self.empty += u64::from(empty);
                self.latency.record(seen.latency);
                self.service.record(seen.service);
            }
            Verdict::Refused => self.refused += 1,
            Verdict::Error => self.errors += 1,
        }
    }

    fn add(&mut self, other: &Self) {
        self.latency.add(&other.latency);
        self.service.add(&other.service);
        for (status, count) in &other.statuses {
            *self.statuses.entry(status.clone()).or_default() += count;
        }
        self.errors += other.errors;
        self.refused += other.refused;
        self.empty += other.empty;
        self.bytes += other.bytes;
    }

    fn summary(&self, length: Duration) -> Summary {
        let good = self.latency.0.len();
        Summary {
            requests: good + self.errors + self.refused,
            throughput: good as f64 / length.as_secs_f64(),
            errors: self.errors,
            refused: self.refused,
            empty: self.empty,
            bytes: self.bytes,
            statuses: self.statuses.clone(),
            latency_ms: self.latency.percentiles(),
            service_ms: self.service.percentiles(),
        }
    }
}

enum Verdict {
    Good { empty: bool },
    Refused,
    Error,
}

impl Outcome {
    fn verdict(&self) -> Verdict {
        match *self {
            Self::Answered { status: 429 | 503, .. } => Verdict::Refused,
            Self::Answered { status: 200..=399, empty } => Verdict::Good { empty },
            Self::Answered { .. } | Self::Failed(_) => Verdict::Error,
        }
    }
}

impl Recorder {
    pub fn new() -> Self {
        Self { all: Group::new(), operations: BTreeMap::new(), seconds: Vec::new() }
    }

    pub fn record(&mut self, seen: &Observation) {
        self.all.record(seen);
        self.operations.entry(seen.operation).or_insert_with(Group::new).record(seen);
        let second = self.second(seen.at.as_secs() as usize);
        second.requests += 1;
        match seen.outcome.verdict() {
            Verdict::Good { .. } => second.latency.record(seen.latency),
            Verdict::Refused => second.refused += 1,
            Verdict::Error => second.errors += 1,
        }
    }

    fn second(&mut self, number: usize) -> &mut Second {
        if self.seconds.len() <= number {
            let empty = || Second { requests: 0, errors: 0, refused: 0, latency: Times::new(2) };
            self.seconds.resize_with(number + 1, empty);
        }
        &mut self.seconds[number]
    }

    /// Adds what another thread has seen.
    pub fn add(&mut self, other: &Self) {
        self.all.add(&other.all);
        for (operation, group) in &other.operations {
            self.operations.entry(operation).or_insert_with(Group::new).add(group);
        }
        for (number, theirs) in other.seconds.iter().enumerate() {
            let second = self.second(number);
            second.requests += theirs.requests;
            second.errors += theirs.errors;
            second.refused += theirs.refused;
            second.latency.add(&theirs.latency);
        }
    }

    /// Of a run of this length.
    pub fn measured(&self, length: Duration) -> Measured {
        let moment = |(second, seen): (usize, &Second)| Moment {
            second,
            requests: seen.requests,
            errors: seen.errors,
            refused: seen.refused,
            p50_ms: seen.latency.at(0.5),
            p99_ms: seen.latency.at(0.99),
        };
        let latency = &self.all.latency;
        let shares = latency.0.iter_quantiles(5).map(|step| step.quantile_iterated_to());
        let mut distribution: Vec<(f64, f64)> = shares.map(|share| (share, latency.at(share))).collect();
        distribution.dedup();
        Measured {
            all: self.all.summary(length),
            operations: self
                .operations
                .iter()
                .map(|(name, group)| ((*name).to_owned(), group.summary(length)))
                .collect(),
            timeline: self.seconds.iter().enumerate().map(moment).collect(),
            distribution,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(operation: &'static str, status: u16, milliseconds: u64, second: u64) -> Observation {
        Observation {
            operation,
            outcome: Outcome::Answered { status, empty: milliseconds == 1 },
            latency: Duration::from_millis(milliseconds),
            service: Duration::from_millis(1),
            bytes: 10,
            at: Duration::from_secs(second),
        }
    }

    #[test]
    fn percentiles_are_of_what_was_answered_and_refusals_and_errors_are_told_apart() {
        let (mut one, mut other) = (Recorder::new(), Recorder::new());
        for milliseconds in 1..=100 {
            let recorder = if milliseconds % 2 == 0 { &mut one } else { &mut other };
            recorder.record(&seen("get", 200, milliseconds, milliseconds / 50));
        }
        for status in [429, 503, 500, 404] {
            one.record(&seen("search", status, 5_000, 0));
        }
        one.record(&Observation { outcome: Outcome::Failed("not reached"), ..seen("search", 0, 0, 4) });
        one.add(&other);
        let Measured { all, operations, timeline, distribution } = one.measured(Duration::from_secs(4));
        assert_eq!((all.requests, all.refused, all.errors, all.empty), (105, 2, 3, 1));
        assert!((all.throughput - 25.0).abs() < 1e-9);
        assert!((all.latency_ms.p50 - 50.0).abs() < 0.1 && (all.latency_ms.p99 - 99.0).abs() < 0.2);
        assert!((all.latency_ms.max - 100.0).abs() < 0.2 && (all.service_ms.max - 1.0).abs() < 0.01);
        assert_eq!((all.statuses["200"], all.statuses["not reached"]), (100, 1));
        assert_eq!((operations["get"].requests, operations["search"].requests), (100, 5));
        assert_eq!(timeline.len(), 5);
        assert_eq!((timeline[0].requests, timeline[0].refused, timeline[0].errors), (53, 2, 2));
        assert_eq!((timeline[3].requests, timeline[4].errors), (0, 1));
        assert!(
            distribution.windows(2).all(|two| two[0].0 < two[1].0 && two[0].1 <= two[1].1),
            "{distribution:?}"
        );
    }
}
