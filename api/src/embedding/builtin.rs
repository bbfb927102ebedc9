//! The model in this process.

use std::num::NonZeroUsize;

use async_trait::async_trait;
use embedder::{Embedder as Engine, Error as EngineError, Lane, Options};

use super::{EmbedError, Embedder, Model, Purpose, check_vectors};
use crate::{
    domain::Vector,
    error::{Error, Result},
};

/// Large enough to keep every thread busy, small enough that a dying process loses little work.
const BATCH_TEXTS_MAX: usize = 32;

pub(super) struct Builtin(Engine);

impl Builtin {
    pub(super) fn load(threads: NonZeroUsize) -> Result<Self> {
        Engine::new(Options { threads, ..Options::default() }).map(Self).map_err(Error::internal)
    }
}

#[async_trait]
impl Embedder for Builtin {
    async fn embed(&self, purpose: Purpose, texts: Vec<String>) -> Result<Vec<Vector>, EmbedError> {
        let count = texts.len();
        let lane = match purpose {
            Purpose::Query => Lane::Query,
            Purpose::Document => Lane::Backfill,
        };
        let embeddings = self.0.compute(texts, None, lane).await.map_err(|error| match error {
            EngineError::TooLong => EmbedError::TooLong { detail: error.to_string() },
            EngineError::Tokenizer(_) => EmbedError::Permanent { detail: error.to_string() },
            _ => EmbedError::transient(error.to_string()),
        })?;
        check_vectors(embeddings.into_iter().map(|embedding| embedding.mean).collect(), count)
    }

    async fn model(&self) -> Result<Model, EmbedError> {
        let tokens_max = i32::try_from(embedder::TOKENS_MAX).ok();
        Ok(Model { provider: "builtin", name: embedder::MODEL_ID.to_owned(), tokens_max })
    }

    async fn probe(&self) -> Result<(), EmbedError> {
        Ok(())
    }

    fn batch_texts_max(&self) -> usize {
        BATCH_TEXTS_MAX
    }
}
