//! Runs PostgreSQL's own programs. The password goes by their environment, never as an argument; they end with whoever runs them.

use std::process::Stdio;

use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, ChildStderr, Command},
    task::JoinHandle,
};

use super::{Failure, Options, Result, Stage, failure::In};
use crate::store::{ConnectOptions, FOREIGN_VARIABLES};

/// Of what a program says, the end is kept.
const LAST_WORDS_BYTES: usize = 2_000;

/// A program that runs.
pub(super) struct Running {
    name: &'static str,
    stage: Stage,
    pub(super) child: Child,
    last_words: JoinHandle<String>,
}

/// Starts `name` on a database.
pub(super) fn start(
    options: &Options,
    stage: Stage,
    name: &'static str,
    database: &ConnectOptions,
    arguments: &[String],
) -> Result<Running> {
    let program = options.programs.as_ref().map_or_else(|| name.into(), |folder| folder.join(name));
    let mut command = Command::new(&program);
    for variable in FOREIGN_VARIABLES {
        command.env_remove(variable);
    }
    command
        .envs(database.libpq_environment().in_stage(stage)?)
        // Its words are for the log, which is in English.
        .env("LC_ALL", "C")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| {
        Failure::new(
            stage,
            format!(
                "{} could not be started: {error}. Install PostgreSQL's client programs, of the server's version or newer, \
                 or say with BACKUP_PG_BIN in which folder they are.",
                program.display()
            ),
        )
    })?;
    let last_words = tokio::spawn(last_words(child.stderr.take()));
    Ok(Running { name, stage, child, last_words })
}

async fn last_words(stderr: Option<ChildStderr>) -> String {
    let Some(mut stderr) = stderr else { return String::new() };
    let (mut kept, mut buffer) = (Vec::new(), [0; 1024]);
    while let Ok(read) = stderr.read(&mut buffer).await
        && read > 0
    {
        kept.extend_from_slice(&buffer[..read]);
        kept.drain(..kept.len().saturating_sub(LAST_WORDS_BYTES));
    }
    String::from_utf8_lossy(&kept).trim().replace('\n', "; ")
}

impl Running {
    /// What it writes.
    pub(super) fn output(&mut self) -> Result<impl AsyncRead + Unpin + use<>> {
        self.child.stdout.take().ok_or_else(|| Failure::new(self.stage, "its output is read already"))
    }

    /// Waits for its end, which is a failure unless it is a success.
    pub(super) async fn end(mut self) -> Result<()> {
        drop(self.child.stdin.take());
        let status = self.child.wait().await.in_stage(self.stage)?;
        let words = self.last_words.await.unwrap_or_default();
        if status.success() {
            return Ok(());
        }
        Err(Failure::new(self.stage, format!("{} failed ({status}): {words}", self.name)))
    }
}
