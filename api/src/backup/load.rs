//! Brings a stored dump into a database: `pg_restore` makes a script of it, `psql` runs that in one transaction, and it is committed only
//! once the last byte has been read, has turned out to be what was written, and has been understood. Whatever fails before that
//! leaves the database as it was.

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::ChildStdin,
};

use super::{
    Backups, Failure, Manifest, Result, Stage, Verdict,
    failure::In,
    stored::{Noted, READ_BYTES},
    tool::{self, Complaint},
};
use crate::store::{ConnectOptions, Login, SCRIPT_AFTER, script_before};

/// Classes of SQLSTATE that tell of the server, of rights or of the connection, and nothing of what is restored: connection, authorization,
/// transaction state and rollback, privilege, resources, prerequisites, operator, system, configuration, internal; and what this server does not
/// have: a feature, a role, a setting of a newer version. See
/// <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
const NOT_THE_DUMPS: [&str; 12] = ["08", "25", "28", "40", "42501", "53", "54", "55", "57", "58", "F0", "XX"];

/// Where a dump goes.
pub(super) struct Destination<'a> {
    pub database: &'a ConnectOptions,
    pub login: Login,
    /// Whether what is there is removed, in the same transaction.
    pub replace: bool,
}

impl Backups {
    /// Loads it. [`Verdict::Damaged`]: the dump itself is no good.
    ///
    /// # Errors
    /// When it could not be tried to its end, which tells nothing about the dump.
    pub(super) async fn load(
        &self,
        stage: Stage,
        to: &Destination<'_>,
        manifest: &Manifest,
    ) -> Result<Verdict> {
        let mut arguments =
            ["--format=custom", "--no-owner", "--no-comments", "--file=-"].map(str::to_owned).to_vec();
        if to.login != Login::Other {
            arguments.push("--role=context_owner".to_owned());
        }
        let mut reading = tool::start(&self.options, stage, "pg_restore", to.database, &arguments)?;
        let arguments = [
            "--no-psqlrc",
            "--no-password",
            "--quiet",
            "--output=/dev/null",
            "--set=ON_ERROR_STOP=1",
            // With the SQLSTATE, and without the rows that it was about.
            "--set=VERBOSITY=verbose",
            "--set=SHOW_CONTEXT=never",
            "--file=-",
        ]
        .map(str::to_owned);
        let mut running = tool::start(&self.options, stage, "psql", to.database, &arguments)?;

        let Some(file) = self.target.read(&manifest.file).await? else {
            return Ok(Verdict::Damaged(format!("{} is not there", manifest.file)));
        };
        let mut noted = Noted::new(file);
        let (archive, script) = (reading.child.stdin.take(), reading.output()?);
        let begin = script_before(to.login, to.replace);
        let (fed, pipe) = tokio::join!(
            self.feed(stage, manifest, &mut noted, archive),
            copy(begin.as_bytes(), script, running.child.stdin.take())
        );
        if !noted.broke_off()
            && let Verdict::Damaged(reason) = noted.verdict(manifest)
        {
            // That is why anything else failed, if it did.
            return Ok(Verdict::Damaged(reason));
        }
        fed?;
        if let Err(complaint) = reading.end().await? {
            return complaint.of(stage, "pg_restore", |complaint| complaint.code.is_some());
        }
        let mut committing = false;
        if let Some(mut pipe) = pipe {
            committing = pipe.write_all(SCRIPT_AFTER.as_bytes()).await.is_ok();
        }
        match running.end().await? {
            Ok(()) if committing => Ok(Verdict::Sound),
            Ok(()) => Err(Failure::new(stage, "psql ended before it had read everything.")),
            // Where there was something before, that may be in the way as well.
            Err(complaint) => complaint.of(stage, "psql", |complaint| {
                stage == Stage::Check
                    && complaint
                        .sqlstate()
                        .is_some_and(|code| !NOT_THE_DUMPS.iter().any(|class| code.starts_with(class)))
            }),
        }
    }

