//! A run as a table and as JSON, what it had to keep, and how it compares with another one.

use std::{fmt::Write as _, str::FromStr};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    RunArguments,
    measure::{Measured, Summary},
};

/// What was run, and what came of it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    pub settings: Settings,
    #[serde(flatten)]
    pub measured: Measured,
}

/// As they were given.
#[derive(Debug, Serialize, Deserialize)]
pub struct Settings {
    pub scenario: String,
    pub clients: u16,
    /// Requests a second; none in a closed loop.
    pub rate: Option<f64>,
    pub burst: Option<f64>,
    pub seconds: u64,
    pub warm_up_seconds: u64,
    pub limit: u32,
    pub queries: u64,
    pub no_cache: bool,
    pub seed: u64,
}

/// A number of the report's JSON, and what it is held against: `/latency_ms/p99=50`.
#[derive(Clone, Debug)]
pub struct Bound {
    pointer: String,
    number: f64,
}

/// The second of two runs, as multiples of the first.
#[derive(Debug)]
pub struct Ratios {
    pub throughput: f64,
    pub p99: f64,
    rows: Vec<(String, f64, f64)>,
}

impl Settings {
    pub fn of(arguments: &RunArguments) -> Self {
        let scenario = clap::ValueEnum::to_possible_value(&arguments.scenario);
        Self {
            scenario: scenario.map(|value| value.get_name().to_owned()).unwrap_or_default(),
            clients: arguments.clients,
            rate: arguments.rate,
            burst: arguments.burst,
            seconds: arguments.seconds,
            warm_up_seconds: arguments.warm_up_seconds,
            limit: arguments.limit,
            queries: arguments.queries,
            no_cache: arguments.no_cache,
            seed: arguments.corpus.seed,
        }
    }

    pub fn in_words(&self) -> String {
        let load = match (self.rate, self.burst) {
            (None, _) => format!("{} clients, one request each", self.clients),
            (Some(rate), None) => format!("{rate} requests a second, at most {} at once", self.clients),
            (Some(rate), Some(times)) => {
                format!(
                    "{rate} requests a second and {times} times as many in the middle, at most {} at once",
                    self.clients
                )
            }
        };
        let cache = if self.no_cache { ", nothing from a cache" } else { "" };
        format!(
            "{}: {load}, {} s after {} s of warm-up{cache}",
            self.scenario, self.seconds, self.warm_up_seconds
        )
    }
}

impl FromStr for Bound {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wanted = "must be a JSON pointer into the report and a number: /latency_ms/p99=50";
        let (pointer, number) = text.rsplit_once('=').ok_or(wanted)?;
        let number: f64 = number.trim().parse().map_err(|_| wanted)?;
        if !pointer.starts_with('/') || !number.is_finite() {
            return Err(wanted.to_owned());
        }
        Ok(Self { pointer: pointer.trim().to_owned(), number })
    }
}

/// # Errors
/// When a number of the report is not within its bounds: all that are not.
pub fn check(report: &Value, at_least: &[Bound], at_most: &[Bound]) -> Result<(), String> {
    let missed = |bound: &Bound, is_kept: fn(f64, f64) -> bool, how: &str| match report
        .pointer(&bound.pointer)
        .and_then(Value::as_f64)
    {
        Some(value) if is_kept(value, bound.number) => None,
        Some(value) => Some(format!("{} is {value:.3}, {how} {}", bound.pointer, bound.number)),
        None => Some(format!("the report has no number at {}", bound.pointer)),
    };
    let low = at_least.iter().filter_map(|bound| missed(bound, |value, number| value >= number, "below"));
    let high = at_most.iter().filter_map(|bound| missed(bound, |value, number| value <= number, "above"));
    let all: Vec<String> = low.chain(high).collect();
    if all.is_empty() { Ok(()) } else { Err(all.join("; ")) }
}

