//! The embedding providers: usually one, and a second one while the model is changed. One poller asks each how it is; everyone
//! else reads, because some servers die of being asked by many at once.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, Semaphore, SemaphorePermit, watch},
    task::JoinSet,
};

use super::{Service, breaker::Breaker, embed::Rotation};
use crate::{
    domain::SpaceInfo,
    embedding::{Embedder, Model},
};

/// Between two looks at a provider that is up.
const POLL_UP: Duration = Duration::from_secs(5);
/// Between two looks at one that is not: this bounds how long a recovery goes unnoticed.
const POLL_DOWN: Duration = Duration::from_secs(1);
/// How long queries do without the provider after it has failed one of them.
const QUERY_PAUSE: Duration = Duration::from_secs(5);
/// How long documents do: short, because they have to be ready soon after it is back.
const DOCUMENT_PAUSE: Duration = Duration::from_secs(1);

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

/// A way to a model, and what is known of it.
pub struct Provider {
    pub(super) embedder: Arc<dyn Embedder>,
    state: watch::Sender<ProviderState>,
    /// What it had when it was last up.
    model: Mutex<Option<Model>>,
    pub(super) query_breaker: Breaker,
    pub(super) document_breaker: Breaker,
    /// Whose turn is next of those who wait in the active space, and in another one.
    pub(super) pending_rotation: tokio::sync::Mutex<Rotation>,
    pub(super) work_rotation: tokio::sync::Mutex<Rotation>,
    /// The loops that may call it.
    callers: Semaphore,
    /// Wakes the worker of this process when there is something to embed.
    pub(super) noticed: Notify,
}

impl Provider {
    pub(super) fn new(embedder: Arc<dyn Embedder>) -> Self {
        Self {
            callers: Semaphore::new(embedder.calls_at_once()),
            embedder,
            state: watch::Sender::new(ProviderState::Unknown),
            model: Mutex::default(),
            query_breaker: Breaker::new(QUERY_PAUSE),
            document_breaker: Breaker::new(DOCUMENT_PAUSE),
            pending_rotation: tokio::sync::Mutex::default(),
            work_rotation: tokio::sync::Mutex::default(),
            noticed: Notify::new(),
        }
    }

    /// What the last look showed.
    pub fn state(&self) -> ProviderState {
        self.state.borrow().clone()
    }

    /// The model that it had when it was last up.
    pub(super) fn model(&self) -> Option<Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether it is up and has the model of this space.
    pub(super) fn serves(&self, space: &SpaceInfo) -> bool {
        matches!(self.state(), ProviderState::Up(model) if is_of(&model, space))
    }

    /// Whether it had that model when it was last up, or was never.
    pub(super) fn may_serve(&self, space: &SpaceInfo) -> bool {
        self.model().is_none_or(|model| is_of(&model, space))
    }

    /// Waits until one loop less has its texts embedded than keep the provider busy. None is as good: nobody closes it.
    pub(super) async fn caller(&self) -> Option<SemaphorePermit<'_>> {
        self.callers.acquire().await.ok()
    }

    /// Returns when a write of this process left something to embed.
    pub async fn noticed(&self) {
        self.noticed.notified().await;
    }

    /// Returns when a look shows that it is up.
    pub async fn up(&self) {
        // The sender lives as long as this.
        self.state.subscribe().wait_for(|state| matches!(state, ProviderState::Up(_))).await.ok();
    }

    /// Looks, and notes what it sees.
    pub(super) async fn look(&self) -> ProviderState {
        let look = async {
            self.embedder.probe().await?;
            self.embedder.model().await
        };
        let state = match look.await {
            Ok(model) => ProviderState::Up(model),
            Err(error) => ProviderState::Down(error.to_string()),
        };
        if let ProviderState::Up(model) = &state {
            *self.model.lock().unwrap_or_else(PoisonError::into_inner) = Some(model.clone());
        }
        let before = self.state.send_replace(state.clone());
        match (&before, &state) {
            (ProviderState::Up(_) | ProviderState::Unknown, ProviderState::Down(reason)) => {
                tracing::warn!(
                    reason,
                    "an embedding provider is away; writes wait, searches use words alone"
                );
            }
            (ProviderState::Up(before), ProviderState::Up(now)) if before == now => {}
            (_, ProviderState::Up(model)) => {
                tracing::info!(model.provider, model.name, "an embedding provider is up");
                self.noticed.notify_one();
            }
            _ => {}
        }
        state
    }
}

