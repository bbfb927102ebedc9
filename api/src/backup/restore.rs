//! Restoring a backup for good. Nothing is touched before it is known that the backup is whole, that this version knows its schema,
//! and that nobody is at work in the database.

use std::fmt;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::watch,
};

use super::{
    Backups, Failure, Manifest, Result, Stage, Verdict,
    check::compare,
    failure::{In, step},
    program,
    stored::{Noted, READ_BYTES},
};
use crate::store::{self, ConnectOptions, Login, Occupied, SchemaState, Store};

/// What would be restored, and over what.
#[derive(Clone, Debug)]
pub struct Plan {
    pub manifest: Manifest,
    pub occupied: Occupied,
}

/// What a restore came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Of the schema that was restored.
    pub schema: SchemaState,
    /// Whether rows and searches were compared, for which the login has to see everybody's rows.
    pub compared: bool,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Occupied { database, tables, contexts, tenants, .. } = &self.occupied;
        match (contexts, tenants) {
            (Some(contexts), Some(tenants)) => {
                write!(f, "database `{database}` has {contexts} context(s) of {tenants} tenant(s)")
            }
            _ => write!(f, "database `{database}` has {tables} table(s)"),
        }
    }
}

impl Plan {
    /// Whether it may be done, with or without replacing what is there.
    ///
    /// # Errors
    /// When the database is not empty and is not to be replaced, or not by this login.
    pub fn permits(&self, replace: bool) -> Result<()> {
        let occupied = &self.occupied;
        if occupied.tables > 0 && !replace {
            return Err(Failure::new(
                Stage::Restore,
                format!(
                    "The {self}. Restore into an empty database; or, with --replace, lose all that is in this one."
                ),
            ));
        }
        if occupied.tables > 0 && occupied.login != Login::Superuser {
            return Err(Failure::new(
                Stage::Restore,
                "Only a superuser may replace what is in a database. Use a superuser's DATABASE_URL, or restore into an empty one.",
            ));
        }
        Ok(())
    }
}

impl Backups {
    /// Finds the backup, and looks at the database that it would go to.
    ///
    /// # Errors
    /// A sentence about what stands in the way of a restore, whatever is in the database.
    pub async fn plan_restore(&self, name: &str) -> Result<Plan> {
        let manifest = self.find(name).await?;
        let state = SchemaState::of(&manifest.migrations);
        if let SchemaState::Newer { found } = state {
            return Err(Failure::new(
                Stage::Restore,
                format!(
                    "{} has migration {found}, which this version does not know. Restore it with version {} of context-api, or a newer one.",
                    manifest.name, manifest.version
                ),
            ));
        }
        let occupied = store::inspect(&self.options.database).await.in_stage(Stage::Restore)?;
        if occupied.login == Login::Other {
            return Err(Failure::new(
                Stage::Restore,
                "This login may not act as `context_owner`. Restore with the owner's or a superuser's DATABASE_URL.",
            ));
        }
        if occupied.sessions > 0 {
            return Err(Failure::new(
                Stage::Restore,
                format!(
                    "{} session(s) of this service are connected to database `{}`. Stop `serve`, `worker` and `backup schedule` first.",
                    occupied.sessions, occupied.database
                ),
            ));
        }
        Ok(Plan { manifest, occupied })
    }

    /// Does it. With `replace`, all that belongs to the service in the database is removed first.
    ///
    /// # Errors
    /// When the backup is damaged, the database is not empty and is not to be replaced, or something fails on the way: the
    /// database is then empty, and the restore can be done again.
    pub async fn restore(
        &self,
        plan: &Plan,
        replace: bool,
        stop: &watch::Receiver<bool>,
    ) -> Result<Restored> {
        let (manifest, occupied) = (&plan.manifest, &plan.occupied);
        plan.permits(replace)?;
        if let Verdict::Damaged(reason) = self.verify(manifest, stop).await? {
            return Err(Failure::new(
                Stage::Restore,
                format!("{} is damaged: {reason}. Nothing was changed; restore another one.", manifest.name),
            ));
        }
        let database = &self.options.database;
        if replace {
            store::clear(database).await.in_stage(Stage::Restore)?;
        } else {
            store::prepare(database).await.in_stage(Stage::Restore)?;
        }
        let longest = self.options.step_max;
        let role = Some("context_owner");
        let restoring = self.restore_into(Stage::Restore, database, &occupied.database, role, manifest);
        if let Verdict::Damaged(reason) = step(Stage::Restore, longest, stop, restoring).await? {
            return Err(Failure::new(
                Stage::Restore,
                format!("{} changed while it was read: {reason}.", manifest.name),
            ));
        }
        let finish = async {
            store::analyze(database, longest).await.in_stage(Stage::Restore)?;
            let compared = occupied.login == Login::Superuser;
            if compared {
                Box::pin(compare(database, manifest, longest)).await?;
            }
            let store = Store::new(database).in_stage(Stage::Restore)?;
            let schema = Box::pin(store.schema_state()).await.in_stage(Stage::Restore)?;
            store.close().await;
            Ok(Restored { schema, compared })
        };
        step(Stage::Restore, longest, stop, finish).await
    }

    /// Restores into a database in one transaction, as `role` or as who logs in. Answers whether what was read was what had been
    /// written.
    pub(super) async fn restore_into(
        &self,
        stage: Stage,
        database: &ConnectOptions,
        name: &str,
        role: Option<&str>,
        manifest: &Manifest,
    ) -> Result<Verdict> {
        let mut arguments = vec![
            "--format=custom".to_owned(),
            "--no-password".to_owned(),
            "--exit-on-error".to_owned(),
            "--single-transaction".to_owned(),
            "--no-owner".to_owned(),
            // Of an extension, which belongs to a superuser.
            "--no-comments".to_owned(),
            format!("--dbname={name}"),
        ];
        arguments.extend(role.map(|role| format!("--role={role}")));
        let mut running = program::start(&self.options, stage, "pg_restore", database, &arguments)?;
        let mut pipe = running.child.stdin.take();
        let mut noted = Noted::new(self.target.read(&manifest.file).await?);
        let mut buffer = vec![0; READ_BYTES];
        {
            let mut plain = self.options.encryption.open(manifest.encrypted, &mut noted).await?;
            loop {
                let read = plain.read(&mut buffer).await.map_err(|error| {
                    Failure::new(stage, format!("{} cannot be read to its end: {error}.", manifest.file))
                })?;
                if read == 0 {
                    break;
                }
                // It has what it needs, or it failed; how it ends tells. What it does not read is read for the checksum.
                if let Some(open) = &mut pipe
                    && open.write_all(&buffer[..read]).await.is_err()
                {
                    pipe = None;
                }
            }
        }
        drop(pipe);
        while noted.read(&mut buffer).await.in_stage(Stage::Storage)? > 0 {}
        match noted.verdict(manifest) {
            // That is why it failed, if it did.
            Verdict::Damaged(reason) => Ok(Verdict::Damaged(reason)),
            Verdict::Sound => running.end().await.map(|()| Verdict::Sound),
        }
    }
}
