//! Storing contexts and getting them back.

use super::{Service, chunking};
use crate::{
    domain::{Context, ContextId, Cursor, ListRequest, NewContext, Page, TenantId},
    error::{Code, Error, Result},
    store::Written,
};

impl Service {
    /// Creates a context, or updates the one of its key. When this returns, the context is durable and found by its
    /// words; by its meaning it is found as soon as a worker has embedded it.
    ///
    /// # Errors
    /// [`Code::TextTooLong`]; [`Code::DatabaseUnavailable`].
    pub async fn create_context(&self, tenant: TenantId, new: &NewContext) -> Result<Written> {
        let chunks = chunking::split(&new.text)?;
        let written = self.store.write_context(tenant, ContextId::generate(), new, &chunks).await?;
        self.pending.notify_one();
        Ok(written)
    }

    /// # Errors
    /// [`Code::ContextNotFound`]; [`Code::DatabaseUnavailable`].
    pub async fn get_context(&self, tenant: TenantId, id: ContextId) -> Result<Context> {
        self.store.find_context(tenant, id).await?.ok_or_else(not_found)
    }

    /// # Errors
    /// [`Code::DatabaseUnavailable`].
    pub async fn list_contexts(&self, tenant: TenantId, request: &ListRequest) -> Result<Page<Context>> {
        let rows = self.store.list_contexts(tenant, request).await?;
        Ok(Page::from_overfetch(rows.contexts, request.limit, rows.cut, |context| Cursor(context.id)))
    }

    /// # Errors
    /// [`Code::ContextNotFound`]; [`Code::DatabaseUnavailable`].
    pub async fn delete_context(&self, tenant: TenantId, id: ContextId) -> Result<()> {
        if self.store.deactivate_context(tenant, id).await? { Ok(()) } else { Err(not_found()) }
    }
}

fn not_found() -> Error {
    Error::new(
        Code::ContextNotFound,
        "There is no context of this id; it may have been deleted or have expired.",
    )
}
