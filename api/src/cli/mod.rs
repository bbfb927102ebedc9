//! The command line: parse, wire, run. The composition root, so it may import everything.

mod backup;
mod client;
mod eval;
mod export;
mod healthcheck;
mod import;
mod keys;
mod migrate;
mod serve;
mod start;
mod tenants;
mod worker;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use program::{CommandResult, LogOptions};

use crate::{
    config::{self, Source},
    http,
    telemetry::{line_origin, start_traces},
};

/// Stores and finds the context that AI applications feed to their models.
///
/// Without any configuration it runs alone: a database, a model and a cache in this process, data in ./data.
#[derive(Debug, Parser)]
#[command(name = "context-api", version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the API (the default)
    Serve,
    /// Run a worker that embeds what the API has stored
    Worker,
    /// Run the built-in model as an embedding server, with the routes of text-embeddings-inference
    #[cfg(feature = "builtin-embedder")]
    Embedder,
    /// Bring the database to this version's schema
    Migrate {
        /// Only say whether it is; exit code 1 when it is not
        #[arg(long)]
        check: bool,
    },
    /// Make, list and revoke API keys
    Keys {
        #[command(subcommand)]
        command: keys::KeysCommand,
    },
    /// Make and list tenants
    Tenants {
        #[command(subcommand)]
        command: tenants::TenantsCommand,
    },
    /// Make backups of the database, and look after them
    Backup {
        #[command(subcommand)]
        command: backup::BackupCommand,
    },
    /// Restore a backup into the database
    Restore(backup::RestoreArguments),
    /// Load contexts from a file with one JSON object per line
    Import(import::ImportArguments),
    /// Write contexts to a file, one JSON object per line
    Export(export::ExportArguments),
    /// Measure how good the answers of a running service are, over questions whose right answers are known
    Eval(Box<eval::EvalArguments>),
    /// Print the OpenAPI document; needs no configuration
    Openapi,
    /// Ask the API on this machine whether it is ready; for images without curl
    Healthcheck(healthcheck::HealthcheckArguments),
}

/// Runs the command that the process was started with.
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    program::provide_tls();
    match execute(arguments.command.unwrap_or(Command::Serve)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("context-api: {error}");
            ExitCode::FAILURE
        }
    }
}

fn execute(command: Command) -> CommandResult {
    if matches!(command, Command::Openapi) {
        println!("{}", serde_json::to_string_pretty(&http::document())?);
        return Ok(());
    }
    let source = Source::from_environment();
    let _logging = program::start_logging(&LogOptions::read(&source)?, Some(line_origin));
    // Outside of the runtime, and dropped when that has ended: the last spans are sent by this thread.
    let _traces = match command {
        Command::Serve | Command::Worker => config::traces(&source)?.map(start_traces).transpose()?,
        _ => None,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        match command {
            Command::Serve => serve::run(&source).await,
            Command::Worker => worker::run(&source).await,
            #[cfg(feature = "builtin-embedder")]
            Command::Embedder => embedding_server::run(&source).await,
            Command::Migrate { check } => migrate::run(&source, check).await,
            Command::Keys { command } => keys::run(&source, command).await,
            Command::Tenants { command } => tenants::run(&source, command).await,
            Command::Backup { command } => backup::run(&source, command).await,
            Command::Restore(arguments) => Box::pin(backup::restore(&source, arguments)).await,
            Command::Import(arguments) => import::run(&source, arguments).await,
            Command::Export(arguments) => export::run(&source, arguments).await,
            Command::Eval(arguments) => eval::run(&source, *arguments).await,
            Command::Healthcheck(asked) => healthcheck::run(&source, &asked).await,
            Command::Openapi => Ok(()),
        }
    });
    // Whatever still runs in the background is not worth waiting for.
    runtime.shutdown_background();
    result
}
