//! What the product does, in terms of the domain. Knows no HTTP and no SQL. Imports `store`, `embedding`, `cache`,
//! `domain` and `error`.

mod audit;
mod batch;
mod batches;
mod chunking;
mod contexts;
mod embed;
mod erasure;
mod export;
mod health;
mod history;
mod import;
mod keys;
mod operations;
mod provider;
mod readiness;
mod search;
mod tenants;
mod unit;
mod upkeep;
mod usage;

use std::{sync::Arc, time::Duration};

use moka::future::Cache as Local;
use tokio::sync::Notify;

use self::provider::Breaker;
pub use self::{
    batch::BatchResults,
    embed::Round,
    export::Export,
    health::{Check, CheckStatus, Health},
    import::{ImportRequest, LineError, LineResult},
    keys::{Keys, NewKey},
    provider::ProviderState,
    tenants::Tenants,
    unit::Once,
};
use crate::{cache::Cache, domain::SpaceInfo, embedding::Embedder, error::Result, store::Store};

/// How long a change of the active space may go unnoticed.
const SPACE_TTL: Duration = Duration::from_secs(1);

/// How long queries do without the provider after it has failed one of them.
const QUERY_PAUSE: Duration = Duration::from_secs(5);
/// How long documents do: short, because they have to be ready soon after it is back.
const DOCUMENT_PAUSE: Duration = Duration::from_secs(1);

/// The product. Cheap to clone.
#[derive(Clone)]
pub struct Service {
    store: Store,
    cache: Cache,
    embedder: Arc<dyn Embedder>,
    provider: Arc<provider::Watch>,
    query_breaker: Arc<provider::Breaker>,
    document_breaker: Arc<provider::Breaker>,
    rotation: Arc<tokio::sync::Mutex<embed::Rotation>>,
    keys: Keys,
    tenants: Tenants,
    space: Local<(), SpaceInfo>,
    /// Wakes the worker of this process when there is something to embed.
    pending: Arc<Notify>,
    /// Tells those who wait for an embedding that this process has written some.
    embedded: Arc<Notify>,
}

impl Service {
    pub fn new(store: Store, cache: Cache, embedder: Arc<dyn Embedder>) -> Self {
        let (keys, tenants) = (Keys::new(store.clone()), Tenants::new(store.clone()));
        Self {
            store,
            cache,
            embedder,
            provider: Arc::default(),
            query_breaker: Arc::new(Breaker::new(QUERY_PAUSE)),
            document_breaker: Arc::new(Breaker::new(DOCUMENT_PAUSE)),
            rotation: Arc::default(),
            keys,
            tenants,
            space: Local::builder().max_capacity(1).time_to_live(SPACE_TTL).build(),
            pending: Arc::default(),
            embedded: Arc::default(),
        }
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    pub fn tenants(&self) -> &Tenants {
        &self.tenants
    }

    /// Tidies the database in process; a server tidies itself.
    ///
    /// # Errors
    /// [`crate::error::Code::DatabaseUnavailable`].
    pub async fn vacuum(&self) -> Result<()> {
        if self.store.is_embedded() { self.store.vacuum().await } else { Ok(()) }
    }

    /// Returns when a write of this process left something to embed.
    pub async fn pending_noticed(&self) {
        self.pending.notified().await;
    }
}
