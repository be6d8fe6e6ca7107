//! `keylane demo`

mod report;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::{CommandFailure, Completion, compile, stdout};
use crate::{app, config};
use report::{Fed, Published};

/// The configuration of the example, relative to the root of the repository.
const EXAMPLE: &str = "examples/flights/keylane.toml";

/// Runs the example on the embedded broker, to the end of its events, and prints a report. The order is checked with
/// the published outputs, whose headers identify their events.
pub(super) fn execute() -> Result<Completion, CommandFailure> {
    let example = Path::new(EXAMPLE);
    if !example.is_file() {
        return Err(CommandFailure::Usage {
            message: format!("example not found: {EXAMPLE}"),
            remedy: "run this command in the root directory of Keylane's repository",
        });
    }
    let mut config = config::load(example)?;
    for output in config.handlers.iter_mut().flat_map(|handler| &mut handler.outputs) {
        output.provenance = true;
    }
    let fed = Fed::count(&config)?;
    let published = Arc::new(Mutex::new(Published::default()));
    let options = app::RunOptions {
        until_end: true,
        read_back: Some(read_back(&published)),
        compiler: compile::compiler()?,
        admin_listen: Some("off".to_owned()),
    };
    let end = app::run(&config, &options)?;
    let published = published.lock().unwrap_or_else(PoisonError::into_inner);
    let printed = stdout::print(&report::text(&fed, &end, &published))?;
    let in_order = published.violations() == 0 && end.totals.done == fed.events;
    Ok(if end.failures.is_empty() && in_order { printed } else { Completion::Failure })
}

fn read_back(published: &Arc<Mutex<Published>>) -> app::ReadBack {
    let published = Arc::clone(published);
    Arc::new(move |topic, _partition, record| {
        published.lock().unwrap_or_else(PoisonError::into_inner).take(topic, record);
    })
}
