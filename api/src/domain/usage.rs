//! What a tenant, or one of its users, has stored, and how far its embedding is.

use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::SpaceInfo;

/// How much is stored, and how much of it still waits.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Usage {
    /// Null when there is too much to be counted in time.
    #[schema(required)]
    pub stored: Option<Stored>,
    pub embedding: EmbeddingBacklog,
}

/// How much is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Stored {
    /// Those that can be read; neither deleted nor expired ones.
    #[schema(minimum = 0)]
    pub contexts: i64,
    /// Deleted ones that can still be restored.
    #[schema(minimum = 0)]
    pub deleted_contexts: i64,
    /// Superseded versions.
    #[schema(minimum = 0)]
    pub versions: i64,
    /// Pieces of text, which search finds.
    #[schema(minimum = 0)]
    pub chunks: i64,
    /// Of the chunks, in all embedding spaces.
    #[schema(minimum = 0)]
    pub embeddings: i64,
    /// Of `content` and `metadata` as JSON and of `text`, in UTF-8: of contexts, deleted ones that can be restored included, and
    /// of superseded versions. Chunks, embeddings and indexes are not counted.
    #[schema(minimum = 0)]
    pub bytes: i64,
    /// Writes that store something are refused when the tenant has so many bytes. Null where there is no such limit, and with a
    /// key that is bound to a user.
    #[schema(required, minimum = 1)]
    pub bytes_max: Option<i64>,
}

/// How many failed embeddings are tried again.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct Retried {
    /// How many wait again.
    #[schema(minimum = 0, maximum = 10_000)]
    pub retried: u64,
    /// Whether there may be more that match.
    pub has_more: bool,
}

/// How far the embedding is.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct EmbeddingBacklog {
    /// The space that search reads; null before anything was ever embedded.
    #[schema(required)]
    pub space: Option<SpaceInfo>,
    /// Contexts that wait for their embedding.
    #[schema(minimum = 0)]
    pub pending: i64,
    /// Since when the one waits that waits longest.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(required)]
    pub oldest_pending_since: Option<OffsetDateTime>,
    /// For how many seconds it has waited; 0 when nothing waits.
    #[schema(minimum = 0)]
    pub oldest_pending_seconds: f64,
    /// Contexts whose text the provider refused. A list with the filter `{"embedding_status": "failed"}` shows them.
    #[schema(minimum = 0)]
    pub failed: i64,
}