    /// Gives `pg_restore` what is stored, in the clear, and reads on to the end for the checksum whatever becomes of that.
    async fn feed(
        &self,
        stage: Stage,
        manifest: &Manifest,
        noted: &mut Noted<impl AsyncRead + Send + Unpin>,
        mut archive: Option<ChildStdin>,
    ) -> Result<()> {
        let mut buffer = vec![0; READ_BYTES];
        let fed = async {
            let mut plain = self.options.encryption.open(manifest.encrypted, &mut *noted).await?;
            loop {
                let read = plain.read(&mut buffer).await.map_err(|error| {
                    Failure::new(stage, format!("{} cannot be read to its end: {error}.", manifest.file))
                })?;
                if read == 0 {
                    return Ok(());
                }
                // It has what it needs, or it failed; how it ends tells.
                if let Some(pipe) = &mut archive
                    && pipe.write_all(&buffer[..read]).await.is_err()
                {
                    archive = None;
                }
            }
        }
        .await;
        drop(archive);
        while !noted.broke_off() && noted.read(&mut buffer).await.in_stage(Stage::Storage)? > 0 {}
        fed
    }
}

/// Copies `before` and all of `script`, and answers the pipe, still open, unless it broke. Reads on to the end in any case: else
/// who writes the script would read no more of the dump.
async fn copy(
    before: &[u8],
    mut script: impl AsyncRead + Unpin,
    mut pipe: Option<ChildStdin>,
) -> Option<ChildStdin> {
    let mut buffer = vec![0; READ_BYTES];
    let mut next = before;
    let mut read;
    loop {
        if let Some(open) = &mut pipe
            && open.write_all(next).await.is_err()
        {
            pipe = None;
        }
        read = script.read(&mut buffer).await.unwrap_or(0);
        if read == 0 {
            return pipe;
        }
        next = &buffer[..read];
    }
}

impl Complaint {
    /// What it means: that the dump is no good, or that it could not be tried.
    fn of(self, stage: Stage, name: &str, is_the_dumps: impl Fn(&Self) -> bool) -> Result<Verdict> {
        // A value that cannot be one is quoted in the very message.
        let shown = match self.sqlstate() {
            Some(code) if code.starts_with("22") => {
                self.words.split_once(": \"").map_or(&*self.words, |(words, _)| words)
            }
            _ => &self.words,
        };
        let words = format!("{name} failed ({}): {shown}", self.status);
        if is_the_dumps(&self) { Ok(Verdict::Damaged(words)) } else { Err(Failure::new(stage, words)) }
    }

    /// The five characters after the severity: `psql:<stdin>:7: ERROR:  42P01: relation "x" does not exist`.
    fn sqlstate(&self) -> Option<&str> {
        let words = self.words.split(":  ").skip(1);
        let codes = words.filter_map(|words| words.split_once(": ").map(|(code, _)| code));
        let is_code = |code: &&str| {
            let bytes = code.as_bytes();
            bytes.len() == 5 && bytes.iter().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase())
        };
        // Those of classes 00 and 01 are notices.
        codes.filter(is_code).find(|code| !code.starts_with("00") && !code.starts_with("01"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_of_an_error_is_found_among_notices_and_in_any_language() {
        for (words, code) in [
            (r#"psql:<stdin>:7: ERROR:  42P01: relation "x" does not exist"#, Some("42P01")),
            (
                "psql:<stdin>:2: HINWEIS:  00000: so what; psql:<stdin>:9: FEHLER:  53100: could not extend",
                Some("53100"),
            ),
            ("psql: error: connection to server failed", None),
            ("server closed the connection unexpectedly", None),
            ("", None),
        ] {
            let complaint =
                Complaint { status: "exit status: 3".to_owned(), code: Some(3), words: words.to_owned() };
            assert_eq!(complaint.sqlstate(), code, "{words}");
        }
    }
}
