//! What limits a handler, and what to do. `docs/operations.md` has the same table.

/// One cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitCause {
    /// Its name in the status, the metrics and the log (`limited_by`).
    pub code: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// What to do if the lag grows.
    pub remedy: &'static str,
}

/// The handler keeps up.
pub const CAUGHT_UP: LimitCause =
    LimitCause { code: "caught_up", meaning: "the handler keeps up with its topics", remedy: "nothing" };

/// Records arrive too slowly.
pub const FETCH: LimitCause = LimitCause {
    code: "fetch",
    meaning: "no event is queued, but the logs contain many unread events",
    remedy: "check the brokers and the network; a larger `runtime.memory_budget` fetches more ahead",
};

/// All workers are busy.
pub const CPU: LimitCause = LimitCause {
    code: "cpu",
    meaning: "lanes wait for a worker",
    remedy: "use more cores (`runtime.workers`), or more processes with the same `group_id`",
};

/// All calls are in use.
pub const CONCURRENCY: LimitCause = LimitCause {
    code: "concurrency",
    meaning: "lanes wait, and all calls of `lanes.max_concurrency` are running",
    remedy: "raise `lanes.max_concurrency`",
};

/// One key has most events.
pub const ONE_LANE: LimitCause = LimitCause {
    code: "one_lane",
    meaning: "at least half of the queued events are in one lane, which is serial",
    remedy: "choose a `lane_key` with more values, or make the handler faster for this key",
};

/// There are too few keys.
pub const FEW_LANES: LimitCause = LimitCause {
    code: "few_lanes",
    meaning: "every lane with events already has its own call",
    remedy: "choose a `lane_key` with more values, or make the handler faster",
};

/// Events fail.
pub const RETRIES: LimitCause = LimitCause {
    code: "retries",
    meaning: "no call runs, and at least one lane waits for its next attempt",
    remedy: "see the handler's errors in the log, and in the list of lanes",
};

/// Outputs are not acknowledged.
pub const OUTPUTS: LimitCause = LimitCause {
    code: "outputs",
    meaning: "outputs are queued, or not acknowledged",
    remedy: "check the brokers of the output topics",
};

/// Calls wait for something else.
pub const SERVICE: LimitCause = LimitCause {
    code: "service",
    meaning: "most calls wait for I/O or a timer, such as the response of a service",
    remedy: "check the service that the handler calls; with a healthy one, raise `lanes.max_concurrency`",
};

/// All causes that this version reports.
pub const LIMIT_CAUSES: [LimitCause; 9] =
    [CAUGHT_UP, FETCH, CPU, CONCURRENCY, ONE_LANE, FEW_LANES, RETRIES, OUTPUTS, SERVICE];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operations_page_has_the_same_table() {
        let page = include_str!("../../../docs/operations.md");
        for LimitCause { code, meaning, remedy } in LIMIT_CAUSES {
            let row = format!("| `{code}` | {meaning} | {remedy} |");
            assert!(page.lines().any(|line| line == row), "not in docs/operations.md: {row}");
        }
    }
}
