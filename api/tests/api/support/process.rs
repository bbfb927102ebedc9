//! The real binary in a process of its own, to be killed.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use tokio::time::Instant;

use super::eventually;

/// Killed when dropped.
pub struct Process {
    child: Child,
    pub url: String,
    log: PathBuf,
    /// Where it says whether it is ready.
    ready_path: &'static str,
    started: Instant,
}

/// The first key of a service on a database that a test has made.
pub const KEY: &str = "ctx_bootstrap_key_of_the_tests_0123456789";

const LOG: &str = "stderr.log";

/// A port that stays the test's own while its service is killed and started again: below those that the system hands out
/// to whoever asks for any, and chosen by the id of this process.
pub fn free_port() -> u16 {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    loop {
        let nth = std::process::id().wrapping_mul(16).wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed));
        let port = 10_000 + u16::try_from(nth % 9_000).expect("below 9,000");
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

pub fn command(folder: &Path, variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_context-api"));
    command.env_clear().env("METRICS_ADDR", "off").current_dir(folder).envs(variables.iter().copied());
    command
}

impl Process {
    /// `context-api serve` with just these variables, in `folder`.
    pub fn serve(folder: &Path, port: u16, variables: &[(&str, &str)]) -> Self {
        Self::start(command(folder, variables), folder, "BIND_ADDR", port, "/health/ready")
    }

    /// The same, and nobody ever reads its log.
    pub fn serve_unread(folder: &Path, port: u16, variables: &[(&str, &str)]) -> Self {
        let command = command(folder, variables);
        Self::start_logging_to(Stdio::piped(), command, folder, "BIND_ADDR", port, "/health/ready")
    }

    /// `context-api embedder` with just these variables, its log in `folder`.
    pub fn embedder(folder: &Path, port: u16, variables: &[(&str, &str)]) -> Self {
        let mut command = command(folder, variables);
        command.arg("embedder");
        Self::start(command, folder, "BIND_ADDR", port, "/health")
    }

    /// `context-api worker` with just these variables, its log in `folder`. It serves its metrics, and whether it can work.
    pub fn worker(folder: &Path, port: u16, variables: &[(&str, &str)]) -> Self {
        let mut command = command(folder, variables);
        command.arg("worker");
        Self::start(command, folder, "METRICS_ADDR", port, "/health/ready")
    }

    /// `context-api backup schedule` with just these variables, its log in `folder`.
    pub fn backup_schedule(folder: &Path, port: u16, variables: &[(&str, &str)]) -> Self {
        let mut command = command(folder, variables);
        command.args(["backup", "schedule"]);
        Self::start(command, folder, "METRICS_ADDR", port, "/health")
    }

    /// `address` is the variable that says where it listens.
    fn start(command: Command, folder: &Path, address: &str, port: u16, ready_path: &'static str) -> Self {
        // A file: nobody empties a pipe while the test does other things.
        let log = File::create(folder.join(LOG)).expect("a log").into();
        Self::start_logging_to(log, command, folder, address, port, ready_path)
    }

    fn start_logging_to(
        log: Stdio,
        mut command: Command,
        folder: &Path,
        address: &str,
        port: u16,
        ready_path: &'static str,
    ) -> Self {
        let bind = format!("127.0.0.1:{port}");
        let child = command
            .env(address, &bind)
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the binary starts");
        let (url, log) = (format!("http://{bind}"), folder.join(LOG));
        Self { child, url, log, ready_path, started: Instant::now() }
    }

    /// The same, on a database: the variable that says where it is. Its first key is [`KEY`].
    pub fn serve_on(folder: &Path, port: u16, (name, value): (&str, &str)) -> Self {
        Self::serve(folder, port, &[(name, value), ("BOOTSTRAP_API_KEY", KEY)])
    }

    /// Waits until it is ready; answers how long that took.
    pub async fn ready(&mut self) -> Duration {
        let url = format!("{}{}", self.url, self.ready_path);
        let client = super::client();
        eventually("a ready service", Duration::from_secs(60), async || {
            let response = client.get(&url).send().await.ok()?;
            response.status().is_success().then_some(())
        })
        .await;
        self.started.elapsed()
    }

    pub fn stdout(&mut self) -> BufReader<ChildStdout> {
        BufReader::new(self.child.stdout.take().expect("standard output, once"))
    }

    /// What it said on standard error so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).expect("the log")
    }

    /// The API key and the line to try that the first start prints.
    pub fn printed_welcome(&mut self) -> (String, String) {
        let mut key = String::new();
        for line in self.stdout().lines() {
            let line = line.expect("standard output");
            if let Some(printed) = line.trim().strip_prefix("export CONTEXT_API_KEY=") {
                printed.clone_into(&mut key);
            }
            if line.trim().starts_with("curl ") {
                return (key, line);
            }
        }
        panic!("no welcome was printed");
    }

    /// The most memory that it has had at any time, in bytes.
    pub fn memory_peak(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("its status");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its peak");
        peak.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }

    /// One of its metrics, with its labels, if it counts that already.
    pub async fn metric(&self, name: &str) -> Option<f64> {
        let response = super::client().get(format!("{}/metrics", self.url)).send().await.ok()?;
        let text = response.text().await.ok()?;
        let line =
            text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    /// SIGKILL, to one that lives.
    pub fn kill(mut self) {
        self.child.kill().expect("kill");
        let status = self.child.wait().expect("wait");
        assert!(status.signal().is_some(), "it had ended by itself: {status}\n{}", self.log());
    }

    /// A signal by its name.
    pub fn signal(&self, name: &str) {
        let (name, pid) = (format!("-{name}"), self.child.id().to_string());
        assert!(Command::new("kill").args([&name, &pid]).status().expect("kill").success());
    }

    /// SIGTERM, and what it exits with.
    pub fn terminate(mut self) -> ExitStatus {
        self.signal("TERM");
        self.child.wait().expect("wait")
    }

    /// What it exits with by itself, and what it said on standard error.
    pub fn exit(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().expect("wait");
        (status, self.log())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
