//! Rounds: the strict batch retry (`retry.scope = "partition"`). When an attempt ends with a retry or a fault, all
//! events of the partition up to the highest dispatched one are one round. Nothing beyond the round is dispatched until
//! all of it is settled and committed.

use super::Core;
use crate::RetryScope;
use crate::partitions::Phase;

impl Core {
    /// Begins a round, unless one has begun, after an attempt that ended with a retry or a fault.
    pub(super) fn begin_round(&mut self, index: u32) {
        let state = self.partitions.get_mut(index);
        let strict = self.config.retry.scope == RetryScope::Partition;
        if strict && state.round.is_none() && state.phase == Phase::Active {
            let last = state.dispatched_to;
            state.round = Some(last);
            let barrier = state.barrier();
            self.lanes.set_barrier(index, barrier, None);
        }
    }

    /// Ends the round of a partition if the last applied commit includes all of it.
    pub(super) fn end_round_if_committed(&mut self, index: u32) {
        let state = self.partitions.get(index);
        if state.round.is_some_and(|last| state.commit.committed > Some(last)) {
            self.end_round(index);
        }
    }

    /// Ends the round of a partition: after its commit, or with its ownership.
    pub(super) fn end_round(&mut self, index: u32) {
        let state = self.partitions.get_mut(index);
        state.dispatched_to = -1;
        if state.round.take().is_some() {
            let barrier = state.barrier();
            self.lanes.set_barrier(index, barrier, None);
        }
    }
}
