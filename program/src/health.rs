//! Asks a program on this machine how it is: for container images that have neither shell nor curl.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use crate::CommandResult;

const DEADLINE: Duration = Duration::from_secs(3);

/// Asks the one that listens on `bind`.
///
/// # Errors
/// When it does not answer in time, or not with a success.
pub async fn ask_health(bind: SocketAddr, path: &str) -> CommandResult {
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
