//! The questions of a process to Redis: all that have come together by one call, on a thread of their own.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use redis::Script;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout},
};
use uuid::Uuid;

use super::{
    super::remote::{EPOCH_KEY, Remote},
    Generation, WAITING_MAX,
    memory::{Memory, Seen},
};
use crate::domain::TenantId;

/// Of a generation in Redis.
const TTL: Duration = Duration::from_secs(24 * 3600);
/// How often Redis is asked when nobody wants to know anything. A master that hangs for long enough to be replaced must not go
/// unnoticed: it would answer again when it goes on, and not know that it is none any more.
const ASK_EVERY: Duration = Duration::from_millis(250);
/// Questions that are answered by one read.
const TOGETHER_MAX: usize = 1_024;
/// For how long a word is lent, from before Redis is asked for it. The first change after a quiet time takes so much longer.
const LENT_FOR: Duration = Duration::from_millis(3);
/// A word that has not changed for so long is lent. So a tenant that is written to all the time waits for it ten times a second at most.
const QUIET_FOR: Duration = Duration::from_millis(100);

/// What Redis does; what it is told and answers stands in it.
const EXCHANGE: &str = include_str!("exchange.lua");

pub(super) enum Ask {
    Current(TenantId, oneshot::Sender<Generation>),
    /// Before it is needed.
    Again(TenantId),
    /// Answers until when others may go by the old one.
    Renew(TenantId, oneshot::Sender<Instant>),
}

/// Answers all that have come together, again and again, until nobody can ask any more.
pub(super) async fn answer(remote: Remote, seen: Memory, mut asked: mpsc::Receiver<Ask>) {
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

    fn renews(&self) -> bool {
        matches!(self, Self::Renew(..))
    }
}

fn renewed(asks: &[Ask]) -> HashSet<TenantId> {
    asks.iter().filter(|ask| ask.renews()).map(Ask::tenant).collect()
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
            asks.retain(Ask::renews);
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
