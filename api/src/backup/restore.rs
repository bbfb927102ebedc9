//! Restoring a backup for good: when this version knows its schema, nobody is at work in the database, and nothing is lost that was not
//! to be; and then in one transaction, which is committed once the whole backup has been read and is what was written.

use std::fmt;

use tokio::sync::watch;

use super::{
    Backups, Failure, Manifest, Result, Stage, State, Verdict,
    check::{compare, held},
    failure::{In, step},
    load::Destination,
};
use crate::store::{self, BackupSession, Login, Occupied, SchemaState, Store};

/// What would be restored, and over what.
#[derive(Clone, Debug)]
pub struct Plan {
    pub manifest: Manifest,
    pub occupied: Occupied,
}

/// What the operator is ready for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Losing what is in the database.
    pub replace: bool,
    /// Having a backup that failed its check.
    pub even_if_bad: bool,
}

/// What a restore came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Of the schema that was restored.
    pub schema: SchemaState,
    /// Whether rows and searches were compared, for which the login has to see everybody's rows, and the backup to be none that is known
    /// to be bad.
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
    /// Whether it may be done.
    ///
    /// # Errors
    /// When somebody is at work in the database, or as [`Plan::would_permit`].
    pub fn permits(&self, asked: Asked) -> Result<()> {
        let Occupied { sessions, database, .. } = &self.occupied;
        if *sessions > 0 {
            return Err(Failure::new(
                Stage::Restore,
                format!(
                    "{sessions} session(s) of this service are connected to database `{database}`. Stop `serve`, `worker` and `backup schedule` first.",
                ),
            ));
        }
        self.would_permit(asked)
    }

    /// Whether it may be done once nobody is at work in the database.
    ///
    /// # Errors
    /// When the login may not, or the operator has to say that he knows what he will have, or lose.
    pub fn would_permit(&self, asked: Asked) -> Result<()> {
        let Self { manifest, occupied } = self;
        let obstacle = if occupied.login == Login::Other {
            "This login may not act as `context_owner`. Restore with the owner's or a superuser's DATABASE_URL.".to_owned()
        } else if manifest.state == State::Failed && !asked.even_if_bad {
            let problem = manifest.problem.as_deref().unwrap_or("it failed its check");
            format!(
                "{} is known to be bad: {problem} Restore another one; or, with --even-if-bad, what can be had of this one.",
                manifest.name
            )
        } else if occupied.tables > 0 && !asked.replace {
            format!(
                "The {self}. Restore into an empty database; or, with --replace, lose all that is in this one."
            )
        } else {
            return Ok(());
        };
        Err(Failure::new(Stage::Restore, obstacle))
    }
}

impl Backups {
    /// Finds the backup, and looks at the database that it would go to.
    ///
    /// # Errors
    /// When there is no such backup, it is of a newer schema, or the database cannot be looked at.
    pub async fn plan_restore(&self, name: &str) -> Result<Plan> {
        let manifest = self.find(name).await?;
        let state = SchemaState::with_floor(&manifest.migrations, manifest.needs);
        if let SchemaState::Newer { found } = state {
            return Err(Failure::new(
                Stage::Restore,
                format!(
                    "{} has migration {found}, which this version does not know. Restore it with the version of context-api that it belongs to, or a newer one.",
                    manifest.name
                ),
            ));
        }
        let occupied = store::inspect(&self.options.database).await.in_stage(Stage::Restore)?;
        Ok(Plan { manifest, occupied })
    }

    /// Does it, unless the database has changed since the plan was made so that it may not be done any more.
    ///
    /// # Errors
    /// When it may not be done, the backup is damaged, or something fails on the way. The database is then as it was, but where the
    /// connection was lost at the very end, or what was restored is not what was backed up; the words tell.
    pub async fn restore(&self, plan: &Plan, asked: Asked, stop: &watch::Receiver<bool>) -> Result<Restored> {
        let mut session = BackupSession::open_blind(&self.options.database).await.in_stage(Stage::Restore)?;
        let restored = match session.lock().await.in_stage(Stage::Restore) {
            Ok(true) => held(&mut session, Box::pin(self.restore_alone(plan, asked, stop))).await,
            Ok(false) => Err(Failure::new(
                Stage::Restore,
                "A backup of this database is being made, checked or restored. Try again when that is done.",
            )),
            Err(failure) => Err(failure),
        };
        session.close().await;
        restored
    }

    async fn restore_alone(
        &self,
        plan: &Plan,
        asked: Asked,
        stop: &watch::Receiver<bool>,
    ) -> Result<Restored> {
        let (database, longest) = (&self.options.database, self.options.step_max);
        // Somebody may have come since.
        let occupied = store::inspect(database).await.in_stage(Stage::Restore)?;
        let plan = Plan { occupied, manifest: plan.manifest.clone() };
        plan.permits(asked)?;
        let (manifest, login) = (&plan.manifest, plan.occupied.login);
        store::prepare(database).await.in_stage(Stage::Restore)?;
        let to = Destination { database, login, replace: asked.replace };
        match step(Stage::Restore, longest, stop, self.load(Stage::Restore, &to, manifest)).await {
            Ok(Verdict::Sound) => {}
            Ok(Verdict::Damaged(reason)) => {
                return Err(Failure::new(
                    Stage::Restore,
                    format!(
                        "{} is damaged: {reason}. Nothing was changed; restore another one.",
                        manifest.name
                    ),
                ));
            }
            Err(failure) => {
                let detail = format!(
                    "{} The database is as it was, unless the connection was lost at the very end.",
                    failure.detail
                );
                return Err(Failure { detail, ..failure });
            }
        }
        let finish = async {
            store::analyze(database, longest).await.in_stage(Stage::Restore)?;
            let compared = login == Login::Superuser && manifest.state != State::Failed;
            if compared
                && let Verdict::Damaged(reason) = Box::pin(compare(database, manifest, longest)).await?
            {
                return Err(Failure::new(Stage::Restore, format!("{reason}.")));
            }
            let store = Store::new(database).in_stage(Stage::Restore)?;
            let schema = Box::pin(store.schema_state()).await.in_stage(Stage::Restore)?;
            store.close().await;
            Ok(Restored { schema, compared })
        };
        step(Stage::Restore, longest, stop, finish).await.map_err(|failure| Failure {
            detail: format!(
                "{} was restored, and not looked at to the end: {}",
                manifest.name, failure.detail
            ),
            ..failure
        })
    }
}
