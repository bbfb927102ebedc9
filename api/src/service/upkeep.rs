//! What has to be removed in time: what expired, what was deleted long ago, and records past their retention.

use std::time::Duration;

use tokio::time::Instant;

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
/// After a hundred tenants of whom all is removed that had to be, so many times as long as it took: with ten thousand of them those who
/// search would notice, and there is no hurry.
const REST: u32 = 9;
const REST_MAX: Duration = Duration::from_secs(10);

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
            let begun = Instant::now();
            let mut batch = Removed::default();
            let mut left_some = false;
            for tenant in &tenants {
                let mut more = false;
                for _ in 0..TURNS_MAX {
                    let removed = match self.store.remove_outdated(tenant.id, retention).await {
                        Ok(removed) => removed,
                        // The others' turn comes nevertheless.
                        Err(error) => {
                            tracing::warn!(%error, tenant.id = %tenant.id, "outdated rows of a tenant were not removed");
                            break;
                        }
                    };
                    batch.add(removed);
                    more = removed.may_have_left_some();
                    if !more {
                        break;
                    }
                }
                left_some |= more;
            }
            for (kind, rows) in batch.by_kind() {
                metrics::counter!("outdated_rows_removed_total", "kind" => kind)
                    .increment(rows.unsigned_abs());
            }
            total.add(batch);
            if !left_some && tenants.len() == TENANTS_MAX as usize {
                tokio::time::sleep((begun.elapsed() * REST).min(REST_MAX)).await;
            }
        }
        Ok(total)
    }
}
