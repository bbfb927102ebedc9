//! Erasing a user: everything, in steps that can be repeated, so that it may be cut off anywhere and goes on.

use std::time::Duration;

use super::{
    Service,
    keys::VERIFIED_TTL,
    operations::{CLAIM, Ended},
};
use crate::{
    domain::{Action, Actor, Erased, ErasureReceipt, Operation, OperationKind, TenantId, UserId},
    error::{Error, Result},
    store::ClaimedOperation,
};

/// How long a caller waits for the receipt; after that it asks the operation.
const WAIT: Duration = Duration::from_secs(10);

impl Service {
    /// Begins to erase a user, and waits some time for the end.
    ///
    /// # Errors
    /// [`crate::error::Code::DatabaseUnavailable`].
    pub async fn erase_user(&self, actor: &Actor, user: UserId) -> Result<Operation> {
        let id = self.queue_operation(actor, OperationKind::Erase, user, Action::EraseUser).await?;
        // It goes on when the caller does not wait any longer.
        tokio::time::timeout(WAIT, self.start_operation(actor.tenant(), id)).await.ok();
        self.get_operation(actor.access, id).await
    }

    pub(super) async fn erase(&self, tenant: TenantId, operation: &ClaimedOperation) -> Result<Ended> {
        let user = operation.user_id.ok_or_else(|| Error::internal("an erasure without a user"))?;
        // An attempt that was cut off has erased some already.
        let mut erased: Erased = serde_json::from_str(operation.progress.get()).map_err(Error::internal)?;
        let api_keys_revoked = self.store.revoke_api_keys_of(tenant, user).await?;
        erased.add(Erased { api_keys_revoked, ..Erased::default() });
        if api_keys_revoked > 0 {
            // What they write now would stay.
            tokio::time::sleep(VERIFIED_TTL).await;
        }
        // First what could still write: an import of theirs ends with its operation.
        erased.add(self.store.erase_records(tenant, user, operation.id).await?);
        loop {
            let some = self.store.erase_contexts(tenant, user).await?;
            erased.add(some);
            if !self.note(tenant, operation, &erased).await? {
                return Ok(Ended::Stopped);
            }
            if some.contexts == 0 {
                break;
            }
        }
        // What was kept of writes that had begun before.
        erased.add(self.store.erase_records(tenant, user, operation.id).await?);
        self.note(tenant, operation, &erased).await?;
        let receipt = ErasureReceipt { user_id: user, erased, remains: ErasureReceipt::REMAINS };
        serde_json::to_string(&receipt).map(Ended::Done).map_err(Error::internal)
    }

    async fn note(&self, tenant: TenantId, operation: &ClaimedOperation, erased: &Erased) -> Result<bool> {
        let progress = serde_json::to_string(erased).map_err(Error::internal)?;
        self.store.note_progress(tenant, operation, &progress, CLAIM).await
    }
}
