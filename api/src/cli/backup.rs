//! `context-api backup …` and `context-api restore`: making backups, looking at those that are stored, and getting one back.

use std::io::Write as _;

use clap::{Args, Subcommand};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::sync::watch;

use super::CommandResult;
use crate::{
    backup::{Asked, Backups, Listed, Looked, Manifest, Scheduler, State, Verdict},
    config::{self, Source},
    http::{self, BackupReports},
    store::SchemaState,
    telemetry,
};

#[derive(Debug, Subcommand)]
pub(super) enum BackupCommand {
    /// Make backups on a schedule (BACKUP_SCHEDULE), check them, and remove old ones; runs until it is stopped
    Schedule,
    /// Make a backup, check it, and remove old ones
    #[command(alias = "run")]
    Now,
    /// List the backups that are stored
    List,
    /// Compare what is stored with its checksums; exit code 1 when something is damaged
    Verify {
        /// Only this one, or `latest`
        name: Option<String>,
        /// Also restore each into a database that is dropped afterwards, and compare
        #[arg(long)]
        restore: bool,
    },
    /// Remove the backups that are not to be kept
    Prune {
        /// Only say which
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct RestoreArguments {
    /// Which backup; `context-api backup list` shows their names
    #[arg(default_value = "latest")]
    name: String,
    /// Remove what is in the database. All that was written since the backup is lost
    #[arg(long)]
    replace: bool,
    /// Restore it although it failed its check. What is restored is then not compared with anything
    #[arg(long)]
    even_if_bad: bool,
    /// Only say what would be restored over what, as if the service were stopped, without reading the backup; exit code 1 when it may not
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(source: &Source, command: BackupCommand) -> CommandResult {
    let backups = Backups::new(config::backup(source)?)?;
    match command {
        BackupCommand::Schedule => Box::pin(schedule(source, backups)).await,
        BackupCommand::Now => Box::pin(now(&backups)).await,
        BackupCommand::List => list(&backups).await,
        BackupCommand::Verify { name, restore } => Box::pin(verify(&backups, name, restore)).await,
        BackupCommand::Prune { dry_run } => prune(&backups, dry_run).await,
    }
}

/// Turns true when the process is asked to stop.
fn stop_when_asked() -> std::io::Result<watch::Receiver<bool>> {
    let listening = program::Stop::listen()?;
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        listening.asked().await;
        stop.send_replace(true);
        // Whoever looks later shall see it, too.
        stop.closed().await;
    });
    Ok(stopped)
}

async fn schedule(source: &Source, backups: Backups) -> CommandResult {
    let timetable = config::timetable(source)?;
    let metrics_address = config::metrics(source)?;
    let stopped = stop_when_asked()?;
    let metrics = telemetry::start_metrics()?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        backup = %timetable.backup,
        verify = %timetable.verify,
        "backup schedule ready"
    );
    let scheduler = Scheduler::new(backups, timetable, clock);
    if let Some(address) = metrics_address {
        let listener = program::bind("METRICS_ADDR", address)?;
        let metrics_address = listener.local_addr()?;
        let reporter = scheduler.clone();
        let server = http::serve_backup(listener, BackupReports::new(move || reporter.report()), metrics)?;
        tokio::spawn(server);
        tracing::info!(%metrics_address, "serving health and metrics");
    }
    scheduler.run(stopped).await;
    tracing::info!("stopped");
    Ok(())
}

async fn now(backups: &Backups) -> CommandResult {
    let stopped = stop_when_asked()?;
    let made = backups.make(&stopped).await;
    // Also when it failed: one that fails its check takes room, too.
    let removed = backups.prune(&stopped).await;
    println!("{}", shown(&made?.manifest));
    for name in removed? {
        println!("removed {name}");
    }
    Ok(())
}

async fn list(backups: &Backups) -> CommandResult {
    let listed = backups.list().await?;
    if listed.is_empty() {
        println!("There are no backups.");
        return Ok(());
    }
    println!("{:<24}  {:<20}  {:>14}  {:>12}  STATE", "NAME", "TAKEN", "BYTES", "ROWS");
    for Listed { name, manifest } in listed {
        match manifest {
            Ok(manifest) => println!("{}", shown(&manifest)),
            Err(reason) => println!("{name:<24}  {reason}"),
        }
    }
    Ok(())
}

