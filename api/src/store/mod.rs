//! All SQL, and nothing but SQL: static text, bound parameters, the tenant first in every function. A connection never
//! leaves this folder, so none is held while anything but PostgreSQL is waited for. Imports `domain` and `error`.

mod api_keys;
mod audit;
mod backup;
mod changes;
mod connect;
mod connection;
mod contexts;
mod deletions;
#[cfg(feature = "embedded-postgres")]
mod embedded;
mod embedding_queue;
mod embedding_work;
mod embeddings;
mod erasure;
mod export;
mod failure;
mod filter;
mod health;
mod hits;
mod home;
mod idempotency;
mod keyword;
mod keyword_facts;
mod keyword_statistics;
mod libpq;
mod life;
mod maintenance;
mod migrations;
mod operations;
mod past_search;
mod pool;
mod restoring;
mod search;
mod spaces;
#[cfg(feature = "embedded-postgres")]
mod stop_words;
mod stored_bytes;
mod tenants;
mod tsquery;
mod unit;
mod upkeep;
mod usage;
mod versions;
mod writes;

use std::sync::{Arc, atomic::AtomicBool};

pub use self::{
    backup::{BackupSession, Moment, Sample},
    changes::Witness,
    connect::ConnectOptions,
    contexts::Bounded,
    deletions::{Deleted, Deletion},
    embedding_queue::{ChunkVector, Line, PendingChunk, PendingContext, Queue, TurnSize},
    embedding_work::Surveyed,
    export::ExportRow,
    health::SchemaState,
    hits::{Found, NearbyFound},
    idempotency::Claim,
    keyword::{Ranked, Ranking, Scan, Weighted},
    keyword_facts::{KeywordFacts, Part, QueryTerm, SCOPE_CHUNKS_MAX},
    libpq::FOREIGN_VARIABLES,
    migrations::Applied,
    operations::{ClaimedOperation, Outcome},
    pool::PoolStatus,
    restoring::{DROP_MAX, Login, Occupied, SCRIPT_AFTER, Scratch, analyze, inspect, prepare, script_before},
    search::{ChunkHit, Compared, ExactCap, Nearby, Reach},
    tsquery::Match,
    unit::Unit,
    upkeep::Removed,
    usage::Backlog,
    versions::PastVersion,
    writes::{OnKey, WriteRow, Written, WrittenRow},
};

#[cfg(feature = "embedded-postgres")]
use self::embedded::Engine;

/// This build has none.
#[cfg(not(feature = "embedded-postgres"))]
enum Engine {}

#[cfg(not(feature = "embedded-postgres"))]
impl Engine {
    fn stop(&self) -> std::future::Ready<()> {
        match *self {}
    }
}

/// The database. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    pool: pool::Pool,
    /// So many may wait for a connection.
    queue_max: usize,
    /// Keeps the engine in process alive for as long as anyone may talk to it.
    engine: Option<Arc<Engine>>,
    witness: Option<Arc<dyn Witness>>,
    /// Whether PostgreSQL may go by the index of words, as far as was asked: [`Store::go_by_text_index_if_usable`].
    text_index: Arc<AtomicBool>,
}

impl Store {
    /// Whether PostgreSQL runs in this process.
    pub fn is_embedded(&self) -> bool {
        self.engine.is_some()
    }
}
