//! Waits on each event, as for a remote response, for 10 ms or the number of milliseconds in the
//! variable `PAUSE_MS`.

use std::sync::LazyLock;
use std::time::Duration;

use keylane_sdk::{Effects, Event, Result};

#[expect(clippy::disallowed_methods, reason = "the granted environment is its configuration")]
static PAUSE: LazyLock<Duration> = LazyLock::new(|| {
    let written = std::env::var("PAUSE_MS").ok().and_then(|millis| millis.parse().ok());
    Duration::from_millis(written.unwrap_or(10))
});

fn handle(_: &Event<'_>, _: &mut Effects) -> Result {
    std::thread::sleep(*PAUSE);
    Ok(())
}
keylane_sdk::handler!(handle);
