//! What is known of the embedding provider. One poller asks; everyone else reads, because some servers die of being
//! asked by many at once.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use super::Service;
use crate::embedding::Model;

/// Between two looks at a provider that is up.
const POLL_UP: Duration = Duration::from_secs(5);
/// Between two looks at one that is not: this bounds how long a recovery goes unnoticed.
const POLL_DOWN: Duration = Duration::from_secs(1);

/// What the last look showed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ProviderState {
    /// Nobody has looked yet.
    #[default]
    Unknown,
    Up(Model),
    /// With the reason.
    Down(String),
}

pub(super) struct Watch(watch::Sender<ProviderState>);

impl Default for Watch {
    fn default() -> Self {
        Self(watch::Sender::new(ProviderState::Unknown))
    }
}

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

/// Keeps calls from a provider that has just failed: its poller asks another route, and may find that one well.
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

impl Watch {
    pub(super) fn current(&self) -> ProviderState {
        self.0.borrow().clone()
    }
}

impl Service {
    pub fn provider_state(&self) -> ProviderState {
        self.provider.current()
    }

    /// Looks at the provider and notes what it sees.
    pub async fn look_at_provider(&self) -> ProviderState {
        let look = async {
            self.embedder.probe().await?;
            self.embedder.model().await
        };
        let state = match look.await {
            Ok(model) => ProviderState::Up(model),
            Err(error) => ProviderState::Down(error.to_string()),
        };
        let before = self.provider.0.send_replace(state.clone());
        match (&before, &state) {
            (ProviderState::Up(_) | ProviderState::Unknown, ProviderState::Down(reason)) => {
                tracing::warn!(
                    reason,
                    "the embedding provider is away; writes wait, searches use words alone"
                );
            }
            (ProviderState::Up(before), ProviderState::Up(now)) if before == now => {}
            (_, ProviderState::Up(model)) => {
                tracing::info!(model.provider, model.name, "the embedding provider is up");
                self.pending.notify_one();
            }
            _ => {}
        }
        metrics::gauge!("embedding_provider_up").set(if matches!(state, ProviderState::Up(_)) {
            1.0
        } else {
            0.0
        });
        state
    }

    /// Looks again and again; runs until it is dropped.
    pub async fn watch_provider(&self) {
        loop {
            let pause = match self.look_at_provider().await {
                ProviderState::Up(_) => POLL_UP,
                _ => POLL_DOWN,
            };
            tokio::time::sleep(pause).await;
        }
    }
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
