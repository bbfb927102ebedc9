//! A Redis of the test's own, to be hung, killed and flushed. The one that all tests share is not.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use context_api::cache::RedisOptions;

use super::{eventually, free_port};

/// Killed when dropped.
pub struct RedisServer {
    port: u16,
    process: Child,
}

impl RedisServer {
    pub async fn start() -> Self {
        let port = free_port();
        let server = Self { port, process: launch(port) };
        server.ready().await;
        server
    }

    pub fn options(&self) -> RedisOptions {
        RedisOptions { url: format!("redis://127.0.0.1:{}/0", self.port).into(), password: None }
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
        self.process = launch(self.port);
        self.ready().await;
    }

    pub fn flush(&self) {
        assert_eq!(self.ask("FLUSHALL").expect("an answer"), "+OK\r\n");
    }

    fn ask(&self, command: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(format!("{command}\r\n").as_bytes())?;
        let mut answer = [0; 64];
        let length = stream.read(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
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

fn launch(port: u16) -> Child {
    let folder = std::env::var("TEST_REDIS_BIN").expect("TEST_REDIS_BIN: the folder of Redis' programs");
    Command::new(PathBuf::from(folder).join("redis-server"))
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .current_dir(std::env::temp_dir())
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
