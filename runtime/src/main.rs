//! The `keylane` binary: arguments → logging → command (configuration → app) → exit code.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use keylane::cli::{self, Cli};

/// Also the allocator of librdkafka, whose records are allocated on one thread and freed on another: with the C library's
/// allocator a handler that does nothing takes a fifth more CPU time (decision 12).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::end_on_panic();
    let cli = Cli::from_process();
    let ended = cli.start_logging().and_then(|()| cli.execute());
    cli::exit_code(ended)
}
