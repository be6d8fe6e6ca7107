//! Why a partition makes no progress, and what to do. `docs/operations.md` has the same table. A new reason begins as a
//! variant of `BlockedOn` in `runtime/core/src/blockage.rs`.

/// One reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StallReason {
    /// Its name in the status, the metrics and the log (`blocked_on`).
    pub code: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// What to do.
    pub remedy: &'static str,
}

impl StallReason {
    /// Returns the section of the manual about this reason.
    #[must_use]
    pub fn see(&self) -> String {
        format!("docs/operations.md#{}", self.code)
    }
}

/// The start of the partition is being looked up.
pub const START_UNKNOWN: StallReason = StallReason {
    code: "start_unknown",
    meaning: "the committed offset or the bounds of the log are not known yet",
    remedy: "see `partition start not resolved yet` or `keyed state is restored` in the log; check the leader of the partition and the coordinator of the group",
};

/// The start is known, and the rebalance is not answered.
pub const REBALANCE_PENDING: StallReason = StallReason {
    code: "rebalance_pending",
    meaning: "the partition waits for the end of the rebalance: other partitions are still being looked up or released",
    remedy: "look at the other partitions of the handler",
};

/// The partition is being released.
pub const RELEASING: StallReason = StallReason {
    code: "releasing",
    meaning: "the partition is being released: running calls may finish, and nothing new is dispatched",
    remedy: "none: the next owner processes what is left",
};

/// The partition has stopped.
pub const STOPPED: StallReason = StallReason {
    code: "stopped",
    meaning: "the partition can't be read until it is assigned again",
    remedy: "see `stop_reason`, which names the offset and what to do, and restart",
};

/// No call with the event has begun.
pub const WAITING: StallReason = StallReason {
    code: "waiting",
    meaning: "the event waits for its call",
    remedy: "if `blocking_topic` is set, check the brokers of that topic; otherwise compare `calls` with `lanes.max_concurrency`, and the CPU use with the number of workers",
};

/// Other partitions are behind.
pub const AHEAD: StallReason = StallReason {
    code: "ahead",
    meaning: "the event waits for slower partitions of the handler, because of `read_in_step`",
    remedy: "none, while they advance; otherwise look at those that do not",
};

/// A call with the event runs.
pub const RUNNING: StallReason = StallReason {
    code: "running",
    meaning: "a guest call with the event has not returned",
    remedy: "check what the handler waits for; `timeout` ends the call",
};

/// The call waits for the store of states.
pub const STATE_LOADING: StallReason = StallReason {
    code: "state_loading",
    meaning: "the call of the event waits for the state of a key, which is read from a file",
    remedy: "see `file of keyed state failed` in the log, and check the disk of `keys.dir`",
};

/// Order values are missing.
pub const GAP: StallReason = StallReason {
    code: "gap",
    meaning: "the event waits for the order values before its own, which have not come",
    remedy: "publish the missing events; after `gate.gap_timeout` the gap is closed as `gate.on_gap` says",
};

/// The window of the event is open.
pub const WINDOW: StallReason = StallReason {
    code: "window",
    meaning: "the event waits for its window, because events with lower order values may still come",
    remedy: "none, if the wait is not longer than `gate.window`; otherwise check the timestamps of the records and the leader of the partition",
};

/// The delay before the next attempt.
pub const RETRYING: StallReason = StallReason {
    code: "retrying",
    meaning: "the event failed and waits for its next attempt",
    remedy: "see the handler's error in the log; after `max_attempts` the event gets its outcome",
};

/// Outputs are in flight.
pub const OUTPUTS_UNACKED: StallReason = StallReason {
    code: "outputs_unacked",
    meaning: "the brokers have not acknowledged the outputs of the event",
    remedy: "check that the output topic exists, that this user may write to it, and that its brokers run",
};

/// A dead letter is in flight.
pub const DEAD_LETTER_UNACKED: StallReason = StallReason {
    code: "dead_letter_unacked",
    meaning: "the brokers have not acknowledged the dead letter of the event",
    remedy: "check that the dead-letter topic exists, that this user may write to it, and that its brokers run",
};

/// A commit is rejected, or not answered.
pub const COMMIT_NOT_STORED: StallReason = StallReason {
    code: "commit_not_stored",
    meaning: "no event blocks the partition now, but the coordinator has not stored the offset",
    remedy: "see `commit rejected`, `commit timed out` and `transaction aborted` in the log; most causes end with a rebalance, or when the coordinator responds again",
};

/// Transactions leave the partition out.
pub const LEFT_OUT: StallReason = StallReason {
    code: "left_out",
    meaning: "transactions leave the partition out, because a topic of its outputs or dead letters, or its changelog, does not accept records",
    remedy: "see `left_out`, which names the topic and the error, and correct the topic; the partition is tried again every 10 s",
};

/// Reads fail.
pub const READ_ERROR: StallReason = StallReason {
    code: "read_error",
    meaning: "the partition can't be read; reading is retried",
    remedy: "see `partition can't be read; retrying` in the log, which names the error",
};

/// The client can't be positioned.
pub const SEEK_FAILED: StallReason = StallReason {
    code: "seek_failed",
    meaning: "the client can't move to the offset; this is retried",
    remedy: "check that the leader of the partition runs",
};

/// Records are known to exist, and no error is reported.
pub const NOT_FETCHED: StallReason = StallReason {
    code: "not_fetched",
    meaning: "the log has records that do not arrive, although the leader responds",
    remedy: "look for an open transaction on the topic (`kafka-transactions.sh find-hanging`)",
};

/// Not even the end of the log is known.
pub const LEADER_UNAVAILABLE: StallReason = StallReason {
    code: "leader_unavailable",
    meaning: "nothing arrives, and the leader of the partition does not respond, or there is none",
    remedy: "check that the leader of the partition runs",
};

/// All reasons that this version reports.
pub const STALL_REASONS: [StallReason; 19] = [
    START_UNKNOWN,
    REBALANCE_PENDING,
    RELEASING,
    STOPPED,
    WAITING,
    AHEAD,
    RUNNING,
    STATE_LOADING,
    GAP,
    WINDOW,
    RETRYING,
    OUTPUTS_UNACKED,
    DEAD_LETTER_UNACKED,
    COMMIT_NOT_STORED,
    LEFT_OUT,
    READ_ERROR,
    SEEK_FAILED,
    NOT_FETCHED,
    LEADER_UNAVAILABLE,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operations_page_has_the_same_table() {
        let page = include_str!("../../../docs/operations.md");
        let rows = page.lines().filter(|line| line.starts_with("| `") && line.matches(" | ").count() == 2);
        for StallReason { code, meaning, remedy } in STALL_REASONS {
            let row = format!("| `{code}` | {meaning} | {remedy} |");
            assert!(rows.clone().any(|line| line == row), "not in docs/operations.md: {row}");
            let heading = format!("### `{code}`");
            assert!(page.lines().any(|line| line == heading), "not in docs/operations.md: {heading}");
        }
    }
}
