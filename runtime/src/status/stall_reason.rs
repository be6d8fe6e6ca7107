//! Why a partition makes no progress, and what to do. `docs/operations.md` has the same table.

/// One reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StallReason {
    /// Its name in the status, the metrics and the log.
    pub code: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// What to do.
    pub remedy: &'static str,
}

/// All reasons that this version reports.
pub const STALL_REASONS: [StallReason; 8] = [
    StallReason {
        code: "queued",
        meaning: "the event waits for a free worker",
        remedy: "compare `calls` with `lanes.max_concurrency`, and the CPU use with the number of workers",
    },
    StallReason {
        code: "running",
        meaning: "a guest call with the event has not returned",
        remedy: "look at what the handler waits for; `timeout` ends the call",
    },
    StallReason {
        code: "retrying",
        meaning: "the event failed and waits for its next attempt",
        remedy: "look at the handler's error in the log; after `max_attempts` the event gets its outcome",
    },
    StallReason {
        code: "outputs_unacked",
        meaning: "the brokers have not acknowledged the outputs of the event",
        remedy: "check that the output topic exists, that this user may write to it, and that its brokers run",
    },
    StallReason {
        code: "dead_letter_unacked",
        meaning: "the brokers have not acknowledged the dead letter of the event",
        remedy: "check that the dead-letter topic exists, that this user may write to it, and that its brokers run",
    },
    StallReason {
        code: "commit_rejected",
        meaning: "all events are settled, but the coordinator does not store the offset",
        remedy: "look at `commit rejected` in the log; a rebalance or the coordinator's return resolves most causes",
    },
    StallReason {
        code: "read_error",
        meaning: "the partition can't be read; reading is retried",
        remedy: "look at `partition can't be read` in the log, which names the error",
    },
    StallReason {
        code: "seek_failed",
        meaning: "the client can't move to the offset; this is retried",
        remedy: "check that the leader of the partition runs",
    },
];

impl StallReason {
    /// Returns the reason with this name.
    #[must_use]
    pub fn of(code: &str) -> Option<StallReason> {
        STALL_REASONS.into_iter().find(|stall_reason| stall_reason.code == code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operations_page_has_the_same_table() {
        let page = include_str!("../../../docs/operations.md");
        for StallReason { code, meaning, remedy } in STALL_REASONS {
            let row = format!("| `{code}` | {meaning} | {remedy} |");
            assert!(page.lines().any(|line| line == row), "not in docs/operations.md: {row}");
        }
    }
}
