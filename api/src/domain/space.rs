//! Embedding spaces: all that one model of one provider has embedded. Search reads the active one; others are filled beside
//! it, so that a model can be changed while everything goes on.

use serde::Serialize;
use strum::{EnumString, IntoStaticStr};
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::{
    ContextId, TenantId,
    limits::{
        BACKFILL_PACE_MAX, COMPARED_QUERIES_MAX, QUERY_BYTES_MAX, SEARCH_LIMIT_DEFAULT, SEARCH_LIMIT_MAX,
    },
};
use crate::error::{Error, Result};

/// Which embedding space.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct SpaceInfo {
    /// Its number.
    pub id: i32,
    /// Which kind of provider embeds for it.
    pub provider: String,
    /// The model.
    pub model: String,
    /// Numbers in a vector.
    pub dims: i32,
    /// Tokens of one text that the model reads; null when its provider does not tell.
    #[schema(required)]
    pub tokens_max: Option<i32>,
}

/// What an embedding space is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema, EnumString, IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum SpaceStatus {
    /// It is filled, and written to; nobody reads it yet.
    Building,
    /// Search reads it.
    Active,
    /// Search did read it; it is written to, so that it can be activated again.
    Standby,
    /// It was deleted, and is dropped in a moment.
    Retired,
}

/// A space as the database has it.
#[derive(Clone, Debug)]
pub struct Space {
    pub info: SpaceInfo,
    pub status: SpaceStatus,
    pub created_at: OffsetDateTime,
    pub activated_at: Option<OffsetDateTime>,
    /// Since when it has had everything that was there when it was made.
    pub complete_at: Option<OffsetDateTime>,
    pub is_paused: bool,
    pub contexts_per_second: Option<i32>,
    /// Chunks of all tenants that are embedded in it, as far as the database knows without counting.
    pub chunks_estimate: Option<i64>,
    pub survey: Survey,
}

/// How far the look at all contexts is that finds what a space lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Survey {
    /// The tenant whose turn it is, and the last of its contexts that was looked at.
    pub tenant: Option<TenantId>,
    pub context: Option<ContextId>,
    pub contexts_seen: i64,
    pub is_done: bool,
    /// Which survey of the space it is.
    pub number: i32,
}

/// What a space lacks, of all tenants together.
#[derive(Clone, Copy, Debug, Default)]
pub struct SpaceWork {
    pub backfill: i64,
    pub fresh: i64,
    pub oldest_fresh_seconds: f64,
    pub failed: i64,
    /// All contexts there are, as far as the database knows without counting.
    pub contexts_estimate: Option<i64>,
}

/// How the filling of a space goes.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Backfill {
    /// Nothing but what is written now is embedded.
    pub is_paused: bool,
    /// Contexts a second at most, all workers together; null for as fast as they can. What is written now comes on top.
    #[schema(required, minimum = 1)]
    pub contexts_per_second: Option<i32>,
    /// Contexts that were looked at so far, to find those that lack their embedding.
    #[schema(minimum = 0)]
    pub contexts_seen: i64,
    /// How many there are: once all are looked at that number, before it an estimate; null when there is none yet.
    #[schema(required, minimum = 0)]
    pub contexts_total: Option<i64>,
    /// Contexts from before the space was made, found so far, that still wait.
    #[schema(minimum = 0)]
    pub pending: i64,
    /// Contexts written since that wait.
    #[schema(minimum = 0)]
    pub pending_fresh: i64,
    /// For how many seconds the oldest of those has waited; 0 when none does.
    #[schema(minimum = 0)]
    pub oldest_fresh_pending_seconds: f64,
    /// Contexts that the model cannot do anything with.
    #[schema(minimum = 0)]
    pub failed: i64,
    /// Since when the space has had everything that was there when it was made, but for what failed; null before.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(required)]
    pub complete_at: Option<OffsetDateTime>,
}

