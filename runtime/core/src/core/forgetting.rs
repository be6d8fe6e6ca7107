//! Keyed state: numbers the deletion of states that were not changed for long.
//!
//! A deletion is claimed like a settled event, so that its transaction contains the offset and the binding of its
//! partition: the coordinator rejects those of a former owner. A later event of the key has a higher number.

use super::Core;
use super::committing::is_withheld;
use crate::outbox::Pending;
use crate::partitions::Phase;
use crate::{OwnershipId, Partition};

impl Core {
    /// Handles expired states. They can wait, so nothing is deleted while transactions of the partition are held up, or while
    /// no more effects may be kept.
    pub(super) fn states_expired(&mut self, id: Partition, ownership: OwnershipId, bytes: u64) {
        let (Some(index), Some(transactions)) = (self.partitions.find(id), &mut self.transactions) else {
            return;
        };
        let state = self.partitions.get_mut(index);
        let is_open = state.ownership == ownership && state.phase == Phase::Active;
        let is_held_up =
            !state.may_be_committed() || is_withheld(state) || transactions.is_full(self.now.uptime);
        if !is_open || is_held_up || self.stopping {
            return;
        }
        let number = transactions.number_deletion(self.now.uptime, state, bytes);
        state.commit.changes += 1;
        self.outbox.push(Pending::ForgetStates(id, number));
    }
}
