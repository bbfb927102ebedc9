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

/// How long queries do without the provider after it has failed one of them.
const QUERY_PAUSE: Duration = Duration::from_secs(5);

/// Keeps queries from waiting for a provider that has just failed: its poller asks another route, and may find that one
/// well. After the pause one query tries, and the others wait for what it finds.
#[derive(Default)]
pub(super) struct Breaker(Mutex<Option<Instant>>);

impl Breaker {
    pub(super) fn allows(&self) -> bool {
        let mut open_until = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match *open_until {
            None => true,
            Some(until) if Instant::now() < until => false,
            Some(_) => {
                *open_until = Some(Instant::now() + QUERY_PAUSE);
                true
            }
        }
    }

    pub(super) fn note(&self, success: bool) {
        let mut open_until = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *open_until = (!success).then(|| Instant::now() + QUERY_PAUSE);
    }
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
