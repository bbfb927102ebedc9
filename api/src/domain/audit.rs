//! The audit log: who did what to which thing, when.

use serde::Serialize;
use strum::IntoStaticStr;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Cursor;
use super::Limit;

/// What was done, and to what kind of thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr)]
pub enum Action {
    #[strum(serialize = "context.create")]
    CreateContext,
    #[strum(serialize = "context.update")]
    UpdateContext,
    #[strum(serialize = "context.delete")]
    DeleteContext,
    #[strum(serialize = "context.purge")]
    PurgeContext,
    #[strum(serialize = "context.restore")]
    RestoreContext,
    #[strum(serialize = "user.erase")]
    EraseUser,
    #[strum(serialize = "operation.cancel")]
    CancelOperation,
    #[strum(serialize = "operation.retry")]
    RetryOperation,
    #[strum(serialize = "api_key.create")]
    CreateApiKey,
    #[strum(serialize = "api_key.rotate")]
    RotateApiKey,
    #[strum(serialize = "api_key.revoke")]
    RevokeApiKey,
    #[strum(serialize = "tenant.create")]
    CreateTenant,
    #[strum(serialize = "embedding_space.create")]
    CreateEmbeddingSpace,
    #[strum(serialize = "embedding_space.change")]
    ChangeEmbeddingSpace,
    #[strum(serialize = "embedding_space.activate")]
    ActivateEmbeddingSpace,
    #[strum(serialize = "embedding_space.delete")]
    DeleteEmbeddingSpace,
}

impl Action {
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// One thing that was done.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AuditEntry {
    /// Its id.
    pub id: Uuid,
    /// When it was done.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// The key that asked for it; null for an operator's command and for the service itself.
    #[schema(required)]
    pub api_key_id: Option<Uuid>,
    /// The `X-Request-ID` of the answer.
    #[schema(required)]
    pub request_id: Option<String>,
    /// `context.create`, `context.update`, `context.delete`, `context.purge`, `context.restore`, `user.erase`,
    /// `operation.cancel`, `operation.retry`, `api_key.create`, `api_key.rotate`, `api_key.revoke`, `tenant.create`,
    /// `embedding_space.create`, `embedding_space.change`, `embedding_space.activate`, `embedding_space.delete`; more may come.
    pub action: String,
    /// The id of the context, user, operation, key or tenant; an embedding space's number as a UUID.
    pub target_id: Uuid,
    /// The version of the context that came of it.
    #[schema(required)]
    pub target_version: Option<i64>,
}

/// One page of the log, newest first.
#[derive(Clone, Debug)]
pub struct AuditRequest {
    pub target_id: Option<Uuid>,
    pub limit: Limit,
    pub cursor: Option<Cursor>,
}
