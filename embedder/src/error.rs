//! What can go wrong. It exists so that a caller can tell "try later" from "give up" without reading messages.

/// Why no embedding came back.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The lane has no room for these texts. Nothing was queued; the same call can succeed later.
    #[error("the embedding queue is full: {waiting} texts are waiting, at most {max} may")]
    Overloaded {
        /// Texts waiting in this lane now.
        waiting: usize,
        /// [`Options::waiting_texts_max`](crate::Options::waiting_texts_max).
        max: usize,
    },
    /// [`Embedder::close`](crate::Embedder::close) was called; it will not get better.
    #[error("the embedder is closed")]
    Closed,
    /// A text has more than [`TOKENS_MAX`](crate::TOKENS_MAX) tokens, and nothing of it is to be left out. None of the texts is
    /// computed further.
    #[error("a text has more than the {} tokens that the model reads", crate::TOKENS_MAX)]
    TooLong,
    /// The tokenizer data that is compiled in could not be read, or refused a text.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// The model that is compiled in could not be loaded or run: a defect, or no memory.
    #[error("model: {0}")]
    Model(String),
    /// A worker thread could not be started.
    #[error("cannot start a worker thread: {0}")]
    Thread(#[source] std::io::Error),
}
