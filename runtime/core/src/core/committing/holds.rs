//! Transactional delivery: holds partitions back whose kept effects can't be claimed.

use super::super::Core;
use super::transactions::is_withheld;
use crate::partitions::Phase;

impl Core {
    /// Holds partitions back whose kept effects exceed their share while no transaction can claim all of them. Events that
    /// were dispatched before are never held back. Neither is the lane of the first unsettled event, because its settling
    /// makes the sets of the partition shorter; except if the partition is excluded, for which no set is sent.
    pub(in crate::core) fn hold_partitions(&mut self) {
        let Some(transactions) = &mut self.transactions else { return };
        if !transactions.any_withheld && !transactions.any_held {
            return;
        }
        let share = transactions.limits.kept_bytes / self.reads.active_ownerships.max(1);
        let all = transactions.any_withheld && transactions.is_full(self.now.uptime);
        transactions.any_held = false;
        for index in self.partitions.indexes() {
            let state = self.partitions.get_mut(index);
            let exceeds = is_withheld(state) && state.unclaimed.bytes() > share;
            let held = state.phase == Phase::Active && (exceeds || all);
            transactions.any_held |= held;
            let hold = held.then(|| state.ledger.committable() - i64::from(state.commit.excluded));
            // What the first unsettled event waits for may lie beyond the barrier.
            let gates = self.lanes.gates.as_deref().filter(|_| held && !state.commit.excluded);
            let first = state.ledger.committable();
            let exempt = gates.and_then(|gates| {
                gates.lane_of_parked(index, first).or_else(|| self.lanes.barred_lane_of(index, first))
            });
            let changed = hold != state.hold;
            state.hold = hold;
            if held || changed {
                let barrier = state.barrier();
                self.lanes.set_barrier(index, barrier, exempt);
            }
            if changed {
                self.reads.to_decide.push(index);
            }
        }
    }
}
