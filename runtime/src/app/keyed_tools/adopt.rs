//! `keylane state adopt`: sets the group to the offset of the states.

use anyhow::ensure;
use keylane_state::{BINDING_KEY, Binding, Mismatch, compare};

use super::group::Commit;
use super::log_reader::Bound;
use super::states::{PartitionStates, Wanted};
use super::{KeyedTools, ToolPartition};
use crate::librdkafka::{ErrorCode, PartitionList};

/// A partition whose group was set to the offset of its states.
#[derive(Clone, Debug)]
pub struct Adopted {
    /// The partition.
    pub partition: ToolPartition,
    /// The former committed offset, if there was one.
    pub from: Option<i64>,
    /// The offset of the states.
    pub to: i64,
}

impl KeyedTools {
    /// Commits the offset and the metadata of the states for each selected partition whose commit differs.
    ///
    /// # Errors
    /// The group has members, the states of a partition are not those of its events, or a request failed. Nothing was
    /// committed then.
    pub fn adopt(&mut self) -> anyhow::Result<Vec<Adopted>> {
        self.needs_equal_partitions()?;
        self.needs_empty_group()?;
        let commits = self.commits()?;
        let (mut adopted, mut refused) = (Vec::new(), Vec::new());
        let mut offsets = PartitionList::with_capacity(self.partitions.len());
        for partition in self.partitions.clone() {
            let commit = commits.get(&(partition.topic, partition.number));
            match self.compare(&partition, commit)? {
                Agreement::Same => {}
                Agreement::Adoptable(binding) => {
                    let topic = &self.topic(&partition)?.input.name;
                    let to = binding.offset;
                    offsets.push_commit(topic, partition.number, to, &binding.metadata, ErrorCode::NONE);
                    adopted.push(Adopted { partition, from: commit.map(|(offset, _)| *offset), to });
                }
                Agreement::Refused(reason) => refused.push(reason),
            }
        }
        ensure!(
            refused.is_empty(),
            "{}; nothing was changed: `keylane state reset` deletes these states and processes the log again",
            refused.join("; ")
        );
        if !adopted.is_empty() {
            self.commit(&offsets)?;
        }
        Ok(adopted)
    }

    /// Compares the binding of a partition with its commit.
    pub(super) fn compare(
        &mut self,
        partition: &ToolPartition,
        commit: Option<&Commit>,
    ) -> anyhow::Result<Agreement> {
        let found = self.read_states(partition, Wanted::Binding, Bound::End)?;
        let PartitionStates { binding, has_records, .. } = found;
        let binding = match binding.transpose() {
            Ok(binding) => binding,
            Err(error) => {
                let (input, number) = (&partition.input, partition.number);
                return Ok(Agreement::Refused(format!(
                    "the binding record of {input}/{number} (key {BINDING_KEY:?}) can't be read: {error}"
                )));
            }
        };
        let commit = commit.map(|(offset, metadata)| (*offset, metadata.as_slice()));
        let ended = compare(&self.identity(partition)?, commit, binding.as_ref(), has_records);
        Ok(match (ended, binding) {
            (Ok(()), _) => Agreement::Same,
            (Err(mismatch), Some(binding)) if is_adoptable(&mismatch) => Agreement::Adoptable(binding),
            (Err(mismatch), _) => Agreement::Refused(mismatch.to_string()),
        })
    }
}

/// The result of a comparison.
#[derive(Debug)]
pub(super) enum Agreement {
    /// The states and the commit are of the same transaction.
    Same,
    /// The states are those of this handler, at another offset or with other metadata.
    Adoptable(Binding),
    /// The states can't be used, for this reason.
    Refused(String),
}

fn is_adoptable(mismatch: &Mismatch) -> bool {
    match mismatch {
        Mismatch::CommitMissing { .. } | Mismatch::OtherOffset { .. } | Mismatch::OtherMetadata { .. } => {
            true
        }
        Mismatch::StateMissing { .. }
        | Mismatch::BindingMissing { .. }
        | Mismatch::ResetUnfinished { .. }
        | Mismatch::SeededAfterStart { .. }
        | Mismatch::TopicRecreated { .. }
        | Mismatch::OtherTopic { .. }
        | Mismatch::OtherHandler { .. }
        | Mismatch::OtherLaneKey { .. }
        | Mismatch::OtherPartitionCount { .. } => false,
    }
}
