//! The `keylane` binary: arguments → logging → command (configuration → app) → exit code.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use keylane::cli::{self, Cli};

/// A call that is suspended allocates about ten times, in the engine and in its I/O: 11.8 µs of CPU time with the C
/// library's allocator, 10.6 µs with this one (decision 12).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::end_on_panic();
    let cli = Cli::from_process();
    let ended = cli.start_logging().and_then(|()| cli.execute());
    cli::exit_code(ended)
}
