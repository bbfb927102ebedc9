//! All SQL, and nothing but SQL: static text, bound parameters, the tenant first in every function. A connection never
//! leaves this folder, so none is held while anything but PostgreSQL is waited for. Imports `domain` and `error`.

mod api_keys;
mod contexts;
mod embeddings;
#[cfg(feature = "embedded-postgres")]
mod embedded;
mod failure;
mod health;
mod migrations;
mod pool;
mod search;
mod spaces;

#[cfg(feature = "embedded-postgres")]
use std::sync::Arc;

pub use self::{
    contexts::Written,
    embeddings::{ChunkVector, PendingChunk, PendingContext},
    health::SchemaState,
    migrations::Applied,
    pool::{ConnectOptions, PoolStatus},
    search::{ChunkHit, Scope, Semantic},
};

/// The database. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    pool: pool::Pool,
    /// Keeps the engine in process alive for as long as anyone may talk to it.
    #[cfg(feature = "embedded-postgres")]
    engine: Option<Arc<embedded::Engine>>,
}

impl Store {
    /// Whether PostgreSQL runs in this process.
    pub fn is_embedded(&self) -> bool {
        #[cfg(feature = "embedded-postgres")]
        return self.engine.is_some();
        #[cfg(not(feature = "embedded-postgres"))]
        false
    }
}
