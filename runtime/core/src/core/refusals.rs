//! Effects that a topic refuses: the partition of their event stops.

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
        state.commit.refused = Some(offset);
        self.close(index, self.now.uptime);
        self.drop_queued();
    }

    /// Stops a partition whose ownership ended because an output was refused. If it is being released, its next owner finds
    /// the same.
    pub(super) fn stop_after_refusal(&mut self, index: u32) {
        let state = self.partitions.get_mut(index);
        let (partition, refused) = (state.id, state.commit.refused.take());
        if let Some(offset) = refused.filter(|_| !self.is_being_released(index)) {
            self.outbox.push(Pending::PartitionStopped(partition, offset, PartitionStop::OutputRefused));
            self.stop_partition(index);
        }
    }
}
