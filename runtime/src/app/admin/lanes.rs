//! Converts the worst lanes of a handler to their status.

use std::time::Duration;

use keylane_core::LaneProgress;

use crate::status::{LaneState, LaneStatus, LanesStatus};

use super::super::event_loop::{LaneOrder, RankedLane};
use super::handler_entry::millis;

pub(super) fn order_of(by: keylane_admin::LaneOrder) -> LaneOrder {
    match by {
        keylane_admin::LaneOrder::Depth => LaneOrder::Depth,
        keylane_admin::LaneOrder::Age => LaneOrder::Age,
        keylane_admin::LaneOrder::Attempts => LaneOrder::Attempts,
    }
}

/// Returns the status of ranked lanes. `now`: the uptime.
pub(super) fn status(
    handler: &str,
    by: keylane_admin::LaneOrder,
    ranked: &[RankedLane],
    now: Duration,
) -> LanesStatus {
    let by = match by {
        keylane_admin::LaneOrder::Depth => "depth",
        keylane_admin::LaneOrder::Age => "age",
        keylane_admin::LaneOrder::Attempts => "attempts",
    };
    let lanes = ranked.iter().map(|ranked| lane(ranked, now)).collect();
    LanesStatus { handler: handler.to_owned(), by: by.to_owned(), lanes }
}

fn lane(ranked: &RankedLane, now: Duration) -> LaneStatus {
    let RankedLane { name, key, topic, lane, error } = ranked;
    let (state, retry_at) = match lane.progress {
        LaneProgress::Ready => (LaneState::Ready, None),
        LaneProgress::Running => (LaneState::Running, None),
        LaneProgress::Unacked => (LaneState::Unacked, None),
        LaneProgress::Delayed(at) => (LaneState::Delayed, Some(at)),
        LaneProgress::Barred => (LaneState::Barred, None),
    };
    LaneStatus {
        lane: name.clone(),
        key: key.clone(),
        topic: topic.clone(),
        partition: lane.partition.number,
        offset: lane.offset,
        events: lane.events,
        state,
        attempt: lane.attempt,
        age_ms: millis(lane.age),
        retry_in_ms: retry_at.map(|at| millis(at.saturating_sub(now))),
        error: error.clone(),
    }
}
