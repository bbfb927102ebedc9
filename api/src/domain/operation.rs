//! Long work: what it is, how far it is, what came of it.

use serde::Serialize;
use serde_json::value::RawValue;
use strum::{EnumString, IntoStaticStr};
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::{Cursor, Limit, OperationId, UserId};

/// What kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema, EnumString, IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum OperationKind {
    /// Contexts are read from a request's body.
    Import,
    /// Everything of a user is deleted.
    Erase,
}

impl OperationKind {
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// How far it is. The last three are final.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema, EnumString, IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum OperationStatus {
    /// Waits for a worker.
    Queued,
    Running,
    Succeeded,
    /// `error` says why; see retry.
    Failed,
    Cancelled,
}

impl OperationStatus {
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Whether nothing will happen any more, unless it is retried.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

/// Long work.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Operation {
    /// Its id.
    #[schema(value_type = Uuid)]
    pub id: OperationId,
    pub kind: OperationKind,
    pub status: OperationStatus,
    /// The user whom it concerns, when it concerns one.
    #[schema(required, value_type = Option<Uuid>)]
    pub user_id: Option<UserId>,
    /// Counts of what was done so far.
    #[schema(value_type = Object)]
    pub progress: Box<RawValue>,
    /// What came of it: the receipt of an erasure, the report of an import.
    #[schema(required, value_type = Option<Object>)]
    pub result: Option<Box<RawValue>>,
    /// Why it failed.
    #[schema(required)]
    pub error: Option<String>,
    /// Whether it was asked to stop.
    pub cancel_requested: bool,
    /// How often it was begun.
    pub attempts: i32,
    /// When it was asked for.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When something about it changed last.
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
    /// When it ended; null while it has not.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(required)]
    pub finished_at: Option<OffsetDateTime>,
}

/// One page of operations, newest first.
#[derive(Clone, Debug)]
pub struct OperationsRequest {
    pub limit: Limit,
    pub cursor: Option<Cursor>,
}
