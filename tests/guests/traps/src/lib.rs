//! Traps on each event.

use keylane_sdk::{Effects, Event, Result};

#[expect(clippy::panic, reason = "trapping is the purpose of this handler")]
fn handle(_: &Event<'_>, _: &mut Effects) -> Result {
    panic!("always")
}
keylane_sdk::handler!(handle);
