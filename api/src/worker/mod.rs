//! Loops in the background. Each runs until it is told to stop, and survives everything else. Imports `service`,
//! `domain` and `error`.

use std::time::Duration;

use tokio::sync::watch;

use crate::service::Service;

/// How long a row that another process wrote may wait unnoticed.
const POLL: Duration = Duration::from_millis(500);
/// How long a worker rests after an error of the database.
const REST: Duration = Duration::from_secs(1);

/// Embeds what is pending until `stop` turns true. A round that is under way is finished first.
pub async fn embed(service: Service, mut stop: watch::Receiver<bool>) {
    while !*stop.borrow() {
        let pause = match service.embed_pending().await {
            Ok(0) => POLL,
            Ok(_) => continue,
            Err(error) => {
                tracing::warn!(%error, code = %error.code, "the worker could not go on; it will");
                REST
            }
        };
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => {}
            () = service.pending_noticed() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// How often the database in process is vacuumed.
const VACUUM_EVERY: Duration = Duration::from_secs(10 * 60);

/// Keeps the database in process tidy until `stop` turns true.
pub async fn vacuum(service: Service, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(VACUUM_EVERY) => {}
        }
        if let Err(error) = service.vacuum().await {
            tracing::warn!(%error, "the database in process could not be vacuumed");
        }
    }
}
