//! Who may come in.

use std::sync::Arc;

use super::Service;
use crate::{
    domain::{ApiKey, ApiKeyInfo, DEFAULT_TENANT, NewApiKey, Principal, Scope, TenantId},
    error::{Code, Error, Result},
};

impl Service {
    /// Who presents `key`.
    ///
    /// # Errors
    /// [`Code::InvalidApiKey`] when it is unknown, revoked or expired; [`Code::DatabaseUnavailable`].
    pub async fn authenticate(&self, key: &ApiKey) -> Result<Principal> {
        let hash = key.hash();
        let found = self.principals.try_get_with(hash, async {
            self.store.find_principal(hash).await?.ok_or_else(|| {
                Error::new(Code::InvalidApiKey, "This API key is not known here; it may have been revoked or have expired.")
            })
        });
        // Those who asked at the same time share one error; each gets its own copy of what may be shown.
        found.await.map_err(|shared: Arc<Error>| {
            let mut error = Error::new(shared.code, shared.detail.clone()).with_source(shared.clone());
            error.retry_after = shared.retry_after;
            error
        })
    }

    /// Makes a key and keeps its hash. The returned secret is shown once and then known to its owner alone.
    ///
    /// # Errors
    /// [`Code::DatabaseUnavailable`].
    pub async fn create_api_key(&self, tenant: TenantId, new: &NewApiKey) -> Result<ApiKey> {
        let key = ApiKey::generate()?;
        self.store.insert_api_key(tenant, &key, new).await?;
        Ok(key)
    }

    /// Lets `key`, which the operator chose, in as an admin of the default tenant. May be called at every start.
    ///
    /// # Errors
    /// [`Code::DatabaseUnavailable`].
    pub async fn ensure_bootstrap_key(&self, key: &ApiKey) -> Result<()> {
        let new = NewApiKey::new("bootstrap", Scope::all(), None)?;
        self.store.insert_api_key(DEFAULT_TENANT, key, &new).await
    }

    /// # Errors
    /// [`Code::DatabaseUnavailable`].
    pub async fn list_api_keys(&self, tenant: TenantId) -> Result<Vec<ApiKeyInfo>> {
        self.store.list_api_keys(tenant).await
    }

    /// Revokes the keys with this prefix or id; answers how many it was.
    ///
    /// # Errors
    /// [`Code::DatabaseUnavailable`].
    pub async fn revoke_api_key(&self, tenant: TenantId, prefix_or_id: &str) -> Result<u64> {
        self.store.revoke_api_key(tenant, prefix_or_id).await
    }

    /// # Errors
    /// [`Code::InvalidRequest`] when no tenant has this name.
    pub async fn find_tenant(&self, name: &str) -> Result<TenantId> {
        self.store
            .find_tenant(name)
            .await?
            .ok_or_else(|| Error::invalid("/tenant", format!("there is no tenant named `{name}`")))
    }
}