impl Report {
    /// The operations, and all of them together when there are several.
    pub fn rows(&self) -> Vec<(&str, &Summary)> {
        let operations = self.measured.operations.iter().map(|(name, summary)| (name.as_str(), summary));
        let mut rows: Vec<_> = operations.collect();
        if rows.len() != 1 {
            rows.push(("all", &self.measured.all));
        }
        rows
    }

    pub fn table(&self) -> String {
        let mut table = String::new();
        self.write(&mut table).ok();
        table
    }

    fn write(&self, table: &mut String) -> std::fmt::Result {
        writeln!(table, "{}\n", self.settings.in_words())?;
        writeln!(
            table,
            "{:18}{:>10}{:>10}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}{:>8}",
            "", "answered/s", "p50 ms", "p95 ms", "p99 ms", "max ms", "refused", "errors", "empty", "MB/s"
        )?;
        for (name, row) in self.rows() {
            let times = &row.latency_ms;
            let megabytes = row.bytes as f64 / 1e6 / self.settings.seconds as f64;
            write!(
                table,
                "{name:18}{:10.0}{:10.2}{:9.2}{:9.2}{:9.1}",
                row.throughput, times.p50, times.p95, times.p99, times.max
            )?;
            writeln!(table, "{:9}{:9}{:9}{megabytes:8.1}", row.refused, row.errors, row.empty)?;
        }
        let unusual = self.measured.all.statuses.iter().filter(|(status, _)| !status.starts_with('2'));
        for (status, count) in unusual {
            write!(table, "\n{count} times {status}")?;
        }
        Ok(())
    }
}

impl Ratios {
    /// # Errors
    /// When the first run answered nothing.
    pub fn of(before: &Report, after: &Report) -> Result<Self, String> {
        if before.settings.scenario != after.settings.scenario {
            return Err(format!("{} is no {}", after.settings.scenario, before.settings.scenario));
        }
        let ratio = |pick: fn(&Summary) -> f64| {
            let (before, after) = (pick(&before.measured.all), pick(&after.measured.all));
            if before > 0.0 { Ok(after / before) } else { Err("the first run answered nothing".to_owned()) }
        };
        let mut rows = Vec::new();
        for (name, then) in before.rows() {
            if let Some((_, now)) = after.rows().into_iter().find(|(other, _)| *other == name) {
                rows.push((format!("{name}: answered/s"), then.throughput, now.throughput));
                rows.push((format!("{name}: p50 ms"), then.latency_ms.p50, now.latency_ms.p50));
                rows.push((format!("{name}: p99 ms"), then.latency_ms.p99, now.latency_ms.p99));
            }
        }
        Ok(Self { throughput: ratio(|all| all.throughput)?, p99: ratio(|all| all.latency_ms.p99)?, rows })
    }

    pub fn table(&self) -> String {
        let mut table = format!("{:30}{:>12}{:>12}{:>8}", "", "before", "after", "ratio");
        for (name, before, after) in &self.rows {
            write!(table, "\n{name:30}{before:12.2}{after:12.2}{:8.2}", after / before).ok();
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn bounds_are_held_against_the_report() {
        let report = json!({"throughput": 100.0, "latency_ms": {"p99": 20.0}});
        let bound = |text: &str| text.parse::<Bound>().unwrap();
        let check = |at_least: &str, at_most: &str| check(&report, &[bound(at_least)], &[bound(at_most)]);
        assert_eq!(check("/throughput=100", "/latency_ms/p99=20"), Ok(()));
        let missed = check("/throughput=101", "/latency_ms/p99=19").unwrap_err();
        assert!(missed.contains("below 101") && missed.contains("above 19"), "{missed}");
        assert!(check("/nothing=1", "/latency_ms/p99=20").unwrap_err().contains("no number"));
        for wrong in ["", "throughput=1", "/throughput", "/throughput=x", "/throughput=inf"] {
            assert!(wrong.parse::<Bound>().is_err(), "{wrong}");
        }
    }
}
