//! Tenants, as operators see them.

use super::{Once, unit::once};
use crate::{
    domain::{
        Access, Action, Actor, Cursor, DEFAULT_TENANT, IdempotentRequest, KeptAnswer, Limit, Page, Tenant,
        TenantId, TenantName,
    },
    error::{Error, Result},
    store::{Store, Unit},
};

/// Tenants. Needs the database alone. Cheap to clone.
#[derive(Clone)]
pub struct Tenants {
    store: Store,
}

impl Tenants {
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// # Errors
    /// [`crate::error::Code::TenantExists`]; what `Idempotency-Key` brings.
    pub async fn create(
        &self,
        actor: &Actor,
        name: &TenantName,
        request: Option<&IdempotentRequest>,
        answer: impl Fn(&Tenant) -> Result<KeptAnswer>,
    ) -> Result<Once<Tenant>> {
        once(&self.store, actor, request, answer, async |unit: &mut Unit| {
            let tenant = unit.create_tenant(name).await?;
            unit.log(actor, Action::CreateTenant, tenant.id).await?;
            Ok(tenant)
        })
        .await
    }

    /// As [`Tenants::create`], for a command.
    ///
    /// # Errors
    /// [`crate::error::Code::TenantExists`].
    pub async fn create_for_operator(&self, name: &TenantName) -> Result<()> {
        let actor = Actor::operator(DEFAULT_TENANT);
        self.create(&actor, name, None, |_| Ok(KeptAnswer::nothing())).await.map(|_| ())
    }

    /// The tenants that one may know of: all of them for an operator, otherwise one's own. In the order of their making.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn list(
        &self,
        access: Access,
        all: bool,
        limit: Limit,
        cursor: Option<Cursor>,
    ) -> Result<Page<Tenant>> {
        let rows = if all {
            let after = cursor.map(|cursor| TenantId(cursor.id()));
            self.store.list_tenants(after, limit.get() as i32 + 1).await?
        } else {
            self.store.get_tenant(access.tenant).await?.into_iter().collect()
        };
        Ok(Page::from_overfetch(rows, limit, false, |tenant| Cursor::at(tenant.id)))
    }

    /// # Errors
    /// When the database cannot be reached.
    pub async fn exists(&self, tenant: TenantId) -> Result<bool> {
        Ok(self.store.get_tenant(tenant).await?.is_some())
    }

    /// # Errors
    /// [`crate::error::Code::InvalidRequest`] when no tenant has this name.
    pub async fn find(&self, name: &str) -> Result<TenantId> {
        self.store
            .find_tenant(name)
            .await?
            .ok_or_else(|| Error::invalid("/tenant", format!("there is no tenant named `{name}`")))
    }
}
