//! What has to be removed in time: what expired, what was deleted long ago, and records past their retention.

use super::Service;
use crate::{
    domain::{Retention, Tenant, TenantId},
    error::Result,
    store::Removed,
};

/// Tenants that are looked up at once.
const TENANTS_MAX: i32 = 100;
/// Statements for one tenant in a row, so that every tenant's turn comes.
const TURNS_MAX: usize = 20;

impl Service {
    /// Removes what is outdated, of each tenant in turn. May be cut off anywhere and done by any number of processes.
    ///
    /// # Errors
    /// [`crate::error::Code::DatabaseUnavailable`].
    pub async fn remove_outdated(&self, retention: &Retention) -> Result<Removed> {
        let mut total = Removed::default();
        let mut after: Option<TenantId> = None;
        loop {
            let tenants: Vec<Tenant> = self.store.list_tenants(after, TENANTS_MAX).await?;
            let Some(last) = tenants.last() else { break };
            after = Some(last.id);
            for tenant in &tenants {
                for _ in 0..TURNS_MAX {
                    let removed = match self.store.remove_outdated(tenant.id, retention).await {
                        Ok(removed) => removed,
                        // The others' turn comes nevertheless.
                        Err(error) => {
                            tracing::warn!(%error, tenant.id = %tenant.id, "outdated rows of a tenant were not removed");
                            break;
                        }
                    };
                    total.add(removed);
                    if !removed.may_have_left_some() {
                        break;
                    }
                }
            }
        }
        for (kind, rows) in total.by_kind() {
            metrics::counter!("outdated_rows_removed_total", "kind" => kind).increment(rows.unsigned_abs());
        }
        Ok(total)
    }
}
