//! Counting which words are in how many chunks, for the keyword leg.

use super::{Service, turns::each_tenant};
use crate::error::Result;

impl Service {
    /// Counts what has changed since, of each tenant in turn; answers whether there may be more. May be cut off anywhere and
    /// done by any number of processes.
    ///
    /// # Errors
    /// [`crate::error::Code::DatabaseUnavailable`].
    pub async fn count_words(&self) -> Result<bool> {
        let store = &self.store;
        each_tenant(
            "the words of a tenant were not counted",
            move |after, tenants_max| store.tenants_with_keyword_changes(after, tenants_max),
            move |tenant| store.count_keyword_changes(tenant),
        )
        .await
    }
}
