//! Any server that speaks OpenAI's `POST /v1/embeddings`.

use async_trait::async_trait;
use reqwest::Client;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::{EmbedError, Embedder, Model, Purpose, check_vectors, wire};
use crate::{domain::Vector, error::Result};

/// OpenAI takes 2,048; servers that imitate it take less. 32 is taken by all that we know of.
const BATCH_TEXTS_MAX: usize = 32;

pub(super) struct OpenAi {
    client: Client,
    root: String,
    model: String,
    api_key: Option<SecretString>,
}

#[derive(Serialize)]
struct Request<'a> {
    model: &'a str,
    input: Vec<String>,
    encoding_format: &'static str,
}

#[derive(Deserialize)]
struct Answer {
    data: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    index: usize,
    embedding: Vec<f32>,
}

impl OpenAi {
    /// `url` is the server's root or its `/v1`.
    pub(super) fn new(url: &str, model: String, api_key: Option<SecretString>) -> Result<Self> {
        let root = url.trim_end_matches('/').trim_end_matches("/v1").to_owned();
        Ok(Self { client: wire::client()?, root, model, api_key })
    }
}

#[async_trait]
impl Embedder for OpenAi {
    async fn embed(&self, _: Purpose, texts: Vec<String>) -> Result<Vec<Vector>, EmbedError> {
        let count = texts.len();
        let body = Request { model: &self.model, input: texts, encoding_format: "float" };
        let request = wire::authorize(
            self.client.post(format!("{}/v1/embeddings", self.root)).json(&body),
            self.api_key.as_ref(),
        );
        let mut answer: Answer = wire::send(request).await?;
        // The order of `data` is not promised, `index` is.
        answer.data.sort_by_key(|item| item.index);
        if answer.data.iter().enumerate().any(|(position, item)| position != item.index) {
            return Err(EmbedError::unusable("the provider's answer skips or repeats an index"));
        }
        check_vectors(answer.data.into_iter().map(|item| item.embedding).collect(), count)
    }

    async fn model(&self) -> Result<Model, EmbedError> {
        Ok(Model { provider: "openai", name: self.model.clone(), tokens_max: None })
    }

    async fn probe(&self) -> Result<(), EmbedError> {
        // Costs nothing, unlike an embedding. Servers that do not have this route show by their answer that they are up.
        let request = self.client.get(format!("{}/v1/models", self.root)).timeout(wire::PROBE_DEADLINE);
        wire::answers(wire::authorize(request, self.api_key.as_ref())).await
    }

    fn batch_texts_max(&self) -> usize {
        BATCH_TEXTS_MAX
    }

    fn calls_at_once(&self) -> usize {
        // Far away rather than slow.
        4
    }
}
