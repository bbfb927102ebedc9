//! How the service and what it depends on are doing.

use serde::Serialize;
use strum::IntoStaticStr;
use utoipa::ToSchema;

use super::{ProviderState, Service};
use crate::cache::RemoteState;

/// Whether one dependency works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema, IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum CheckStatus {
    Ok,
    /// Away, and the service does without it as well as it can.
    Degraded,
    /// Away, and the service cannot do without it.
    Unavailable,
}

/// How one dependency is.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Check {
    pub status: CheckStatus,
    /// In a word or a sentence what there is or what is wrong.
    pub detail: String,
}

/// Each dependency.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Health {
    pub database: Check,
    pub cache: Check,
    pub embeddings: Check,
}

impl Health {
    /// Whether requests can be served at all.
    pub fn is_serving(&self) -> bool {
        self.database.status == CheckStatus::Ok
    }

    pub fn is_whole(&self) -> bool {
        [&self.database, &self.cache, &self.embeddings].iter().all(|check| check.status == CheckStatus::Ok)
    }
}

impl Service {
    /// Asks the database and Redis; of the embedding provider it tells what the poller saw last.
    pub async fn health(&self) -> Health {
        let (database, cache) = tokio::join!(self.check_database(), self.check_cache());
        Health { database, cache, embeddings: self.check_embeddings().await }
    }

    async fn check_database(&self) -> Check {
        // A service that refuses requests because it has too many is well.
        match self.store.patient().ping().await {
            Ok(()) => Check { status: CheckStatus::Ok, detail: "up".to_owned() },
            // The cause may name hosts and users, which callers without a key must not learn; it is in the log.
            Err(error) => {
                tracing::warn!(%error, "the database is away");
                Check { status: CheckStatus::Unavailable, detail: error.detail.into_owned() }
            }
        }
    }

    async fn check_cache(&self) -> Check {
        match self.cache.remote_state().await {
            None => Check { status: CheckStatus::Ok, detail: "in process".to_owned() },
            Some(RemoteState::Up) => Check { status: CheckStatus::Ok, detail: "redis".to_owned() },
            Some(RemoteState::Down) => {
                Check { status: CheckStatus::Degraded, detail: "redis is away; in process".to_owned() }
            }
        }
    }

    async fn check_embeddings(&self) -> Check {
        match self.provider_state().await {
            ProviderState::Up(model) => {
                Check { status: CheckStatus::Ok, detail: format!("{}: {}", model.provider, model.name) }
            }
            ProviderState::Unknown => {
                Check { status: CheckStatus::Degraded, detail: "not asked yet".to_owned() }
            }
            ProviderState::Down(reason) => {
                // As above: the reason may name hosts.
                tracing::debug!(reason, "the embedding provider is away");
                Check { status: CheckStatus::Degraded, detail: "the embedding provider is away".to_owned() }
            }
        }
    }
}
