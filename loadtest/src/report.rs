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
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    pub scenario: String,
    /// That the service held when it began.
    pub contexts: u64,
    pub dims: u16,
    pub users: u64,
    pub clients: u16,
    pub threads: u8,
    /// Requests a second; none in a closed loop.
    pub rate: Option<f64>,
    pub burst: Option<f64>,
    pub seconds: u64,
    pub warm_up_seconds: u64,
    pub limit: u32,
    pub effort: String,
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
    /// How the runs were told to be, when not alike.
    differs: Option<String>,
}

impl Settings {
    pub fn of(arguments: &RunArguments, contexts: u64) -> Self {
        let scenario = clap::ValueEnum::to_possible_value(&arguments.scenario);
        Self {
            scenario: scenario.map(|value| value.get_name().to_owned()).unwrap_or_default(),
            contexts,
            dims: arguments.corpus.dims,
            users: arguments.corpus.users,
            clients: arguments.clients,
            threads: arguments.threads,
            rate: arguments.rate,
            burst: arguments.burst,
            seconds: arguments.seconds,
            warm_up_seconds: arguments.warm_up_seconds,
            limit: arguments.limit,
            effort: arguments.effort.clone(),
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
            "{}: {load}, {} s after {} s of warm-up, {} contexts{cache}",
            self.scenario, self.seconds, self.warm_up_seconds, self.contexts
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
        write!(
            table,
            "{:18}{:>10}{:>9}{:>9}{:>9}{:>10}",
            "", "answered/s", "p50 ms", "p95 ms", "p99 ms", "max ms"
        )?;
        write!(table, "{:>9}{:>8}{:>8}{:>10}{:>8}", "refused", "errors", "empty", "degraded", "MB/s")?;
        for (name, row) in self.rows() {
            let megabytes = row.bytes as f64 / 1e6 / self.settings.seconds as f64;
            write!(table, "\n{name:18}{:10.1}", row.throughput)?;
            match &row.latency_ms {
                Some(times) => {
                    write!(table, "{:9.2}{:9.2}{:9.2}{:10.1}", times.p50, times.p95, times.p99, times.max)?
                }
                None => write!(table, "{:37}", "")?,
            }
            write!(
                table,
                "{:9}{:8}{:8}{:10}{megabytes:8.1}",
                row.refused, row.errors, row.empty, row.degraded
            )?;
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
    /// When they are runs of different scenarios, or one of them answered nothing.
    pub fn of(before: &Report, after: &Report) -> Result<Self, String> {
        if before.settings.scenario != after.settings.scenario {
            return Err(format!("{} is no {}", after.settings.scenario, before.settings.scenario));
        }
        let mut rows = Vec::new();
        for (name, then) in before.rows() {
            let now = after.rows().into_iter().find(|(other, _)| *other == name).map(|(_, now)| now);
            let Some(now) = now else { continue };
            let (Some(then_ms), Some(now_ms)) = (&then.latency_ms, &now.latency_ms) else { continue };
            rows.push((format!("{name}: answered/s"), then.throughput, now.throughput));
            rows.push((format!("{name}: p50 ms"), then_ms.p50, now_ms.p50));
            rows.push((format!("{name}: p99 ms"), then_ms.p99, now_ms.p99));
        }
        let (then, now) = (&before.measured.all, &after.measured.all);
        let (Some(then_ms), Some(now_ms)) = (&then.latency_ms, &now.latency_ms) else {
            return Err("one of the runs answered nothing".to_owned());
        };
        let in_words = |report: &Report| format!("\n  {}", report.settings.in_words());
        Ok(Self {
            throughput: now.throughput / then.throughput,
            p99: now_ms.p99 / then_ms.p99,
            rows,
            differs: (before.settings != after.settings).then(|| in_words(before) + &in_words(after)),
        })
    }

    pub fn table(&self) -> String {
        let mut table = format!("{:30}{:>12}{:>12}{:>8}", "", "before", "after", "ratio");
        for (name, before, after) in &self.rows {
            write!(table, "\n{name:30}{before:12.2}{after:12.2}{:8.2}", after / before).ok();
        }
        if let Some(differs) = &self.differs {
            write!(table, "\nnot run in the same way:{differs}").ok();
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
