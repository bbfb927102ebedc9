//! `context-api healthcheck`: for container images that have neither shell nor curl.

use clap::Args;

use super::CommandResult;
use crate::config::{self, Source};

#[derive(Debug, Args)]
#[group(multiple = false)]
pub(super) struct HealthcheckArguments {
    /// Ask an embedding server (`context-api embedder`) instead
    #[cfg(feature = "builtin-embedder")]
    #[arg(long)]
    embedder: bool,
    /// Ask a `context-api worker` instead whether it can work
    #[arg(long)]
    worker: bool,
    /// Ask a `context-api backup schedule` instead whether its backups are as they should be
    #[arg(long)]
    backup: bool,
}

pub(super) async fn run(source: &Source, asked: &HealthcheckArguments) -> CommandResult {
    #[cfg(feature = "builtin-embedder")]
    if asked.embedder {
        return embedding_server::healthcheck(source).await;
    }
    let internal = || {
        let address = config::metrics(source)?;
        address.ok_or_else(|| source.refuse("METRICS_ADDR", "is `off`, so that nobody can ask how it is"))
    };
    let (bind, path) = if asked.backup {
        (internal()?, "/health")
    } else if asked.worker {
        (internal()?, "/health/ready")
    } else {
        (config::bind(source)?, "/health/ready")
    };
    program::ask_health(bind, path).await
}
