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

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use moka::future::Cache as Local;
use redis::Script;
use tokio::{
    runtime::Builder,
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until, timeout},
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
/// For how long a word is lent, from before Redis is asked for it. The first change after a quiet time takes so much longer.
const LENT_FOR: Duration = Duration::from_millis(3);
/// When so little is left of that, it is asked for again, so that nobody of many who read has to wait.
const ASK_AGAIN_BEFORE: Duration = Duration::from_micros(1_500);
/// A word that has not changed for so long is lent. So a tenant that is written to all the time waits for it ten times a second at most.
const QUIET_FOR: Duration = Duration::from_millis(100);

/// The epoch first and then tenants, each with a word in case it gets a new one; with what is to be done, `read`, `renew`, or the word that
/// is to be lent if it still is the word; and with the epoch and the lent word that nobody can go by any more as far as the asking process knows.
/// Answers words, each with the lent one that was taken back.
///
/// Behind a word stands nothing; or an `L`, since it was lent, or may have been before it was forgotten; or the lent word in whose place it
/// came, until somebody who wrote knows that nobody goes by that one any more. In place of one that was forgotten stands one that never was any
/// tenant's. Nothing of this depends on a clock of Redis.
const EXCHANGE: &str = r"
    local epoch = redis.pcall('GET', KEYS[1])
    if type(epoch) == 'string' and #epoch == 16 then
        redis.call('PEXPIRE', KEYS[1], ARGV[1])
    else
        epoch = ARGV[2]
        redis.call('SET', KEYS[1], epoch, 'PX', ARGV[1])
    end
    local answer = {{epoch, ''}}
    for i = 2, #KEYS do
        local fresh, action, ended = ARGV[3 * i - 3], ARGV[3 * i - 2], ARGV[3 * i - 1]
        local value = redis.pcall('GET', KEYS[i])
        local word, behind, lent = fresh, 'L', ARGV[2]
        if type(value) == 'string' and #value >= 16 then
            word, behind = string.sub(value, 1, 16), string.sub(value, 17)
            lent = word
        end
        if action == 'renew' then
            if behind == 'L' then
                behind = lent
            elseif epoch .. behind == ended then
                behind = ''
            end
            word = fresh
        elseif action == word then
            behind = 'L'
        end
        if value ~= word .. behind then
            redis.call('SET', KEYS[i], word .. behind, 'PX', ARGV[1])
        end
        answer[i] = {word, behind == 'L' and '' or behind}
    end
    return answer";

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
    seen: Memory,
}

/// What Redis said last, by tenant. Looked up for each request; to forget what it said is no harm, so there is no cache to pay for that
/// chooses what goes.
#[derive(Clone, Default)]
struct Memory(Arc<RwLock<HashMap<TenantId, Arc<Seen>>>>);

impl Memory {
    fn get(&self, tenant: TenantId) -> Option<Arc<Seen>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&tenant).map(Arc::clone)
    }

    fn put(&self, tenant: TenantId, seen: Arc<Seen>) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= TENANTS_MAX as usize && !all.contains_key(&tenant) {
            all.clear();
        }
        all.insert(tenant, seen);
    }
}

/// What Redis said last of a tenant.
struct Seen {
    generation: Generation,
    /// When it was first this one.
    since: Instant,
    /// How long it may be gone by without asking.
    lent_until: Option<Instant>,
    /// Whether somebody has asked again before that.
    is_asked_again: AtomicBool,
    /// The lent word that was taken back for it, and until when somebody may go by that one.
    taken_back: Option<(Uuid, Instant)>,
}

enum Ask {
    Current(TenantId, oneshot::Sender<Generation>),
    /// Before it is needed.
    Again(TenantId),
    /// Answers until when others may go by the old one.
    Renew(TenantId, oneshot::Sender<Instant>),
}

