//! What is going on, on the terminal.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use crate::outcome::{Outcome, Verdict};

/// How often it is brought up to date, at most: a request must not cost a look at the terminal.
const EVERY_MILLISECONDS: u64 = 200;

pub struct Progress {
    bar: ProgressBar,
    started: Instant,
    answered: AtomicU64,
    others: AtomicU64,
    /// In milliseconds from the start.
    next: AtomicU64,
}

impl Progress {
    pub fn new(whole: Duration) -> Self {
        let style = ProgressStyle::with_template("{bar:30} {elapsed} of {len}s  {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(whole.as_secs()).with_style(style);
        Self {
            bar,
            started: Instant::now(),
            answered: AtomicU64::new(0),
            others: AtomicU64::new(0),
            next: AtomicU64::new(0),
        }
    }

    pub fn done(&self, outcome: &Outcome) {
        let counter = if outcome.verdict() == Verdict::Good { &self.answered } else { &self.others };
        counter.fetch_add(1, Ordering::Relaxed);
        let now = self.started.elapsed();
        let (milliseconds, due) = (now.as_millis() as u64, self.next.load(Ordering::Relaxed));
        let next = milliseconds + EVERY_MILLISECONDS;
        if milliseconds < due
            || self.next.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_err()
        {
            return;
        }
        let (answered, others) = (self.answered.load(Ordering::Relaxed), self.others.load(Ordering::Relaxed));
        self.bar.set_position(now.as_secs());
        let rate = answered as f64 / now.as_secs_f64().max(0.001);
        self.bar.set_message(format!("{answered} answered, {others} refused or failed, {rate:.0}/s"));
    }

    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
