//! Long work: seeing it, stopping it, starting it again, and doing it.

use std::time::Duration;

use super::{
    Once, Service,
    unit::{in_unit, once},
};
use crate::{
    domain::{
        Access, Action, Actor, Cursor, IdempotentRequest, KeptAnswer, Operation, OperationId, OperationKind,
        OperationStatus, OperationsRequest, Page, Principal, Scope, TenantId, UserId,
    },
    error::{Code, Error, Result},
    store::{ClaimedOperation, Outcome, Unit},
};

/// How long a claim lasts; it is renewed with every note of progress.
pub(super) const CLAIM: Duration = Duration::from_secs(30);
/// Tenants that are looked up at once.
const TENANTS_MAX: i32 = 100;
/// How often work that fails is begun before it is given up.
const ATTEMPTS_MAX: i32 = 20;

impl Service {
    /// # Errors
    /// [`Code::OperationNotFound`]; [`Code::DatabaseUnavailable`].
    pub async fn get_operation(&self, access: Access, id: OperationId) -> Result<Operation> {
        self.store.find_operation(access, id).await?.ok_or_else(not_found)
    }

    /// Newest first.
    ///
    /// # Errors
    /// [`Code::DatabaseUnavailable`].
    pub async fn list_operations(
        &self,
        access: Access,
        request: &OperationsRequest,
    ) -> Result<Page<Operation>> {
        let rows = self.store.list_operations(access, request).await?;
        Ok(Page::from_overfetch(rows, request.limit, false, |operation| Cursor::at(operation.id)))
    }

    /// Stops an operation: at once when nobody works at it, otherwise at the next step. What it has done stays done.
    ///
    /// # Errors
    /// [`Code::OperationNotFound`]; [`Code::OperationConflict`] when it has ended; [`Code::MissingScope`].
    pub async fn cancel_operation(
        &self,
        principal: &Principal,
        actor: &Actor,
        id: OperationId,
        request: Option<&IdempotentRequest>,
        answer: impl Fn(&Operation) -> Result<KeptAnswer>,
    ) -> Result<KeptAnswer> {
        let cancelled = once(&self.store, actor, request, answer, async |unit: &mut Unit| {
            let operation = lock(unit, principal, id).await?;
            if operation.status.is_final() {
                return Err(conflict("The operation has ended already."));
            }
            unit.log(actor, Action::CancelOperation, id).await?;
            unit.cancel_operation(id).await
        });
        cancelled.await.map(Once::answer)
    }

    /// Queues an operation again that has failed or was cancelled.
    ///
    /// # Errors
    /// [`Code::OperationNotFound`]; [`Code::OperationConflict`] when it has not, or is an import; [`Code::MissingScope`].
    pub async fn retry_operation(
        &self,
        principal: &Principal,
        actor: &Actor,
        id: OperationId,
        request: Option<&IdempotentRequest>,
        answer: impl Fn(&Operation) -> Result<KeptAnswer>,
    ) -> Result<KeptAnswer> {
        let retried = once(&self.store, actor, request, answer, async |unit: &mut Unit| {
            let operation = lock(unit, principal, id).await?;
            if operation.kind == OperationKind::Import {
                return Err(conflict(
                    "The lines of an import are not kept: send the request again with the same Idempotency-Key.",
                ));
            }
            if !matches!(operation.status, OperationStatus::Failed | OperationStatus::Cancelled) {
                return Err(conflict("Only an operation that has failed or was cancelled can be retried."));
            }
            unit.log(actor, Action::RetryOperation, id).await?;
            unit.requeue_operation(id).await
        })
        .await?;
        self.start_operation(actor.tenant(), id);
        Ok(retried.answer())
    }

    /// Queues work.
    pub(super) async fn queue_operation(
        &self,
        actor: &Actor,
        kind: OperationKind,
        user: UserId,
        action: Action,
    ) -> Result<OperationId> {
        in_unit(&self.store, actor.access, async |unit: &mut Unit| {
            let id = unit.create_operation(actor, kind, Some(user)).await?;
            unit.log(actor, action, user).await?;
            Ok(id)
        })
        .await
    }

    /// Does the work in the background of this process. When it ends before, a worker goes on.
    pub(super) fn start_operation(&self, tenant: TenantId, id: OperationId) -> tokio::task::JoinHandle<()> {
        let service = self.clone();
        tokio::spawn(async move {
            if let Err(error) = service.run_next_operation(tenant, Some(id)).await {
                tracing::warn!(%error, operation.id = %id, "an operation could not be begun; a worker will");
            }
        })
    }

    /// Does what waits, of each tenant in turn; answers whether there was anything.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn run_operations(&self) -> Result<bool> {
        let mut worked = false;
        for tenant in self.store.tenants_with_operations(TENANTS_MAX).await? {
            worked |= self.run_next_operation(tenant, None).await?;
        }
        Ok(worked)
    }

    async fn run_next_operation(&self, tenant: TenantId, id: Option<OperationId>) -> Result<bool> {
        let Some(operation) = self.store.claim_operation(tenant, id, CLAIM).await? else { return Ok(false) };
        tracing::info!(operation.id = %operation.id, operation.kind = operation.kind.as_str(), operation.attempt, "operation begun");
        let ended = match operation.kind {
            OperationKind::Erase => self.erase(tenant, &operation).await,
            OperationKind::Import => Err(Error::internal("an import was queued")),
        };
        match ended {
            Ok(Ended::Done(result)) => {
                self.finish(tenant, &operation, OperationStatus::Succeeded, Some(&result), None).await?;
            }
            Ok(Ended::Stopped) => {
                self.finish(tenant, &operation, OperationStatus::Cancelled, None, Some("it was cancelled"))
                    .await?;
            }
            // Transient: the claim lapses, and somebody goes on.
            Err(error) if error.retry_after.is_some() && operation.attempt < ATTEMPTS_MAX => {
                tracing::warn!(%error, operation.id = %operation.id, "an operation was interrupted; it will go on");
            }
            Err(error) => {
                tracing::error!(%error, operation.id = %operation.id, "an operation failed");
                let words = error.detail.to_string();
                self.finish(tenant, &operation, OperationStatus::Failed, None, Some(&words)).await?;
            }
        }
        Ok(true)
    }

    pub(super) async fn finish(
        &self,
        tenant: TenantId,
        operation: &ClaimedOperation,
        status: OperationStatus,
        result: Option<&str>,
        error: Option<&str>,
    ) -> Result<()> {
        let kind = operation.kind.as_str();
        metrics::counter!("operations_total", "kind" => kind, "status" => status.as_str()).increment(1);
        self.store.finish_operation(tenant, operation, &Outcome { status, result, error }).await
    }
}

/// How work came to its end.
pub(super) enum Ended {
    /// With its result, JSON.
    Done(String),
    /// It was cancelled, or somebody else does it.
    Stopped,
}

/// The operation, if this caller may do something to it: what only admins begin, only admins stop.
async fn lock(unit: &mut Unit, principal: &Principal, id: OperationId) -> Result<Operation> {
    let operation = unit.lock_operation(id).await?.ok_or_else(not_found)?;
    if operation.kind == OperationKind::Erase {
        principal.require(Scope::Admin)?;
    }
    Ok(operation)
}

fn not_found() -> Error {
    Error::new(Code::OperationNotFound, "There is no operation of this id.")
}

fn conflict(detail: &'static str) -> Error {
    Error::new(Code::OperationConflict, detail)
}
