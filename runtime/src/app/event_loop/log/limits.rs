//! Limits for log lines that every event or every turn may cause: two lines a second for each cause, or one in 10
//! seconds for a condition that lasts. The next line of the cause has the number of dropped lines.

use keylane_core::Now;

use crate::logging::{LinePermit, LineThrottle};

/// Maximum lines a second per cause.
const LINES_MAX: u32 = 2;
/// Seconds between two lines about a lasting condition.
const LASTING_LINE_SECONDS: u64 = 10;
const LASTING: [Cause; 6] = [
    Cause::StartUnknown,
    Cause::OtherAssignor,
    Cause::TopicBlocked,
    Cause::ChangelogUnavailable,
    Cause::OtherDelivery,
    Cause::Restoring,
];

/// The cause of a line.
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
    TransactionAborted,
    TopicBlocked,
    ChangelogUnavailable,
    Restoring,
    OutputRefused,
    OtherDelivery,
}

const CAUSES: [Cause; 16] = [
    Cause::DeadLetter,
    Cause::Skipped,
    Cause::CallFailed,
    Cause::Retry,
    Cause::OrderBreak,
    Cause::CommitRejected,
    Cause::Client,
    Cause::StartUnknown,
    Cause::NoLaneKey,
    Cause::OtherAssignor,
    Cause::TransactionAborted,
    Cause::TopicBlocked,
    Cause::ChangelogUnavailable,
    Cause::Restoring,
    Cause::OutputRefused,
    Cause::OtherDelivery,
];

/// The limits of one handler.
#[derive(Debug)]
pub(super) struct LogLimits([LineThrottle; CAUSES.len()]);

impl LogLimits {
    pub(super) fn new() -> LogLimits {
        let mut limits = std::array::from_fn(|_| LineThrottle::new(LINES_MAX));
        for cause in LASTING {
            if let Some(limit) = limits.get_mut(cause as usize) {
                *limit = LineThrottle::once_in(LASTING_LINE_SECONDS);
            }
        }
        LogLimits(limits)
    }

    /// Returns the number of lines dropped since the last written one, by cause. Called at the end of the loop.
    pub(super) fn take_dropped(&mut self) -> impl Iterator<Item = (Cause, u64)> {
        let dropped = CAUSES.into_iter().zip(&mut self.0).map(|(cause, limit)| (cause, limit.take_dropped()));
        dropped.filter(|(_, lines)| *lines > 0)
    }

    /// Counts a line. Returns `None` if the line must not be written.
    pub(super) fn permit(&mut self, cause: Cause, now: Now) -> Option<LinePermit> {
        self.0.get_mut(cause as usize)?.permit(now.uptime)
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
        let allowed = [1, 1, 1, 2].map(|second| lines.permit(Cause::DeadLetter, now(second)));
        let written = |dropped| Some(LinePermit { dropped });
        assert_eq!(allowed, [written(None), written(None), None, written(Some(1))]);
        assert_eq!(lines.permit(Cause::Skipped, now(2)), written(None));
        let allowed = [2, 3, 12].map(|second| lines.permit(Cause::StartUnknown, now(second)));
        assert_eq!(allowed, [written(None), None, written(Some(1))]);
        assert_eq!(lines.permit(Cause::DeadLetter, now(2)), written(None));
        assert_eq!(lines.permit(Cause::DeadLetter, now(2)), None);
        let dropped: Vec<_> = lines.take_dropped().collect();
        assert_eq!(dropped, [(Cause::DeadLetter, 1)]);
    }
}
