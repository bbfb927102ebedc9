//! A reranker behind text-embeddings-inference's `POST /rerank`: a model that reads a query and a text together, and says how
//! well the text answers. Texts are sent as strings, and `truncate` is always said.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use reqwest::Client;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::{EmbedError, tei::Info, wire};
use crate::error::Result;

/// Bytes of one text that are sent: more than such models read.
const TEXT_BYTES_MAX: usize = 8 * 1024;

/// Of the time that a search has for all of it.
const INFO_DEADLINE: Duration = Duration::from_secs(1);

/// How to reach a reranker.
#[derive(Clone, Debug)]
pub struct RerankOptions {
    pub url: String,
    pub api_key: Option<SecretString>,
}

/// A way to a model that compares a query with texts.
pub struct Reranker {
    client: Client,
    options: RerankOptions,
    /// Texts in one call, as the server says; 0 before it was asked.
    batch_texts_max: AtomicUsize,
}

#[derive(Serialize)]
struct RerankBody<'a> {
    query: &'a str,
    texts: &'a [&'a str],
    truncate: bool,
    raw_scores: bool,
}

#[derive(Deserialize)]
struct Rank {
    index: usize,
    score: f64,
}

impl Reranker {
    /// Reaches for nothing yet: the server may come up later.
    ///
    /// # Errors
    /// When the HTTP client cannot be made.
    pub fn new(options: RerankOptions) -> Result<Self> {
        let url = options.url.trim_end_matches('/').to_owned();
        let options = RerankOptions { url, ..options };
        Ok(Self { client: wire::client()?, options, batch_texts_max: AtomicUsize::new(0) })
    }

    /// One score per text, in order, from 0 to 1, added to `scores` as they come. Takes as many calls, one after the other, as
    /// the server wants.
    ///
    /// # Errors
    /// [`EmbedError`]: one of the calls failed.
    pub async fn rerank(&self, query: &str, texts: &[&str], scores: &mut Vec<f64>) -> Result<(), EmbedError> {
        let texts: Vec<&str> =
            texts.iter().map(|text| &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]).collect();
        for batch in texts.chunks(self.batch_texts_max().await) {
            match self.call(query, batch).await {
                Ok(ranks) => scores.extend(in_order(&ranks, batch.len())?),
                Err(error) => {
                    // It may have been started anew, and take fewer now.
                    self.batch_texts_max.store(0, Ordering::Relaxed);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    async fn call(&self, query: &str, texts: &[&str]) -> Result<Vec<Rank>, EmbedError> {
        let body = RerankBody { query, texts, truncate: true, raw_scores: false };
        let request = self.client.post(format!("{}/rerank", self.options.url)).json(&body);
        wire::send(wire::authorize(request, self.options.api_key.as_ref())).await
    }

    /// A batch that is larger than the server takes is always refused. Asked once, and again after a failure; a server that does
    /// not tell takes the usual.
    async fn batch_texts_max(&self) -> usize {
        let known = self.batch_texts_max.load(Ordering::Relaxed);
        if known > 0 {
            return known;
        }
        let request = self.client.get(format!("{}/info", self.options.url)).timeout(INFO_DEADLINE);
        let info = wire::send::<Info>(wire::authorize(request, self.options.api_key.as_ref())).await;
        let texts = info.map_or(super::tei::BATCH_TEXTS_MAX, |info| info.batch_texts_max());
        self.batch_texts_max.store(texts, Ordering::Relaxed);
        texts
    }
}

/// The scores in the order of the texts: the server sends the best first.
fn in_order(ranks: &[Rank], texts: usize) -> Result<Vec<f64>, EmbedError> {
    let by_index: HashMap<usize, f64> = ranks.iter().map(|rank| (rank.index, rank.score)).collect();
    let score = |index| by_index.get(&index).copied().filter(|score| score.is_finite());
    let scores: Option<Vec<f64>> = (0..texts).map(score).collect();
    scores.filter(|_| ranks.len() == texts).ok_or_else(|| {
        EmbedError::unusable(format!(
            "the reranker sent {} scores that are not those of {texts} texts",
            ranks.len()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_reranker_sends_is_not_trusted() {
        let ranks = |pairs: &[(usize, f64)]| {
            pairs.iter().map(|&(index, score)| Rank { index, score }).collect::<Vec<_>>()
        };
        assert_eq!(in_order(&ranks(&[(1, 0.9), (0, 0.1)]), 2).unwrap(), [0.1, 0.9]);
        for bad in [
            &[(0, 0.1)][..],
            &[(0, 0.1), (0, 0.2)],
            &[(0, 0.1), (2, 0.2)],
            &[(0, 0.1), (1, f64::NAN)],
            &[(0, 0.1), (1, 0.2), (1, 0.2)],
        ] {
            assert!(matches!(in_order(&ranks(bad), 2), Err(EmbedError::Unusable { .. })), "{bad:?}");
        }
    }
}
