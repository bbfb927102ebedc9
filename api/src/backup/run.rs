//! One backup from its beginning to its end.

use std::{collections::BTreeMap, time::Duration};

use tokio::{sync::watch, time::Instant};

use super::{
    Backups, Failure, Manifest, Probe, Result, Stage, State, Verdict,
    check::{held, probes_at},
    dump::Dumped,
    failure::{In, step},
    manifest::{file_of, name_at, name_of},
};
use crate::store::{BackupSession, Moment};

/// A dump without a manifest is being made, or whoever made it was killed; after so long it was the latter.
const UNFINISHED_FOR: Duration = Duration::from_secs(2 * 24 * 3600);

/// A backup that was made.
pub struct Made {
    pub manifest: Manifest,
    pub dump_took: Duration,
    /// None when it was not to be checked.
    pub check_took: Option<Duration>,
}

impl Backups {
    /// Makes a backup, and checks it if it is to be. One at a time of each database, whoever else tries.
    ///
    /// # Errors
    /// When any of it fails. A backup that fails its check stays in the storage, marked as bad.
    pub async fn make(&self, stop: &watch::Receiver<bool>) -> Result<Made> {
        let mut session = self.alone().await?;
        let made = Box::pin(self.make_in(&mut session, stop)).await;
        session.close().await;
        made
    }

    /// A session during which nobody else makes or checks a backup of this database.
    pub(super) async fn alone(&self) -> Result<BackupSession> {
        let opening = BackupSession::open(&self.options.database, self.options.step_max);
        let mut session = opening.await.in_stage(Stage::Database)?;
        if session.lock().await.in_stage(Stage::Database)? {
            return Ok(session);
        }
        session.close().await;
        Err(Failure::new(
            Stage::Database,
            "Another backup of this database is being made or checked. Try again when it is done.",
        ))
    }

    async fn make_in(&self, session: &mut BackupSession, stop: &watch::Receiver<bool>) -> Result<Made> {
        let began = Instant::now();
        let moment = session.enter_moment().await.in_stage(Stage::Database)?;
        self.remove_unfinished(&moment).await?;
        let name = name_at(moment.at);
        if self.target.list().await?.contains(&file_of(&name)) {
            return Err(Failure::new(
                Stage::Storage,
                format!("There is a backup of this second already: {name}."),
            ));
        }
        let (dumped, (tables, probes)) = self.dump_and_look(session, &name, &moment, stop).await?;
        session.leave_moment().await.in_stage(Stage::Database)?;
        let mut manifest = Manifest {
            format: Manifest::FORMAT,
            name,
            taken_at: moment.at,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            server_version: moment.server_version,
            database: moment.database,
            migrations: moment.migrations,
            needs: moment.needs,
            file: dumped.file,
            bytes: dumped.bytes,
            sha256: dumped.sha256,
            encrypted: self.options.encryption.encrypts(),
            tables,
            probes,
            state: State::NotChecked,
            checked_at: None,
            problem: None,
        };
        self.write(&manifest).await?;
        let dump_took = began.elapsed();
        tracing::info!(backup = %manifest.name, bytes = manifest.bytes, rows = manifest.rows(), "dumped");
        if !self.options.check {
            return Ok(Made { manifest, dump_took, check_took: None });
        }
        let began = Instant::now();
        let checked = held(session, Box::pin(self.check_alone(&manifest, stop))).await;
        let failed = match checked {
            Ok(Verdict::Sound) => {
                manifest.state = State::Checked;
                manifest.checked_at = Some(session.now().await.in_stage(Stage::Database)?);
                None
            }
            Ok(Verdict::Damaged(reason)) => {
                manifest.state = State::Failed;
                let detail = format!("The backup is no good: {reason}.");
                Some(Failure::new(Stage::Check, detail))
            }
            // Nobody knows.
            Err(failure) => Some(Failure {
                detail: format!("The backup could not be checked: {}", failure.detail),
                ..failure
            }),
        };
        manifest.problem = failed.as_ref().map(|failure| failure.detail.clone());
        self.write(&manifest).await?;
        failed.map_or_else(|| Ok(Made { manifest, dump_took, check_took: Some(began.elapsed()) }), Err)
    }

    /// Both at once. A failure of the look ends the dump, in order: what is given up has to be cleared away.
    async fn dump_and_look(
        &self,
        session: &mut BackupSession,
        name: &str,
        moment: &Moment,
        stop: &watch::Receiver<bool>,
    ) -> Result<(Dumped, (BTreeMap<String, i64>, Vec<Probe>))> {
        let (give_up, given_up) = watch::channel(false);
        let (dumping, mut is_dumped) = watch::channel(false);
        let dump = async {
            let dumped = self.dump(name, moment, &given_up).await;
            dumping.send_replace(true);
            dumped
        };
        let look = async {
            let looked = async {
                let known = self.look(session, moment, stop).await?;
                // The moment is kept until the dump is done with it.
                let mut stop = stop.clone();
                let until_dumped = async {
                    tokio::select! {
                        _ = is_dumped.wait_for(|is_dumped| *is_dumped) => Ok(()),
                        Ok(_) = stop.wait_for(|stop| *stop) => Err(Failure::stopped()),
                    }
                };
                held(session, until_dumped).await?;
                Ok(known)
            }
            .await;
            if looked.is_err() {
                give_up.send_replace(true);
            }
            looked
        };
        match tokio::join!(dump, look) {
            (Ok(dumped), Ok(known)) => Ok((dumped, known)),
            (Ok(dumped), Err(failure)) => {
                self.target.remove(&dumped.file).await?;
                Err(failure)
            }
            // A dump that was given up failed of what the other one did.
            (Err(Failure { stage: Stage::Stopped, .. }), Err(failure)) | (Err(failure), _) => Err(failure),
        }
    }

    /// What there is at the moment, to compare with later.
    async fn look(
        &self,
        session: &mut BackupSession,
        moment: &Moment,
        stop: &watch::Receiver<bool>,
    ) -> Result<(BTreeMap<String, i64>, Vec<Probe>)> {
        step(Stage::Database, self.options.step_max, stop, async {
            let probes =
                Box::pin(probes_at(&self.options.database, moment)).await.in_stage(Stage::Database)?;
            let rows = session.count_rows().await.in_stage(Stage::Database)?;
            Ok((rows, probes))
        })
        .await
    }

    async fn write(&self, manifest: &Manifest) -> Result<()> {
        self.target.put(&file_of(&manifest.name), &manifest.to_bytes()?).await
    }

    /// Removes what processes left behind that were killed.
    async fn remove_unfinished(&self, moment: &Moment) -> Result<()> {
        self.target.remove_halves().await?;
        let files = self.target.list().await?;
        let oldest = name_at(moment.at - UNFINISHED_FOR);
        for file in &files {
            let name = file.strip_suffix(".age").unwrap_or(file).strip_suffix(".dump");
            let Some(name) = name.filter(|name| name_of(&file_of(name)).is_some()) else { continue };
            if name < oldest.as_str() && !files.contains(&file_of(name)) {
                tracing::warn!(file, "removed a dump that was never finished");
                self.target.remove(file).await?;
            }
        }
        Ok(())
    }
}
