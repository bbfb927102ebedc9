//! A context: a piece of JSON that belongs to a user of a tenant, and the text by which it is found.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use strum::{EnumString, IntoStaticStr};
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::{ContextId, ContextType, Cursor, Filter, Language, Limit, UserId};
use crate::error::{Error, Result};

/// Whether a context can be found by meaning yet. By words it can be found at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema, EnumString, IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum EmbeddingStatus {
    /// Waiting for its embedding.
    Pending,
    /// Embedded in the active space, or without any text to embed.
    Ready,
    /// The embedding service refused the text; `embedding_error` says why.
    Failed,
}

impl EmbeddingStatus {
    /// # Errors
    /// When the database holds a status that this version does not know.
    pub fn parse(text: &str) -> Result<Self> {
        Self::from_str(text).map_err(|_| Error::internal(format!("unknown embedding status `{text}`")))
    }
}

/// A stored context.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Context {
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
    /// Any JSON, exactly as precise as it was sent.
    #[schema(value_type = Value)]
    pub content: Box<RawValue>,
    /// What the caller says about it.
    #[schema(value_type = Object)]
    pub metadata: Box<RawValue>,
    /// What search reads.
    pub text: String,
    /// Whether the caller gave it; otherwise it is extracted anew whenever `content` changes.
    #[serde(skip)]
    pub text_given: bool,
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
    /// Each read moves `expires_at` to so many seconds from then; null when it stays.
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
    /// False in answers about a deleted one.
    pub is_active: bool,
    /// Counts the writes, from 1.
    #[schema(minimum = 1)]
    pub version: i64,
    /// In an answer about the past: as it is now, or `ready` for a version that was superseded.
    pub embedding_status: EmbeddingStatus,
    /// Why the embedding failed, in the embedding service's words.
    #[schema(required)]
    pub embedding_error: Option<String>,
    /// Whether the read that this came of should put its end off.
    #[serde(skip)]
    pub extend: bool,
}

/// A version that was superseded.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ContextVersion {
    /// The context as it was.
    pub context: Context,
    /// When the next version took its place.
    #[serde(with = "time::serde::rfc3339")]
    pub superseded_at: OffsetDateTime,
}

impl AsRef<Context> for Context {
    fn as_ref(&self) -> &Context {
        self
    }
}

impl AsRef<Context> for ContextVersion {
    fn as_ref(&self) -> &Context {
        &self.context
    }
}

/// What to list or to count.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    pub user_id: Option<UserId>,
    pub context_type: Option<ContextType>,
    pub filter: Option<Filter>,
    /// As it was then; now when left out.
    pub as_of: Option<OffsetDateTime>,
    /// Only what holds then.
    pub valid_at: Option<OffsetDateTime>,
}

/// One page of what is selected, newest first.
#[derive(Clone, Debug)]
pub struct ListRequest {
    pub selection: Selection,
    pub limit: Limit,
    pub cursor: Option<Cursor>,
}
