//! Waiting for a write to be found by its meaning, too.

use std::{pin::pin, time::Duration};

use tokio::time::Instant;

use super::{ProviderState, Service};
use crate::{
    domain::{Access, Context, ContextId, EmbeddingStatus, limits::WAIT_READY_MAX},
    error::Result,
};

/// Between two looks at what another process may have embedded.
const LOOK_EVERY: Duration = Duration::from_millis(100);

impl Service {
    /// The context as soon as its embedding is there or has failed. None when it takes too long, when it was written again
    /// meanwhile, or when the provider is away, so that waiting would be in vain.
    ///
    /// # Errors
    /// [`crate::error::Code::DatabaseUnavailable`].
    pub async fn embedded(&self, access: Access, id: ContextId, version: i64) -> Result<Option<Context>> {
        let give_up = Instant::now() + WAIT_READY_MAX;
        loop {
            // From before the look, so that nothing falls between the two.
            let mut noticed = pin!(self.embedded.notified());
            noticed.as_mut().enable();
            let found =
                self.store.find_context(access, id).await?.filter(|context| context.version == version);
            match found {
                None => return Ok(None),
                Some(context) if context.embedding_status != EmbeddingStatus::Pending => {
                    return Ok(Some(context));
                }
                Some(_) => {}
            }
            if Instant::now() >= give_up || matches!(self.provider_state().await, ProviderState::Down(_)) {
                return Ok(None);
            }
            tokio::time::timeout(LOOK_EVERY, noticed).await.ok();
        }
    }
}
