//! A deadline on the real clock: limits of waits, and pauses before retries.
use std::time::{Duration, Instant};

/// The time at which a wait times out.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Instant);

impl Deadline {
    /// The given time from now.
    pub fn after(limit: Duration) -> Deadline {
        Deadline(now() + limit)
    }

    /// The remaining time.
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(now())
    }

    /// Whether no time remains.
    pub fn is_over(self) -> bool {
        self.remaining().is_zero()
    }
}

#[expect(clippy::disallowed_methods, reason = "limits of waits, and pauses before retries")]
fn now() -> Instant {
    Instant::now()
}

/// A wait in milliseconds, as the C library counts; at least 1 for any wait that is not zero.
pub(super) fn millis(wait: Duration) -> i32 {
    let rounded_up = wait.as_micros().div_ceil(1000);
    i32::try_from(rounded_up).unwrap_or(i32::MAX)
}