pub(super) fn is_of(model: &Model, space: &SpaceInfo) -> bool {
    model.provider == space.provider && model.name == space.model
}

/// What is wrong when no provider serves a space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unserved {
    /// The one that has its model is away, or one is of which nobody knows what it has.
    Away,
    /// All that are configured have other models.
    OtherModels,
}

impl Service {
    /// The first one is the one that makes the first space.
    pub fn providers(&self) -> &[Arc<Provider>] {
        &self.providers
    }

    /// How many loops keep a provider busy: for each that has its texts embedded there is one that reads and writes meanwhile.
    /// The database in process has one connection, for which they would only keep others waiting.
    pub fn loops(&self, provider: &Provider) -> usize {
        let calls = provider.embedder.calls_at_once();
        if self.store.is_embedded() { calls } else { 2 * calls }
    }

    /// The provider that is up and has the space's model.
    pub(super) fn provider_of(&self, space: &SpaceInfo) -> Result<&Arc<Provider>, Unserved> {
        if let Some(provider) = self.providers.iter().find(|provider| provider.serves(space)) {
            return Ok(provider);
        }
        let up_with_another = |provider: &Provider| {
            matches!(provider.state(), ProviderState::Up(_)) || !provider.may_serve(space)
        };
        if self.providers.iter().all(|provider| up_with_another(provider)) {
            Err(Unserved::OtherModels)
        } else {
            Err(Unserved::Away)
        }
    }

    /// How the provider of the active space is; of the first one while there is none.
    pub async fn provider_state(&self) -> ProviderState {
        let first = || self.providers.first().map_or(ProviderState::Unknown, |provider| provider.state());
        // Without the database nobody knows which one counts.
        let Ok(Some(space)) = self.active_space().await else { return first() };
        self.providers
            .iter()
            .find(|provider| provider.serves(&space))
            .or_else(|| self.providers.iter().find(|provider| provider.may_serve(&space)))
            .map_or_else(
                || ProviderState::Down("no configured provider has the active space's model".to_owned()),
                |provider| provider.state(),
            )
    }

    /// Looks again and again; runs until it is dropped.
    pub async fn watch_providers(&self) {
        let mut watches = JoinSet::new();
        for provider in self.providers.iter().cloned() {
            let service = self.clone();
            watches.spawn(async move {
                let mut states = provider.state.subscribe();
                loop {
                    let state = provider.look().await;
                    service.measure_providers();
                    if matches!(state, ProviderState::Up(_)) {
                        // A worker whose call has failed may see earlier that it is away.
                        let away = states.wait_for(|state| !matches!(state, ProviderState::Up(_)));
                        tokio::time::timeout(POLL_UP.saturating_sub(POLL_DOWN), away).await.ok();
                    }
                    tokio::time::sleep(POLL_DOWN).await;
                }
            });
        }
        watches.join_all().await;
    }

    /// One gauge for all: down when one of them is.
    fn measure_providers(&self) {
        let all_up = self.providers.iter().all(|provider| matches!(provider.state(), ProviderState::Up(_)));
        metrics::gauge!("embedding_provider_up").set(if all_up { 1.0 } else { 0.0 });
    }

    /// Wakes the workers of this process: there is something to embed.
    pub(super) fn notice_pending(&self) {
        for provider in self.providers.iter() {
            provider.noticed.notify_one();
        }
    }
}
