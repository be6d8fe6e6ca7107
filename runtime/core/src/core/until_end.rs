//! `run --until-end`: detects when every event up to the ends is committed.

use super::Core;
use crate::outbox::Pending;
use crate::partitions::Phase;

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
        let mut assigned = self.partitions.iter().filter(|state| state.in_assignment).peekable();
        let any = assigned.peek().is_some();
        if any && assigned.all(|state| state.phase == Phase::Active && state.is_at_end()) {
            self.until_end.reported = true;
            self.outbox.push(Pending::EndReached);
        }
    }
}
