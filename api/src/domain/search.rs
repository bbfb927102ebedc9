//! What is searched for and what is answered.

use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;
use utoipa::ToSchema;

use super::{
    Context, ContextType, SpaceInfo, UserId, Vector,
    limits::{CONTEXT_TYPES_MAX, QUERY_BYTES_MAX, SEARCH_LIMIT_DEFAULT, SEARCH_LIMIT_MAX},
};
use crate::error::{Error, Result};

/// How to look: by meaning, by words, or both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Mode {
    /// Both legs, fused by reciprocal rank.
    #[default]
    Hybrid,
    /// Nearest embeddings.
    Semantic,
    /// Full text.
    Keyword,
}

/// What to look for.
#[derive(Clone, Debug)]
pub enum SearchQuery {
    Text(String),
    /// A vector of the active space, made by the caller.
    Vector(Vector),
}

/// A search.
#[derive(Clone, Debug)]
pub struct SearchRequest {
    pub query: SearchQuery,
    pub mode: Mode,
    pub user_id: Option<UserId>,
    /// Empty means every type.
    pub context_types: Vec<ContextType>,
    pub limit: u32,
}

impl SearchRequest {
    /// # Errors
    /// [`crate::error::Code::InvalidRequest`] or `InvalidVector` with the pointer to the field.
    pub fn new(
        query: Option<String>,
        vector: Option<Vec<f32>>,
        mode: Mode,
        user_id: Option<UserId>,
        context_types: Vec<String>,
        limit: Option<u32>,
    ) -> Result<Self> {
        let query = match (query, vector) {
            (Some(text), None) => SearchQuery::Text(parse_text(text)?),
            (None, Some(values)) if mode == Mode::Semantic => {
                SearchQuery::Vector(Vector::new(values).map_err(|error| error.at("/vector"))?)
            }
            (None, Some(_)) => {
                return Err(Error::invalid("/mode", "a search by `vector` has no words; use `semantic`"));
            }
            (Some(_), Some(_)) => {
                return Err(Error::invalid("/vector", "give either `query` or `vector`, not both"));
            }
            (None, None) => return Err(Error::invalid("/query", "give `query` or `vector`")),
        };
        if context_types.len() > CONTEXT_TYPES_MAX {
            return Err(Error::invalid("/context_types", format!("{CONTEXT_TYPES_MAX} types at most")));
        }
        let context_types = context_types
            .into_iter()
            .enumerate()
            .map(|(index, text)| {
                ContextType::new(text).map_err(|mut error| {
                    error.violations.iter_mut().for_each(|v| v.pointer = format!("/context_types/{index}"));
                    error
                })
            })
            .collect::<Result<_>>()?;
        match limit.unwrap_or(SEARCH_LIMIT_DEFAULT) {
            limit @ 1..=SEARCH_LIMIT_MAX => Ok(Self { query, mode, user_id, context_types, limit }),
            limit => Err(Error::invalid("/limit", format!("must be 1 to {SEARCH_LIMIT_MAX}, not {limit}"))),
        }
    }
}

fn parse_text(text: String) -> Result<String> {
    if text.trim().is_empty() {
        return Err(Error::invalid("/query", "must not be blank"));
    }
    if text.len() > QUERY_BYTES_MAX {
        return Err(Error::invalid("/query", format!("is {} bytes, {QUERY_BYTES_MAX} at most", text.len())));
    }
    if text.contains('\0') {
        return Err(Error::invalid("/query", "must not hold the character U+0000"));
    }
    Ok(text)
}

/// How the semantic leg was run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema, IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Plan {
    /// Every candidate was compared: the answer is the true one.
    Exact,
    /// The index walked the graph of neighbours: nearly always the true answer, much faster on large sets.
    Hnsw,
}

/// Why an answer is less than what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema, IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Degraded {
    /// The query could not be embedded in time; the keyword leg answered alone.
    EmbedderUnavailable,
    /// Nothing has been embedded yet, so there is no space to search.
    NoEmbeddingSpace,
    /// The configured model is not the one of the active space; their vectors are never mixed.
    EmbeddingModelMismatch,
}

/// The part of a context that matched best.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct HitChunk {
    #[schema(minimum = 0)]
    pub chunk_no: i32,
    pub text: String,
}

/// A context that was found.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Hit {
    pub context: Context,
    /// Semantic: the cosine, −1 to 1. Keyword: the rank, from 0. Hybrid: the fused reciprocal ranks. Compare scores
    /// within one answer only.
    pub score: f64,
    pub chunk: HitChunk,
}

/// What a search answers.
#[derive(Debug, Serialize, ToSchema)]
pub struct SearchResponse {
    /// Best first; each context once, with its best chunk.
    pub data: Vec<Hit>,
    /// How the semantic leg was run; null when it was not.
    #[schema(required)]
    pub plan: Option<Plan>,
    /// Chunks within the filter that the semantic leg chose from, counted up to a cap; null when it was not run.
    #[schema(required)]
    pub candidates: Option<i64>,
    /// False when a cap cut the search short, so that hits may be missing.
    pub complete: bool,
    /// Empty when the answer is what was asked for.
    pub degraded: Vec<Degraded>,
    #[schema(required)]
    pub space: Option<SpaceInfo>,
    pub took_ms: f64,
}

/// The constant of reciprocal rank fusion: Cormack, Clarke, Büttcher, SIGIR 2009, found 60 to work best.
const RRF_K: f64 = 60.0;

/// What a hit of `rank` (from 1) in one leg adds to its fused score.
pub fn rrf_score(rank: usize) -> f64 {
    1.0 / (RRF_K + rank as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(
        query: Option<&str>,
        vector: Option<Vec<f32>>,
        mode: Mode,
        limit: u32,
    ) -> Result<SearchRequest> {
        SearchRequest::new(query.map(str::to_owned), vector, mode, None, vec![], Some(limit))
    }

    #[test]
    fn a_search_has_either_words_or_a_vector() {
        assert!(request(Some("x"), None, Mode::Hybrid, 10).is_ok());
        assert!(request(None, Some(vec![1.0]), Mode::Semantic, 10).is_ok());
        assert!(request(None, Some(vec![1.0]), Mode::Hybrid, 10).is_err());
        assert!(request(Some("x"), Some(vec![1.0]), Mode::Semantic, 10).is_err());
        assert!(request(None, None, Mode::Hybrid, 10).is_err());
    }

    #[test]
    fn limits_hold_at_both_ends() {
        assert!(request(Some("x"), None, Mode::Hybrid, SEARCH_LIMIT_MAX).is_ok());
        for limit in [0, SEARCH_LIMIT_MAX + 1] {
            assert_eq!(
                request(Some("x"), None, Mode::Hybrid, limit).unwrap_err().violations[0].pointer,
                "/limit"
            );
        }
        assert!(request(Some(&"x".repeat(QUERY_BYTES_MAX)), None, Mode::Hybrid, 1).is_ok());
        assert!(request(Some(&"x".repeat(QUERY_BYTES_MAX + 1)), None, Mode::Hybrid, 1).is_err());
        assert!(request(Some(" \n"), None, Mode::Hybrid, 1).is_err());
    }

    #[test]
    fn a_better_rank_adds_more() {
        assert!(rrf_score(1) > rrf_score(2));
        assert!((rrf_score(1) - 1.0 / 61.0).abs() < f64::EPSILON);
    }
}
