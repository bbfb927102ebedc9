//! What an evaluation found: as a table, as JSON, and what it was wanted to be at least.

use std::{fmt::Write as _, str::FromStr};

use indexmap::IndexMap;
use serde::Serialize;

use super::{index::Kept, retrieval::Quality};

#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Questions that were asked.
    pub(super) queries: usize,
    /// Questions that were not, because nothing is known to answer them.
    pub(super) unjudged: usize,
    /// By mode.
    pub(super) modes: IndexMap<&'static str, Quality>,
    /// Runs of other systems, by their names.
    pub(super) others: IndexMap<String, Quality>,
    /// The vector index, by what searches were narrowed to.
    pub(super) index: IndexMap<String, Kept>,
}

/// A value of the report's JSON that is not to be lower: `/modes/hybrid/ndcg_at_10=0.7`.
#[derive(Clone, Debug)]
pub(super) struct Threshold {
    pointer: String,
    least: f64,
}

impl FromStr for Threshold {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wanted = "must be a JSON pointer into the report and a number: /modes/hybrid/ndcg_at_10=0.7";
        let (pointer, least) = text.rsplit_once('=').ok_or(wanted)?;
        let least: f64 = least.trim().parse().map_err(|_| wanted)?;
        if !pointer.starts_with('/') || !least.is_finite() {
            return Err(wanted.to_owned());
        }
        Ok(Self { pointer: pointer.trim().to_owned(), least })
    }
}

impl Threshold {
    /// What there is to complain of.
    pub(super) fn missed(&self, report: &serde_json::Value) -> Option<String> {
        match report.pointer(&self.pointer).and_then(serde_json::Value::as_f64) {
            Some(value) if value >= self.least => None,
            Some(value) => Some(format!("{} is {value:.4}, below {}", self.pointer, self.least)),
            None => Some(format!("the report has no number at {}", self.pointer)),
        }
    }
}

impl Report {
    pub(super) fn table(&self) -> String {
        let mut table = String::new();
        self.write(&mut table).ok();
        table
    }

    fn write(&self, table: &mut String) -> std::fmt::Result {
        let width = self.name_width();
        write!(table, "{:width$}  ", format!("{} queries", self.queries))?;
        writeln!(table, "   R@1   R@10  R@100  MRR@10  nDCG@10   p50 ms   p95 ms   p99 ms")?;
        let modes = self.modes.iter().map(|(name, quality)| (*name, quality));
        for (name, quality) in modes.chain(self.others.iter().map(|(name, quality)| (name.as_str(), quality)))
        {
            let Quality { recall_at_1, recall_at_10, recall_at_100, mrr_at_10, ndcg_at_10, .. } = quality;
            write!(table, "{name:width$}  {recall_at_1:6.3} {recall_at_10:6.3} {recall_at_100:6.3}")?;
            write!(table, "  {mrr_at_10:6.3}  {ndcg_at_10:7.3}")?;
            if let Some(latency) = &quality.latency {
                write!(table, " {:8.1} {:8.1} {:8.1}", latency.p50_ms, latency.p95_ms, latency.p99_ms)?;
            }
            writeln!(table)?;
        }
        if self.unjudged > 0 {
            writeln!(table, "{} more queries have no right answer and were not asked", self.unjudged)?;
        }
        if !self.index.is_empty() {
            let heading = "R@10  least  complete  beyond  short  fewest   p50 ms   p99 ms  exact p50  plans";
            writeln!(table, "\n{:width$}  {heading}", "index to exact")?;
        }
        for (name, kept) in &self.index {
            let Kept { recall_at_10, recall_at_10_least: least, complete, short, fewest_hits, .. } = kept;
            let beyond = kept.complete_beyond_chance;
            write!(
                table,
                "{name:width$}  {recall_at_10:.3}  {least:5.2}  {complete:8}  {beyond:6}  {short:5}  {fewest_hits:6}"
            )?;
            let exact = kept.latency_exact.p50_ms;
            write!(table, " {:8.1} {:8.1}  {exact:9.1}", kept.latency.p50_ms, kept.latency.p99_ms)?;
            let plans: Vec<String> =
                kept.plans.iter().map(|(plan, count)| format!("{plan} {count}")).collect();
            writeln!(table, "  {}", plans.join(", "))?;
        }
        let degraded = self.degraded();
        if degraded > 0 {
            writeln!(
                table,
                "\nwarning: {degraded} answers were degraded; see /health, and evaluate once more"
            )?;
        }
        Ok(())
    }

    fn name_width(&self) -> usize {
        let names = self.modes.keys().copied().chain(self.others.keys().map(String::as_str));
        names
            .chain(self.index.keys().map(String::as_str))
            .map(|name| name.chars().count())
            .fold(14, usize::max)
    }

    fn degraded(&self) -> usize {
        let answers = self.modes.values().map(|quality| quality.degraded);
        answers.chain(self.index.values().map(|kept| kept.degraded)).sum()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn thresholds_are_held_against_the_report() {
        let report = json!({"modes": {"hybrid": {"ndcg_at_10": 0.7}}});
        let missed = |text: &str| text.parse::<Threshold>().unwrap().missed(&report);
        assert_eq!(missed("/modes/hybrid/ndcg_at_10=0.7"), None);
        assert!(missed("/modes/hybrid/ndcg_at_10=0.71").unwrap().contains("below 0.71"));
        assert!(missed("/modes/hybrid/ndcg=0.1").unwrap().contains("no number"));
        for wrong in ["", "/modes", "modes=1", "/modes=x", "/modes=nan"] {
            assert!(wrong.parse::<Threshold>().is_err(), "{wrong}");
        }
    }
}
