//! Turning text into vectors. A provider is a way to a model; everything above sees the trait alone. Imports `domain`,
//! `error` and `telemetry`.

mod batched;
#[cfg(feature = "builtin-embedder")]
mod builtin;
mod estimate;
mod in_parts;
mod openai;
mod rerank;
mod tei;
mod wire;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use secrecy::SecretString;
use thiserror::Error;

use self::{batched::Batched, in_parts::InParts};
pub use self::{
    estimate::Estimate,
    openai::OpenAiOptions,
    rerank::{RerankOptions, Reranker},
};
use crate::domain::Vector;

/// Which provider, and how to reach it.
#[derive(Clone, Debug)]
pub enum Provider {
    /// The model in this process, on so many threads.
    #[cfg(feature = "builtin-embedder")]
    Builtin { threads: std::num::NonZeroUsize },
    /// A Hugging Face text-embeddings-inference server.
    Tei { url: String, api_key: Option<SecretString> },
    /// Any server with OpenAI's `POST /v1/embeddings`.
    OpenAi(OpenAiOptions),
}

/// What embeds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// `builtin`, `tei` or `openai`.
    pub provider: &'static str,
    /// As the provider calls it; with `@` and a number when it is asked for vectors of so many dimensions.
    pub name: String,
    /// Tokens of one text that it reads, special ones included, where the provider tells; `openai` does not.
    pub tokens_max: Option<i32>,
}

/// Why there is no embedding.
#[derive(Clone, Debug, Error)]
pub enum EmbedError {
    /// The provider is down, busy or slow: the same call may succeed later.
    #[error("{detail}")]
    Transient { detail: String, retry_after: Option<Duration> },
    /// The provider answered, but nothing that can be used, perhaps because of one of the texts.
    #[error("{detail}")]
    Unusable { detail: String },
    /// The provider refuses this input: the same call never succeeds.
    #[error("{detail}")]
    Permanent { detail: String },
    /// One of the texts has more tokens than the model reads. Does not leave this folder: such a text is embedded in parts.
    #[error("{detail}")]
    TooLong { detail: String },
}

impl EmbedError {
    /// What a tenant may read of it. A refusal of their own text in the provider's words; of everything else those words
    /// may hold hosts and keys, which are the operator's.
    pub fn public_reason(&self) -> &str {
        match self {
            Self::Transient { .. } => "the embedding provider is away or busy",
            Self::Unusable { .. } => "the embedding provider gave no usable answer",
            Self::Permanent { detail } | Self::TooLong { detail } => detail,
        }
    }

    /// When the provider wants to be asked again.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Transient { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    fn unusable(detail: impl Into<String>) -> Self {
        Self::Unusable { detail: detail.into() }
    }

    pub(crate) fn transient(detail: impl Into<String>) -> Self {
        Self::Transient { detail: detail.into(), retry_after: None }
    }
}

/// What a text is embedded for. Interactive work goes before bulk work where the provider can tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Query,
    Document,
}

/// A way to a model.
#[async_trait]
pub trait Embedder: Send + Sync {
    /// One vector per text, in order, of all of the text. Callers give no more than [`Embedder::batch_texts_max`] texts and no blank ones.
    async fn embed(&self, purpose: Purpose, texts: Vec<String>) -> Result<Vec<Vector>, EmbedError>;

    /// The model that answers. Asked for at start and after faults, not per request.
    async fn model(&self) -> Result<Model, EmbedError>;

    /// Whether the provider is up. Called by one poller only: some servers die of being asked too often at once.
    async fn probe(&self) -> Result<(), EmbedError>;

    /// How many texts one call may carry.
    fn batch_texts_max(&self) -> usize;

    /// How many calls at the same time keep it busy; more would only wait for each other.
    fn calls_at_once(&self) -> usize {
        2
    }
}

/// Makes the embedder that `provider` describes. Reaches for nothing yet: the server may come up later.
///
/// # Errors
/// When the built-in model cannot be loaded or the HTTP client cannot be made.
pub fn connect(provider: &Provider) -> crate::error::Result<Arc<dyn Embedder>> {
    Ok(match provider {
        #[cfg(feature = "builtin-embedder")]
        Provider::Builtin { threads } => {
            Arc::new(InParts(Batched::new(builtin::Builtin::load(*threads)?, threads.get())))
        }
        Provider::Tei { url, api_key } => together(tei::Tei::new(url, api_key.clone())?),
        Provider::OpenAi(options) => together(openai::OpenAi::new(options.clone())?),
    })
}

/// What a server is wrapped in. A text that is too long is found alone, and then halved.
fn together(embedder: impl Embedder + 'static) -> Arc<dyn Embedder> {
    let calls_busy = embedder.calls_at_once();
    Arc::new(InParts(Batched::new(embedder, calls_busy)))
}

/// Checks what a provider sent: as many vectors as texts, all of one dimension, all usable.
fn check_vectors(values: Vec<Vec<f32>>, texts: usize) -> Result<Vec<Vector>, EmbedError> {
    if values.len() != texts {
        return Err(EmbedError::unusable(format!(
            "the provider sent {} vectors for {texts} texts",
            values.len()
        )));
    }
    let vectors: Vec<Vector> = values
        .into_iter()
        .map(|values| {
            Vector::new(values)
                .map_err(|error| EmbedError::unusable(format!("the provider sent a bad vector: {error}")))
        })
        .collect::<Result<_, _>>()?;
    let dims = vectors.first().map_or(0, Vector::dimensions);
    if vectors.iter().any(|vector| vector.dimensions() != dims) {
        return Err(EmbedError::unusable("the provider sent vectors of different dimensions"));
    }
    Ok(vectors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_provider_sends_is_not_trusted() {
        assert_eq!(check_vectors(vec![vec![1.0, 0.0], vec![0.0, 2.0]], 2).unwrap().len(), 2);
        for bad in [
            vec![vec![1.0]],
            vec![vec![1.0], vec![f32::NAN]],
            vec![vec![1.0], vec![]],
            vec![vec![1.0], vec![1.0, 2.0]],
        ] {
            assert!(matches!(check_vectors(bad, 2), Err(EmbedError::Unusable { .. })));
        }
    }
}
