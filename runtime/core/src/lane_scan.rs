//! A scan of the lanes, in steps of limited length: a handler may have millions of lanes.

use std::time::Duration;

use crate::calls::{Awaited, Call, CallLane};
use crate::core::Core;
use crate::lanes::{LaneWithoutCall, LaneWithoutCallState};
use crate::{ArenaSlot, Partition};

/// A lane of a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneView {
    /// Its partition.
    pub partition: Partition,
    /// The offset of its first event that is not settled.
    pub offset: i64,
    /// Where the shell keeps that event.
    pub arena_slot: ArenaSlot,
    /// The number of the current or next attempt of that event.
    pub attempt: u32,
    /// How long ago that event was read.
    pub age: Duration,
    /// The number of its events that are not settled.
    pub events: u32,
    /// What its first event waits for.
    pub progress: LaneProgress,
}

/// What the first event of a lane waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneProgress {
    /// A call.
    Ready,
    /// The end of its call.
    Running,
    /// Acknowledgements of its outputs, or of its dead letter.
    Unacked,
    /// Its next attempt, at this uptime.
    Delayed(Duration),
    /// The barrier of its partition: with `retry.scope = "partition"`, an earlier event failed.
    Barred,
}

/// The position of a scan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneScan {
    /// Whether the lanes of calls were scanned.
    calls: bool,
    /// The next lane.
    next: u32,
}

impl Core {
    /// Continues a scan: the first step passes the lanes of all calls to `each`, every later one at most `max` lanes
    /// without a call. Returns whether the scan is complete. Between two steps, a lane may be missed or passed twice.
    pub fn scan_lanes(&self, scan: &mut LaneScan, max: u32, mut each: impl FnMut(LaneView)) -> bool {
        if !std::mem::replace(&mut scan.calls, true) {
            for call in self.calls.ids().filter_map(|id| self.calls.get(id)) {
                call.lanes.iter().filter_map(|lane| self.lane_of_call(call, lane)).for_each(&mut each);
            }
            return false;
        }
        let end = scan.next.saturating_add(max).min(self.lanes.end());
        let without_call = (scan.next..end).filter_map(|lane| self.lanes.lane_without_call(lane));
        without_call.filter_map(|lane| self.lane_without_call(&lane)).for_each(each);
        scan.next = end;
        end == self.lanes.end()
    }

    fn lane_of_call(&self, call: &Call, lane: &CallLane) -> Option<LaneView> {
        if lane.released || lane.disowned || lane.settled_to >= lane.end {
            return None;
        }
        let event = call.event(lane.settled_to);
        let progress = match call.awaited(lane.settled_to) {
            Awaited::Nothing if call.is_unterminated() => LaneProgress::Running,
            Awaited::Nothing | Awaited::Acks(_) | Awaited::Transaction(_) | Awaited::Outcome(_) => {
                LaneProgress::Unacked
            }
        };
        Some(LaneView {
            partition: self.partitions.get(lane.partition).id,
            offset: event.offset,
            arena_slot: event.arena_slot,
            attempt: event.attempt,
            age: self.age_of(event.admitted_ms),
            events: lane.end - lane.settled_to + self.lanes.queued(lane.index),
            progress,
        })
    }

    fn lane_without_call(&self, lane: &LaneWithoutCall<'_>) -> Option<LaneView> {
        let state = self.partitions.get(lane.partition);
        let progress = match lane.state {
            LaneWithoutCallState::Ready => LaneProgress::Ready,
            LaneWithoutCallState::Delayed(until) => LaneProgress::Delayed(until),
            LaneWithoutCallState::Barred => LaneProgress::Barred,
            LaneWithoutCallState::Loading => LaneProgress::Ready,
        };
        state.may_commit().then(|| LaneView {
            partition: state.id,
            offset: lane.first.offset,
            arena_slot: lane.first.arena_slot,
            attempt: lane.first.attempt,
            age: self.age_of(lane.first.admitted_ms),
            events: lane.events,
            progress,
        })
    }

    fn age_of(&self, admitted_ms: u32) -> Duration {
        Duration::from_millis(self.now().uptime_ms().wrapping_sub(admitted_ms).into())
    }
}
