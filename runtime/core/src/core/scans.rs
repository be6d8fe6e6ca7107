//! The scans of all partitions. Each one runs only while some partition needs it, because a turn with a thousand
//! partitions must not cost a thousand steps.

use std::time::Duration;

use super::Core;

/// How often stalls, stuck calls and stopped partitions are checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Which scans are needed. All flags are false in the steady state.
#[derive(Debug, Default)]
pub(super) struct Scans {
    /// Whether some ownership is closing.
    pub(super) closing: bool,
    /// Whether some partition has stopped, until a restart or a revoke.
    pub(super) stopped: bool,
    /// Whether some partition can't be read.
    pub(super) read_failures: bool,
    /// Uptime of the last check of stalls, stuck calls and stopped partitions.
    checked_at: Duration,
}

impl Core {
    /// Checks everything that depends on time alone: lookups, read retries, stalls, pauses of reading, records that do
    /// not arrive, partitions that others wait for, stuck calls and stopped partitions.
    pub(super) fn check_times(&mut self) {
        self.check_lookups();
        self.check_read_retries();
        if self.now.uptime >= self.scans.checked_at + CHECK_INTERVAL {
            self.scans.checked_at = self.now.uptime;
            self.check_stalls();
            self.check_read_pauses();
            self.check_unfetched();
            self.check_passed_over();
            self.check_stuck_calls();
            self.check_all_stopped();
        }
    }

    pub(super) fn next_check(&self) -> Option<Duration> {
        let owned = self.partitions.iter().any(|partition| partition.may_commit());
        (owned || self.rebalance.looking_up || self.calls.unterminated > 0 || self.scans.stopped)
            .then_some(self.scans.checked_at + CHECK_INTERVAL)
    }
}
