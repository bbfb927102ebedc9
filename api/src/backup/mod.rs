//! Backups: `pg_dump` at one moment, kept in a folder or in S3-compatible storage, each restored into a scratch database and compared
//! with what it was made of. Imports `service` to search as the service does, `store` for what concerns no tenant but the whole
//! database, `cache`, `domain` and `error`.

mod check;
mod dump;
mod encryption;
mod failure;
mod load;
mod manifest;
mod restore;
mod retention;
mod run;
mod schedule;
mod scheduler;
mod stored;
mod target;
mod tool;
mod turns;

use std::{path::PathBuf, sync::Arc, time::Duration};

pub use self::{
    encryption::Encryption,
    failure::{Failure, Result, Stage},
    manifest::{Listed, Manifest, Probe, State, Unusable},
    restore::{Asked, Plan, Restored},
    retention::Keep,
    run::Made,
    schedule::Schedule,
    scheduler::{Clock, Scheduler, Timetable},
    stored::{Looked, Verdict},
    target::{S3Options, Target, TargetOptions},
};
use crate::store::ConnectOptions;

/// What every command about backups needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    pub database: ConnectOptions,
    pub target: TargetOptions,
    /// Where `pg_dump` and `pg_restore` are; none looks where the system does.
    pub programs: Option<PathBuf>,
    pub encryption: Encryption,
    pub keep: Keep,
    /// Whether each backup is restored and compared.
    pub check: bool,
    /// How long one step may take: dumping, restoring, reading what is stored.
    pub step_max: Duration,
}

/// The backups of one database. Cheap to clone.
#[derive(Clone)]
pub struct Backups {
    options: Arc<Options>,
    target: Target,
}

impl Backups {
    /// Touches neither the database nor the storage.
    ///
    /// # Errors
    /// When the storage's address is not usable.
    pub fn new(options: Options) -> Result<Self> {
        let target = Target::new(&options.target)?;
        Ok(Self { options: Arc::new(options), target })
    }
}