impl Generations {
    pub(super) fn here() -> Self {
        Self::Here(Local::builder().max_capacity(TENANTS_MAX).build())
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
            Self::Here(words) => Some(Generation {
                epoch: Uuid::nil(),
                word: words.get_with(tenant, async { Uuid::now_v7() }).await,
            }),
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
            Self::Here(words) => words.insert(tenant, Uuid::now_v7()).await,
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

/// Answers all that have come together, again and again, until nobody can ask any more.
async fn answer(remote: Remote, seen: Memory, mut asked: mpsc::Receiver<Ask>) {
    let exchange = Exchange { remote, script: Script::new(EXCHANGE), seen };
    // A process that died may have left unsaid what it changed.
    exchange.remote.begin_epoch().await;
    let mut asks = Vec::new();
    loop {
        if let Ok(0) = timeout(ASK_EVERY, asked.recv_many(&mut asks, TOGETHER_MAX)).await {
            return;
        }
        exchange.answer(&mut asks, &mut asked).await;
    }
}

impl Ask {
    fn tenant(&self) -> TenantId {
        let (Self::Current(tenant, _) | Self::Again(tenant) | Self::Renew(tenant, _)) = self;
        *tenant
    }

    fn renews(&self) -> Option<TenantId> {
        matches!(self, Self::Renew(..)).then(|| self.tenant())
    }
}

fn renewed(asks: &[Ask]) -> HashSet<TenantId> {
    asks.iter().filter_map(Ask::renews).collect()
}

struct Exchange {
    remote: Remote,
    script: Script,
    seen: Memory,
}

impl Exchange {
    /// Answers these; when Redis does not, also those that came meanwhile and `asked` still holds.
    async fn answer(&self, asks: &mut Vec<Ask>, asked: &mut mpsc::Receiver<Ask>) {
        let tenants: HashSet<TenantId> = asks.iter().map(Ask::tenant).collect();
        let was_up = self.remote.is_up();
        let mut found = self.run(&tenants, &renewed(asks)).await;
        if found.is_none() {
            asks.extend(std::iter::from_fn(|| asked.try_recv().ok()).take(WAITING_MAX));
            // Unanswered, it is not known. Who reads has another one to ask.
            asks.retain(|ask| ask.renews().is_some());
            if was_up {
                // Perhaps only the connection had broken. Who changes something in the meantime waits for that, too.
                self.remote.look_again().await;
            }
            if !asks.is_empty() {
                found = self.renew_again(&renewed(asks)).await;
            }
        }
        for ask in asks.drain(..) {
            let seen = found.as_ref().and_then(|found| found.get(&ask.tenant()));
            match (ask, seen) {
                (Ask::Current(_, answer), Some(seen)) => {
                    answer.send(seen.generation).ok();
                }
                (Ask::Current(..), None) | (Ask::Again(_), _) => {}
                (Ask::Renew(_, done), Some(seen)) => {
                    done.send(seen.taken_back.map_or(seen.since, |(_, until)| until)).ok();
                }
                // When Redis is away, there is nothing to wait for but what others were lent before.
                (Ask::Renew(_, done), None) => {
                    done.send(Instant::now() + LENT_FOR).ok();
                }
            }
        }
    }

    /// What Redis was not told and is not told now, either, is made good by an epoch as soon as it is back.
    async fn renew_again(&self, renewed: &HashSet<TenantId>) -> Option<HashMap<TenantId, Arc<Seen>>> {
        if !self.remote.note_untold() {
            return None;
        }
        let found = self.run(renewed, renewed).await;
        if found.is_none() {
            self.remote.note_untold();
        }
        found
    }

    /// Renews some, and answers what is then known of all; none when Redis is away. With no tenant it is asked all the same, by something
    /// that writes, so that one that only may be read is not taken for the one that others write to.
    async fn run(
        &self,
        tenants: &HashSet<TenantId>,
        renewed: &HashSet<TenantId>,
    ) -> Option<HashMap<TenantId, Arc<Seen>>> {
        // Before Redis is asked: what is lent counts from here.
        let asked_at = Instant::now();
        let mut call = self.script.prepare_invoke();
        call.key(EPOCH_KEY).arg(TTL.as_millis() as u64).arg(Uuid::now_v7().as_bytes());
        let mut before = Vec::with_capacity(tenants.len());
        for tenant in tenants {
            let seen = self.seen.get(*tenant);
            let is_quiet = |seen: &&Arc<Seen>| asked_at.duration_since(seen.since) >= QUIET_FOR;
            let quiet = seen.as_ref().filter(is_quiet).filter(|_| !renewed.contains(tenant));
            let to_lend = quiet.map(|seen| seen.generation);
            call.key(key(*tenant)).arg(Uuid::now_v7().as_bytes());
            match to_lend {
                Some(generation) => call.arg(generation.word.as_bytes()),
                None if renewed.contains(tenant) => call.arg("renew"),
                None => call.arg("read"),
            };
            let ended = seen.as_ref().and_then(|seen| {
                let (word, until) = seen.taken_back?;
                (until <= asked_at).then_some(Generation { word, ..seen.generation })
            });
            call.arg(ended.map_or_else(Vec::new, |ended| ended.bytes().to_vec()));
            before.push((*tenant, to_lend, seen));
        }
        let answer: Vec<(Vec<u8>, Vec<u8>)> = self.remote.run(&call).await?;
        let answered_at = Instant::now();
        let ((epoch, _), words) = answer.split_first()?;
        let epoch = Uuid::from_slice(epoch).ok()?;
        let mut found = HashMap::with_capacity(tenants.len());
        for ((tenant, to_lend, before), (word, behind)) in before.into_iter().zip(words) {
            // One that is none of ours is not known.
            let Ok(word) = Uuid::from_slice(word) else { continue };
            let generation = Generation { epoch, word };
            let same = before.as_ref().filter(|before| before.generation == generation);
            let taken_back = Uuid::from_slice(behind).ok().map(|word| {
                // In another epoch words may have come back that were over.
                let before = before.as_ref().filter(|before| before.generation.epoch == epoch);
                let known = before.and_then(|before| before.taken_back).filter(|(other, _)| *other == word);
                known.unwrap_or((word, answered_at + LENT_FOR))
            });
            let seen = Arc::new(Seen {
                generation,
                since: same.map_or(answered_at, |before| before.since),
                lent_until: (to_lend == Some(generation)).then(|| asked_at + LENT_FOR),
                is_asked_again: AtomicBool::new(false),
                taken_back,
            });
            // Of one that was renewed nothing is lent any more, before anybody hears of it.
            self.seen.put(tenant, Arc::clone(&seen));
            found.insert(tenant, seen);
        }
        Some(found)
    }
}

/// What stands in braces decides which node of a cluster has a key: one for all, so that they can be read together.
fn key(tenant: TenantId) -> String {
    format!("context-api:v1:{{generations}}:{}", tenant.0)
}
