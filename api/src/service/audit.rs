//! Reading the audit log.

use super::Service;
use crate::{
    domain::{AuditEntry, AuditRequest, Cursor, Page, TenantId},
    error::Result,
};

impl Service {
    /// Newest first.
    ///
    /// # Errors
    /// [`crate::error::Code::DatabaseUnavailable`].
    pub async fn list_audit_log(&self, tenant: TenantId, request: &AuditRequest) -> Result<Page<AuditEntry>> {
        let rows = self.store.list_audit_log(tenant, request).await?;
        Ok(Page::from_overfetch(rows, request.limit, false, |entry| Cursor::at(entry.id)))
    }
}
