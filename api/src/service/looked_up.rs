//! What was looked up in the database and holds for a while. When half of that is over it is looked up again while everybody goes on
//! with it: so nobody waits for what all need, least of all when the database has much to do.

use std::{
    future::Future,
    hash::Hash,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use crate::{
    cache::Kept,
    error::{Error, Result},
};

/// Looks at once that nobody waits for: they join the queue for the database before those who do.
const RENEWALS_MAX: usize = 8;

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct LookedUp<K: Clone + Hash + Eq + Send + Sync + 'static, V: Clone + Send + Sync + 'static> {
    entries: Kept<K, Entry<V>>,
    ttl: Duration,
    keeps: fn(&V) -> bool,
    /// How often something was forgotten on purpose: what is renewed by a look from before is then not put here any more.
    forgotten: Arc<AtomicU64>,
    renewals: Arc<Semaphore>,
}

#[derive(Clone)]
struct Entry<V> {
    value: V,
    /// From before it was looked up.
    since: Instant,
    is_renewed: Arc<AtomicBool>,
}

impl<V> Entry<V> {
    fn new(value: V, since: Instant) -> Self {
        Self { value, since, is_renewed: Arc::default() }
    }
}

impl<K: Clone + Hash + Eq + Send + Sync + 'static, V: Clone + Send + Sync + 'static> LookedUp<K, V> {
    /// Holds `entries_max` for `ttl`, of what `keeps` says may be.
    pub(super) fn new(entries_max: u64, ttl: Duration, keeps: fn(&V) -> bool) -> Self {
        Self {
            entries: Kept::new(entries_max),
            ttl,
            keeps,
            forgotten: Arc::default(),
            renewals: Arc::new(Semaphore::new(RENEWALS_MAX)),
        }
    }

    /// What is there, or what `look` answers, which runs once however many ask. What is there is what the database said within
    /// the time to live. `renew`: the same for a look that nobody waits for.
    ///
    /// # Errors
    /// Those of `look`; they are not kept.
    pub(super) async fn get<R, L>(
        &self,
        key: K,
        renew: impl FnOnce() -> R,
        look: impl FnOnce() -> L,
    ) -> Result<V>
    where
        R: Future<Output = Result<V>> + Send + 'static,
        L: Future<Output = Result<V>>,
    {
        self.get_at(Instant::now(), key, renew, look).await
    }

    async fn get_at<R, L>(
        &self,
        now: Instant,
        key: K,
        renew: impl FnOnce() -> R,
        look: impl FnOnce() -> L,
    ) -> Result<V>
    where
        R: Future<Output = Result<V>> + Send + 'static,
        L: Future<Output = Result<V>>,
    {
        if let Some(entry) = self.entries.get(&key, now) {
            let age = now.saturating_duration_since(entry.since);
            if age > self.ttl / 2
                && let Ok(turn) = Arc::clone(&self.renewals).try_acquire_owned()
                && !entry.is_renewed.swap(true, Ordering::Relaxed)
            {
                self.renew(now, key, renew(), turn);
            }
            return Ok(entry.value);
        }
        // On the heap: this way is rare, and its future large.
        Box::pin(self.look_up(now, key, look)).await
    }

    async fn look_up<L: Future<Output = Result<V>>>(
        &self,
        now: Instant,
        key: K,
        look: impl FnOnce() -> L,
    ) -> Result<V> {
        let look = async {
            let value = look().await?;
            let until = (self.keeps)(&value).then_some(now + self.ttl);
            Ok((Entry::new(value, now), until))
        };
        let looked = self.entries.get_or_make(&key, now, look).await;
        looked.map(|entry| entry.value).map_err(|shared| Error::copy_of(&shared))
    }

    pub(super) fn forget(&self, key: &K) {
        self.forgotten.fetch_add(1, Ordering::SeqCst);
        self.entries.remove(key);
    }

    fn renew(
        &self,
        now: Instant,
        key: K,
        look: impl Future<Output = Result<V>> + Send + 'static,
        turn: OwnedSemaphorePermit,
    ) {
        let (this, forgotten) = (self.clone(), self.forgotten.load(Ordering::SeqCst));
        tokio::spawn(async move {
            let _turn = turn;
            let was_forgotten = || this.forgotten.load(Ordering::SeqCst) != forgotten;
            match look.await {
                Ok(value) if (this.keeps)(&value) && !was_forgotten() => {
                    this.entries.insert(key.clone(), Entry::new(value, now), now, now + this.ttl);
                    if was_forgotten() {
                        this.entries.remove(&key);
                    }
                }
                // It will not pass. Whoever asks next looks, and hears it.
                Err(error) if error.retry_after.is_none() => this.entries.remove(&key),
                // It holds for as long as it would have, and then somebody looks.
                Ok(_) | Err(_) => {}
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;
    use crate::error::Code;

    const TTL: Duration = Duration::from_secs(100);

    struct World {
        looked_up: LookedUp<u8, u32>,
        looks: Arc<AtomicU32>,
        start: Instant,
    }

    impl World {
        fn new() -> Self {
            Self { looked_up: LookedUp::new(10, TTL, |_| true), looks: Arc::default(), start: Instant::now() }
        }

        /// After so many quarters of the time to live. Each look answers how many there were.
        async fn get(&self, quarters: u32) -> u32 {
            let look = || {
                let looks = self.looks.clone();
                async move { Ok(looks.fetch_add(1, Ordering::SeqCst) + 1) }
            };
            self.looked_up.get_at(self.start + TTL / 4 * quarters, 1, look, look).await.unwrap()
        }

        /// The same when the look of a renewal is another one.
        async fn get_and_renew(&self, look: impl Future<Output = Result<u32>> + Send + 'static) -> u32 {
            let unused = || async { Err(Error::internal("it is there")) };
            self.looked_up.get_at(self.start + TTL / 4 * 3, 1, || look, unused).await.unwrap()
        }
    }

    /// Lets all that was spawned and waits for nothing come to its end.
    async fn others_are_done() {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn half_way_it_is_renewed_while_everybody_goes_on() {
        let world = World::new();
        assert_eq!([world.get(0).await, world.get(2).await], [1, 1]);
        others_are_done().await;
        assert_eq!(world.looks.load(Ordering::SeqCst), 1, "it is young enough");
        assert_eq!([world.get(3).await, world.get(3).await], [1, 1]);
        others_are_done().await;
        assert_eq!([world.get(3).await, world.get(5).await], [2, 2]);
        others_are_done().await;
        assert_eq!(world.get(7).await, 3, "what was renewed after five quarters");
        assert_eq!(world.get(20).await, 4, "nobody asked in time");
    }

    #[tokio::test]
    async fn what_was_looked_up_before_it_was_forgotten_is_not_put_back() {
        let world = World::new();
        world.get(0).await;
        let (go_on, waits) = tokio::sync::oneshot::channel::<()>();
        let slow = async move {
            waits.await.ok();
            Ok(77)
        };
        assert_eq!(world.get_and_renew(slow).await, 1);
        world.looked_up.forget(&1);
        go_on.send(()).unwrap();
        others_are_done().await;
        assert_eq!(world.get(3).await, 2);
    }

    #[tokio::test]
    async fn a_renewal_that_finds_it_gone_ends_it_and_one_that_fails_for_now_does_not() {
        let gone = Error::new(Code::InvalidApiKey, "revoked");
        let away = Error::new(Code::DatabaseUnavailable, "away").with_retry_after(Duration::from_secs(1));
        for (error, next) in [(gone, 2), (away, 1)] {
            let world = World::new();
            world.get(0).await;
            assert_eq!(world.get_and_renew(async { Err(error) }).await, 1);
            others_are_done().await;
            assert_eq!(world.get(3).await, next);
        }
    }

    #[tokio::test]
    async fn what_must_not_be_kept_is_looked_up_each_time() {
        let looked_up = LookedUp::new(10, TTL, |value: &u32| *value > 1);
        let mut found = Vec::new();
        for value in [1, 2, 3] {
            found.push(looked_up.get(1, || async { Ok(0) }, || async { Ok(value) }).await.unwrap());
        }
        assert_eq!(found, [1, 2, 2]);
    }
}
