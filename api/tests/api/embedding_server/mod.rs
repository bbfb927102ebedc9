//! `context-api embedder`, the real binary on a port of its own, over HTTP.

mod calls;
mod contract;
mod providers;
mod stopping;

use std::time::Duration;

use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Process, client, eventually, free_port};

/// Ended when dropped.
struct Server {
    process: Process,
    client: Client,
    // After the process, which writes into it.
    _folder: TempDir,
}

impl Server {
    /// On one thread of the model, unless told otherwise.
    async fn start(variables: &[(&str, &str)]) -> Self {
        let folder = TempDir::new().unwrap();
        let variables = [&[("EMBEDDING_THREADS", "1"), ("HTTP_WORKERS", "2")], variables].concat();
        let mut process = Process::embedder(folder.path(), free_port(), &variables);
        process.ready().await;
        Self { process, client: client(), _folder: folder }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.process.url)
    }

    fn embed(&self, body: &Value) -> RequestBuilder {
        self.client.post(self.url("/embed")).json(body)
    }

    /// Sends what keeps the model busy for a while, and waits until it does.
    async fn occupy(&self, texts: usize) -> tokio::task::JoinHandle<reqwest::Result<Response>> {
        let text = "word ".repeat(254);
        let request = self.embed(&json!({"inputs": vec![text; texts]}));
        let running = tokio::spawn(request.send());
        eventually("a busy model", Duration::from_secs(20), async || {
            (self.process.metric("te_queue_size").await? > 0.0).then_some(())
        })
        .await;
        running
    }
}
