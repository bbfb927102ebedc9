//! The binary `context-api`. Everything is in the library, where tests can reach it.

use std::process::ExitCode;

use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    context_api::cli::run()
}
