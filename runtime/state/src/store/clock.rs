//! The clock of the store thread.

use std::time::Instant;

/// Returns the time, for intervals between writes and attempts.
#[expect(clippy::disallowed_methods, reason = "the store thread has timers of its own")]
pub(super) fn now() -> Instant {
    Instant::now()
}
