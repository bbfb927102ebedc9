//! What the service is about, parsed once at the edge. A value of these types is valid; nothing below re-validates.
//! Imports `error` and nothing else of ours.

mod actor;
mod answer;
mod api_key;
mod audit;
mod backup;
mod batch;
mod context;
mod erasure;
pub mod filter;
mod idempotency;
mod ids;
mod input;
mod json;
mod keyword;
mod language;
mod life;
pub mod limits;
mod names;
mod operation;
mod pack;
mod page;
mod parse;
mod patch;
mod precondition;
mod rate;
mod retention;
mod search;
mod space;
mod tenant;
mod trace;
mod transfer;
mod usage;
mod vector;
mod whole;

pub use actor::{Access, Actor, Principal};
pub use answer::{Answer, AnswerLimits, Freshness, MadeAnswer, Provenance, Question, QuestionKind};
pub use api_key::{ApiKey, ApiKeyHash, ApiKeyInfo, NewApiKey, Scope};
pub use audit::{Action, AuditEntry, AuditRequest};
pub use backup::{BackupReport, BackupStatus};
pub use batch::{BatchOperation, BatchResult, BatchResultKind};
pub use context::{Context, ContextVersion, EmbeddingStatus, ListRequest, Selection};
pub use erasure::{Erased, ErasureReceipt};
pub use filter::Filter;
pub use idempotency::{Fingerprint, IdempotencyKey, IdempotentRequest, KeptAnswer};
pub use ids::{ContextId, DEFAULT_TENANT, OperationId, SpaceId, TenantId, UserId};
pub use input::{ContextInput, NewContext};
pub use json::JsonDocument;
pub use keyword::{FULL_WEIGHT, KeywordQuery, idf, norm};
pub use language::Language;
pub use life::{Expiry, Validity, time_parameter};
pub use names::{ContextKey, ContextType};
pub use operation::{Operation, OperationKind, OperationStatus, OperationsRequest};
pub use pack::{
    Budget, CharRange, Citation, DropReason, Dropped, PackBody, PackFormat, PackInput, PackRequest,
    PackResponse, PackUnit, Quota, Tokenizer,
};
pub use page::{Cursor, Limit, Page};
pub use parse::{Members, ObjectOf, from_json};
pub use patch::ContextPatch;
pub use precondition::Precondition;
pub use rate::{Allowance, Limits, Rate, RateLimits, SearchLimits};
pub use retention::Retention;
pub use search::{
    Degraded, Effort, Explanation, FoundByLeg, Fusion, Hit, HitChunk, HitContext, Included, Mode, Plan,
    RRF_K, Ranking, Recency, SearchInput, SearchQuery, SearchRequest, SearchResponse, SearchScope,
    SearchTimings, Weights, rrf_score,
};
pub use space::{
    Backfill, BackfillChange, ComparedHit, ComparedQuery, Comparison, ComparisonRequest, EmbeddingSpace,
    Pace, Space, SpaceFailure, SpaceInfo, SpaceStatus, SpaceWork, Survey,
};
pub use tenant::{Tenant, TenantName};
pub use trace::TraceLink;
pub use transfer::{ExportLine, ImportCounts, ImportLine, ImportReport, Imported, Origin, derived_id};
pub use usage::{EmbeddingBacklog, Retried, Stored, Usage};
pub use vector::Vector;
pub use whole::{optional_whole, whole, whole_number};
