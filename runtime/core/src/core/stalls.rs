//! What blocks partitions. A partition without progress is reported, with the event that blocks it.

use std::time::Duration;

use super::Core;
use crate::calls::{Awaited, Call, CallLane, CallState, Effect};
use crate::outbox::Pending;
use crate::partitions::{PartitionState, Phase, StallWatch, Unfetched};
use crate::{Blockage, BlockedOn, CallId};

/// The interval at which a stall that lasts is reported again.
const REPEAT: Duration = Duration::from_mins(10);

impl Core {
    pub(super) fn check_stalls(&mut self) {
        let now = self.now.uptime;
        let mut stalled = Vec::new();
        for index in self.partitions.indexes() {
            let state = self.partitions.get_mut(index);
            if state.stalled_since().is_some() && now >= state.stall_reported_at + REPEAT {
                stalled.push(index);
            }
            if state.reading.failure.is_some_and(|failure| failure.reported) {
                continue;
            }
            let waits = match state.phase {
                Phase::LookingUp(_) | Phase::Resolved => true,
                Phase::Starting | Phase::Active | Phase::Closing { .. } | Phase::Committing { .. } => {
                    (state.ledger.open() > 0 && !state.waits_for_others()) || state.is_dirty()
                }
                Phase::Vacant | Phase::Closed | Phase::Stopped => continue,
            };
            let seen = state.progress_now();
            if seen != state.stall_watch.seen || !waits {
                state.stall_watch.seen = seen;
                state.stall_watch.at = now;
                if std::mem::take(&mut state.stall_watch.reported) {
                    self.end_stall(index, true);
                }
            } else if now >= state.stall_watch.at + self.config.stall_after && !state.stall_watch.reported {
                state.stall_watch.reported = true;
                stalled.push(index);
            }
        }
        if stalled.is_empty() {
            return;
        }
        let blocked = self.blocked();
        for index in stalled {
            if let Some(Some(blockage)) = blocked.get(index as usize) {
                self.report_stall(*blockage);
            }
        }
    }

    pub(super) fn report_stall(&mut self, blockage: Blockage) {
        if let Some(index) = self.partitions.find(blockage.partition) {
            self.partitions.get_mut(index).stall_reported_at = self.now.uptime;
        }
        self.outbox.push(Pending::ReportStall(blockage));
    }

    /// Restarts the watch of a partition's progress, and ends the stall that it reported, if any. `resumed`: see
    /// [`Action::StallEnded`](crate::Action::StallEnded).
    pub(super) fn restart_stall_watch(&mut self, index: u32, resumed: bool) {
        let now = self.now.uptime;
        let state = self.partitions.get_mut(index);
        let watch = StallWatch { seen: state.progress_now(), at: now, reported: false };
        if std::mem::replace(&mut state.stall_watch, watch).reported {
            self.end_stall(index, resumed);
        }
    }

    pub(super) fn end_stall(&mut self, index: u32, resumed: bool) {
        let partition = self.partitions.get(index).id;
        self.outbox.push(Pending::StallEnded { partition, resumed });
    }

    /// Returns what blocks each partition now, by the index of the partition; `None`: the partition is not owned, or
    /// nothing is known to be left to read, settle or commit. One pass over the calls and the lanes with a retry state.
    pub(crate) fn blocked(&self) -> Vec<Option<Blockage>> {
        let mut blocked: Vec<Option<Blockage>> = self.partitions.iter().map(blocked_without_call).collect();
        for (id, call) in self.calls.ids().filter_map(|id| Some((id, self.calls.get(id)?))) {
            for lane in &call.lanes {
                if let Some(blockage) = self.blocked_by_lane(id, call, lane)
                    && let Some(entry) = blocked.get_mut(lane.partition as usize)
                {
                    *entry = Some(blockage);
                }
            }
        }
        for (index, entry) in (0..).zip(&mut blocked) {
            if let Some(blockage) = entry.as_mut().filter(|entry| entry.blocked_on == BlockedOn::Undispatched)
                && let Some(blocked_on) = self.blocked_by_gate(index)
            {
                blockage.blocked_on = blocked_on;
            }
        }
        for (partition, event) in self.lanes.delayed_events() {
            if let Some(Some(blockage)) = blocked.get_mut(partition as usize)
                && (blockage.blocked_on, blockage.offset) == (BlockedOn::Undispatched, Some(event.offset))
            {
                (blockage.blocked_on, blockage.attempt) = (BlockedOn::Retry, event.attempt);
                blockage.arena_slot = Some(event.arena_slot);
            }
        }
        blocked
    }

