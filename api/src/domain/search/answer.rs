//! What a search answers.

use serde::Serialize;
use serde_json::value::RawValue;
use strum::IntoStaticStr;
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::Included;
use crate::domain::{Context, ContextId, EmbeddingStatus, Language, SpaceInfo, UserId};

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
    /// Some of what was there at `as_of` was never embedded in the active space, so only its words were looked at.
    HistoryNotEmbedded,
    /// The hits could not be reranked in time; they stand in the order of the search.
    RerankerUnavailable,
}

/// The part of a context that matched best.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct HitChunk {
    /// Which chunk of the text it is, from 0.
    #[schema(minimum = 0)]
    pub chunk_no: i32,
    /// The chunk.
    pub text: String,
}

/// A context that was found, with as much of it as was asked for.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct HitContext {
    /// Its id.
    #[schema(value_type = Uuid)]
    pub id: ContextId,
    /// The end user that it belongs to.
    #[schema(value_type = Uuid)]
    pub user_id: UserId,
    /// Its kind.
    #[schema(max_length = 50)]
    pub context_type: String,
    /// The caller's own name for it, unique per user.
    #[schema(required, max_length = 255)]
    pub key: Option<String>,
    /// Any JSON. Not there when `include` does not name it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Value, required = false)]
    pub content: Option<Box<RawValue>>,
    /// Not there when `include` does not name it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Object, required = false, nullable = false)]
    pub metadata: Option<Box<RawValue>>,
    /// What search reads. Not there when `include` does not name it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false, nullable = false)]
    pub text: Option<String>,
    pub language: Language,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When this version was written.
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
    /// From when on it is not visible any more; null for never.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(required)]
    pub expires_at: Option<OffsetDateTime>,
    /// How long it lives on after it was read; null when reading does not matter.
    #[schema(required)]
    pub sliding_ttl_seconds: Option<i64>,
    /// From when on what it says holds; null for ever since.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(required)]
    pub valid_from: Option<OffsetDateTime>,
    /// Until when it holds, this moment excluded; null for ever after.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(required)]
    pub valid_to: Option<OffsetDateTime>,
    /// Whether it is visible.
    pub is_active: bool,
    /// Raised by each change.
    #[schema(minimum = 1)]
    pub version: i64,
    pub embedding_status: EmbeddingStatus,
    /// Why its text could not be embedded.
    #[schema(required)]
    pub embedding_error: Option<String>,
}

impl HitContext {
    pub fn new(context: Context, include: Included) -> Self {
        Self {
            id: context.id,
            user_id: context.user_id,
            context_type: context.context_type,
            key: context.key,
            content: include.content.then_some(context.content),
            metadata: include.metadata.then_some(context.metadata),
            text: include.text.then_some(context.text),
            language: context.language,
            created_at: context.created_at,
            updated_at: context.updated_at,
            expires_at: context.expires_at,
            sliding_ttl_seconds: context.sliding_ttl_seconds,
            valid_from: context.valid_from,
            valid_to: context.valid_to,
            is_active: context.is_active,
            version: context.version,
            embedding_status: context.embedding_status,
            embedding_error: context.embedding_error,
        }
    }
}

/// The place of a hit in one leg.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, ToSchema)]
pub struct FoundByLeg {
    /// From 1.
    #[schema(value_type = u32, minimum = 1)]
    pub rank: usize,
    /// Semantic: the cosine. Keyword: as BM25.
    pub score: f64,
}

/// How a hit got its score.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct Explanation {
    /// Null when the leg did not find it, or was not run.
    #[schema(required)]
    pub semantic: Option<FoundByLeg>,
    /// Null when the leg did not find it, or was not run.
    #[schema(required)]
    pub keyword: Option<FoundByLeg>,
    /// What the legs gave together, before what follows.
    pub fused: f64,
    /// What its age left of that, as a factor; null when recency was not asked for.
    #[schema(required)]
    pub recency: Option<f64>,
    /// How like it is to the most similar hit before it, −1 to 1; null when diversity was not asked for.
    #[schema(required)]
    pub similarity: Option<f64>,
}

/// A context that was found.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Hit {
    pub context: HitContext,
    /// Semantic: the cosine, −1 to 1. Keyword: as BM25, from 0. Hybrid: the weighted mean of the
    /// cosine and of the share that the keyword score has of the most that a text could get; with `fusion: rank` the fused
    /// reciprocal ranks, from 0 to 1, which is to be first in both. Compare scores within one answer.
    pub score: f64,
    pub chunk: HitChunk,
    /// With `explain` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Explanation, required = false, nullable = false)]
    pub explain: Option<Explanation>,
}

/// How long each stage took, in milliseconds. The legs run side by side.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
pub struct SearchTimings {
    /// Getting the embedding of the query.
    pub embed_ms: f64,
    /// The semantic leg.
    pub semantic_ms: f64,
    /// The keyword leg.
    pub keyword_ms: f64,
    /// Fusing, weighing, choosing.
    pub rank_ms: f64,
    /// Reading the contexts that are answered.
    pub load_ms: f64,
    /// Having them reranked.
    pub rerank_ms: f64,
}

/// What a search answers.
#[derive(Debug, Serialize, ToSchema)]
pub struct SearchResponse {
    /// Best first; each context once, with its best chunk.
    pub data: Vec<Hit>,
    /// How the semantic leg was run; null when it was not.
    #[schema(required)]
    pub plan: Option<Plan>,
    /// Chunks within the filter that the semantic leg chose from; of `hnsw` only that there are more than a search compares
    /// one by one. Null when it was not run.
    #[schema(required)]
    pub candidates: Option<i64>,
    /// False when a cap, or a low effort, cut the search short, so that hits may be missing.
    pub complete: bool,
    /// Empty when the answer is what was asked for.
    pub degraded: Vec<Degraded>,
    /// The embedding space that answered; null when none did.
    #[schema(required)]
    pub space: Option<SpaceInfo>,
    /// How long it took, in milliseconds.
    pub took_ms: f64,
    /// With `explain` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = SearchTimings, required = false, nullable = false)]
    pub timings: Option<SearchTimings>,
}

impl SearchResponse {
    /// Whether it stays the same while nothing changes. What is missing now may be back, and what reads let live on has to be
    /// read.
    pub fn is_lasting(&self) -> bool {
        self.degraded.is_empty() && self.data.iter().all(|hit| hit.context.sliding_ttl_seconds.is_none())
    }
}