fn shown(manifest: &Manifest) -> String {
    let state = match manifest.state {
        State::NotChecked => "not checked",
        State::Checked => "checked",
        State::Failed => "BAD",
    };
    let encrypted = if manifest.encrypted { ", encrypted" } else { "" };
    let problem = manifest.problem.as_ref().map(|problem| format!(": {problem}")).unwrap_or_default();
    format!(
        "{:<24}  {:<20}  {:>14}  {:>12}  {state}{encrypted}{problem}",
        manifest.name,
        moment(manifest.taken_at),
        manifest.bytes,
        manifest.rows()
    )
}

fn moment(at: OffsetDateTime) -> String {
    at.replace_nanosecond(0).unwrap_or(at).format(&Rfc3339).unwrap_or_default()
}

async fn verify(backups: &Backups, name: Option<String>, restore: bool) -> CommandResult {
    let stopped = stop_when_asked()?;
    let listed = match name {
        Some(name) => {
            let manifest = backups.find(&name).await?;
            vec![Listed { name: manifest.name.clone(), manifest: Ok(manifest) }]
        }
        None => backups.list().await?,
    };
    let (all, mut damaged) = (listed.len(), 0);
    for listed in listed {
        let verdict = match (backups.look_at(&listed, &stopped).await?, &listed.manifest) {
            (Looked::Known(Verdict::Sound), Ok(manifest)) if restore => {
                // When it fails, that says nothing about the backup.
                backups.check(manifest, &stopped).await?
            }
            (Looked::Known(verdict), _) => verdict,
            (Looked::Unread(reason), _) => Verdict::Damaged(reason),
        };
        match verdict {
            Verdict::Sound => println!("{}  sound", listed.name),
            Verdict::Damaged(reason) => {
                damaged += 1;
                println!("{}  DAMAGED: {reason}", listed.name);
            }
        }
    }
    if damaged > 0 {
        return Err(format!("{damaged} of {all} backup(s) cannot be relied on").into());
    }
    Ok(())
}

async fn prune(backups: &Backups, dry_run: bool) -> CommandResult {
    let names = if dry_run { backups.outdated().await? } else { backups.prune(&stop_when_asked()?).await? };
    for name in &names {
        println!("{} {name}", if dry_run { "would remove" } else { "removed" });
    }
    if names.is_empty() {
        println!("There is nothing to remove.");
    }
    Ok(())
}

pub(super) async fn restore(source: &Source, arguments: RestoreArguments) -> CommandResult {
    let backups = Backups::new(config::backup(source)?)?;
    let stopped = stop_when_asked()?;
    let plan = backups.plan_restore(&arguments.name).await?;
    let (name, taken) = (&plan.manifest.name, moment(plan.manifest.taken_at));
    let asked = Asked { replace: arguments.replace, even_if_bad: arguments.even_if_bad };
    if arguments.dry_run { plan.would_permit(asked) } else { plan.permits(asked) }?;
    if plan.occupied.tables > 0 {
        eprintln!(
            "The {plan}. All of it is removed, and with it whatever was written after {taken}, once the backup has been read and is whole."
        );
    }
    let (rows, database) = (plan.manifest.rows(), &plan.occupied.database);
    if arguments.dry_run {
        println!("Would restore {name}, of {taken}, {rows} rows, into database `{database}`.");
        return Ok(());
    }
    eprintln!("Restoring {name}, of {taken}, {rows} rows, into database `{database}` …");
    std::io::stderr().flush()?;
    let restored = backups.restore(&plan, asked, &stopped).await?;
    println!("Restored {name}.");
    if restored.compared {
        println!(
            "Every table has the rows, and searches find the contexts, that were there when it was made."
        );
    }
    if let SchemaState::Behind { missing } = restored.schema {
        println!(
            "It lacks {missing} migration(s) of this version: run `context-api migrate` before anything else."
        );
    }
    println!("Before the service starts again: flush its Redis, which remembers answers from before.");
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "the edge: a schedule is about the time of day")]
fn clock() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}
