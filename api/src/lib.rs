//! Context API: stores the context that AI applications feed to their models, and finds the right pieces again.
//! `docs/architecture.md` shows how the folders depend on each other; a test enforces it.

pub mod backup;
pub mod cache;
pub mod cli;
pub mod config;
pub mod domain;
pub mod embedding;
pub mod error;
pub mod http;
pub mod service;
pub mod store;
pub mod telemetry;
pub mod worker;
