//! Any server that speaks OpenAI's `POST /v1/embeddings`. Vectors are asked for as base64, a quarter of their size as
//! numbers; who answers numbers all the same is understood, too.

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use reqwest::{Client, RequestBuilder};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::{EmbedError, Embedder, Model, Purpose, check_vectors, wire};
use crate::{domain::Vector, error::Result};

/// OpenAI takes 2,048; servers that imitate it take less. 32 is taken by all that we know of.
const BATCH_TEXTS_MAX: usize = 32;

/// Which server, which model, and on whose account.
#[derive(Clone, Debug, Default)]
pub struct OpenAiOptions {
    /// The server's root or its `/v1`.
    pub url: String,
    pub model: String,
    pub api_key: Option<SecretString>,
    /// Numbers of a vector, for models that can give fewer than they have.
    pub dimensions: Option<usize>,
    /// Sent as `OpenAI-Organization`: who pays, where a key may do so for several.
    pub organization: Option<String>,
    /// Sent as `OpenAI-Project`.
    pub project: Option<String>,
}

pub(super) struct OpenAi {
    client: Client,
    root: String,
    options: OpenAiOptions,
    /// Whether the server has refused base64.
    wants_floats: AtomicBool,
}

#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "lowercase")]
enum EncodingFormat {
    Base64,
    Float,
}

#[derive(Serialize)]
struct Request<'a> {
    model: &'a str,
    input: &'a [String],
    encoding_format: EncodingFormat,
    #[serde(skip_serializing_if = "Option::is_none")]
    dimensions: Option<usize>,
}

#[derive(Deserialize)]
struct Answer {
    data: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    index: usize,
    embedding: Encoded,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Encoded {
    Base64(String),
    Floats(Vec<f32>),
}

impl Encoded {
    fn decode(self) -> Result<Vec<f32>, EmbedError> {
        let text = match self {
            Self::Floats(values) => return Ok(values),
            Self::Base64(text) => text,
        };
        let bytes = BASE64_STANDARD
            .decode(text)
            .map_err(|error| EmbedError::unusable(format!("the provider sent bad base64: {error}")))?;
        let (values, rest) = bytes.as_chunks::<4>();
        if !rest.is_empty() {
            return Err(EmbedError::unusable("the provider sent base64 that ends within a number"));
        }
        Ok(values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }
}

impl OpenAi {
    pub(super) fn new(options: OpenAiOptions) -> Result<Self> {
        let root = options.url.trim_end_matches('/').trim_end_matches("/v1").to_owned();
        Ok(Self { client: wire::client()?, root, options, wants_floats: AtomicBool::new(false) })
    }

    fn authorize(&self, mut request: RequestBuilder) -> RequestBuilder {
        let OpenAiOptions { api_key, organization, project, .. } = &self.options;
        for (name, value) in [("OpenAI-Organization", organization), ("OpenAI-Project", project)] {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        wire::authorize(request, api_key.as_ref())
    }

    async fn ask(&self, texts: &[String], encoding_format: EncodingFormat) -> Result<Answer, EmbedError> {
        let OpenAiOptions { model, dimensions, .. } = &self.options;
        let body = Request { model, input: texts, encoding_format, dimensions: *dimensions };
        let request = self.client.post(format!("{}/v1/embeddings", self.root)).json(&body);
        wire::send(self.authorize(request)).await
    }

    /// Asks for base64, and once more for numbers when that is refused: it may be base64 that the server does not like, and
    /// their words for that are many. If so, it is not asked for again.
    async fn ask_in_either(&self, texts: &[String]) -> Result<Answer, EmbedError> {
        if self.wants_floats.load(Ordering::Relaxed) {
            return self.ask(texts, EncodingFormat::Float).await;
        }
        match self.ask(texts, EncodingFormat::Base64).await {
            Err(EmbedError::Permanent { .. }) => {}
            answer => return answer,
        }
        let answer = self.ask(texts, EncodingFormat::Float).await?;
        self.wants_floats.store(true, Ordering::Relaxed);
        Ok(answer)
    }
}

#[async_trait]
impl Embedder for OpenAi {
    async fn embed(&self, _: Purpose, texts: Vec<String>) -> Result<Vec<Vector>, EmbedError> {
        let mut answer = self.ask_in_either(&texts).await?;
        // The order of `data` is not promised, `index` is.
        answer.data.sort_by_key(|item| item.index);
        if answer.data.iter().enumerate().any(|(position, item)| position != item.index) {
            return Err(EmbedError::unusable("the provider's answer skips or repeats an index"));
        }
        let values = answer.data.into_iter().map(|item| item.embedding.decode());
        let vectors = check_vectors(values.collect::<Result<_, _>>()?, texts.len())?;
        match (self.options.dimensions, vectors.first().map(Vector::dimensions)) {
            (Some(asked), Some(sent)) if asked != sent => Err(EmbedError::unusable(format!(
                "the provider sent vectors of {sent} dimensions, {asked} were asked for"
            ))),
            _ => Ok(vectors),
        }
    }

    async fn model(&self) -> Result<Model, EmbedError> {
        // Vectors of another length are another space, also before anybody has seen one.
        let name = match self.options.dimensions {
            Some(dimensions) => format!("{}@{dimensions}", self.options.model),
            None => self.options.model.clone(),
        };
        Ok(Model { provider: "openai", name, tokens_max: None })
    }

    async fn probe(&self) -> Result<(), EmbedError> {
        // Costs nothing, unlike an embedding. Servers that do not have this route show by their answer that they are up.
        let request = self.client.get(format!("{}/v1/models", self.root)).timeout(wire::PROBE_DEADLINE);
        wire::answers(self.authorize(request)).await
    }

    fn batch_texts_max(&self) -> usize {
        BATCH_TEXTS_MAX
    }

    fn calls_at_once(&self) -> usize {
        // Far away rather than slow.
        4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(embedding: &str) -> Result<Vec<f32>, EmbedError> {
        let body = format!(r#"{{"index": 0, "embedding": {embedding}}}"#);
        serde_json::from_str::<Item>(&body).unwrap().embedding.decode()
    }

    #[test]
    fn a_vector_comes_as_base64_or_as_numbers() {
        assert_eq!(decode(r#""AACAPwAAAMA=""#).unwrap(), [1.0, -2.0]);
        assert_eq!(decode("[1, -2.0]").unwrap(), [1.0, -2.0]);
        for (bad, reason) in [
            (r#""AACAPw""#, "bad base64"),
            (r#""no base64!""#, "bad base64"),
            (r#""AACAPwAA""#, "ends within a number"),
        ] {
            let error = decode(bad).unwrap_err();
            assert!(matches!(&error, EmbedError::Unusable { detail } if detail.contains(reason)), "{error}");
        }
        // Not a number, and nothing at all.
        for bad in [r#""AADAfw==""#, r#""""#] {
            let checked = check_vectors(vec![decode(bad).unwrap()], 1);
            assert!(matches!(checked, Err(EmbedError::Unusable { .. })));
        }
    }
}
