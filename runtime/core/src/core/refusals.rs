//! Partitions that stop at an event.

use super::Core;
use crate::outbox::Pending;
use crate::{OwnershipId, Partition, PartitionStop};

impl Core {
    /// Ends this ownership without a commit, and stops its partition, because a topic refuses an output of a settled event.
    /// What else has settled is dropped: it has not taken effect.
    pub(super) fn effect_refused(&mut self, partition: Partition, ownership: OwnershipId, offset: i64) {
        let Some(index) = self.partitions.find(partition) else { return };
        let state = self.partitions.get_mut(index);
        if state.ownership != ownership || !state.may_commit() {
            return;
        }
        state.commit.commits_ended = true;
        self.stop_at(index, offset, PartitionStop::OutputRefused);
    }

    /// Ends this ownership, and stops its partition at an event.
    pub(super) fn stop_at(&mut self, index: u32, offset: i64, reason: PartitionStop) {
        self.partitions.get_mut(index).commit.stops_at = Some((offset, reason));
        self.close(index, self.now.uptime);
        self.drop_queued();
    }

    /// Stops a partition whose ownership ended for that reason. If it is being released, its next owner finds the same.
    pub(super) fn stop_if_ended_for_it(&mut self, index: u32) {
        let state = self.partitions.get_mut(index);
        let (partition, stops_at) = (state.id, state.commit.stops_at.take());
        if let Some((offset, reason)) = stops_at.filter(|_| !self.is_being_released(index)) {
            self.outbox.push(Pending::PartitionStopped(partition, offset, reason));
            self.stop_partition(index);
        }
    }
}
