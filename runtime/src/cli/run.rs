//! `keylane run`

use std::path::Path;
use std::sync::Arc;

use super::{CommandFailure, Completion, RunArguments, compile, print_outputs};
use crate::config::Cluster;
use crate::{app, config, logging};

/// Runs the configuration. `log`: the log filter of the command line. Outputs on the embedded broker are printed,
/// because no other process can read them.
pub(super) fn execute(
    file: &Path,
    log: Option<&str>,
    arguments: &RunArguments,
) -> Result<Completion, CommandFailure> {
    let config = config::load(file)?;
    if let (None, Some(filter)) = (log, &config.log_filter) {
        logging::set_filter(filter)?;
    }
    for warning in &config.warnings {
        tracing::warn!(warning, "configuration warning");
    }
    let read_back: Option<app::ReadBack> = match config.kafka.cluster {
        Cluster::Embedded(_) => Some(Arc::new(print_outputs::print)),
        Cluster::Brokers(_) => None,
    };
    let compiler = compile::compiler()?;
    let options = app::RunOptions {
        until_end: arguments.until_end,
        read_back,
        compiler,
        admin_listen: arguments.admin_listen.clone(),
    };
    let end = app::run(&config, &options)?;
    Ok(if end.failures.is_empty() { Completion::Success } else { Completion::Failure })
}
