//! `keylane demo`

mod report;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::{CommandFailure, Ending, compile, output};
use crate::{app, config};
use report::{Fed, Published};

/// The example that is shown, as seen from the root of the repository.
const EXAMPLE: &str = "examples/flights/keylane.toml";

/// Runs the example on the broker inside this process, to the end of its events, and tells what happened. The order
/// is checked from what was published: every output says which event it comes from.
pub(super) fn execute() -> Result<Ending, CommandFailure> {
    let example = Path::new(EXAMPLE);
    if !example.is_file() {
        return Err(CommandFailure::Usage {
            message: format!("the example {EXAMPLE} is not here"),
            hint: "run it from the root of Keylane's repository",
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
    };
    let outcome = app::run(&config, &options)?;
    let published = published.lock().unwrap_or_else(PoisonError::into_inner);
    let printed = output::print(&report::text(&fed, &outcome, &published))?;
    let in_order = published.violations() == 0 && outcome.totals.done == fed.events;
    Ok(if outcome.failures.is_empty() && in_order { printed } else { Ending::Findings })
}

fn read_back(published: &Arc<Mutex<Published>>) -> app::ReadBack {
    let published = Arc::clone(published);
    Arc::new(move |topic, _partition, record| {
        published.lock().unwrap_or_else(PoisonError::into_inner).take(topic, record);
    })
}
