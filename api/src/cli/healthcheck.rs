//! `context-api healthcheck`: for container images that have neither shell nor curl.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use clap::Args;

use super::CommandResult;
use crate::config::{self, Source};

const DEADLINE: Duration = Duration::from_secs(3);

#[derive(Debug, Args)]
#[group(multiple = false)]
pub(super) struct HealthcheckArguments {
    /// Ask an embedding server (`context-api embedder`) instead
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
    let internal = || {
        let address = config::metrics(source)?;
        address.ok_or_else(|| source.refuse("METRICS_ADDR", "is `off`, so that nobody can ask how it is"))
    };
    let (bind, path) = if asked.backup {
        (internal()?, "/health")
    } else if asked.worker {
        (internal()?, "/health/ready")
    } else if asked.embedder {
        (config::embedder_bind(source)?, "/health")
    } else {
        (config::bind(source)?, "/health/ready")
    };
    let address = dialable(bind);
    let client = reqwest::Client::builder().timeout(DEADLINE).no_proxy().build()?;
    let response = client.get(format!("http://{address}{path}")).send().await?;
    if response.status().is_success() {
        Ok(())
    } else {
        Err(format!("not ready: {}", response.text().await?).into())
    }
}

/// Listening on every address is listening on loopback too.
fn dialable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
