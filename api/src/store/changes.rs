//! Who has to know that rows of a tenant have changed, and when: after the change is durable, and before the one who made it is
//! told so. What is remembered of a tenant anywhere can then be told from what is true.

use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
};

use async_trait::async_trait;
use deadpool::managed::Object;
use futures_util::{StreamExt, stream};

use super::{Store, connection::Connection, pool::Connector};
use crate::{domain::TenantId, error::Result};

/// Tenants of one change of which the witness is told at the same time.
const TOLD_AT_ONCE: usize = 64;

/// Learns of changes.
#[async_trait]
pub trait Witness: Send + Sync {
    /// Rows of the tenant have changed. Whoever changed them goes on when this returns.
    async fn changed(&self, tenant: TenantId);

    /// Rows of the tenant may have changed or may yet: whoever was about to change them has gone away in the middle.
    fn may_change(&self, tenant: TenantId);
}

/// A connection for a statement that changes rows which readers see.
pub(super) struct Writing {
    connection: Object<Connector>,
    notice: Notice,
}

impl Writing {
    /// Nobody has to know of it.
    pub(super) fn changes_nothing_visible(&mut self) {
        self.notice.withdraw();
    }

    /// Gives the connection back and lets the witness know. Also after a failure: it may have come after the change.
    pub(super) async fn finish<T>(self, result: Result<T>) -> Result<T> {
        let Self { connection, notice } = self;
        drop(connection);
        notice.give().await;
        result
    }
}

impl Deref for Writing {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl DerefMut for Writing {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }
}

/// What the witness is to be told; nothing at first. When it is dropped before it was, the one who waited for the change has gone away.
#[derive(Default)]
pub(super) struct Notice {
    witness: Option<Arc<dyn Witness>>,
    tenants: Vec<TenantId>,
}

impl Notice {
    pub(super) fn about(store: &Store, tenant: TenantId) -> Self {
        Self { witness: store.witness.clone(), tenants: vec![tenant] }
    }

    pub(super) fn add(&mut self, tenant: TenantId) {
        if !self.tenants.contains(&tenant) {
            self.tenants.push(tenant);
        }
    }

    /// Nothing has changed after all.
    pub(super) fn withdraw(&mut self) {
        self.tenants.clear();
    }

    pub(super) async fn give(mut self) {
        if let Some(witness) = self.witness.clone() {
            // At once: there may be something to wait for with each.
            let telling = stream::iter(self.tenants.iter().copied());
            telling.for_each_concurrent(TOLD_AT_ONCE, |tenant| witness.changed(tenant)).await;
            self.tenants.clear();
        }
    }
}

impl Drop for Notice {
    fn drop(&mut self) {
        if let Some(witness) = &self.witness {
            self.tenants.iter().for_each(|tenant| witness.may_change(*tenant));
        }
    }
}

impl Store {
    /// From now on `witness` learns of each change that is made through this.
    #[must_use]
    pub fn with_witness(self, witness: Arc<dyn Witness>) -> Self {
        Self { witness: Some(witness), ..self }
    }

    /// As [`Store::tenant`], to change what readers see.
    pub(super) async fn write(&self, tenant: TenantId) -> Result<Writing> {
        let connection = self.tenant(tenant).await?;
        Ok(Writing { connection, notice: Notice::about(self, tenant) })
    }
}
