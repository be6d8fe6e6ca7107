//! Waits over each event, as for an answer from somewhere: 10 ms, or as many as the variable `PAUSE_MS` says.

use std::sync::LazyLock;
use std::time::Duration;

use keylane_sdk::{Effects, Event, Result};

#[expect(clippy::disallowed_methods, reason = "its environment is what it was granted")]
static PAUSE: LazyLock<Duration> = LazyLock::new(|| {
    let written = std::env::var("PAUSE_MS").ok().and_then(|millis| millis.parse().ok());
    Duration::from_millis(written.unwrap_or(10))
});

fn handle(_: &Event<'_>, _: &mut Effects) -> Result {
    std::thread::sleep(*PAUSE);
    Ok(())
}
keylane_sdk::handler!(handle);
