//! The worst lanes of the handler, found by a scan that takes part of several turns.

use std::cmp::Reverse;
use std::time::Duration;

use keylane_core::{Core, LaneScan, LaneView, Partition};
use tokio::sync::watch;

/// Number of lanes per turn: well below a millisecond of work.
const LANES_PER_TURN: u32 = 16_384;

/// What makes a lane worse than another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::app) enum LaneOrder {
    /// The number of its events.
    Depth,
    /// The time since its first event was read.
    Age,
    /// The attempts of its first event.
    Attempts,
}

/// A request for the worst lanes.
#[derive(Debug)]
pub(in crate::app) struct LanesRequest {
    pub(in crate::app) by: LaneOrder,
    pub(in crate::app) limit: usize,
    /// Receives the lanes, worst first.
    pub(in crate::app) response: watch::Sender<Option<Vec<RankedLane>>>,
}

/// One of the worst lanes.
#[derive(Clone, Debug)]
pub(in crate::app) struct RankedLane {
    /// Its name; `None`: it is not that of a key.
    pub(in crate::app) name: Option<String>,
    /// Its key, if keys are shown.
    pub(in crate::app) key: Option<String>,
    pub(in crate::app) topic: String,
    pub(in crate::app) lane: LaneView,
    /// The last error of its first event.
    pub(in crate::app) error: Option<String>,
}

/// A scan in progress.
#[derive(Debug)]
pub(super) struct LaneRanking {
    request: LanesRequest,
    scan: LaneScan,
    /// The worst lanes so far, worst first.
    lanes: Vec<RankedLane>,
}

impl LaneRanking {
    pub(super) fn new(request: LanesRequest) -> LaneRanking {
        LaneRanking { request, scan: LaneScan::default(), lanes: Vec::new() }
    }

    /// Continues the scan. Returns whether it is complete. `describe` is called at once: a turn later, the event of a
    /// lane may have settled, and its record may be gone.
    pub(super) fn continue_scan(&mut self, core: &Core, describe: impl Fn(LaneView) -> RankedLane) -> bool {
        let LaneRanking { request: LanesRequest { by, limit, .. }, scan, lanes } = self;
        let mut found = Vec::new();
        let complete = core.scan_lanes(scan, LANES_PER_TURN, |lane| found.push(lane));
        found.sort_unstable_by_key(|lane| Reverse(rank(*by, lane)));
        let least = lanes.get(limit.saturating_sub(1)).map(|last| rank(*by, &last.lane));
        for lane in found.into_iter().take(*limit) {
            if least.is_some_and(|least| rank(*by, &lane) <= least) {
                break; // the rest is no worse than the lanes so far
            }
            let event = |lane: &LaneView| (lane.partition, lane.offset);
            lanes.retain(|ranked| event(&ranked.lane) != event(&lane)); // it was passed before
            lanes.push(describe(lane));
        }
        lanes.sort_by_key(|ranked| Reverse(rank(*by, &ranked.lane)));
        lanes.truncate(*limit);
        complete
    }

    /// Sends the worst lanes.
    pub(super) fn respond(self) {
        self.request.response.send_replace(Some(self.lanes));
    }
}

/// Returns how bad a lane is. Lanes that are equally bad are ranked by the age of their first event.
fn rank(by: LaneOrder, lane: &LaneView) -> (u64, Duration, Partition, i64) {
    let first = match by {
        LaneOrder::Depth => lane.events.into(),
        LaneOrder::Age => 0,
        LaneOrder::Attempts => lane.attempt.into(),
    };
    (first, lane.age, lane.partition, lane.offset)
}
