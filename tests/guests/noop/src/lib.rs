//! Every event is done immediately and without outputs, which shows the cost of a call without
//! work.

use keylane_sdk::{Effects, Event, Result};

fn handle(_: &Event<'_>, _: &mut Effects) -> Result {
    Ok(())
}
keylane_sdk::handler!(handle);
