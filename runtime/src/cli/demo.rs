//! `keylane demo`

use std::path::Path;

use super::{Ending, Failure, run};
use crate::{app, config};

/// The example that is shown, as seen from the root of the repository.
const EXAMPLE: &str = "examples/flights/keylane.toml";

/// Runs the example on the broker inside this process, to the end of its events.
pub(super) fn execute() -> Result<Ending, Failure> {
    let example = Path::new(EXAMPLE);
    if !example.is_file() {
        return Err(Failure::Usage {
            message: format!("the example {EXAMPLE} is not here"),
            hint: "run it from the root of Keylane's repository",
        });
    }
    run::start(&config::load(example)?, app::RunOptions { until_end: true })
}
