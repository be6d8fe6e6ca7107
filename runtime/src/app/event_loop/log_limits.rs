//! How many lines are written about what may happen to every event, or at every turn: two a second for each cause. The next
//! one says how many were not written.

use keylane_core::Now;

use crate::telemetry::Throttle;

/// Lines a second about one cause.
const LINES_MAX: u32 = 2;
/// One line in so many seconds about what repeats itself while it lasts.
const LASTING_LINE_SECONDS: u64 = 10;
const LASTING: [Cause; 2] = [Cause::StartUnknown, Cause::OtherAssignor];

/// What lines are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    DeadLetter,
    Skipped,
    CallFailed,
    Retry,
    OrderBreak,
    CommitRejected,
    Client,
    StartUnknown,
    NoLaneKey,
    OtherAssignor,
}

const CAUSES: usize = 10;

/// The limits of one handler.
#[derive(Debug)]
pub(super) struct LogLimits([Throttle; CAUSES]);

impl LogLimits {
    pub(super) fn new() -> LogLimits {
        let mut limits = std::array::from_fn(|_| Throttle::new(LINES_MAX));
        for cause in LASTING {
            if let Some(limit) = limits.get_mut(cause as usize) {
                *limit = Throttle::once_in(LASTING_LINE_SECONDS);
            }
        }
        LogLimits(limits)
    }

    /// Whether a line may be written, and how many were not since the last one.
    pub(super) fn allow(&mut self, cause: Cause, now: Now) -> Option<u64> {
        self.0.get_mut(cause as usize)?.allow(now.uptime)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_cause_has_a_limit_of_its_own() {
        let now = |seconds| Now { uptime: Duration::from_secs(seconds), wall_ms: 0 };
        let mut lines = LogLimits::new();
        let said = [1, 1, 1, 2].map(|second| lines.allow(Cause::DeadLetter, now(second)));
        assert_eq!(said, [Some(0), Some(0), None, Some(1)]);
        assert_eq!(lines.allow(Cause::Skipped, now(2)), Some(0));
        let said = [2, 3, 12].map(|second| lines.allow(Cause::StartUnknown, now(second)));
        assert_eq!(said, [Some(0), None, Some(1)]);
    }
}
