//! What the service is about, parsed once at the edge. A value of these types is valid; nothing below re-validates.
//! Imports `error` and nothing else of ours.

mod api_key;
mod context;
mod ids;
mod json;
pub mod limits;
mod page;
mod search;
mod vector;

pub use api_key::{ApiKey, ApiKeyHash, ApiKeyInfo, NewApiKey, Principal, Scope};
pub use context::{Context, ContextKey, ContextType, EmbeddingStatus, Expiry, ListRequest, NewContext};
pub use ids::{ContextId, DEFAULT_TENANT, SpaceId, TenantId, UserId};
pub use json::JsonDocument;
pub use page::{Cursor, Limit, Page};
pub use search::{
    Degraded, Hit, HitChunk, Mode, Plan, SearchQuery, SearchRequest, SearchResponse, SpaceInfo, rrf_score,
};
pub use vector::Vector;
