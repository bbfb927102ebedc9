//! How a program is asked to stop, and how long it takes about it.

use std::{future::Future, time::Duration};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that ask the process to stop.
pub struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    /// From now on a signal does not end the process by itself.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Returns when there was one, also before this was called.
    pub async fn asked(mut self) {
        tokio::select! {
            _ = self.terminate.recv() => tracing::info!("SIGTERM: stopping"),
            _ = self.interrupt.recv() => tracing::info!("SIGINT: stopping"),
        }
    }
}

/// Runs `work` until it ends or `grace` is over.
pub async fn within(grace: Duration, what: &str, work: impl Future<Output = ()>) {
    if tokio::time::timeout(grace, work).await.is_err() {
        tracing::warn!(what, ?grace, "did not stop in time and is left behind");
    }
}