    /// Returns what a row of a lane is blocked on, if that row blocks its partition. The rows of a lane settle in order, so
    /// without a gate only the first unsettled one can. With a gate, they may be in another order than their offsets.
    fn blocked_by_lane(&self, id: CallId, call: &Call, lane: &CallLane) -> Option<Blockage> {
        let state = self.partitions.get(lane.partition);
        let offset = state.ledger.committable();
        // The call no longer holds the rows of a released lane: they have settled, or are back in the lane's queue and
        // may be in another call. The arena slots of disowned rows are already free, although their call may still run.
        let has_row = lane.settled_to < lane.end && !lane.released && !lane.disowned;
        let is_gated = self.lanes.gates.is_some();
        let first = has_row.then_some(lane.settled_to)?;
        let is_it = |&row: &u32| !is_gated || call.row(row).offset == offset;
        let at = (first..lane.end).find(is_it)?;
        let row = call.row(at);
        if !state.may_commit() || row.ownership != state.ownership || row.offset != offset {
            return None;
        }
        let blocked_on = match (call.state, call.awaited(at)) {
            (CallState::Terminated, Awaited::Acks(Effect::DeadLetter)) => BlockedOn::DeadLetterUnacked,
            (CallState::Terminated | CallState::Free, _) => BlockedOn::OutputsUnacked,
            (CallState::Running | CallState::Cancelled(_) | CallState::Stuck, _) => BlockedOn::Guest,
        };
        Some(Blockage {
            partition: state.id,
            offset: Some(offset),
            attempt: call.attempt,
            arena_slot: Some(row.arena_slot),
            call_row: Some((id, at)),
            blocked_on,
        })
    }
}

/// Returns what blocks a partition, unless a call or a retry delay does.
fn blocked_without_call(state: &PartitionState) -> Option<Blockage> {
    let blocked_at = |offset, blocked_on| Some(Blockage::of_partition(state.id, offset, blocked_on));
    let committable = Some(state.ledger.committable());
    match state.phase {
        Phase::Vacant | Phase::Closed => return None,
        Phase::LookingUp(_) => return blocked_at(None, BlockedOn::StartLookup),
        Phase::Resolved => return blocked_at(committable, BlockedOn::Rebalance),
        Phase::Stopped => return blocked_at(None, BlockedOn::Stopped),
        Phase::Closing { .. } => return blocked_at(committable, BlockedOn::Release),
        Phase::Committing { .. } if !state.is_dirty() => return blocked_at(committable, BlockedOn::Release),
        Phase::Committing { .. } => return blocked_at(committable, BlockedOn::Commit),
        Phase::Starting | Phase::Active => {}
    }
    match state.reading.failure {
        Some(failure) if failure.reported => {
            blocked_at(Some(failure.offset), BlockedOn::ReadFailed(failure.why))
        }
        _ if state.waits_for_others() && state.ledger.open() > 0 && !state.is_dirty() => {
            blocked_at(committable, BlockedOn::OtherPartitions)
        }
        _ if state.ledger.open() > 0 && !state.waits_for_others() => {
            let is_held = state.commit.excluded && state.hold.is_some();
            blocked_at(committable, if is_held { BlockedOn::Excluded } else { BlockedOn::Undispatched })
        }
        _ if state.is_dirty() && state.commit.excluded => blocked_at(committable, BlockedOn::Excluded),
        _ if state.is_dirty() => blocked_at(committable, BlockedOn::Commit),
        _ => {
            let Unfetched { leader_responds, .. } = state.reading.unfetched?;
            blocked_at(Some(state.ledger.next()), BlockedOn::NotFetched { leader_responds })
        }
    }
}
