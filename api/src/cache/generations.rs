//! Whether anything of a tenant has changed. Each tenant has a generation, a random word; whoever changes rows of the tenant
//! renews it before the change is acknowledged. What was read under a generation is true as long as it is still the generation:
//! it was read after the word was seen, and nobody has renewed the word since.
//!
//! With several processes the words are in Redis. Each request has to see one that was read after the request came; requests
//! that come while one is read share the next read, so that a busy process asks Redis no oftener than it answers. What Redis
//! could not be told, or forgot when another one took its place, is made good by an epoch: a word that is part of all generations,
//! and that every process renews when Redis was away for it. See docs/adr/0020-answers-by-generation.md.

use std::{collections::HashSet, sync::Arc, time::Duration};

use moka::future::Cache as Local;
use redis::Pipeline;
use tokio::{
    runtime::Builder,
    sync::{mpsc, oneshot},
    time::timeout,
};
use uuid::Uuid;

use super::{
    RedisOptions,
    remote::{EPOCH_KEY, Probe, Remote},
};
use crate::{
    domain::TenantId,
    error::{Error, Result},
};

/// Tenants whose generation is known here. One that is forgotten gets a new one.
const TENANTS_MAX: u64 = 100_000;
/// The same in Redis.
const TTL: Duration = Duration::from_secs(24 * 3600);
/// Requests that may wait for the next read.
const WAITING_MAX: usize = 16_384;
/// How often Redis is asked when nobody wants to know anything. A master that hangs for long enough to be replaced must not go
/// unnoticed: it would answer again when it goes on, and not know that it is none any more.
const ASK_EVERY: Duration = Duration::from_millis(250);
/// Of those, as many as are answered by one read.
const TOGETHER_MAX: usize = 1_024;

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
    Here(Local<TenantId, Uuid>),
    /// In Redis, for all processes.
    There(Arc<There>),
}

pub(super) struct There {
    remote: Remote,
    asks: mpsc::Sender<Ask>,
}

enum Ask {
    Current(TenantId, oneshot::Sender<Generation>),
    Renew(TenantId, oneshot::Sender<()>),
}

impl Generations {
    pub(super) fn here() -> Self {
        Self::Here(Local::builder().max_capacity(TENANTS_MAX).build())
    }

    /// By a connection of its own, on a thread of its own: whatever else the process is busy with, nobody waits for that here.
    pub(super) fn there(options: &RedisOptions) -> Result<Self> {
        let remote = Remote::new(options, Probe::Epoch)?;
        let (asks, asked) = mpsc::channel(WAITING_MAX);
        let runtime = Builder::new_current_thread().enable_all().build().map_err(Error::internal)?;
        let answering = answer(remote.clone(), asked);
        let thread = std::thread::Builder::new().name("generations".to_owned());
        thread.spawn(move || runtime.block_on(answering)).map_err(Error::internal)?;
        Ok(Self::There(Arc::new(There { remote, asks })))
    }

