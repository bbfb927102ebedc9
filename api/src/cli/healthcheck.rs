//! `context-api healthcheck`: for container images that have neither shell nor curl.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use super::CommandResult;
use crate::config::{self, Source};

const DEADLINE: Duration = Duration::from_secs(3);

pub(super) async fn run(source: &Source, embedder: bool, backup: bool) -> CommandResult {
    let (bind, path) = if backup {
        let address = config::metrics(source)?;
        (address.ok_or("METRICS_ADDR is `off`, so that nobody can ask how the backups are")?, "/health")
    } else if embedder {
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
