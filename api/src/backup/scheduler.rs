//! `context-api backup schedule`: makes backups and looks at those that are stored, each at its times, until it is told to stop.
//! Survives everything else, and tells how it is doing.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use metrics::{counter, gauge};
use strum::IntoEnumIterator;
use time::OffsetDateTime;
use tokio::sync::watch;

use super::{
    Backups, Failure, Listed, Result, Schedule, Stage, State,
    stored::Look,
    turns::{Turn, Turns, next_after},
};
use crate::domain::{BackupReport, BackupStatus};

/// What tells the time.
pub type Clock = fn() -> OffsetDateTime;

/// When to do what.
#[derive(Clone, Debug)]
pub struct Timetable {
    pub backup: Schedule,
    /// Comparing what is stored with its checksums.
    pub verify: Schedule,
    /// The newest backup may be so old.
    pub age_max: Duration,
}

/// The moment of a backup is the database's clock's, which may be ahead by so much.
const AHEAD_MAX: Duration = Duration::from_secs(300);
/// Clocks are set, and machines sleep: so often it is looked what time it is.
const LOOK_EVERY: Duration = Duration::from_secs(15);

/// What is known, for those who ask meanwhile.
struct Known {
    began_at: OffsetDateTime,
    last_success: Option<OffsetDateTime>,
    next: Option<OffsetDateTime>,
    problem: Option<Failure>,
    damaged: Vec<String>,
}

/// Makes backups. Cheap to clone: who asks for the report has one of its own.
#[derive(Clone)]
pub struct Scheduler {
    backups: Backups,
    timetable: Timetable,
    clock: Clock,
    known: Arc<Mutex<Known>>,
}

impl Scheduler {
    pub fn new(backups: Backups, timetable: Timetable, clock: Clock) -> Self {
        for stage in Stage::iter() {
            // A failure that is counted for the first time is a rise, too.
            counter!("backup_failures_total", "stage" => stage.as_str()).absolute(0);
        }
        let known =
            Known { began_at: clock(), last_success: None, next: None, problem: None, damaged: Vec::new() };
        Self { backups, timetable, clock, known: Arc::new(Mutex::new(known)) }
    }

