//! Identifiers as types of their own, so that a user's id is never taken for a tenant's.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl From<$name> for Uuid {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

uuid_id! {
    /// Who owns rows. Every key, row, cache entry and query carries it.
    TenantId
}
uuid_id! {
    /// An end user of the tenant's application; the tenant chooses it.
    UserId
}
uuid_id! {
    /// A context; uuid v7 (RFC 9562), so that ids sort by creation time.
    ContextId
}

uuid_id! {
    /// Long work; uuid v7.
    OperationId
}

impl ContextId {
    /// A new id, greater than those made before it on this machine.
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }
}

/// The tenant that exists from the first migration on; the embedded default and `BOOTSTRAP_API_KEY` use it.
pub const DEFAULT_TENANT: TenantId = TenantId(Uuid::from_u128(0x0000_0000_0000_7000_8000_0000_0000_0001));

/// An embedding space: one model of one provider, with one dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SpaceId(pub i32);
