//! What was made once and is given again until it ends: a bounded map, of which nobody has to make what somebody else is making. Each
//! request reads several, so a read writes down no more than that it was one. See docs/adr/0028-maps-that-are-cheap-to-read.md.

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
use tokio::time::Instant;

use crate::error::Error;

/// How often what has ended is looked for: until then it takes room that others might need.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// The map. Cheap to clone.
pub struct Kept<K, V, E = Error> {
    entries: Arc<Entries<K, V, E>>,
    begun: Instant,
    /// When it was last swept, in milliseconds since it has begun.
    swept_ms: Arc<AtomicU64>,
}

impl<K, V, E> Clone for Kept<K, V, E> {
    fn clone(&self) -> Self {
        Self { entries: Arc::clone(&self.entries), begun: self.begun, swept_ms: Arc::clone(&self.swept_ms) }
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
}

struct Weight<K, V>(fn(&K, &V) -> u64);

impl<K, V> Clone for Weight<K, V> {
    fn clone(&self) -> Self {
        Self(self.0)
    }
}

impl<K, V, E> Weighter<K, Entry<V, E>> for Weight<K, V> {
    fn weight(&self, key: &K, entry: &Entry<V, E>) -> u64 {
        // What weighs nothing would never have to go.
        entry.made.as_ref().map_or(1, |value| (self.0)(key, value).max(1))
    }
}

impl<K: Clone + Eq + Hash, V: Clone, E> Kept<K, V, E> {
    /// Holds about `max`.
    pub fn new(max: u64) -> Self {
        Self::weighing(max, max, |_, _| 1)
    }

    /// Holds about `weight_max`, which may be as many as `expected` of the usual weight.
    pub fn weighing(weight_max: u64, expected: u64, weight: fn(&K, &V) -> u64) -> Self {
        let expected = usize::try_from(expected).unwrap_or(usize::MAX);
        let entries = Cache::with_weighter(expected, weight_max, Weight(weight));
        Self { entries: Arc::new(entries), begun: Instant::now(), swept_ms: Arc::default() }
    }

    /// What is there and holds at `now`.
    pub fn get(&self, key: &K, now: Instant) -> Option<V> {
        self.entries.get(key).filter(|entry| entry.holds(now))?.made.ok()
    }

    /// Puts it in the place of what is there.
    pub fn insert(&self, key: K, value: V, until: Instant) {
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
        self.remove_unless_holds(key, now);
        let guard = match self.entries.get_value_or_guard_async(key).await {
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
        self.remove_unless_holds(key, now);
        entry.made
    }

    fn remove_unless_holds(&self, key: &K, now: Instant) {
        if self.entries.peek(key).is_some_and(|entry| !entry.holds(now)) {
            self.entries.remove_if(key, |entry| !entry.holds(now));
        }
    }

    /// Removes what has ended, unless that was done a moment ago.
    fn sweep(&self, now: Instant) {
        let now_ms = now.saturating_duration_since(self.begun).as_millis() as u64;
        let swept_ms = self.swept_ms.load(Ordering::Relaxed);
        let is_due = now_ms.saturating_sub(swept_ms) >= SWEEP_EVERY.as_millis() as u64;
        // One of those who come at the same time.
        if is_due
            && self.swept_ms.compare_exchange(swept_ms, now_ms, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            self.entries.retain(|_, entry| entry.holds(now));
        }
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
    async fn it_holds_as_much_as_it_may_and_nothing_for_long_that_has_ended() {
        let (kept, now) = (Kept::weighing(1_000, 100, |_, value: &u8| u64::from(*value)), Instant::now());
        for key in 0..1_000 {
            kept.insert(key, 10, now + SECOND);
        }
        assert!((50..=100).contains(&kept.entries.len()), "{} of 100", kept.entries.len());
        kept.get_or_make(&5_000, now + SWEEP_EVERY, once(1)).await.unwrap();
        assert_eq!(kept.entries.len(), 0);
    }
}
