//! Everything that there is, as it was at one moment, in pages.

use time::OffsetDateTime;

use super::Service;
use crate::{
    domain::{Access, ContextId, Selection},
    error::Result,
    store::ExportRow,
};

/// Contexts that are read at once. Each may have 2 MiB, though few have.
const ROWS_MAX: i64 = 100;

/// An export that is under way.
#[derive(Clone)]
pub struct Export {
    service: Service,
    access: Access,
    selection: Selection,
    /// What is exported is what was in force then.
    pub at: OffsetDateTime,
    after: Option<ContextId>,
}

impl Service {
    /// Begins an export, or goes on with one from the context after `after`.
    ///
    /// # Errors
    /// [`crate::error::Code::DatabaseBusy`] when a writer holds it up; [`crate::error::Code::DatabaseUnavailable`].
    pub async fn export_contexts(
        &self,
        access: Access,
        selection: Selection,
        after: Option<ContextId>,
    ) -> Result<Export> {
        let at = match selection.as_of {
            Some(at) => at,
            None => self.store.settled_moment().await?,
        };
        Ok(Export { service: self.clone(), access, selection, at, after })
    }
}

impl Export {
    /// The next contexts, oldest first; none at the end.
    ///
    /// # Errors
    /// [`crate::error::Code::DatabaseUnavailable`].
    pub async fn next(&mut self) -> Result<Vec<ExportRow>> {
        let store = self.service.store();
        let rows =
            store.export_contexts(self.access.tenant, &self.selection, self.at, self.after, ROWS_MAX).await?;
        if let Some(last) = rows.last() {
            self.after = Some(last.context.id);
        }
        Ok(rows)
    }
}
