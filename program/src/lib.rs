//! What a program of this project is made of besides its purpose: variables, log lines, metrics, the signals that end it, and a
//! question whether it is well.

mod health;
mod lines;
mod log;
mod metrics;
mod server;
mod source;
mod stop;

pub use self::{
    health::ask_health,
    lines::LineOrigin,
    log::{LogOptions, start_logging},
    metrics::{DURATION_BUCKETS, start_metrics},
    server::{ServerOptions, bind, bind_address, cores},
    source::{ConfigError, Source},
    stop::{Stop, within},
};

/// What a command may fail with; shown as one line.
pub type CommandResult = Result<(), Box<dyn std::error::Error>>;

/// TLS for whatever dials out, to be provided before anything does: an HTTP client wants it also for calls without. By ring, because it
/// builds without cmake.
pub fn provide_tls() {
    // Fails only when called twice.
    rustls::crypto::ring::default_provider().install_default().ok();
}