    fn note(&self, change: impl FnOnce(&mut Known)) {
        change(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// How the backups are. Also brings the metrics up to date that change with time.
    pub fn report(&self) -> BackupReport {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let now = (self.clock)();
        // Who has just begun, and never has made one, has had no time for it.
        let age = now - known.last_success.unwrap_or(known.began_at);
        let age_of_last = known.last_success.map(|last| (now - last).as_seconds_f64().max(0.0));
        if let Some(age) = age_of_last {
            gauge!("backup_age_seconds").set(age);
        }
        // Of a clock that was wrong then, or is now. Nobody knows how old it is, and for a long time no other would count as newer.
        let of_the_future = known.last_success.filter(|last| *last > now + AHEAD_MAX);
        let failing = age > self.timetable.age_max || of_the_future.is_some() || !known.damaged.is_empty();
        let problem = known.problem.as_ref().map(|failure| failure.detail.clone());
        BackupReport {
            status: if failing { BackupStatus::Failing } else { BackupStatus::Ok },
            last_success_at: known.last_success,
            age_seconds: age_of_last,
            next_at: known.next,
            problem: problem.or_else(|| {
                of_the_future.map(|at| {
                    format!("The newest backup is of {at}, which is still to come. Set the clocks right, and remove it.")
                })
            }),
            damaged: known.damaged.clone(),
        }
    }

    /// Runs until `stop` turns true. What is under way then is given up and cleared away.
    pub async fn run(&self, stop: watch::Receiver<bool>) {
        let mut turns = Turns {
            backup: Turn { at: self.first_backup().await, failed: 0 },
            verify: Turn { at: self.timetable.verify.next_after((self.clock)()), failed: 0 },
        };
        loop {
            self.note(|known| known.next = turns.backup.at);
            gauge!("backup_next_timestamp_seconds").set(turns.backup.at.map_or(0.0, seconds));
            let Some(next) = [turns.backup.at, turns.verify.at].into_iter().flatten().min() else {
                tracing::error!(
                    "neither BACKUP_SCHEDULE nor BACKUP_VERIFY_SCHEDULE has a time that is still to come"
                );
                stop.clone().wait_for(|stop| *stop).await.ok();
                return;
            };
            if self.wait_until(next, stop.clone()).await.is_break() {
                return;
            }
            self.take(&mut turns, &stop).await;
            if *stop.borrow() {
                return;
            }
        }
    }

    /// Does what is due, and says when it is again.
    async fn take(&self, turns: &mut Turns, stop: &watch::Receiver<bool>) {
        if turns.backup.is_due((self.clock)()) {
            let done = self.back_up(stop).await;
            turns.backup.pass(done, (self.clock)(), &self.timetable.backup);
        }
        if turns.verify.is_due((self.clock)()) {
            let done = self.verify_all(stop).await;
            turns.verify.pass(done, (self.clock)(), &self.timetable.verify);
        }
    }

    /// At once when a turn was missed while nobody was there, or there was never a backup.
    async fn first_backup(&self) -> Option<OffsetDateTime> {
        let now = (self.clock)();
        match self.backups.list().await {
            Ok(listed) => {
                let last = self.note_stored(&listed);
                let missed = last
                    .is_none_or(|last| self.timetable.backup.next_after(last).is_some_and(|at| at <= now));
                if missed { Some(now) } else { self.timetable.backup.next_after(now) }
            }
            Err(failure) => {
                self.fail(failure);
                next_after(now, &self.timetable.backup, 1)
            }
        }
    }

    /// What the storage has, whoever put it there. Answers which moment the newest good one shows.
    fn note_stored(&self, listed: &[Listed]) -> Option<OffsetDateTime> {
        // One whose check was cut off is none yet.
        let unchecked_will_do = !self.backups.options.check;
        let readable = listed.iter().filter_map(|listed| listed.manifest.as_ref().ok());
        let good = readable.filter(|manifest| match manifest.state {
            State::Checked => true,
            State::NotChecked => unchecked_will_do,
            State::Failed => false,
        });
        let newest = good.max_by_key(|manifest| manifest.taken_at);
        let last = newest.map(|manifest| manifest.taken_at);
        gauge!("backups_stored").set(listed.len() as f64);
        // Without any, it was very long ago.
        gauge!("backup_last_success_timestamp_seconds").set(last.map_or(0.0, seconds));
        if let Some(newest) = newest {
            gauge!("backup_last_size_bytes").set(newest.bytes as f64);
        }
        self.note(|known| known.last_success = last);
        last
    }

    async fn wait_until(
        &self,
        moment: OffsetDateTime,
        mut stop: watch::Receiver<bool>,
    ) -> std::ops::ControlFlow<()> {
        loop {
            if *stop.borrow() {
                return std::ops::ControlFlow::Break(());
            }
            let Ok(left) = Duration::try_from(moment - (self.clock)()) else {
                return std::ops::ControlFlow::Continue(());
            };
            if left.is_zero() {
                return std::ops::ControlFlow::Continue(());
            }
            tokio::select! {
                Ok(_) = stop.wait_for(|stop| *stop) => {}
                () = tokio::time::sleep(left.min(LOOK_EVERY)) => {}
            }
        }
    }

    /// Whether one was made.
    async fn back_up(&self, stop: &watch::Receiver<bool>) -> bool {
        gauge!("backup_running").set(1.0);
        let made = self.backups.make(stop).await;
        gauge!("backup_running").set(0.0);
        let made = match made {
            Ok(made) => made,
            Err(failure) => {
                let stopped = failure.stage == Stage::Stopped;
                self.fail(failure);
                // Else those that fail their checks pile up. That something is wrong is told already.
                if !stopped && let Err(failure) = self.tidy(stop).await {
                    tracing::warn!(error = %failure, "old backups could not be removed");
                }
                return false;
            }
        };
        let manifest = &made.manifest;
        tracing::info!(
            backup = %manifest.name,
            bytes = manifest.bytes,
            dump_seconds = made.dump_took.as_secs_f64(),
            check_seconds = made.check_took.map(|took| took.as_secs_f64()),
            "backed up"
        );
        gauge!("backup_last_duration_seconds", "step" => "dump").set(made.dump_took.as_secs_f64());
        if let Some(took) = made.check_took {
            gauge!("backup_last_duration_seconds", "step" => "check").set(took.as_secs_f64());
        }
        self.note(|known| known.problem = None);
        // The backup is good, whatever becomes of the old ones.
        if let Err(failure) = self.tidy(stop).await {
            self.fail(Failure { stage: Stage::Retention, ..failure });
        }
        true
    }

    async fn tidy(&self, stop: &watch::Receiver<bool>) -> Result<()> {
        let pruned = self.backups.prune(stop).await;
        self.note_stored(&self.backups.list().await?);
        pruned.map(|_| ())
    }

    fn fail(&self, failure: Failure) {
        if failure.stage == Stage::Stopped {
            tracing::info!("a backup was given up, because the service is to stop");
            return;
        }
        counter!("backup_failures_total", "stage" => failure.stage.as_str()).increment(1);
        tracing::error!(stage = failure.stage.as_str(), error = %failure, "a backup failed");
        self.note(|known| known.problem = Some(failure));
    }

    /// Reads everything that is stored; whether that could be done.
    async fn verify_all(&self, stop: &watch::Receiver<bool>) -> bool {
        let look = async {
            let listed = self.backups.list().await?;
            self.note_stored(&listed);
            self.backups.look_at_all(&listed, stop).await
        };
        match look.await {
            Ok(Look { damaged, is_incomplete }) => {
                gauge!("backups_damaged").set(damaged.len() as f64);
                gauge!("backup_last_verify_timestamp_seconds").set(seconds((self.clock)()));
                for reason in &damaged {
                    counter!("backup_failures_total", "stage" => Stage::Verify.as_str()).increment(1);
                    tracing::error!(reason, "a stored backup is damaged");
                }
                self.note(|known| {
                    known.damaged = damaged;
                    known.problem = known.problem.take().filter(|problem| problem.stage != Stage::Verify);
                });
                !is_incomplete
            }
            Err(failure) if failure.stage == Stage::Stopped => false,
            Err(failure) => {
                self.fail(Failure { stage: Stage::Verify, ..failure });
                false
            }
        }
    }
}

fn seconds(moment: OffsetDateTime) -> f64 {
    moment.unix_timestamp() as f64
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use time::macros::datetime;

    use super::*;
    use crate::{
        backup::{Encryption, Keep, Options, TargetOptions, turns::RETRY_AFTER},
        store::ConnectOptions,
    };

    const NOW: OffsetDateTime = datetime!(2026-03-05 12:00 UTC);

    fn scheduler(folder: &Path) -> Scheduler {
        let options = Options {
            database: ConnectOptions {
                url: "postgres://nobody@127.0.0.1:1/none".to_owned().into(),
                connections_max: 1,
                queue_max: 1,
                wait_timeout: Duration::from_secs(1),
                connect_timeout: Duration::from_secs(1),
                statement_timeout: Duration::from_secs(1),
            },
            target: TargetOptions::Folder(folder.to_owned()),
            programs: None,
            encryption: Encryption::default(),
            keep: Keep { days: 1, weeks: 0, months: 0 },
            check: true,
            step_max: Duration::from_secs(1),
        };
        let hourly: Schedule = "0 * * * *".parse().unwrap();
        let timetable =
            Timetable { backup: hourly.clone(), verify: hourly, age_max: Duration::from_secs(7_200) };
        Scheduler::new(Backups::new(options).unwrap(), timetable, || NOW)
    }

    #[test]
    fn a_backup_of_the_future_is_no_reassurance() {
        let folder = tempfile::tempdir().unwrap();
        let scheduler = scheduler(folder.path());
        for (last, status) in [
            (NOW - Duration::from_secs(3_600), BackupStatus::Ok),
            (NOW - Duration::from_secs(7_201), BackupStatus::Failing),
            (NOW + Duration::from_secs(60), BackupStatus::Ok),
            (NOW + Duration::from_secs(86_400), BackupStatus::Failing),
        ] {
            scheduler.note(|known| known.last_success = Some(last));
            let report = scheduler.report();
            assert_eq!(report.status, status, "{last}");
            assert_eq!(report.problem.is_some(), last > NOW + AHEAD_MAX, "{report:?}");
        }
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_looked_at_again_soon() {
        let folder = tempfile::tempdir().unwrap();
        let (name, scheduler) = ("context-20260305T100000Z", scheduler(folder.path()));
        let manifest = serde_json::json!({
            "format": 1, "name": name, "taken_at": "2026-03-05T10:00:00Z", "version": "1", "server_version": "17",
            "database": "context", "migrations": [1], "file": format!("{name}.dump"), "bytes": 1, "sha256": "",
            "encrypted": false, "tables": {}, "probes": [], "state": "checked", "checked_at": null, "problem": null
        });
        std::fs::write(folder.path().join(format!("{name}.json")), manifest.to_string()).unwrap();
        let dump = folder.path().join(format!("{name}.dump"));
        // It can be opened, and not read.
        std::fs::create_dir(&dump).unwrap();
        let (_go_on, stop) = watch::channel(false);
        let mut turns =
            Turns { backup: Turn { at: None, failed: 0 }, verify: Turn { at: Some(NOW), failed: 0 } };
        scheduler.take(&mut turns, &stop).await;
        assert!(scheduler.report().damaged[0].contains("cannot be read"));
        assert_eq!(turns.verify.at, Some(NOW + RETRY_AFTER));
        std::fs::remove_dir(&dump).unwrap();
        std::fs::write(&dump, "other bytes").unwrap();
        turns.verify.at = Some(NOW);
        scheduler.take(&mut turns, &stop).await;
        assert!(scheduler.report().damaged[0].contains("11 bytes"));
        // It is damaged, and there is no doubt about it.
        assert_eq!(turns.verify.at, Some(NOW + Duration::from_secs(3_600)));
        std::fs::write(folder.path().join(format!("{name}.json")), "{").unwrap();
        assert!(scheduler.verify_all(&stop).await, "there is no doubt about this");
        assert!(scheduler.report().damaged[0].contains("manifest is damaged"));

        std::fs::remove_dir_all(folder.path()).unwrap();
        std::fs::write(folder.path(), "no folder").unwrap();
        assert!(!scheduler.verify_all(&stop).await);
        assert!(scheduler.report().problem.is_some());
        std::fs::remove_file(folder.path()).unwrap();
        std::fs::create_dir(folder.path()).unwrap();
        assert!(scheduler.verify_all(&stop).await);
        assert_eq!(scheduler.report().problem, None);
    }
}
