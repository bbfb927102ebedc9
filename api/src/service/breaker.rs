//! Keeps calls from a provider that has just failed: its poller asks another route, and may find that one well.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// The longest pause that a provider may ask for.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Whether a call may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    /// The last one succeeded.
    Free,
    /// The last one failed, a while ago: this one tries, and the others wait for what it finds.
    Probe,
    Refused,
}

/// Open after a failure, and closed by a success.
pub(super) struct Breaker {
    /// How long it is left alone.
    pause: Duration,
    open_until: Mutex<Option<Instant>>,
}

impl Breaker {
    pub(super) fn new(pause: Duration) -> Self {
        Self { pause, open_until: Mutex::new(None) }
    }

    pub(super) fn pass(&self) -> Pass {
        let mut open_until = self.open_until.lock().unwrap_or_else(PoisonError::into_inner);
        match *open_until {
            None => Pass::Free,
            Some(until) if Instant::now() < until => Pass::Refused,
            Some(_) => {
                *open_until = Some(Instant::now() + self.pause);
                Pass::Probe
            }
        }
    }

    pub(super) fn close(&self) {
        *self.open_until.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// For the usual pause, or for what the provider has asked for; answers how long that is.
    pub(super) fn open(&self, asked: Option<Duration>) -> Duration {
        let pause = asked.map_or_else(|| jitter(self.pause), |asked| asked.min(PAUSE_MAX));
        *self.open_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + pause);
        pause
    }
}

/// A quarter more or less, so that those who failed together do not return together.
pub(super) fn jitter(duration: Duration) -> Duration {
    let mut byte = [0_u8; 1];
    // Without randomness there is no jitter; that is not worth failing for.
    getrandom::fill(&mut byte).ok();
    duration.mul_f64(0.75 + f64::from(byte[0]) / 255.0 * 0.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_that_has_failed_is_left_alone_and_then_tried() {
        let breaker = Breaker::new(Duration::from_secs(4));
        assert_eq!(breaker.pass(), Pass::Free);
        let pause = breaker.open(None);
        assert!((Duration::from_secs(3)..=Duration::from_secs(5)).contains(&pause), "{pause:?}");
        assert_eq!(breaker.pass(), Pass::Refused);
        breaker.close();
        assert_eq!(breaker.pass(), Pass::Free);
        assert_eq!(breaker.open(Some(Duration::from_secs(7))), Duration::from_secs(7));
        assert_eq!(breaker.open(Some(Duration::from_secs(9_999))), PAUSE_MAX);
        // One tries, and the others wait for what it finds.
        breaker.open(Some(Duration::ZERO));
        assert_eq!([breaker.pass(), breaker.pass()], [Pass::Probe, Pass::Refused]);
    }
}
