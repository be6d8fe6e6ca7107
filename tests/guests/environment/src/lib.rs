//! Emits its environment to the target `out`, one `NAME=value` per line, sorted by name.

use keylane_sdk::{Effects, Event, Result};

fn handle(event: &Event<'_>, effects: &mut Effects) -> Result {
    let mut lines: Vec<String> = std::env::vars().map(|(name, value)| format!("{name}={value}")).collect();
    lines.sort_unstable();
    effects.emit("out").key(event.key()).value(lines.join("\n"));
    Ok(())
}
keylane_sdk::handler!(handle);
