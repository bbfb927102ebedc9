//! Texts that are too long for a model are embedded in parts, and never cut off. A text is split into chunks before, by an
//! estimate; how many tokens those are only the model knows, and a query is not split at all.

use std::{future::Future, pin::Pin};

use async_trait::async_trait;
use text_splitter::{ChunkConfig, TextSplitter};

use super::{EmbedError, Embedder, Model, Purpose};
use crate::domain::Vector;

/// How often a text is halved: the longest one, of 256 KiB, which is one chunk if it came with a vector of another model, may
/// have a token in each of its bytes, for a model that reads 128.
const DEPTH_MAX: usize = 11;

/// An embedder that takes texts of any length.
pub(super) struct InParts<E>(pub E);

type Embedding<'a> = Pin<Box<dyn Future<Output = Result<Vec<Vector>, EmbedError>> + Send + 'a>>;

impl<E: Embedder> InParts<E> {
    /// `depth` counts how often a text was halved so far.
    fn embed_all(&self, purpose: Purpose, mut texts: Vec<String>, depth: usize) -> Embedding<'_> {
        Box::pin(async move {
            let detail = match self.0.embed(purpose, texts.clone()).await {
                Err(EmbedError::TooLong { detail }) => detail,
                answer => return answer,
            };
            // It does not say which of them it is.
            if texts.len() > 1 {
                let rest = texts.split_off(texts.len() / 2);
                let mut vectors = self.embed_all(purpose, texts, depth).await?;
                vectors.extend(self.embed_all(purpose, rest, depth).await?);
                return Ok(vectors);
            }
            let parts = halves(&texts.concat());
            if depth >= DEPTH_MAX || parts.len() < 2 {
                return Err(EmbedError::Permanent { detail });
            }
            let weights: Vec<f32> = parts.iter().map(|part| part.len() as f32).collect();
            let vectors = self.embed_all(purpose, parts, depth + 1).await?;
            Ok(vec![mean(&vectors, &weights)?])
        })
    }
}

/// Two or three parts, cut at the best bounds near the middle.
fn halves(text: &str) -> Vec<String> {
    let chars = text.chars().count().div_ceil(2).max(1);
    TextSplitter::new(ChunkConfig::new(chars)).chunks(text).map(str::to_owned).collect()
}

/// The direction of the weighted sum: what the mean of the tokens' vectors, of which a model makes its own, comes closest to.
fn mean(vectors: &[Vector], weights: &[f32]) -> Result<Vector, EmbedError> {
    let mut sum = vec![0.0; vectors.first().map_or(0, Vector::dimensions)];
    for (vector, weight) in vectors.iter().zip(weights) {
        for (total, value) in sum.iter_mut().zip(vector.as_slice()) {
            *total += value * weight;
        }
    }
    Vector::new(sum)
        .map_err(|error| EmbedError::unusable(format!("the parts of a text make no vector: {error}")))
}

#[async_trait]
impl<E: Embedder> Embedder for InParts<E> {
    async fn embed(&self, purpose: Purpose, texts: Vec<String>) -> Result<Vec<Vector>, EmbedError> {
        self.embed_all(purpose, texts, 0).await
    }

    async fn model(&self) -> Result<Model, EmbedError> {
        self.0.model().await
    }

    async fn probe(&self) -> Result<(), EmbedError> {
        self.0.probe().await
    }

    fn batch_texts_max(&self) -> usize {
        self.0.batch_texts_max()
    }

    fn calls_at_once(&self) -> usize {
        self.0.calls_at_once()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Reads texts of so many words, and points to their first letter.
    struct Words {
        words_max: usize,
        calls: AtomicUsize,
    }

    #[async_trait]
    impl Embedder for Words {
        async fn embed(&self, _: Purpose, texts: Vec<String>) -> Result<Vec<Vector>, EmbedError> {
            self.calls.fetch_add(1, Ordering::Relaxed);
            if texts.iter().any(|text| text.split_whitespace().count() > self.words_max) {
                return Err(EmbedError::TooLong { detail: "too many words".to_owned() });
            }
            let letter =
                |text: &String| if text.trim_start().starts_with('a') { [1.0, 0.0] } else { [0.0, 1.0] };
            Ok(texts.iter().map(|text| Vector::new(letter(text).to_vec()).unwrap()).collect())
        }

        async fn model(&self) -> Result<Model, EmbedError> {
            Ok(Model { provider: "words", name: "words".to_owned(), tokens_max: None })
        }

        async fn probe(&self) -> Result<(), EmbedError> {
            Ok(())
        }

        fn batch_texts_max(&self) -> usize {
            32
        }
    }

    async fn embed(words_max: usize, texts: &[&str]) -> (Result<Vec<Vector>, EmbedError>, usize) {
        let embedder = InParts(Words { words_max, calls: AtomicUsize::new(0) });
        let texts = texts.iter().map(|text| (*text).to_owned()).collect();
        let answer = embedder.embed(Purpose::Document, texts).await;
        (answer, embedder.0.calls.load(Ordering::Relaxed))
    }

    #[tokio::test]
    async fn a_text_that_is_too_long_is_embedded_as_the_mean_of_its_parts() {
        let (vectors, calls) = embed(4, &["b", "a a a a b b b b", "a", "b b"]).await;
        let vectors = vectors.unwrap();
        let shown: Vec<&[f32]> = vectors.iter().map(Vector::as_slice).collect();
        assert_eq!([shown[0], shown[2], shown[3]], [&[0.0, 1.0][..], &[1.0, 0.0], &[0.0, 1.0]]);
        assert!((shown[1][0] - shown[1][1]).abs() < 0.2, "{:?}: of both", shown[1]);
        assert!(calls <= 8, "{calls} calls");
    }

    #[tokio::test]
    async fn what_fits_is_one_call_and_what_cannot_be_split_is_refused() {
        let (vectors, calls) = embed(4, &["a b", "b a"]).await;
        assert_eq!((vectors.unwrap().len(), calls), (2, 1));
        let (refused, calls) = embed(0, &["a b c d e f"]).await;
        assert!(matches!(refused, Err(EmbedError::Permanent { .. })));
        assert!(calls < 30, "{calls} calls");
    }
}
