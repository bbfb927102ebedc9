//! Hugging Face text-embeddings-inference over its own routes. Texts are sent as strings, never as token ids, which
//! crash some versions; `truncate` is always said, because its default differs between versions.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use reqwest::Client;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::{EmbedError, Embedder, Model, Purpose, check_vectors, wire};
use crate::{domain::Vector, error::Result};

/// The server's default for `--max-client-batch-size`; more at once gains nothing.
pub(super) const BATCH_TEXTS_MAX: usize = 32;
/// As RFC 9218 has it, where 3 is usual and 0 most urgent.
const URGENT: &str = "u=1";
/// Calls with documents at the same time.
const CALLS_AT_ONCE: usize = 2;

pub(super) struct Tei {
    client: Client,
    url: String,
    api_key: Option<SecretString>,
    /// What the server said last.
    batch_texts_max: AtomicUsize,
}

#[derive(Serialize)]
struct EmbedBody {
    inputs: Vec<String>,
    /// Never: a text that does not fit is to be refused, so that it can be embedded in parts.
    truncate: bool,
}

#[derive(Deserialize)]
pub(super) struct Info {
    model_id: String,
    /// Tokens of one text, special ones included.
    max_input_length: Option<u32>,
    /// Texts in one request.
    max_client_batch_size: Option<usize>,
    /// Texts of all requests together: a larger batch is refused as overload, for ever.
    max_concurrent_requests: Option<usize>,
}

impl Info {
    /// Half of what the server takes at once is left for queries.
    pub(super) fn batch_texts_max(&self) -> usize {
        let share = self.max_concurrent_requests.map_or(BATCH_TEXTS_MAX, |texts| texts / CALLS_AT_ONCE / 2);
        self.max_client_batch_size.unwrap_or(BATCH_TEXTS_MAX).min(share).clamp(1, BATCH_TEXTS_MAX)
    }
}

impl Tei {
    pub(super) fn new(url: &str, api_key: Option<SecretString>) -> Result<Self> {
        let url = url.trim_end_matches('/').to_owned();
        Ok(Self { client: wire::client()?, url, api_key, batch_texts_max: AtomicUsize::new(BATCH_TEXTS_MAX) })
    }
}

#[async_trait]
impl Embedder for Tei {
    async fn embed(&self, purpose: Purpose, texts: Vec<String>) -> Result<Vec<Vector>, EmbedError> {
        let count = texts.len();
        let mut request = self
            .client
            .post(format!("{}/embed", self.url))
            .json(&EmbedBody { inputs: texts, truncate: false });
        if purpose == Purpose::Query {
            // `context-api embedder` then does them before documents; other servers do not mind.
            request = request.header("Priority", URGENT);
        }
        let vectors: Vec<Vec<f32>> = wire::send(wire::authorize(request, self.api_key.as_ref())).await?;
        check_vectors(vectors, count)
    }

    async fn model(&self) -> Result<Model, EmbedError> {
        let request = self.client.get(format!("{}/info", self.url)).timeout(wire::PROBE_DEADLINE);
        let info: Info = wire::send(wire::authorize(request, self.api_key.as_ref())).await?;
        self.batch_texts_max.store(info.batch_texts_max(), Ordering::Relaxed);
        let tokens_max =
            info.max_input_length.and_then(|tokens| i32::try_from(tokens).ok()).filter(|tokens| *tokens > 0);
        Ok(Model { provider: "tei", name: info.model_id, tokens_max })
    }

    async fn probe(&self) -> Result<(), EmbedError> {
        // `/info` rather than `/health`: it tells a wrong key from a dead server, and it does not wait for a batch.
        self.model().await.map(|_| ())
    }

    fn batch_texts_max(&self) -> usize {
        self.batch_texts_max.load(Ordering::Relaxed)
    }

    fn calls_at_once(&self) -> usize {
        CALLS_AT_ONCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_batch_is_larger_than_the_server_takes() {
        for (batch, concurrent, expected) in [
            (None, None, 32),
            (Some(32), Some(512), 32),
            (Some(8), Some(512), 8),
            (Some(32), Some(40), 10),
            (Some(500), Some(5_000), 32),
            (Some(32), Some(2), 1),
            (Some(0), Some(0), 1),
        ] {
            let info = Info {
                model_id: String::new(),
                max_input_length: None,
                max_client_batch_size: batch,
                max_concurrent_requests: concurrent,
            };
            assert_eq!(info.batch_texts_max(), expected, "{batch:?} {concurrent:?}");
        }
    }
}
