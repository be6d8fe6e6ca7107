//! Every event is done immediately without outputs: the cost of a call without work.

use keylane_sdk::{Effects, Event, Result};

fn handle(_: &Event<'_>, _: &mut Effects) -> Result {
    Ok(())
}
keylane_sdk::handler!(handle);
