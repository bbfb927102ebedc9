//! The binary `context-embedder`, for an image that holds the model's server and nothing else.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use mimalloc::MiMalloc;
use program::{CommandResult, LogOptions, Source};

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// The built-in model of Context API as an embedding server, with the routes of text-embeddings-inference.
#[derive(Debug, Parser)]
#[command(name = "context-embedder", version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum Command {
    /// Run the server (the default)
    Serve,
    /// Ask the one on this machine whether it is there; for images without curl
    Healthcheck,
}

fn main() -> ExitCode {
    let command = Arguments::parse().command.unwrap_or(Command::Serve);
    program::provide_tls();
    match execute(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("context-embedder: {error}");
            ExitCode::FAILURE
        }
    }
}

fn execute(command: Command) -> CommandResult {
    let source = Source::from_environment();
    let _logging = program::start_logging(&LogOptions::read(&source)?, None);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        match command {
            Command::Serve => embedding_server::run(&source).await,
            Command::Healthcheck => embedding_server::healthcheck(&source).await,
        }
    });
    // Whatever still runs in the background is not worth waiting for.
    runtime.shutdown_background();
    result
}
