//! All SQL, and nothing but SQL: static text, bound parameters, the tenant first in every function. A connection never
//! leaves this folder, so none is held while anything but PostgreSQL is waited for. Imports `domain` and `error`.

mod api_keys;
mod contexts;
#[cfg(feature = "embedded-postgres")]
mod embedded;
mod embeddings;
mod failure;
mod health;
mod maintenance;
mod migrations;
mod pool;
mod search;
mod spaces;

use std::sync::Arc;

pub use self::{
    contexts::{Bounded, Written},
    embeddings::{ChunkVector, PendingChunk, PendingContext},
    health::SchemaState,
    migrations::Applied,
    pool::{ConnectOptions, PoolStatus},
    search::{ChunkHit, Scope, Semantic},
};

#[cfg(feature = "embedded-postgres")]
use self::embedded::Engine;

/// This build has none.
#[cfg(not(feature = "embedded-postgres"))]
enum Engine {}

/// The database. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    pool: pool::Pool,
    /// Keeps the engine in process alive for as long as anyone may talk to it.
    engine: Option<Arc<Engine>>,
}

impl Store {
    /// Whether PostgreSQL runs in this process.
    pub fn is_embedded(&self) -> bool {
        self.engine.is_some()
    }
}
