//! Hugging Face text-embeddings-inference over its own routes. Texts are sent as strings, never as token ids, which
//! crash some versions; `truncate` is always said, because its default differs between versions.

use async_trait::async_trait;
use reqwest::Client;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::{EmbedError, Embedder, Model, Purpose, check_vectors, wire};
use crate::{domain::Vector, error::Result};

/// The server's default for `--max-client-batch-size`.
const BATCH_TEXTS_MAX: usize = 32;

pub(super) struct Tei {
    client: Client,
    url: String,
    api_key: Option<SecretString>,
}

#[derive(Serialize)]
struct EmbedBody {
    inputs: Vec<String>,
    /// Never: a text that does not fit is to be refused, so that it can be embedded in parts.
    truncate: bool,
}

#[derive(Deserialize)]
struct Info {
    model_id: String,
}

impl Tei {
    pub(super) fn new(url: &str, api_key: Option<SecretString>) -> Result<Self> {
        Ok(Self { client: wire::client()?, url: url.trim_end_matches('/').to_owned(), api_key })
    }
}

#[async_trait]
impl Embedder for Tei {
    async fn embed(&self, _: Purpose, texts: Vec<String>) -> Result<Vec<Vector>, EmbedError> {
        let count = texts.len();
        let request = self
            .client
            .post(format!("{}/embed", self.url))
            .json(&EmbedBody { inputs: texts, truncate: false });
        let vectors: Vec<Vec<f32>> = wire::send(wire::authorize(request, self.api_key.as_ref())).await?;
        check_vectors(vectors, count)
    }

    async fn model(&self) -> Result<Model, EmbedError> {
        let request = self.client.get(format!("{}/info", self.url)).timeout(wire::PROBE_DEADLINE);
        let info: Info = wire::send(wire::authorize(request, self.api_key.as_ref())).await?;
        Ok(Model { provider: "tei", name: info.model_id })
    }

    async fn probe(&self) -> Result<(), EmbedError> {
        // `/info` rather than `/health`: it tells a wrong key from a dead server, and it does not wait for a batch.
        self.model().await.map(|_| ())
    }

    fn batch_texts_max(&self) -> usize {
        BATCH_TEXTS_MAX
    }
}
