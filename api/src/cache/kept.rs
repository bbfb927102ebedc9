//! What was made once and is given again until it ends: a bounded map, of which nobody has to make what somebody else is making. Each
//! request reads several, so a read does little more than to take a lock and to mark the entry. See
//! docs/adr/0028-maps-that-are-cheap-to-read.md.

use std::{
    future::Future,
    hash::Hash,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use quick_cache::{Weighter, sync::Cache};
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::Instant,
};

use crate::error::Error;

/// How often what has ended is looked for: until then it takes room that others might need.
const SWEEP_EVERY: Duration = Duration::from_secs(2);

/// The map. Cheap to clone.
pub struct Kept<K, V, E = Error> {
    entries: Arc<Entries<K, V, E>>,
    begun: Instant,
    /// When it was last swept, in milliseconds since it has begun.
    swept_ms: Arc<AtomicU64>,
    /// By its key, what nobody will ask for any more though it holds.
    is_over: Arc<dyn Fn(&K) -> bool + Send + Sync>,
}

impl<K, V, E> Clone for Kept<K, V, E> {
    fn clone(&self) -> Self {
        Self {
            entries: Arc::clone(&self.entries),
            begun: self.begun,
            swept_ms: Arc::clone(&self.swept_ms),
            is_over: Arc::clone(&self.is_over),
        }
    }
}

type Entries<K, V, E> = Cache<K, Entry<V, E>, Weight<K, V>>;

struct Entry<V, E> {
    made: Result<V, Arc<E>>,
    /// None: it is there for those alone who waited for it, as every failure is.
    until: Option<Instant>,
}

impl<V: Clone, E> Clone for Entry<V, E> {
    fn clone(&self) -> Self {
        Self { made: self.made.clone(), until: self.until }
    }
}

