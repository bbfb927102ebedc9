//! Runs PostgreSQL's own programs. The password goes by their environment, never as an argument; they end with whoever runs them.

use std::process::Stdio;

use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader},
    process::{Child, ChildStderr, Command},
    task::JoinHandle,
};

use super::{Failure, Options, Result, Stage, failure::In};
use crate::store::{ConnectOptions, FOREIGN_VARIABLES};

/// Of what a program says, the last lines are kept, and of each the beginning.
const LINES_MAX: usize = 8;
const LINE_BYTES_MAX: usize = 400;
/// Read of one line at once; what is longer is taken for several.
const READ_MAX: u64 = 64 * 1024;

/// A program that runs.
pub(super) struct Running {
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
    let last_words = tokio::spawn(last_words(name, child.stderr.take()));
    Ok(Running { stage, child, last_words })
}

/// Only lines that the program itself begins, without details: what the server adds to an error may be somebody's row, and the log
/// is no place for it.
async fn last_words(name: &'static str, stderr: Option<ChildStderr>) -> String {
    let Some(stderr) = stderr else { return String::new() };
    let (mut stderr, mut kept, mut line) = (BufReader::new(stderr), Vec::new(), Vec::new());
    let (own, detail) = (format!("{name}:"), format!("{name}: detail:"));
    loop {
        line.clear();
        let read = (&mut stderr).take(READ_MAX).read_until(b'\n', &mut line).await;
        if read.unwrap_or(0) == 0 {
            return kept.join("; ");
        }
        line.truncate(LINE_BYTES_MAX);
        let words = String::from_utf8_lossy(&line).trim().to_owned();
        if words.contains(&own) && !words.contains(&detail) {
            kept.push(words);
            kept.drain(..kept.len().saturating_sub(LINES_MAX));
        }
    }
}

/// How a program ended that did not end well.
pub(super) struct Complaint {
    pub status: String,
    /// None when it was killed.
    pub code: Option<i32>,
    pub words: String,
}

impl Running {
    /// What it writes.
    pub(super) fn output(&mut self) -> Result<impl AsyncRead + Unpin + use<>> {
        self.child.stdout.take().ok_or_else(|| Failure::new(self.stage, "its output is read already"))
    }

    /// Waits for its end.
    pub(super) async fn end(mut self) -> Result<std::result::Result<(), Complaint>> {
        drop(self.child.stdin.take());
        let status = self.child.wait().await.in_stage(self.stage)?;
        let words = self.last_words.await.unwrap_or_default();
        if status.success() {
            return Ok(Ok(()));
        }
        Ok(Err(Complaint { status: status.to_string(), code: status.code(), words }))
    }
}
