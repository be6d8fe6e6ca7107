//! Every event is done at once and nothing is emitted: what a call costs without work.

use keylane_sdk::{Effects, Event, Result};

fn handle(_: &Event<'_>, _: &mut Effects) -> Result {
    Ok(())
}
keylane_sdk::handler!(handle);
