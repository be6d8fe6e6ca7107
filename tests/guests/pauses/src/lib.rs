//! Waits 10 ms over each event, as for an answer from somewhere.

use std::time::Duration;

use keylane_sdk::{Effects, Event, Result};

fn handle(_: &Event<'_>, _: &mut Effects) -> Result {
    std::thread::sleep(Duration::from_millis(10));
    Ok(())
}
keylane_sdk::handler!(handle);
