//! Traps over each event.

use keylane_sdk::{Effects, Event, Result};

#[expect(clippy::panic, reason = "a trap is what this handler is for")]
fn handle(_: &Event<'_>, _: &mut Effects) -> Result {
    panic!("always")
}
keylane_sdk::handler!(handle);
