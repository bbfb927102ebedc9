//! What the crate promises, checked on the real model. One binary, so that the weights are linked once.
#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

mod calls;
mod tokens;
mod vectors;

use std::num::NonZeroUsize;
use std::pin::pin;
use std::sync::LazyLock;

use embedder::{Embedder, Embedding, Keep, Lane, Options};

/// Shared by all tests that do not fill or close the queue.
static EMBEDDER: LazyLock<Embedder> = LazyLock::new(|| start(2, 100_000));

fn start(threads: usize, waiting_texts_max: usize) -> Embedder {
    let threads = NonZeroUsize::new(threads).expect("not zero");
    Embedder::new(Options { threads, waiting_texts_max }).expect("starts")
}

fn compute(text: &str, keep: Keep) -> Embedding {
    compute_all(vec![text.to_owned()], Some(keep)).remove(0)
}

fn compute_all(texts: Vec<String>, keep: Option<Keep>) -> Vec<Embedding> {
    calls::wait(pin!(EMBEDDER.compute(texts, keep, Lane::Query))).expect("embeddings")
}

/// The 200 texts of the reference, one in each line.
fn sentences() -> Vec<String> {
    let sentences: Vec<String> = include_str!("../data/sentences.txt").lines().map(str::to_owned).collect();
    assert_eq!(sentences.len(), 200);
    sentences
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}
