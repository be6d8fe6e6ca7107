//! The clock of a run. The core receives its times from this clock.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use keylane_core::Now;

/// The time since the start of the run, and the wall clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    started: Instant,
}

impl Clock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the app passes this clock, or its times, to the code that needs them"
    )]
    pub(super) fn start() -> Self {
        Clock { started: Instant::now() }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the app passes this clock, or its times, to the code that needs them"
    )]
    pub(super) fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Now { uptime: self.started.elapsed(), wall_ms: i64::try_from(wall.as_millis()).unwrap_or(i64::MAX) }
    }
}
