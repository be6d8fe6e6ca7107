//! A snapshot of the keyed state of a handler.

use crate::status::keyed_state::{FailedFileStatus, KeyedStateStatus, RestoringStatus};

use super::Keyed;
use super::partitions::Step;

impl Keyed {
    pub(in crate::app::event_loop) fn view(&self) -> KeyedStateStatus {
        let name = |topic: u16| self.topics.get(usize::from(topic)).map_or("?", |(name, _)| name).to_owned();
        let restoring = self.owned.iter().filter_map(|(partition, owned)| {
            let (next, end) = match owned.step {
                Step::Ready => return None,
                Step::Restoring(next, end) => (next, end),
                Step::Opening | Step::Comparing { .. } => (0, 0),
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
