//! What erasing a user removed.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::UserId;

/// How many rows were removed of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Erased {
    pub contexts: i64,
    /// Superseded versions.
    pub versions: i64,
    /// Of present texts and of past ones.
    pub chunks: i64,
    /// Likewise.
    pub embeddings: i64,
    /// Kept answers to requests.
    pub idempotency_keys: i64,
    /// Operations that concerned the user; not the one that erases.
    pub operations: i64,
    /// Keys that were bound to the user and valid.
    pub api_keys_revoked: i64,
}

impl Erased {
    pub fn add(&mut self, more: Self) {
        self.contexts += more.contexts;
        self.versions += more.versions;
        self.chunks += more.chunks;
        self.embeddings += more.embeddings;
        self.idempotency_keys += more.idempotency_keys;
        self.operations += more.operations;
        self.api_keys_revoked += more.api_keys_revoked;
    }
}

/// Proof that a user was erased.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ErasureReceipt {
    #[schema(value_type = Uuid)]
    pub user_id: UserId,
    pub erased: Erased,
    /// What is left, where, and for how long.
    pub remains: &'static str,
}

impl ErasureReceipt {
    /// What no deletion in the database reaches, in words for people.
    pub const REMAINS: &'static str = "Backups made before the erasure hold the data until they age out by their retention. \
        The audit log keeps the ids of what was erased, no content. Cached embeddings of search queries are not linked to \
        users and expire within a day.";
}
