//! The built-in embedding model: all-MiniLM-L6-v2 in this process, on the CPU, offline.
//!
//! It exists so that the service searches by meaning without a second container, a GPU or a network. The weights (8
//! bits, 23 MB) are compiled in. It has its own threads and needs no asynchronous runtime; its futures run on any.
//! Which inference crate and why, and how fast it is, stands in `README.md`.
//!
//! ```
//! use embedder::{Embedder, Options};
//!
//! let embedder = Embedder::new(Options::default())?;
//! let vectors = embedder.embed_blocking(&["hello world", "good morning"])?;
//! assert_eq!(vectors.len(), 2);
//! assert_eq!(vectors[0].len(), embedder::DIMENSIONS);
//! # Ok::<(), embedder::Error>(())
//! ```

mod embedding;
mod error;
mod model;
mod queue;
mod tokenizer;
mod wait;
mod worker;

use std::num::NonZeroUsize;
use std::sync::Arc;

pub use embedding::{Embedding, Keep, scale_to_unit};
pub use error::Error;
pub use queue::Lane;
pub use tokenizer::Token;

/// Values in a vector.
pub const DIMENSIONS: usize = 384;

/// Tokens of a text that the model reads, with the two special ones; what there is more of the text is ignored.
pub const TOKENS_MAX: usize = 256;

/// The model's name, as its makers and other servers write it.
pub const MODEL_ID: &str = "sentence-transformers/all-MiniLM-L6-v2";

/// Tokens that go through the model together, padding included.
pub const BATCH_TOKENS_MAX: usize = 512;

/// Texts that go through the model together.
pub const BATCH_TEXTS_MAX: usize = 16;

/// How much of the machine to use.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Texts computed at the same time, each on one core. Default: one for each core.
    pub threads: NonZeroUsize,
    /// Texts that may wait in each [`Lane`], those being computed not counted. Default: 1,024.
    pub waiting_texts_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Self { threads, waiting_texts_max: 1024 }
    }
}

/// Turns texts into vectors of [`DIMENSIONS`] values and length one.
///
/// A clone is another handle to the same model and threads; the threads end with the last one. A text's vector does
/// not depend on what it is batched with, up to rounding in the last digits.
#[derive(Clone)]
pub struct Embedder(Arc<Handle>);

/// Ends the threads when the last handle is gone: the engine itself is held by the threads and never would be.
struct Handle(Arc<worker::Engine>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.queue.close();
    }
}

impl Embedder {
    /// Reads the model and starts the threads: some 50 ms.
    ///
    /// # Errors
    /// If the model cannot be read (a defect, or no memory) or a thread cannot be started.
    pub fn new(options: Options) -> Result<Self, Error> {
        let engine = worker::Engine {
            tokenizer: tokenizer::Tokenizer::new()?,
            model: model::Model::new()?,
            queue: queue::Queue::new(options.waiting_texts_max),
        };
        // The handle comes first, so that a failure half-way ends the threads that were started.
        let embedder = Self(Arc::new(Handle(Arc::new(engine))));
        worker::start(&embedder.0.0, options.threads)?;
        Ok(embedder)
    }

    /// One vector for each text, in the order of the texts. Any text is allowed, also an empty one.
    ///
    /// If the future is dropped, what has not begun is not computed.
    ///
    /// # Errors
    /// [`Error::Overloaded`] if the lane is full, [`Error::Closed`] after [`close`](Self::close).
    pub async fn embed(&self, texts: Vec<String>, lane: Lane) -> Result<Vec<Vec<f32>>, Error> {
        let embeddings = self.compute(texts, Some(Keep::Beginning), lane).await?;
        Ok(embeddings
            .into_iter()
            .map(|Embedding { mut mean, .. }| {
                scale_to_unit(&mut mean);
                mean
            })
            .collect())
    }

    /// As [`embed`](Self::embed), for those who want to know more: the vectors before they are scaled, how many tokens
    /// were read, how long it took. Of a text that is too long, `keep` says which end is read; without it such a text is refused before the model runs.
    ///
    /// # Errors
    /// As [`embed`](Self::embed), and [`Error::TooLong`].
    pub async fn compute(
        &self,
        texts: Vec<String>,
        keep: Option<Keep>,
        lane: Lane,
    ) -> Result<Vec<Embedding>, Error> {
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        self.0.0.queue.push(texts, keep, lane)?.await.unwrap_or(Err(Error::Closed))
    }

    /// As [`embed`](Self::embed) in the query lane, for code that is not asynchronous.
    ///
    /// # Errors
    /// As [`embed`](Self::embed).
    pub fn embed_blocking(&self, texts: &[impl AsRef<str>]) -> Result<Vec<Vec<f32>>, Error> {
        let texts = texts.iter().map(|text| text.as_ref().to_owned()).collect();
        wait::block_on(self.embed(texts, Lane::Query))
    }

    /// All tokens of a text, special ones included, not truncated; positions are bytes. Runs on the calling thread, in
    /// time proportional to the text: up to 0.6 s for a megabyte.
    ///
    /// # Errors
    /// [`Error::Tokenizer`], which no text is known to cause.
    pub fn tokenize(&self, text: &str) -> Result<Vec<Token>, Error> {
        self.0.0.tokenizer.tokenize(text)
    }

    /// The number of tokens of a text, special ones included, not truncated. Runs on the calling thread.
    ///
    /// # Errors
    /// [`Error::Tokenizer`], which no text is known to cause.
    pub fn count_tokens(&self, text: &str) -> Result<usize, Error> {
        self.0.0.tokenizer.count(text)
    }

    /// Texts that wait in a lane, those being computed not counted.
    #[must_use]
    pub fn waiting(&self, lane: Lane) -> usize {
        self.0.0.queue.waiting(lane)
    }

    /// Ends all handles: those who wait get [`Error::Closed`], as does every later call. What is being computed ends
    /// unheard or in time.
    pub fn close(&self) {
        self.0.0.queue.close();
    }
}
