//! A PostgreSQL server of the test's own, to be killed. The one that all tests share is not.

use std::{
    fs::File,
    io::Write as _,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use context_api::store::Store;
use tempfile::TempDir;

use super::{eventually, free_port, options};

/// Killed when dropped.
pub struct PostgresServer {
    folder: TempDir,
    port: u16,
    process: Child,
}

const PASSWORD: &str = "of-the-tests";

/// One of PostgreSQL's own.
pub fn program(name: &str) -> PathBuf {
    let folder = std::env::var("TEST_PG_BIN").expect("TEST_PG_BIN: the folder of PostgreSQL's programs");
    PathBuf::from(folder).join(name)
}

/// PostgreSQL does not run as root, who has to hand it to somebody else.
fn unprivileged() -> Option<(u32, u32)> {
    let id = |arguments: &[&str]| -> Option<u32> {
        let output = Command::new("id").args(arguments).output().expect("id");
        String::from_utf8(output.stdout).ok()?.trim().parse().ok()
    };
    if id(&["-u"]) != Some(0) {
        return None;
    }
    let name = if id(&["-u", "postgres"]).is_some() { "postgres" } else { "nobody" };
    Some((id(&["-u", name]).expect("a user"), id(&["-g", name]).expect("its group")))
}

fn as_unprivileged(mut command: Command, folder: &Path) -> Command {
    if let Some((user, group)) = unprivileged() {
        command.uid(user).gid(group);
    }
    command.current_dir(folder).stdin(Stdio::null());
    command
}

impl PostgresServer {
    /// With the schema of this version.
    pub async fn start() -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        if let Some((user, group)) = unprivileged() {
            std::os::unix::fs::chown(folder.path(), Some(user), Some(group)).expect("chown");
        }
        let password = folder.path().join("password");
        File::create(&password).and_then(|mut file| file.write_all(PASSWORD.as_bytes())).expect("a file");
        let made = as_unprivileged(Command::new(program("initdb")), folder.path())
            .args(["--pgdata", "data", "--username", "postgres", "--auth", "scram-sha-256", "--no-sync"])
            .args(["--encoding", "UTF8", "--locale", "C", "--pwfile"])
            .arg(&password)
            .output()
            .expect("initdb");
        assert!(made.status.success(), "{made:?}");
        let port = free_port();
        let process = launch(folder.path(), port);
        let server = Self { folder, port, process };
        eventually("PostgreSQL", Duration::from_secs(60), async || server.is_ready().then_some(())).await;
        Store::migrate(&options(&server.url())).await.expect("migrate");
        server
    }

    pub fn url(&self) -> String {
        format!("postgres://postgres:{PASSWORD}@127.0.0.1:{}/postgres", self.port)
    }

    /// SIGKILL for it and all that it has started, and a new start on what is left.
    pub async fn crash(&mut self) {
        let id = self.process.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        let ids = format!("{id} {children}");
        Command::new("kill").arg("-KILL").args(ids.split_whitespace()).status().expect("kill");
        self.process.wait().expect("wait");
        self.process = launch(self.folder.path(), self.port);
        // Nothing can take its place while one of them is left.
        eventually("PostgreSQL, after a crash", Duration::from_secs(60), async || {
            if self.process.try_wait().expect("wait").is_some() {
                self.process = launch(self.folder.path(), self.port);
            }
            self.is_ready().then_some(())
        })
        .await;
    }

    fn is_ready(&self) -> bool {
        let mut command = Command::new(program("pg_isready"));
        let port = self.port.to_string();
        command
            .args(["--quiet", "--host", "127.0.0.1", "--port", &port])
            .status()
            .expect("pg_isready")
            .success()
    }
}

/// `fsync` is for the loss of power: what a killed process has written is the kernel's.
fn launch(folder: &Path, port: u16) -> Child {
    let log = File::options().create(true).append(true).open(folder.join("log")).expect("a log");
    as_unprivileged(Command::new(program("postgres")), folder)
        .args(["-D", "data", "-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1"])
        .args(["-c", "unix_socket_directories=", "-c", "fsync=off"])
        .stdout(log.try_clone().expect("a log"))
        .stderr(log)
        .spawn()
        .expect("postgres")
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        // SIGQUIT: at once, and with all that it has started.
        Command::new("kill").args(["-QUIT", &self.process.id().to_string()]).status().ok();
        self.process.wait().ok();
    }
}
