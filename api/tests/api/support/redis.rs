//! A Redis of the test's own, to be hung, killed and flushed. The one that all tests share is not. And groups of them, in which
//! one takes the place of another.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use context_api::cache::RedisOptions;
use tempfile::TempDir;

use super::{eventually, free_port};

/// Killed when dropped.
pub struct RedisServer {
    port: u16,
    folder: PathBuf,
    arguments: Vec<String>,
    process: Child,
}

impl RedisServer {
    pub async fn start() -> Self {
        Self::start_with(&std::env::temp_dir(), &["--save", "", "--appendonly", "no"]).await
    }

    async fn start_with(folder: &Path, arguments: &[&str]) -> Self {
        let port = free_port();
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let process = launch(port, folder, &arguments);
        let server = Self { port, folder: folder.to_owned(), arguments, process };
        server.ready().await;
        server
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    pub fn options(&self) -> RedisOptions {
        RedisOptions::new(self.url())
    }

    /// From now on it answers nobody, and closes no connection either.
    pub fn hang(&self) {
        self.signal("-STOP");
    }

    pub fn go_on(&self) {
        self.signal("-CONT");
    }

    pub fn kill(&mut self) {
        self.process.kill().expect("kill");
        self.process.wait().expect("wait");
    }

    /// Empty, in the place of the one that was killed.
    pub async fn start_again(&mut self) {
        self.process = launch(self.port, &self.folder, &self.arguments);
        self.ready().await;
    }

    pub fn flush(&self) {
        assert_eq!(self.ask("FLUSHALL").expect("an answer"), "+OK\r\n");
    }

    fn ask(&self, command: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(format!("{command}\r\n").as_bytes())?;
        let mut answer = [0; 4096];
        let length = stream.read(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
    }

    fn says(&self, command: &str, what: &str) -> Option<()> {
        self.ask(command).ok()?.contains(what).then_some(())
    }

    async fn ready(&self) {
        let is_ready = async || self.ask("PING").ok().filter(|answer| answer == "+PONG\r\n");
        eventually("Redis", Duration::from_secs(30), is_ready).await;
    }

    fn signal(&self, signal: &str) {
        let id = self.process.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().expect("kill").success());
    }
}

fn launch(port: u16, folder: &Path, arguments: &[String]) -> Child {
    let programs = std::env::var("TEST_REDIS_BIN").expect("TEST_REDIS_BIN: the folder of Redis' programs");
    Command::new(PathBuf::from(programs).join("redis-server"))
        .args(arguments.iter().take_while(|argument| !argument.starts_with("--")))
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(arguments.iter().skip_while(|argument| !argument.starts_with("--")))
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server")
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// A master, its replica, and those who decide that the one takes the place of the other.
pub struct RedisGroup {
    pub master: RedisServer,
    pub replica: RedisServer,
    url: String,
    others: Vec<RedisServer>,
    _folder: TempDir,
}

impl RedisGroup {
    const DEADLINE: Duration = Duration::from_secs(30);

    /// A cluster of three masters. `master` has the slot of `key`.
    pub async fn cluster(key: &str) -> Self {
        let folder = TempDir::new().expect("a folder");
        let (mut nodes, mut buses) = (Vec::new(), Vec::new());
        for nth in 0..4 {
            let (bus, file) = (free_port().to_string(), format!("nodes-{nth}.conf"));
            let arguments = [
                "--cluster-enabled",
                "yes",
                "--cluster-node-timeout",
                "500",
                "--cluster-replica-validity-factor",
                "0",
                "--cluster-port",
                &bus,
                "--cluster-config-file",
                &file,
                "--save",
                "",
            ];
            let node = RedisServer::start_with(folder.path(), &arguments).await;
            if let Some(first) = nodes.first() {
                let RedisServer { port, .. }: &RedisServer = first;
                let meet = format!("CLUSTER MEET 127.0.0.1 {port} {}", buses[0]);
                assert_eq!(node.ask(&meet).unwrap(), "+OK\r\n");
            }
            buses.push(bus);
            nodes.push(node);
        }
        for (node, slots) in nodes.iter().zip(["0 5460", "5461 10922", "10923 16383"]) {
            assert_eq!(node.ask(&format!("CLUSTER ADDSLOTSRANGE {slots}")).unwrap(), "+OK\r\n");
        }
        let replica = nodes.pop().expect("the last one");
        let slot: usize =
            nodes[0].ask(&format!("CLUSTER KEYSLOT {key}")).unwrap()[1..].trim().parse().unwrap();
        let master = nodes.swap_remove(slot / 5461);
        let id = master.ask("CLUSTER MYID").unwrap().lines().nth(1).expect("an id").to_owned();
        let replicate = format!("CLUSTER REPLICATE {id}");
        eventually("a replica", Self::DEADLINE, async || replica.says(&replicate, "+OK")).await;
        let all = || nodes.iter().chain([&master, &replica]);
        for node in all() {
            eventually("a cluster", Self::DEADLINE, async || node.says("CLUSTER INFO", "cluster_state:ok"))
                .await;
            eventually("all nodes", Self::DEADLINE, async || {
                node.says("CLUSTER INFO", "cluster_known_nodes:4")
            })
            .await;
        }
        let addresses: Vec<String> = all().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        let url = format!("redis+cluster://{}", addresses.join(","));
        let group = Self { master, replica, url, others: nodes, _folder: folder };
        group.replicated().await;
        group
    }

    /// With a sentinel, and another one that does not answer.
    pub async fn with_sentinel() -> Self {
        let folder = TempDir::new().expect("a folder");
        let master = RedisServer::start().await;
        let of = master.port.to_string();
        let replica =
            RedisServer::start_with(folder.path(), &["--save", "", "--replicaof", "127.0.0.1", &of]).await;
        let settings = format!(
            "sentinel monitor context 127.0.0.1 {of} 1\nsentinel down-after-milliseconds context 500\n\
             sentinel failover-timeout context 2000\n",
        );
        std::fs::write(folder.path().join("sentinel.conf"), settings).expect("its settings");
        let sentinel = RedisServer::start_with(folder.path(), &["sentinel.conf", "--sentinel"]).await;
        let url = format!("redis+sentinel://127.0.0.1:1,127.0.0.1:{}/context/0", sentinel.port);
        let group = Self { master, replica, url, others: vec![sentinel], _folder: folder };
        group.replicated().await;
        let sentinel = &group.others[0];
        let knows = async || sentinel.says("SENTINEL MASTER context", "num-slaves\r\n$1\r\n1");
        eventually("a sentinel that knows both", Self::DEADLINE, knows).await;
        group
    }

    pub fn options(&self) -> RedisOptions {
        RedisOptions::new(self.url.clone())
    }

    /// Until the replica has taken the place of the master.
    pub async fn failed_over(&self) {
        eventually("a new master", Self::DEADLINE, async || self.replica.says("ROLE", "master")).await;
    }

    async fn replicated(&self) {
        let is_up = async || self.replica.says("INFO replication", "master_link_status:up");
        eventually("a replica that follows", Self::DEADLINE, is_up).await;
    }
}
