//! A server that speaks as S3 does: moto, of the Python packages.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use super::{client, eventually, free_port};

/// Killed when dropped.
pub struct S3Server {
    pub url: String,
    process: Child,
}

impl S3Server {
    pub async fn start() -> Self {
        let folder = std::env::var("TEST_S3_BIN").expect("TEST_S3_BIN: the folder of moto_server");
        let port = free_port();
        let process = Command::new(PathBuf::from(folder).join("moto_server"))
            .args(["--host", "127.0.0.1", "--port", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("moto_server");
        let server = Self { url: format!("http://127.0.0.1:{port}"), process };
        eventually("a storage", Duration::from_secs(60), async || {
            client().get(&server.url).send().await.ok().filter(|response| response.status().is_success())
        })
        .await;
        server
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}
