//! A deadline on the real clock: limits of waits, and pauses before retries.
use std::time::{Duration, Instant};

/// The time at which a wait times out.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Instant);

impl Deadline {
    /// Creates a deadline at this time from now.
    pub fn after(timeout: Duration) -> Deadline {
        Deadline(now() + timeout)
    }

    /// Returns the remaining time.
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(now())
    }

    /// Returns whether no time remains.
    pub fn is_over(self) -> bool {
        self.remaining().is_zero()
    }
}

#[expect(clippy::disallowed_methods, reason = "limits of waits, and pauses before retries")]
fn now() -> Instant {
    Instant::now()
}

/// Converts a wait to milliseconds, as the C library counts, rounded up: at least 1 for a wait of a microsecond or
/// more.
pub(super) fn millis(wait: Duration) -> i32 {
    let rounded_up = wait.as_micros().div_ceil(1000);
    i32::try_from(rounded_up).unwrap_or(i32::MAX)
}
