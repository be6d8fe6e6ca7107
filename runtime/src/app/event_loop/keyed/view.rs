//! A snapshot of the keyed state of a handler.

use keylane_core::{Blockage, BlockedOn};

use crate::status::keyed_state::{FailedFileStatus, KeyedStateStatus, RestoringStatus};

use super::Keyed;
use super::partitions::Step;

impl Keyed {
    /// Corrects a blockage: the core does not know that a call waits for states and has not reached the guest.
    pub(in crate::app::event_loop) fn correct(&self, blockage: &mut Blockage) {
        if blockage.blocked_on == BlockedOn::Guest
            && blockage.call_row.is_some_and(|(call, _)| self.calls.is_waiting(call))
        {
            blockage.blocked_on = BlockedOn::StateLoading;
        }
    }

    pub(in crate::app::event_loop) fn view(&self) -> KeyedStateStatus {
        let name = |topic: u16| self.topics.get(usize::from(topic)).map_or("?", |(name, _)| name).to_owned();
        let restoring = self.owned.iter().filter_map(|(partition, owned)| {
            let (next, end) = match owned.step {
                Step::Ready => return None,
                Step::Restoring(next, end) => (next, end),
                Step::Opening | Step::Comparing { .. } | Step::Undecided => (0, 0),
            };
            Some(RestoringStatus { topic: name(partition.topic), partition: partition.number, next, end })
        });
        let failed = self.owned.iter().filter_map(|(partition, owned)| {
            let (topic, partition) = (name(partition.topic), partition.number);
            Some(FailedFileStatus { topic, partition, error: owned.file_error.clone()? })
        });
        KeyedStateStatus {
            uncommitted: self.owned.values().map(|owned| owned.states.uncommitted() as u64).sum(),
            loading_calls: self.calls.waiting() as u64,
            restores: self.restores,
            restored_records: self.restored_records,
            forgotten: self.forgotten,
            restoring: restoring.collect(),
            failed: failed.collect(),
        }
    }
}
