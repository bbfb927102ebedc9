//! What the product does, in terms of the domain. Knows no HTTP and no SQL. Imports `store`, `embedding`, `cache`,
//! `domain`, `error` and `telemetry`.

mod answers;
mod audit;
mod batch;
mod batches;
mod breaker;
mod chunking;
mod comparison;
mod contexts;
mod embed;
mod erasure;
mod export;
mod health;
mod history;
mod import;
mod keys;
mod keyword;
mod keyword_statistics;
mod keyword_words;
mod looked_up;
mod operations;
mod pack;
mod provider;
mod quota;
mod readiness;
mod rerank;
mod search;
mod spaces;
mod survey;
mod tenants;
mod turns;
mod unit;
mod upkeep;
mod usage;

use std::{sync::Arc, time::Duration};

use self::{
    answers::{Calm, ChangeWitness},
    looked_up::LookedUp,
    pack::Packing,
    quota::Quota,
    rerank::Reranking,
};
use tokio::{
    sync::{Notify, OnceCell},
    time::Instant,
};

use self::search::{Admission, ScopeMemory};
pub use self::{
    batch::BatchResults,
    embed::Round,
    export::Export,
    health::{Check, CheckStatus, Health},
    import::{ImportRequest, LineError, LineResult},
    keys::{Keys, NewKey},
    provider::{Provider, ProviderState},
    tenants::Tenants,
    unit::Once,
};
use crate::{
    cache::{Cache, RateLimiter},
    domain::{Allowance, Limits, Principal, SearchLimits, Space},
    embedding::Embedder,
    error::Result,
    store::Store,
};

/// How long a change of the spaces may go unnoticed.
const SPACE_TTL: Duration = Duration::from_secs(1);

/// The product. Cheap to clone.
#[derive(Clone)]
pub struct Service {
    store: Store,
    cache: Cache,
    /// Learned when it is first needed.
    database_id: Arc<OnceCell<Option<Arc<str>>>>,
    calm: Calm,
    providers: Arc<[Arc<Provider>]>,
    keys: Keys,
    tenants: Tenants,
    spaces: LookedUp<(), Arc<[Space]>>,
    scopes: ScopeMemory,
    /// When a space may be dropped again after that was in somebody's way.
    next_drop: Arc<tokio::sync::Mutex<Option<Instant>>>,
    /// Tells those who wait for an embedding that this process has written some.
    embedded: Arc<Notify>,
    packing: Packing,
    reranking: Option<Arc<Reranking>>,
    rate_limiter: Option<Arc<RateLimiter>>,
    admission: Admission,
    quota: Quota,
}

impl Service {
    /// The first embedder makes the first space; another one is for the model that is to come.
    pub fn new(store: Store, cache: Cache, embedders: impl IntoIterator<Item = Arc<dyn Embedder>>) -> Self {
        let store = store.with_witness(Arc::new(ChangeWitness(cache.clone())));
        let (keys, tenants) = (Keys::new(store.clone()), Tenants::new(store.clone()));
        Self {
            store,
            cache,
            database_id: Arc::default(),
            calm: Calm::new(),
            providers: embedders.into_iter().map(|embedder| Arc::new(Provider::new(embedder))).collect(),
            keys,
            tenants,
            spaces: LookedUp::new(1, SPACE_TTL, spaces::may_be_kept),
            scopes: ScopeMemory::new(),
            next_drop: Arc::default(),
            embedded: Arc::default(),
            packing: Packing::new(),
            rate_limiter: None,
            admission: Admission::new(SearchLimits::default()),
            quota: Quota::new(None),
            reranking: None,
        }
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        let Limits { rates, searches, stored_bytes_max } = limits;
        Self {
            rate_limiter: Some(Arc::new(self.cache.rate_limiter(rates))),
            admission: Admission::new(searches),
            quota: Quota::new(stored_bytes_max),
            ..self
        }
    }

    /// The same for work that can wait, when the database has much to do.
    #[must_use]
    pub fn patient(&self) -> Self {
        Self { store: self.store.patient(), ..self.clone() }
    }

    /// Counts a request against the caller's limits; none when there are none.
    pub async fn take_request(&self, caller: &Principal) -> Option<Allowance> {
        self.rate_limiter.as_ref()?.take(caller.access.tenant, caller.api_key).await
    }

    /// Whether something may be begun that needs the database.
    ///
    /// # Errors
    /// [`crate::error::Code::Overloaded`].
    pub fn admit(&self) -> Result<()> {
        self.store.admit()
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

    /// Has plans made anew for tables that have grown much; answers their names.
    ///
    /// # Errors
    /// [`crate::error::Code::DatabaseUnavailable`].
    pub async fn analyze_what_has_grown(&self) -> Result<Vec<String>> {
        self.store.analyze_what_has_grown().await
    }
}