/// An embedding space, and how far it is.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct EmbeddingSpace {
    #[serde(flatten)]
    #[schema(inline)]
    pub info: SpaceInfo,
    pub status: SpaceStatus,
    /// Whether a provider that the service is configured for answers with this model now.
    pub is_served: bool,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(required)]
    pub activated_at: Option<OffsetDateTime>,
    /// Of the active space it tells what is checked after it became that; see `GET /v1/usage` for what waits there.
    pub backfill: Backfill,
}

/// What becomes of the pace of a backfill.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pace {
    #[default]
    AsBefore,
    Unlimited,
    /// Contexts a second.
    AtMost(i32),
}

/// What is changed of a backfill.
#[derive(Clone, Copy, Debug, Default)]
pub struct BackfillChange {
    /// None leaves it as it is.
    pub is_paused: Option<bool>,
    pub pace: Pace,
}

impl BackfillChange {
    /// # Errors
    /// [`crate::error::Code::InvalidRequest`] when the pace is none.
    pub fn new(is_paused: Option<bool>, pace: Pace) -> Result<Self> {
        if matches!(pace, Pace::AtMost(contexts) if !(1..=BACKFILL_PACE_MAX).contains(&contexts)) {
            let detail = format!("must be 1 to {BACKFILL_PACE_MAX}, or null for as fast as possible");
            return Err(Error::invalid("/contexts_per_second", detail));
        }
        Ok(Self { is_paused, pace })
    }
}

/// A context that a space's model cannot do anything with.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct SpaceFailure {
    /// The context.
    #[schema(value_type = Uuid)]
    pub context_id: ContextId,
    /// The provider's reason.
    pub reason: String,
}

/// What to compare two spaces by.
#[derive(Clone, Debug)]
pub struct ComparisonRequest {
    /// None for the beginnings of the newest contexts.
    pub queries: Vec<String>,
    pub limit: u32,
}

impl ComparisonRequest {
    /// # Errors
    /// [`crate::error::Code::InvalidRequest`], with a pointer to what is wrong.
    pub fn new(queries: Vec<String>, limit: Option<u32>) -> Result<Self> {
        if queries.len() > COMPARED_QUERIES_MAX {
            return Err(Error::invalid("/queries", format!("must be at most {COMPARED_QUERIES_MAX}")));
        }
        for (position, query) in queries.iter().enumerate() {
            let wrong = if query.trim().is_empty() {
                "must not be blank".to_owned()
            } else if query.len() > QUERY_BYTES_MAX {
                format!("must be at most {QUERY_BYTES_MAX} bytes long")
            } else {
                continue;
            };
            return Err(Error::invalid(format!("/queries/{position}"), wrong));
        }
        let limit = limit.unwrap_or(SEARCH_LIMIT_DEFAULT);
        if !(1..=SEARCH_LIMIT_MAX).contains(&limit) {
            return Err(Error::invalid("/limit", format!("must be 1 to {SEARCH_LIMIT_MAX}")));
        }
        Ok(Self { queries, limit })
    }
}

/// A hit of one of two spaces.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ComparedHit {
    /// The context.
    #[schema(value_type = Uuid)]
    pub context_id: ContextId,
    /// The cosine; of different models not comparable.
    pub score: f64,
    /// The beginning of the chunk that was found.
    pub text: String,
}

/// One query in two spaces.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ComparedQuery {
    /// What was searched for.
    pub query: String,
    /// The share of hits that are in both lists, of the longer one.
    #[schema(minimum = 0, maximum = 1)]
    pub overlap: f64,
    /// Of the active space, best first.
    pub active: Vec<ComparedHit>,
    /// Of the other space, best first.
    pub space: Vec<ComparedHit>,
}

/// Two spaces side by side.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Comparison {
    pub active: SpaceInfo,
    pub space: SpaceInfo,
    /// Hits that were asked for in each.
    pub limit: u32,
    /// The mean over the queries; null when there was none.
    #[schema(required, minimum = 0, maximum = 1)]
    pub overlap: Option<f64>,
    /// Each query with both answers.
    pub queries: Vec<ComparedQuery>,
}
