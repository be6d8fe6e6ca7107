//! `keylane run`

use std::path::Path;

use super::{Ending, Failure, RunArguments};
use crate::{app, config};

/// Runs what the file says.
pub(super) fn execute(file: &Path, arguments: &RunArguments) -> Result<Ending, Failure> {
    start(&config::load(file)?, app::RunOptions { until_end: arguments.until_end, read_back: None })
}

/// Runs a checked configuration.
pub(super) fn start(config: &config::Checked, options: app::RunOptions) -> Result<Ending, Failure> {
    for warning in &config.warnings {
        tracing::warn!(warning, "configuration");
    }
    let outcome = app::run(config, options)?;
    Ok(if outcome.failures.is_empty() { Ending::Fine } else { Ending::Findings })
}
