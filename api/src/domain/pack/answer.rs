//! What a pack answers.

use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::{ContextId, Degraded, Explanation, Plan, SearchTimings, SpaceInfo};

/// A stretch of the text, in characters (Unicode code points), the end excluded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct CharRange {
    /// The first character.
    #[schema(value_type = u32, minimum = 0)]
    pub start: usize,
    /// The character after the last one.
    #[schema(value_type = u32, minimum = 0)]
    pub end: usize,
}

/// A piece of the text, and where it comes from.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Citation {
    /// As it stands in the text, from 1.
    #[schema(value_type = u32, minimum = 1)]
    pub number: usize,
    /// The context that it is from.
    #[schema(value_type = Uuid)]
    pub context_id: ContextId,
    /// Its own name, if it has one.
    #[schema(required, max_length = 255)]
    pub key: Option<String>,
    /// Its kind.
    #[schema(max_length = 50)]
    pub context_type: String,
    /// The version that was read.
    #[schema(minimum = 1)]
    pub version: i64,
    /// The chunk that matched best.
    #[schema(minimum = 0)]
    pub chunk_no: i32,
    /// As in the search.
    pub score: f64,
    /// Tokens of the piece with its frame.
    #[schema(value_type = u32, minimum = 0)]
    pub tokens: usize,
    /// Where the context's own words stand in the text, as they are written there, with the `…` of a text that goes on.
    pub range: CharRange,
    /// Whether it is all of the context's text.
    pub is_whole: bool,
    /// Whether it was cut to fit: less than the chunk, or with `unit: context` less than the whole text.
    pub truncated: bool,
    /// With `explain` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Explanation, required = false, nullable = false)]
    pub explain: Option<Explanation>,
}

/// Why a hit is not in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DropReason {
    /// The budget has no room for it.
    Budget,
    /// The quota of its type is used up.
    Quota,
    /// It says the same as a piece that is there.
    Duplicate,
}

/// A hit that is not in the text.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Dropped {
    /// The context that was left out.
    #[schema(value_type = Uuid)]
    pub context_id: ContextId,
    /// Its own name, if it has one.
    #[schema(required, max_length = 255)]
    pub key: Option<String>,
    /// Its kind.
    #[schema(max_length = 50)]
    pub context_type: String,
    /// The version that was read.
    #[schema(minimum = 1)]
    pub version: i64,
    /// Which chunk of it was found, from 0.
    #[schema(minimum = 0)]
    pub chunk_no: i32,
    /// Its score in the search.
    pub score: f64,
    pub reason: DropReason,
    /// The number of the citation that says the same; null for other reasons.
    #[schema(value_type = Option<u32>, required, minimum = 1)]
    pub duplicate_of: Option<usize>,
}

/// A search, packed.
#[derive(Debug, Serialize, ToSchema)]
pub struct PackResponse {
    /// What to give to the model. Empty when nothing was found or nothing fits.
    pub text: String,
    /// Of the whole text; never more than the budget.
    #[schema(value_type = u32, minimum = 0)]
    pub tokens: usize,
    /// Its pieces, in order.
    pub citations: Vec<Citation>,
    /// The hits that are not in it, best first.
    pub dropped: Vec<Dropped>,
    /// As in a search, like all that follows.
    pub degraded: Vec<Degraded>,
    /// How the semantic leg was run; null when it was not.
    #[schema(required)]
    pub plan: Option<Plan>,
    /// Chunks within the filter that the semantic leg chose from; null when it was not run.
    #[schema(required)]
    pub candidates: Option<i64>,
    /// False when a cap, or a low effort, cut the search short, so that hits may be missing.
    pub complete: bool,
    /// The embedding space that answered; null when none did.
    #[schema(required)]
    pub space: Option<SpaceInfo>,
    /// The search and the packing together.
    pub took_ms: f64,
    /// With `explain` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = SearchTimings, required = false, nullable = false)]
    pub timings: Option<SearchTimings>,
}
