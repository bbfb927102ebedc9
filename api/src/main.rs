//! The binary `context-api`. Everything is in the library, where tests can reach it.

use std::process::ExitCode;

fn main() -> ExitCode {
    context_api::cli::run()
}