    /// The present one of the tenant; none when it cannot be known.
    pub(super) async fn current(&self, tenant: TenantId) -> Option<Generation> {
        match self {
            Self::Here(words) => Some(Generation {
                epoch: Uuid::nil(),
                word: words.get_with(tenant, async { Uuid::now_v7() }).await,
            }),
            Self::There(there) => {
                if !there.remote.is_settled() {
                    return None;
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
            Self::Here(words) => words.insert(tenant, Uuid::now_v7()).await,
            Self::There(there) => {
                if !there.remote.can_be_told() {
                    return;
                }
                let (answer, answered) = oneshot::channel();
                let asked = there.asks.send(Ask::Renew(tenant, answer)).await;
                if asked.is_err() || answered.await.is_err() {
                    there.remote.note_outage("the generation of a tenant was not renewed");
                }
            }
        }
    }
}

/// Answers all that have come together, again and again, until nobody can ask any more.
async fn answer(remote: Remote, mut asked: mpsc::Receiver<Ask>) {
    // A process that died may have left unsaid what it changed.
    remote.begin_epoch().await;
    let mut asks = Vec::new();
    loop {
        if let Ok(0) = timeout(ASK_EVERY, asked.recv_many(&mut asks, TOGETHER_MAX)).await {
            return;
        }
        let tenants: HashSet<TenantId> = asks.iter().filter_map(Ask::reads).collect();
        let tenants: Vec<TenantId> = tenants.into_iter().collect();
        let renewed: HashSet<TenantId> = asks.iter().filter_map(Ask::renews).collect();
        let words = exchange(&remote, &renewed, &tenants).await;
        if words.is_none() && !renewed.is_empty() {
            // Others may hear what this process could not say, and must not believe the old words for longer than can be helped.
            remote.look_again().await;
        }
        for ask in asks.drain(..) {
            match ask {
                // When Redis is away, whoever made a change has nothing to wait for.
                Ask::Renew(_, done) => {
                    done.send(()).ok();
                }
                Ask::Current(tenant, answer) => {
                    let place = tenants.iter().position(|other| *other == tenant);
                    let word = words.as_ref().zip(place).and_then(|(words, place)| words.get(place + 1));
                    let epoch = words.as_ref().and_then(|words| words.first());
                    // Unanswered, it is not known.
                    if let Some((Some(epoch), Some(word))) = epoch.copied().zip(word.copied()) {
                        answer.send(Generation { epoch, word }).ok();
                    }
                }
            }
        }
    }
}

impl Ask {
    fn reads(&self) -> Option<TenantId> {
        match self {
            Self::Current(tenant, _) => Some(*tenant),
            Self::Renew(..) => None,
        }
    }

    fn renews(&self) -> Option<TenantId> {
        match self {
            Self::Renew(tenant, _) => Some(*tenant),
            Self::Current(..) => None,
        }
    }
}

/// Renews some, and answers the epoch and the words of others, in their order; none when Redis is away.
async fn exchange(
    remote: &Remote,
    renewed: &HashSet<TenantId>,
    tenants: &[TenantId],
) -> Option<Vec<Option<Uuid>>> {
    let mut pipeline = redis::pipe();
    // A write, so that one that only may be read is not taken for the one that others write to.
    pipeline.cmd("PEXPIRE").arg(EPOCH_KEY).arg(TTL.as_millis() as u64).ignore();
    for tenant in renewed {
        set(&mut pipeline, &key(*tenant), false);
    }
    read(&mut pipeline, tenants);
    let (words,): (Vec<Option<Vec<u8>>>,) = remote.pipe(&pipeline).await?;
    let words = decode(&words);
    if words.iter().all(Option::is_some) {
        return Some(words);
    }
    // Never used, or flushed, or evicted. Of several that come first one is right.
    let mut pipeline = redis::pipe();
    let keys = std::iter::once(EPOCH_KEY.to_owned()).chain(tenants.iter().map(|tenant| key(*tenant)));
    for (key, _) in keys.zip(&words).filter(|(_, word)| word.is_none()) {
        set(&mut pipeline, &key, true);
    }
    read(&mut pipeline, tenants);
    let (words,): (Vec<Option<Vec<u8>>>,) = remote.pipe(&pipeline).await?;
    Some(decode(&words))
}

/// What stands in braces decides which node of a cluster has a key: one for all, so that they can be read together.
fn key(tenant: TenantId) -> String {
    format!("context-api:v1:{{generations}}:{}", tenant.0)
}

fn set(pipeline: &mut Pipeline, key: &str, if_missing: bool) {
    let word = Uuid::now_v7();
    let command = pipeline.cmd("SET").arg(key).arg(word.as_bytes()).arg("PX").arg(TTL.as_millis() as u64);
    if if_missing {
        command.arg("NX");
    }
    command.ignore();
}

fn read(pipeline: &mut Pipeline, tenants: &[TenantId]) {
    let command = pipeline.cmd("MGET").arg(EPOCH_KEY);
    for tenant in tenants {
        command.arg(key(*tenant));
    }
}

/// None for what is none of ours.
fn decode(words: &[Option<Vec<u8>>]) -> Vec<Option<Uuid>> {
    words.iter().map(|word| Uuid::from_slice(word.as_deref()?).ok()).collect()
}
