//! One backup from its beginning to its end.

use std::{collections::BTreeMap, time::Duration};

use tokio::{sync::watch, time::Instant};

use super::{
    Backups, Failure, Manifest, Probe, Result, Stage, State,
    check::probes_at,
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
        // Both, whatever becomes of the other: a dump that is given up has to be cleared away.
        let (dumped, known) =
            tokio::join!(self.dump(&name, &moment, stop), self.look(session, &moment, stop));
        let (dumped, (tables, probes)) = match (dumped, known) {
            (Ok(dumped), Ok(known)) => (dumped, known),
            (Ok(dumped), Err(failure)) => {
                self.target.remove(&dumped.file).await?;
                return Err(failure);
            }
            (Err(failure), _) => return Err(failure),
        };
        session.leave_moment().await.in_stage(Stage::Database)?;
        let mut manifest = Manifest {
            format: Manifest::FORMAT,
            name,
            taken_at: moment.at,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            server_version: moment.server_version,
            database: moment.database,
            migrations: moment.migrations,
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
        let checked = self.check_alone(&manifest, stop).await;
        match &checked {
            Ok(()) => {
                manifest.state = State::Checked;
                manifest.checked_at = Some(session.now().await.in_stage(Stage::Database)?);
            }
            // Nobody knows.
            Err(failure) if failure.stage == Stage::Stopped => {}
            Err(failure) => {
                manifest.state = State::Failed;
                manifest.problem = Some(failure.detail.clone());
            }
        }
        self.write(&manifest).await?;
        checked?;
        Ok(Made { manifest, dump_took, check_took: Some(began.elapsed()) })
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
