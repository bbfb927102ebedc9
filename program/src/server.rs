//! Where a program listens, and with how many threads.

use std::{
    net::{SocketAddr, TcpListener},
    num::NonZeroUsize,
    time::Duration,
};

use crate::{ConfigError, Source};

/// How an HTTP server runs.
#[derive(Clone, Copy, Debug)]
pub struct ServerOptions {
    /// Threads that handle requests.
    pub workers: usize,
    /// How long requests under way may take to finish after a stop was asked for.
    pub shutdown_grace: Duration,
}

impl ServerOptions {
    /// `HTTP_WORKERS` and `SHUTDOWN_GRACE_SECONDS`.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn read(source: &Source) -> Result<Self, ConfigError> {
        Ok(Self {
            workers: cores(source, "HTTP_WORKERS")?.get(),
            shutdown_grace: Duration::from_secs(source.parse_in("SHUTDOWN_GRACE_SECONDS", 1..=600, 30)?),
        })
    }
}

/// `name` as threads: 1 to 1024, by default one per core.
///
/// # Errors
/// [`ConfigError`].
pub fn cores(source: &Source, name: &str) -> Result<NonZeroUsize, ConfigError> {
    let default = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let threads = source.parse_in(name, 1..=1024, default.get())?;
    Ok(NonZeroUsize::new(threads).unwrap_or(default))
}

/// `BIND_ADDR`, where a program listens.
///
/// # Errors
/// [`ConfigError`].
pub fn bind_address(source: &Source, default: &str) -> Result<SocketAddr, ConfigError> {
    let address = source.text("BIND_ADDR")?.unwrap_or_else(|| default.to_owned());
    address
        .parse()
        .map_err(|_| source.refuse("BIND_ADDR", format!("must be an address and a port, such as {default}")))
}

/// # Errors
/// In a sentence for who starts the process, with the `variable` that changes the address.
pub fn bind(variable: &str, address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address).map_err(|error| {
        format!("cannot listen on {address}: {error}. Choose another address with {variable}.")
    })
}
