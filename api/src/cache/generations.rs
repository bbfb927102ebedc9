//! Whether anything of a tenant has changed. Each tenant has a generation, a random word; whoever changes rows of the tenant
//! renews it before the change is acknowledged. What was read under a generation is true as long as it is still the generation:
//! it was read after the word was seen, and nobody has renewed the word since.
//!
//! With several processes the words are in Redis. Each request has to see one that was read after the request came; requests
//! that come while one is read share the next read, so that a busy process asks Redis no oftener than it answers. What Redis
//! could not be told, or forgot when another one took its place, is made good by an epoch: a word that is part of all generations,
//! and that every process renews when Redis was away for it. See docs/adr/0020-answers-by-generation.md.
//!
//! The word of a tenant that nobody has written to for a while is lent: the process may go by it for a moment without asking, and whoever
//! renews a word that was lent waits as long before the change is acknowledged. See docs/adr/0025-words-that-are-lent.md.

mod exchange;
mod memory;

use std::{
    convert::Infallible,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use quick_cache::sync::Cache as Bounded;
use tokio::{
    runtime::Builder,
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};
use uuid::Uuid;

use self::{
    exchange::{Ask, answer},
    memory::Memory,
};
use super::{
    RedisOptions,
    remote::{Probe, Remote},
};
use crate::{
    domain::TenantId,
    error::{Error, Result},
};

/// Tenants whose generation is known here. One that is forgotten gets a new one.
const TENANTS_MAX: usize = 100_000;
/// Requests that may wait for the next read.
const WAITING_MAX: usize = 16_384;
/// When a word is lent for only so much longer, it is asked for again, so that nobody of many who read has to wait.
const ASK_AGAIN_BEFORE: Duration = Duration::from_micros(1_500);

/// The state that something was read in. Never twice the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Generation {
    epoch: Uuid,
    word: Uuid,
}

impl Generation {
    pub(super) fn bytes(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(self.epoch.as_bytes());
        bytes[16..].copy_from_slice(self.word.as_bytes());
        bytes
    }
}

/// Where the generations are. Cheap to clone.
#[derive(Clone)]
pub(super) enum Generations {
    /// In the one process that there is.
    Here(Arc<Bounded<TenantId, Uuid>>),
    /// In Redis, for all processes.
    There(Arc<There>),
}

pub(super) struct There {
    remote: Remote,
    asks: mpsc::Sender<Ask>,
    seen: Memory,
}

impl Generations {
    pub(super) fn here() -> Self {
        Self::Here(Arc::new(Bounded::new(TENANTS_MAX)))
    }

    /// By a connection of its own, on a thread of its own: whatever else the process is busy with, nobody waits for that here.
    pub(super) fn there(options: &RedisOptions) -> Result<Self> {
        let remote = Remote::new(options, Probe::Epoch)?;
        let (asks, asked) = mpsc::channel(WAITING_MAX);
        let seen = Memory::default();
        let runtime = Builder::new_current_thread().enable_all().build().map_err(Error::internal)?;
        let answering = answer(remote.clone(), seen.clone(), asked);
        let thread = std::thread::Builder::new().name("generations".to_owned());
        thread.spawn(move || runtime.block_on(answering)).map_err(Error::internal)?;
        Ok(Self::There(Arc::new(There { remote, asks, seen })))
    }

    /// The present one of the tenant; none when it cannot be known.
    pub(super) async fn current(&self, tenant: TenantId) -> Option<Generation> {
        match self {
            Self::Here(words) => {
                let Ok(word) = words.get_or_insert_with(&tenant, || Ok::<_, Infallible>(Uuid::now_v7()));
                Some(Generation { epoch: Uuid::nil(), word })
            }
            Self::There(there) => {
                if !there.remote.is_settled() {
                    return None;
                }
                if let Some(generation) = there.lent(tenant) {
                    return Some(generation);
                }
                let (answer, answered) = oneshot::channel();
                there.asks.send(Ask::Current(tenant, answer)).await.ok()?;
                answered.await.ok()
            }
        }
    }

    /// Has the tenant begin a new one. When Redis is away it begins one when that is back.
    pub(super) async fn renew(&self, tenant: TenantId) {
        match self {
            Self::Here(words) => words.insert(tenant, Uuid::now_v7()),
            Self::There(there) => {
                let (answer, answered) = oneshot::channel();
                // What could not be sent is not answered.
                there.asks.send(Ask::Renew(tenant, answer)).await.ok();
                match answered.await {
                    // The shortest sleep is a millisecond.
                    Ok(until) if until <= Instant::now() => {}
                    Ok(until) => sleep_until(until).await,
                    Err(_) => {
                        there.remote.note_untold();
                        there.remote.note_outage("the generation of a tenant was not renewed");
                    }
                }
            }
        }
    }
}

impl There {
    /// A word that may be gone by without asking.
    fn lent(&self, tenant: TenantId) -> Option<Generation> {
        let seen = self.seen.get(tenant)?;
        let left = seen.lent_until?.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
        if left < ASK_AGAIN_BEFORE && !seen.is_asked_again.swap(true, Ordering::Relaxed) {
            // When there is no room, somebody will have to wait.
            self.asks.try_send(Ask::Again(tenant)).ok();
        }
        Some(seen.generation)
    }
}
