//! Who may come in.

use std::{sync::Arc, time::Duration};

use moka::future::Cache as Local;

use crate::{
    domain::{ApiKey, ApiKeyHash, ApiKeyInfo, DEFAULT_TENANT, NewApiKey, Principal, Scope, TenantId},
    error::{Code, Error, Result},
    store::Store,
};

/// How long a verified key is trusted without asking again: the longest time that a revoked key still works.
const VERIFIED_TTL: Duration = Duration::from_secs(1);
const VERIFIED_MAX: u64 = 10_000;

/// API keys. Needs the database alone, neither a model nor a cache server. Cheap to clone.
#[derive(Clone)]
pub struct Keys {
    store: Store,
    verified: Local<ApiKeyHash, Principal>,
}

impl Keys {
    pub fn new(store: Store) -> Self {
        Self {
            store,
            verified: Local::builder().max_capacity(VERIFIED_MAX).time_to_live(VERIFIED_TTL).build(),
        }
    }

    /// Who presents `key`.
    ///
    /// # Errors
    /// [`Code::InvalidApiKey`] when it is unknown, revoked or expired; [`Code::DatabaseUnavailable`].
    pub async fn authenticate(&self, key: &ApiKey) -> Result<Principal> {
        let hash = key.hash();
        if let Some(principal) = self.verified.get(&hash).await {
            return Ok(principal);
        }
        // On the heap: this way is rare, and its future large.
        let find = Box::pin(async {
            self.store.find_principal(hash).await?.ok_or_else(|| {
                Error::new(
                    Code::InvalidApiKey,
                    "This API key is not known here; it may have been revoked or have expired.",
                )
            })
        });
        // Those who asked at the same time share one error; each gets its own copy of what may be shown.
        Box::pin(self.verified.try_get_with(hash, find)).await.map_err(|shared: Arc<Error>| {
            let mut error = Error::new(shared.code, shared.detail.clone()).with_source(shared.clone());
            error.retry_after = shared.retry_after;
            error
        })
    }

    /// Makes a key and keeps its hash. The returned secret is shown once and then known to its owner alone.
    ///
    /// # Errors
    /// [`Code::DatabaseUnavailable`].
    pub async fn create(&self, tenant: TenantId, new: &NewApiKey) -> Result<ApiKey> {
        let key = ApiKey::generate()?;
        self.store.insert_api_key(tenant, &key, new).await?;
        Ok(key)
    }

    /// Lets `key`, which the operator chose, in as an admin of the default tenant. May be called at every start.
    ///
    /// # Errors
    /// [`Code::DatabaseUnavailable`].
    pub async fn ensure_bootstrap(&self, key: &ApiKey) -> Result<()> {
        let new = NewApiKey::new("bootstrap", Scope::all(), None)?;
        self.store.insert_api_key(DEFAULT_TENANT, key, &new).await
    }

    /// # Errors
    /// [`Code::DatabaseUnavailable`].
    pub async fn list(&self, tenant: TenantId) -> Result<Vec<ApiKeyInfo>> {
        self.store.list_api_keys(tenant).await
    }

    /// Revokes the keys with this prefix or id; answers how many it was.
    ///
    /// # Errors
    /// [`Code::DatabaseUnavailable`].
    pub async fn revoke(&self, tenant: TenantId, prefix_or_id: &str) -> Result<u64> {
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
