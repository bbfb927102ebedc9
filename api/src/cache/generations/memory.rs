//! What Redis said last of each tenant.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock, atomic::AtomicBool},
};

use tokio::time::Instant;
use uuid::Uuid;

use super::{Generation, TENANTS_MAX};
use crate::domain::TenantId;

/// What Redis said last, by tenant. Looked up for each request; to forget what it said is no harm, so there is no cache to pay for that
/// chooses what goes.
#[derive(Clone, Default)]
pub(super) struct Memory(Arc<RwLock<HashMap<TenantId, Arc<Seen>>>>);

impl Memory {
    pub(super) fn get(&self, tenant: TenantId) -> Option<Arc<Seen>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&tenant).map(Arc::clone)
    }

    pub(super) fn put(&self, tenant: TenantId, seen: Arc<Seen>) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= TENANTS_MAX && !all.contains_key(&tenant) {
            all.clear();
        }
        all.insert(tenant, seen);
    }
}

/// What Redis said last of a tenant.
pub(super) struct Seen {
    pub(super) generation: Generation,
    /// When it was first this one.
    pub(super) since: Instant,
    /// How long it may be gone by without asking.
    pub(super) lent_until: Option<Instant>,
    /// Whether somebody has asked again before that.
    pub(super) is_asked_again: AtomicBool,
    /// The lent word that was taken back for it, and until when somebody may go by that one.
    pub(super) taken_back: Option<(Uuid, Instant)>,
}
