//! The `keylane` binary: arguments → logging → command (configuration → app) → exit code.

use std::process::ExitCode;

use keylane::cli::{self, Cli};

fn main() -> ExitCode {
    cli::end_on_panic();
    let cli = Cli::from_process();
    let ended = cli.start_logging().and_then(|()| cli.execute());
    cli::exit_code(ended)
}