impl<V, E> Entry<V, E> {
    fn holds(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until > now)
    }

    fn has_ended(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

struct Weight<K, V>(fn(&K, &V) -> u64);

impl<K, V> Clone for Weight<K, V> {
    fn clone(&self) -> Self {
        Self(self.0)
    }
}

impl<K, V, E> Weighter<K, Entry<V, E>> for Weight<K, V> {
    fn weight(&self, key: &K, entry: &Entry<V, E>) -> u64 {
        match (&entry.made, entry.until) {
            // What weighs nothing would never have to go.
            (Ok(value), Some(_)) => (self.0)(key, value).max(1),
            // Gone at once, and nobody has to make room for it.
            _ => 1,
        }
    }
}

impl<K, V, E> Kept<K, V, E>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    /// Holds about `max`.
    pub fn new(max: u64) -> Self {
        Self::weighing(max, 1, |_, _| 1)
    }

    /// Holds about `weight_max`, and has room for what weighs `heaviest` if all together do.
    pub fn weighing(weight_max: u64, heaviest: u64, weight: fn(&K, &V) -> u64) -> Self {
        // It has parts of 32 expected entries at least, none of which takes what is heavier than itself.
        let expected = (weight_max / heaviest * 8).clamp(1, weight_max);
        let expected = usize::try_from(expected).unwrap_or(usize::MAX);
        let entries = Cache::with_weighter(expected, weight_max, Weight(weight));
        Self {
            entries: Arc::new(entries),
            begun: Instant::now(),
            swept_ms: Arc::default(),
            is_over: Arc::new(|_| false),
        }
    }

    /// Besides what has ended, a sweep removes what `is_over` says that nobody will ask for any more. It is told keys, one after the other,
    /// while others wait.
    #[must_use]
    pub fn forgetting(self, is_over: impl Fn(&K) -> bool + Send + Sync + 'static) -> Self {
        Self { is_over: Arc::new(is_over), ..self }
    }

    /// What is there and holds at `now`.
    pub fn get(&self, key: &K, now: Instant) -> Option<V> {
        self.entries.get(key).filter(|entry| entry.holds(now))?.made.ok()
    }

    /// Puts it in the place of what is there.
    pub fn insert(&self, key: K, value: V, now: Instant, until: Instant) {
        self.sweep(now);
        self.entries.insert(key, Entry { made: Ok(value), until: Some(until) });
    }

    /// What is being made of it now will not be found here.
    pub fn remove(&self, key: &K) {
        self.entries.remove(key);
    }

    /// What is there and holds at `now`, or what `make` answers, with the moment until which that holds; none: it is for those alone who
    /// wait for it. `make` runs once however many ask at the same time; if whoever asked first goes away, that of the next one does.
    ///
    /// # Errors
    /// Those of `make`, told to all who wait for it; they are not kept.
    pub async fn get_or_make(
        &self,
        key: &K,
        now: Instant,
        make: impl Future<Output = Result<(V, Option<Instant>), E>>,
    ) -> Result<V, Arc<E>> {
        loop {
            match self.entries.get(key) {
                Some(entry) if entry.holds(now) => return entry.made,
                Some(_) => drop(self.entries.remove_if(key, |entry| !entry.holds(now))),
                None => {}
            }
            let guard = match self.entries.get_value_or_guard_async(key).await {
                // Of somebody who had begun so long before that it is too old already. Whoever begins it now has not.
                Ok(entry) if entry.has_ended(now) => continue,
                Ok(entry) => return entry.made,
                Err(guard) => guard,
            };
            self.sweep(now);
            let entry = match make.await {
                Ok((value, until)) => Entry { made: Ok(value), until },
                Err(error) => Entry { made: Err(Arc::new(error)), until: None },
            };
            // Refused where it was removed in the meantime.
            guard.insert(entry.clone()).ok();
            if entry.until.is_none() {
                self.entries.remove_if(key, |entry| entry.until.is_none());
            }
            return entry.made;
        }
    }

    /// Removes what has ended or is over, unless that was done a moment ago; on a thread of its own, because all that is there has to be
    /// looked at.
    pub(super) fn sweep(&self, now: Instant) -> Option<JoinHandle<()>> {
        let now_ms = now.saturating_duration_since(self.begun).as_millis() as u64;
        let swept_ms = self.swept_ms.load(Ordering::Relaxed);
        if now_ms.saturating_sub(swept_ms) < SWEEP_EVERY.as_millis() as u64 {
            return None;
        }
        // One of those who come at the same time.
        self.swept_ms.compare_exchange(swept_ms, now_ms, Ordering::Relaxed, Ordering::Relaxed).ok()?;
        let (entries, is_over) = (Arc::clone(&self.entries), Arc::clone(&self.is_over));
        Some(spawn_blocking(move || entries.retain(|key, entry| entry.holds(now) && !is_over(key))))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::{Ready, pending, ready},
        pin::pin,
        sync::atomic::{AtomicU32, Ordering::SeqCst},
    };

    use futures_util::poll;
    use tokio::sync::oneshot;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn once(value: u8) -> Ready<Result<(u8, Option<Instant>), Error>> {
        ready(Ok((value, None)))
    }

    #[tokio::test]
    async fn what_was_made_is_there_until_it_ends() {
        let (kept, now) = (Kept::new(10), Instant::now());
        let make = async { Ok((7, Some(now + SECOND))) };
        assert_eq!(kept.get_or_make(&1, now, make).await.unwrap(), 7);
        assert_eq!((kept.get(&1, now), kept.get(&2, now)), (Some(7), None));
        assert_eq!(kept.get_or_make(&1, now, once(8)).await.unwrap(), 7);
        assert_eq!(kept.get(&1, now + SECOND), None);
        assert_eq!(kept.get_or_make(&1, now + SECOND, once(8)).await.unwrap(), 8);
        assert_eq!(kept.get(&1, now), None, "the one before is gone, and the last one was not to be kept");
    }

    #[tokio::test]
    async fn all_who_wait_hear_the_same_failure_and_nobody_else_does() {
        let (kept, now, calls) = (Kept::<u8, u8>::new(10), Instant::now(), AtomicU32::new(0));
        let ask = || {
            kept.get_or_make(&1, now, async {
                calls.fetch_add(1, SeqCst);
                tokio::task::yield_now().await;
                Err(Error::internal("down"))
            })
        };
        let (a, b, c) = tokio::join!(ask(), ask(), ask());
        assert!(a.is_err() && b.is_err() && c.is_err());
        assert_eq!(calls.load(SeqCst), 1);
        assert_eq!(kept.get_or_make(&1, now, once(8)).await.unwrap(), 8);
    }

    #[tokio::test]
    async fn when_who_makes_it_goes_away_the_next_one_does() {
        let (kept, now) = (Kept::new(10), Instant::now());
        let mut first = Box::pin(kept.get_or_make(&1, now, pending()));
        assert!(poll!(&mut first).is_pending());
        let mut next = pin!(kept.get_or_make(&1, now, once(8)));
        assert!(poll!(&mut next).is_pending());
        drop(first);
        assert_eq!(next.await.unwrap(), 8);
    }

    #[tokio::test]
    async fn what_is_removed_while_it_is_made_is_told_but_not_found() {
        let (kept, now) = (Kept::<_, _>::new(10), Instant::now());
        let (go_on, waits) = oneshot::channel();
        let made = async { Ok((waits.await.map_err(Error::internal)?, Some(now + SECOND))) };
        let mut making = pin!(kept.get_or_make(&1, now, made));
        assert!(poll!(&mut making).is_pending());
        kept.remove(&1);
        go_on.send(7).unwrap();
        assert_eq!(making.await.unwrap(), 7);
        assert_eq!(kept.get(&1, now), None);
    }

    #[tokio::test]
    async fn who_waits_is_not_told_what_has_ended_since_it_was_begun() {
        let (kept, now) = (Kept::new(10), Instant::now());
        let (go_on, waits) = oneshot::channel();
        let old = async { Ok((waits.await.map_err(Error::internal)?, Some(now + SECOND))) };
        let mut first = pin!(kept.get_or_make(&1, now, old));
        assert!(poll!(&mut first).is_pending());
        let mut soon = pin!(kept.get_or_make(&1, now, once(8)));
        let mut late = pin!(kept.get_or_make(&1, now + SECOND, once(9)));
        assert!(poll!(&mut soon).is_pending() && poll!(&mut late).is_pending());
        go_on.send(7).unwrap();
        assert_eq!((first.await.unwrap(), soon.await.unwrap(), late.await.unwrap()), (7, 7, 9));
    }

    #[tokio::test]
    async fn it_holds_as_much_as_it_may_and_nothing_for_long_that_has_ended() {
        let (kept, now) = (Kept::weighing(1_000, 10, |_, value: &u8| u64::from(*value)), Instant::now());
        for key in 0..1_000 {
            kept.insert(key, 10, now, now + SECOND);
        }
        let full = kept.entries.len();
        assert!((50..=100).contains(&full), "{full} of 100");
        kept.get_or_make(&5_000, now, once(200)).await.unwrap();
        assert!(kept.entries.len() + 1 >= full, "what is not kept needs no room");
        assert!(kept.sweep(now + SWEEP_EVERY - SECOND).is_none());
        assert_eq!(kept.entries.len(), full);
        kept.sweep(now + SWEEP_EVERY).unwrap().await.unwrap();
        assert_eq!(kept.entries.len(), 0);
    }

    #[tokio::test]
    async fn what_nobody_will_ask_for_any_more_goes_with_the_next_sweep() {
        let (kept, now) = (Kept::<u8, u8>::new(10).forgetting(|key| key % 2 == 1), Instant::now());
        for key in 0..4 {
            kept.insert(key, 7, now, now + 2 * SWEEP_EVERY);
        }
        kept.sweep(now + SWEEP_EVERY).unwrap().await.unwrap();
        let left: Vec<_> = (0..4).filter(|key| kept.get(key, now + SWEEP_EVERY).is_some()).collect();
        assert_eq!(left, [0, 2]);
    }
}
