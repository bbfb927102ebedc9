//! What a program of this project is made of besides its purpose: variables, log lines, metrics, the signals that end it, and a
//! question whether it is well. Knows nothing of any of them.

mod health;
mod lines;
mod log;
mod metrics;
mod server;
mod source;
mod stop;

pub use self::{
    health::ask_health,
    lines::Origin,
    log::{LogFormat, LogOptions, start_logging},
    metrics::{DURATION_BUCKETS, start_metrics},
    server::{ServerOptions, address, bind, cores},
    source::{ConfigError, Source},
    stop::{Stop, within},
};

/// What a command may fail with; shown as one line.
pub type CommandResult = Result<(), Box<dyn std::error::Error>>;

/// TLS for whatever dials out; ring, because it builds without cmake. To be called before anything does.
pub fn provide_tls() {
    // Fails only when called twice.
    rustls::crypto::ring::default_provider().install_default().ok();
}
