//! `run --until-end`: detects when every event up to the ends is committed.

use super::Core;
use crate::outbox::Pending;
use crate::partitions::{PartitionState, Phase};
use crate::{EarlyEvents, Notice};

#[derive(Debug, Default)]
pub(super) struct UntilEnd {
    enabled: bool,
    reported: bool,
}

impl UntilEnd {
    pub(super) fn enable(&mut self) {
        self.enabled = true;
    }
}

impl Core {
    /// Reports the end if no rebalance is in progress, the last answered assignment has at least one partition, and
    /// each of its partitions is committed up to its end.
    pub(super) fn check_end(&mut self) {
        let rebalancing = self.rebalance.assign.is_some() || self.rebalance.revoke.is_some();
        if !self.until_end.enabled || self.until_end.reported || rebalancing || !self.rebalance.ever_assigned
        {
            return;
        }
        let assigned = || self.partitions.iter().filter(|state| state.in_assignment);
        let is_finished = |state: &PartitionState| state.is_at_end() || self.has_only_early_events(state);
        let are_finished = || assigned().all(|state| state.phase == Phase::Active && is_finished(state));
        let is_over = assigned().next().is_some() && are_finished();
        if is_over {
            self.until_end.reported = true;
            self.report_early_events();
            self.outbox.push(Pending::EndReached);
        }
    }
    /// Returns whether every event of a partition that is not committed is early: what it waits for is not in the log.
    fn has_only_early_events(&self, state: &PartitionState) -> bool {
        let is_read = state.end.is_some_and(|end| state.ledger.next() >= end);
        let open = state.ledger.open();
        // Events that wait for a window are released at the end.
        self.consecutive().is_some()
            && is_read
            && open > 0
            && open == self.parked(state.id)
            && !state.is_dirty()
    }

    fn report_early_events(&mut self) {
        for index in self.partitions.indexes() {
            let state = self.partitions.get(index);
            if !state.in_assignment || state.ledger.open() == 0 {
                continue;
            }
            let (partition, events) = (state.id, state.ledger.open());
            if let Some((keys, early, expected)) = self.early_keys(index) {
                self.outbox.notice(Notice::EarlyAtEnd(EarlyEvents {
                    partition,
                    events,
                    keys,
                    early,
                    expected,
                }));
            }
        }
    }
}
