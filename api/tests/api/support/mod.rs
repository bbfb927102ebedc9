//! What the tests share: an application of their own, with a database of its own, on a port of its own.

mod app;
mod database;
pub mod evaluator;
mod process;
mod provider;
pub mod random;
mod server;

pub use self::{
    app::{Answer, App, answer},
    database::{Database, Engine, options},
    process::{KEY, Process, command, free_port},
    provider::{Behaviour, StubProvider},
    server::PostgresServer,
};

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
    time::Duration,
};

use tokio::time::Instant;

/// A user that the tests write for.
pub const USER: &str = "0190d5a0-0000-7000-8000-0000000000aa";

/// A client with a deadline beyond the service's own.
pub fn client() -> reqwest::Client {
    rustls::crypto::ring::default_provider().install_default().ok();
    reqwest::Client::builder().timeout(Duration::from_secs(40)).no_proxy().build().expect("a client")
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
