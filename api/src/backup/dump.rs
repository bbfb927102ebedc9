//! Making a dump: `pg_dump` at a moment that is kept for it, encrypted if it is to be, on its way to the storage. What breaks off
//! leaves nothing.

use tokio::{io::AsyncReadExt, sync::watch};

use super::{
    Backups, Failure, Result, Stage,
    failure::{In, step},
    stored::{Noted, READ_BYTES},
    target::Upload,
    tool::{self, Complaint},
};
use crate::store::Moment;

/// A dump that is stored.
pub(super) struct Dumped {
    pub file: String,
    pub bytes: u64,
    pub sha256: String,
}

/// How long the dump waits for a table that somebody changes.
const LOCK_WAIT: &str = "--lock-wait-timeout=60s";

impl Backups {
    pub(super) async fn dump(
        &self,
        name: &str,
        moment: &Moment,
        stop: &watch::Receiver<bool>,
    ) -> Result<Dumped> {
        let end = if self.options.encryption.encrypts() { ".dump.age" } else { ".dump" };
        let file = format!("{name}{end}");
        let mut upload = self.target.begin(&file).await?;
        let written =
            step(Stage::Dump, self.options.step_max, stop, self.write_dump(moment, &mut upload)).await;
        match written {
            Ok((bytes, sha256)) => {
                upload.finish().await?;
                Ok(Dumped { file, bytes, sha256 })
            }
            Err(failure) => {
                upload.abort().await;
                Err(failure)
            }
        }
    }

    async fn write_dump(&self, moment: &Moment, upload: &mut Upload) -> Result<(u64, String)> {
        let arguments = [
            "--format=custom".to_owned(),
            "--no-password".to_owned(),
            LOCK_WAIT.to_owned(),
            format!("--snapshot={}", moment.snapshot),
        ];
        let mut running =
            tool::start(&self.options, Stage::Dump, "pg_dump", &self.options.database, &arguments)?;
        let output = running.output()?;
        let (sealed, stored) = tokio::io::duplex(READ_BYTES);
        let store = async {
            let mut noted = Noted::new(stored);
            let mut buffer = vec![0; READ_BYTES];
            loop {
                let read = noted.read(&mut buffer).await.in_stage(Stage::Dump)?;
                if read == 0 {
                    return Ok(noted.sum());
                }
                upload.write(&buffer[..read]).await?;
            }
        };
        let ((), sum) = tokio::try_join!(self.options.encryption.seal(output, sealed), store)?;
        // Only now it is known whether that was all.
        match running.end().await? {
            Ok(()) => Ok(sum),
            Err(Complaint { status, words, .. }) => {
                Err(Failure::new(Stage::Dump, format!("pg_dump failed ({status}): {words}")))
            }
        }
    }
}
