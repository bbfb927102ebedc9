//! How something about backups fails: in which stage, and in a sentence for an operator.

use std::{fmt, future::Future, time::Duration};

use strum::{EnumIter, IntoStaticStr};
use tokio::sync::watch;

/// `Result` with a [`Failure`].
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// What was being done. Names are labels of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Stage {
    /// Reaching the database, and being the only backup of it.
    Database,
    /// `pg_dump`.
    Dump,
    /// Writing to the storage, and reading from it.
    Storage,
    /// Restoring into a scratch database and comparing.
    Check,
    /// Removing what is not to be kept.
    Retention,
    /// Comparing what is stored with its checksums.
    Verify,
    /// Restoring for good.
    Restore,
    /// The process was asked to stop.
    Stopped,
}

impl Stage {
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// What went wrong, and while doing what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub stage: Stage,
    pub detail: String,
}

impl Failure {
    pub fn new(stage: Stage, detail: impl fmt::Display) -> Self {
        Self { stage, detail: detail.to_string() }
    }

    pub(super) fn stopped() -> Self {
        Self::new(Stage::Stopped, "It was stopped before it was done.")
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Failure {}

/// Says in which stage an error came.
pub(super) trait In<T> {
    fn in_stage(self, stage: Stage) -> Result<T>;
}

impl<T, E: fmt::Display> In<T> for std::result::Result<T, E> {
    fn in_stage(self, stage: Stage) -> Result<T> {
        self.map_err(|error| Failure::new(stage, error))
    }
}

/// Runs a step until it ends, its time is over, or the process is asked to stop; then it is dropped where it is, and with it the
/// program that it runs.
pub(super) async fn step<T>(
    stage: Stage,
    longest: Duration,
    stop: &watch::Receiver<bool>,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let mut stop = stop.clone();
    tokio::select! {
        result = tokio::time::timeout(longest, work) => result.unwrap_or_else(|_| {
            let detail = format!(
                "It took longer than {} minutes and was given up. Find out what holds it up, or raise BACKUP_STEP_MINUTES.",
                longest.as_secs() / 60
            );
            Err(Failure::new(stage, detail))
        }),
        // Whoever could ask is gone: then nobody does.
        Ok(_) = stop.wait_for(|stop| *stop) => Err(Failure::stopped()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_step_ends_by_itself_by_its_deadline_or_by_a_stop() {
        let (stop, stopped) = watch::channel(false);
        let (hour, instant) = (Duration::from_secs(3_600), Duration::from_millis(1));
        let endless = std::future::pending::<Result<()>>;
        assert_eq!(step(Stage::Dump, hour, &stopped, async { Ok(()) }).await, Ok(()));
        assert_eq!(step(Stage::Dump, instant, &stopped, endless()).await.unwrap_err().stage, Stage::Dump);
        let (ended, ()) = tokio::join!(step(Stage::Dump, hour, &stopped, endless()), async {
            stop.send_replace(true);
        });
        assert_eq!(ended.unwrap_err().stage, Stage::Stopped);
        drop(stop);
        // Nobody can ask any more.
        assert_eq!(step(Stage::Dump, hour, &watch::channel(false).1, async { Ok(()) }).await, Ok(()));
    }
}
