//! Which runtime a connection lives on. Its socket belongs to the one that it was opened on, and is dead when that ends. The HTTP server has
//! a runtime for each of its threads and ends them one by one, each when it has no request any more, while connections have gone from
//! thread to thread: so before it ends the first, all connections move to the runtime that lasts.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{runtime::Handle, time::Instant};

use crate::error::{Error, Result};

/// Between two looks whether all have moved.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The runtime that lasts, and who is not on it.
pub(super) struct Home {
    runtime: Option<Handle>,
    is_moving: AtomicBool,
    away: Away,
}

/// Held by each connection that may be on another runtime.
#[derive(Clone)]
pub(super) struct Away(Arc<()>);

impl Home {
    /// The runtime of who calls.
    pub(super) fn here() -> Self {
        let away = Away(Arc::default());
        Self { runtime: Handle::try_current().ok(), is_moving: AtomicBool::new(false), away }
    }

    fn is_moving(&self) -> bool {
        self.is_moving.load(Ordering::SeqCst)
    }

    /// Opens something: where who calls is, because what is waited for on the same thread costs less, or at home.
    pub(super) async fn open<T: Send + 'static>(
        &self,
        opening: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<(T, Option<Away>)> {
        match &self.runtime {
            Some(runtime) if self.is_moving() => {
                Ok((runtime.spawn(opening).await.map_err(Error::internal)??, None))
            }
            _ => {
                // Before: who looks meanwhile waits for it.
                let away = self.away.clone();
                Ok((opening.await?, Some(away)))
            }
        }
    }

    /// Whether one has to go that was opened elsewhere.
    pub(super) fn is_left(&self, away: Option<&Away>) -> bool {
        away.is_some() && self.is_moving()
    }

    /// Has all move, those that are in use when they are given back. `drop_idle` drops the others. Waits for them, `longest` at most; answers
    /// whether all have.
    pub(super) async fn gather(&self, longest: Duration, drop_idle: impl Fn()) -> bool {
        self.is_moving.store(true, Ordering::SeqCst);
        let deadline = Instant::now() + longest;
        loop {
            drop_idle();
            if Arc::strong_count(&self.away.0) == 1 {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[tokio::test]
    async fn what_is_not_given_back_is_not_waited_for_for_ever() {
        let home = Home::here();
        let ((), away) = home.open(async { Ok(()) }).await.unwrap();
        assert!(!home.is_left(away.as_ref()), "nobody has to go yet");
        let (began, looks) = (Instant::now(), AtomicUsize::new(0));
        let look = || {
            looks.fetch_add(1, Ordering::SeqCst);
        };
        let longest = 3 * LOOK_EVERY;
        assert!(!home.gather(longest, look).await);
        assert!(began.elapsed() >= longest && looks.load(Ordering::SeqCst) > 1);
        assert!(home.is_left(away.as_ref()));
        let ((), at_home) = home.open(async { Ok(()) }).await.unwrap();
        assert!(at_home.is_none(), "what is opened from now on lives where it may stay");
        drop(away);
        assert!(home.gather(Duration::from_secs(1), || {}).await);
    }
}
