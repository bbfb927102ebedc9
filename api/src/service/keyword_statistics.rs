//! Counting which words are in how many chunks, for the keyword leg.

use super::Service;
use crate::{domain::TenantId, error::Result};

/// Tenants that are looked up at once.
const TENANTS_MAX: i32 = 100;
/// Statements for one tenant in a row, so that every tenant's turn comes.
const TURNS_MAX: usize = 5;

impl Service {
    /// Counts what has changed since, of each tenant in turn; answers whether there may be more. May be cut off anywhere and
    /// done by any number of processes.
    ///
    /// # Errors
    /// [`crate::error::Code::DatabaseUnavailable`].
    pub async fn count_words(&self) -> Result<bool> {
        let mut after: Option<TenantId> = None;
        let mut left_some = false;
        loop {
            let tenants = self.store.tenants_with_keyword_changes(after, TENANTS_MAX).await?;
            let Some(last) = tenants.last() else { return Ok(left_some) };
            after = Some(*last);
            for &tenant in &tenants {
                for turn in 1..=TURNS_MAX {
                    match self.store.count_keyword_changes(tenant).await {
                        Ok(true) => left_some |= turn == TURNS_MAX,
                        Ok(false) => break,
                        // The others' turn comes nevertheless.
                        Err(error) => {
                            tracing::warn!(%error, tenant.id = %tenant, "the words of a tenant were not counted");
                            break;
                        }
                    }
                }
            }
        }
    }
}
