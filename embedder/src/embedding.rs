//! What becomes of a text: its vector as the model gives it, and what that took.

use std::time::Duration;

/// Which end of a text is read when the text has more than [`TOKENS_MAX`](crate::TOKENS_MAX) tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Keep {
    /// The first tokens.
    #[default]
    Beginning,
    /// The last tokens.
    End,
}

/// A text's vector and what it took.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Embedding {
    /// The mean of the tokens' vectors, not scaled: [`DIMENSIONS`](crate::DIMENSIONS) values.
    pub mean: Vec<f32>,
    /// Tokens that were read, special ones included.
    pub tokens: usize,
    /// Whether that was all of the text.
    pub is_whole: bool,
    /// In the queue.
    pub waiting: Duration,
    /// From text to tokens.
    pub tokenizing: Duration,
    /// In the model, together with the texts that went through it at the same time.
    pub computing: Duration,
}

/// Gives a vector the length one, or leaves it if it has none.
pub fn scale_to_unit(vector: &mut [f32]) {
    let norm = vector.iter().map(|value| value * value).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
    for value in vector {
        *value /= norm;
    }
}
