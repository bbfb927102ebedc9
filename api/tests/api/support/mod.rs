//! What the tests share: an application of their own, with a database of its own, on a port of its own.

mod app;
mod collector;
mod database;
pub mod evaluator;
mod process;
mod promised;
mod provider;
pub mod random;
mod redis;
mod s3;
mod server;

pub use self::{
    app::{Answer, App, Setup, answer},
    collector::{Collector, Received, Taking},
    database::{Database, Engine, QUEUE_MAX, options},
    process::{KEY, Process, command, free_port},
    provider::{Behaviour, StubProvider},
    redis::{RedisGroup, RedisServer},
    s3::S3Server,
    server::{PostgresServer, program},
};

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::Poll,
    time::Duration,
};

use tokio::time::Instant;

/// A user that the tests write for.
pub const USER: &str = "0190d5a0-0000-7000-8000-0000000000aa";

/// A client with a deadline beyond the service's own.
pub fn client() -> reqwest::Client {
    program::provide_tls();
    reqwest::Client::builder().timeout(Duration::from_secs(40)).no_proxy().build().expect("a client")
}

/// The time that this process was given since a moment, to tell a service that is slow from a machine that is busy: each tick
/// waits for its turn, as everything else here does.
pub struct OwnTime(Arc<AtomicU32>);

impl OwnTime {
    const TICK: Duration = Duration::from_millis(20);

    pub fn start() -> Self {
        let ticks = Arc::new(AtomicU32::new(0));
        let weak = Arc::downgrade(&ticks);
        tokio::spawn(async move {
            while let Some(ticks) = weak.upgrade() {
                ticks.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Self::TICK).await;
            }
        });
        Self(ticks)
    }

    pub fn elapsed(&self) -> Duration {
        Self::TICK * self.0.load(Ordering::Relaxed)
    }
}

/// Begins `future` and gives it up after so many polls: what a caller does who hangs up half-way.
pub async fn give_up_after<T>(polls: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(context) {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            // Not woken again for the last time, but given up at once.
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Asks again and again until `check` answers something; the test fails when that takes longer than `deadline`.
pub async fn eventually<T>(what: &str, deadline: Duration, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + deadline;
    let mut turn = tokio::time::interval(Duration::from_millis(20));
    loop {
        turn.tick().await;
        if let Some(value) = check().await {
            return value;
        }
        assert!(Instant::now() < give_up, "waited {deadline:?} in vain for: {what}");
    }
}
