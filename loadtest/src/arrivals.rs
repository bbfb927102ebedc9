//! When requests are due.

use std::time::Duration;

use rand::{SeedableRng, rngs::StdRng};
use rand_distr::{Distribution, Exp1};

/// How requests come in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Load {
    /// Each client asks as soon as it was answered. The slower the service, the fewer requests: good for finding out how much it
    /// can do at most, and blind to what it does to those who come meanwhile.
    Closed,
    /// So many a second on average, at random moments, as strangers do, whether the service keeps up or not.
    Open(f64),
    /// As `Open`, and for a fifth of the time so many times as much, in the middle.
    Burst { rate: f64, times: f64 },
}

/// The moments at which requests are due, from the start. None in a closed loop.
pub struct Schedule {
    due: Option<Vec<Duration>>,
}

/// So many requests can be due in one run: their moments are kept in memory.
const DUE_MAX: usize = 50_000_000;

impl Schedule {
    /// Of the warm-up and of what is measured.
    pub fn new(load: Load, warm_up: Duration, length: Duration, seed: u64) -> Self {
        let (rate, times) = match load {
            Load::Closed => return Self { due: None },
            Load::Open(rate) => (rate, 1.0),
            Load::Burst { rate, times } => (rate, times),
        };
        let mut chance = StdRng::seed_from_u64(seed);
        let (warm_up, length) = (warm_up.as_secs_f64(), length.as_secs_f64());
        let in_burst = |now: f64| (warm_up + 0.4 * length..warm_up + 0.6 * length).contains(&now);
        let (mut now, mut due) = (0.0_f64, Vec::new());
        while due.len() < DUE_MAX {
            let pace = if in_burst(now) { rate * times } else { rate };
            // Of strangers who know nothing of each other, the time between two is exponentially distributed.
            let gap: f64 = Exp1.sample(&mut chance);
            now += gap / pace;
            if now >= warm_up + length {
                break;
            }
            due.push(Duration::from_secs_f64(now));
        }
        Self { due: Some(due) }
    }

    /// Whether more would be due than can be.
    pub fn is_too_long(load: Load, whole: Duration) -> bool {
        let most = match load {
            Load::Closed => 0.0,
            Load::Open(rate) => rate,
            Load::Burst { rate, times } => rate * times.max(1.0),
        };
        most * whole.as_secs_f64() > DUE_MAX as f64
    }

    /// When the request of this number is due. None when there is none of this number; zero in a closed loop.
    pub fn due(&self, number: usize) -> Option<Duration> {
        match &self.due {
            None => Some(Duration::ZERO),
            Some(due) => due.get(number).copied(),
        }
    }

    /// Whether requests are due at moments of their own.
    pub fn is_open(&self) -> bool {
        self.due.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn within(schedule: &Schedule, from: f64, to: f64) -> usize {
        let due = schedule.due.as_ref().unwrap();
        due.iter().filter(|due| (from..to).contains(&due.as_secs_f64())).count()
    }

    #[test]
    fn an_open_loop_has_the_rate_that_was_asked_for_at_random_moments() {
        let schedule = Schedule::new(Load::Open(1_000.0), Duration::ZERO, Duration::from_secs(10), 1);
        let count = schedule.due.as_ref().unwrap().len();
        assert!((9_700..10_300).contains(&count), "{count}");
        assert!((800..1_200).contains(&within(&schedule, 3.0, 4.0)));
        let gaps: Vec<f64> = schedule
            .due
            .as_ref()
            .unwrap()
            .windows(2)
            .map(|two| two[1].as_secs_f64() - two[0].as_secs_f64())
            .collect();
        // Of exponentially distributed gaps 63 % are below the mean; of even ones none or all.
        let short = gaps.iter().filter(|gap| **gap < 0.001).count() as f64 / gaps.len() as f64;
        assert!((0.6..0.67).contains(&short), "{short}");
        assert_eq!(schedule.due(count), None);
    }

    #[test]
    fn a_burst_is_in_the_middle_of_what_is_measured() {
        let load = Load::Burst { rate: 100.0, times: 5.0 };
        let schedule = Schedule::new(load, Duration::from_secs(20), Duration::from_secs(10), 1);
        let (before, during, after) =
            (within(&schedule, 20.0, 24.0), within(&schedule, 24.0, 26.0), within(&schedule, 26.0, 30.0));
        assert!((320..480).contains(&before) && (320..480).contains(&after), "{before} {after}");
        assert!((880..1_120).contains(&during), "{during}");
    }

    #[test]
    fn in_a_closed_loop_all_is_due_at_once() {
        let schedule = Schedule::new(Load::Closed, Duration::ZERO, Duration::from_secs(1), 1);
        assert_eq!((schedule.due(7), schedule.is_open()), (Some(Duration::ZERO), false));
    }
}
