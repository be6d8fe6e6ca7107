//! `run --until-end`: when everything up to the ends is committed.

use super::Core;
use crate::outbox::Pending;
use crate::partitions::Phase;

#[derive(Debug, Default)]
pub(super) struct UntilEnd {
    asked: bool,
    said: bool,
}

impl UntilEnd {
    pub(super) fn asked(&mut self) {
        self.asked = true;
    }
}

impl Core {
    /// Finished: no rebalance is under way, and every partition of the last answered assignment, which has at least
    /// one, has its committed prefix at its end.
    pub(super) fn check_end(&mut self) {
        let rebalancing = self.rebalance.assign.is_some() || self.rebalance.revoke.is_some();
        if !self.until_end.asked || self.until_end.said || rebalancing || !self.rebalance.answered {
            return;
        }
        let mut awaited = self.partitions.iter().filter(|state| state.awaited).peekable();
        let any = awaited.peek().is_some();
        if any && awaited.all(|state| state.phase == Phase::Active && state.is_at_end()) {
            self.until_end.said = true;
            self.outbox.push(Pending::EndReached);
        }
    }
}
