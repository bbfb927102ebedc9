//! Tenants: who owns everything else.

use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::{TenantId, limits::TENANT_NAME_CHARS_MAX, names::bounded_name};
use crate::error::Result;

/// What operators call a tenant; unique.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantName(String);

impl TenantName {
    /// # Errors
    /// [`crate::error::Code::InvalidRequest`] at `/name`.
    pub fn new(text: &str) -> Result<Self> {
        bounded_name("/name", text.trim().to_owned(), TENANT_NAME_CHARS_MAX).map(Self)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A tenant.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Tenant {
    /// Its id.
    #[schema(value_type = Uuid)]
    pub id: TenantId,
    /// Its name, which is unique.
    #[schema(max_length = 100)]
    pub name: String,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_bounded() {
        assert!(TenantName::new(&"a".repeat(TENANT_NAME_CHARS_MAX)).is_ok());
        assert!(TenantName::new(&"a".repeat(TENANT_NAME_CHARS_MAX + 1)).is_err());
        assert!(TenantName::new("  ").is_err());
    }
}
