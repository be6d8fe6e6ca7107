//! `keylane state reset`: deletes the states, and sets the group to the start of the log.
//!
//! The steps, each of which leaves something that no handler starts with until the last one is done:
//! 1. One transaction marks all partitions with a binding record that agrees with no commit.
//! 2. The group is described again: a member that has joined before the mark was visible may run with the states. A later
//!    one finds the mark, and refuses the partition.
//! 3. The keys of each partition are deleted.
//! 4. One transaction writes binding records at the start of the log, and commits the same offsets.

use anyhow::{Context as _, bail};
use keylane_state::{BINDING_KEY, RESET_OFFSET, compare};

use super::log_reader::Bound;
use super::states::Wanted;
use super::transaction::{ChangelogRecord, Transactions};
use super::{KeyedTools, ToolPartition};
use crate::librdkafka::{ErrorCode, PartitionList};

/// Number of keys that one transaction changes.
pub(super) const KEYS_MAX: usize = 10_000;

/// A partition to reset.
#[derive(Clone, Debug)]
pub struct ResetPartition {
    /// The partition.
    pub partition: ToolPartition,
    /// Number of keys with a state.
    pub keys: usize,
    /// Number of keys with a mark of the gate.
    pub marks: usize,
    /// The committed offset of the group, if there is one.
    pub committed: Option<i64>,
    /// The start of the log, to which the group will be set.
    pub start: i64,
}

impl KeyedTools {
    /// Returns the selected partitions that have states or a committed offset. Changes nothing.
    ///
    /// # Errors
    /// The group has members, or the states are those of another group.
    pub fn plan_reset(&mut self) -> anyhow::Result<Vec<ResetPartition>> {
        self.needs_equal_partitions()?;
        self.needs_empty_group()?;
        let commits = self.commits()?;
        let partitions = self.partitions.clone();
        let starts = self.starts(&partitions.iter().collect::<Vec<_>>())?;
        let mut plan = Vec::with_capacity(partitions.len());
        for (partition, start) in partitions.into_iter().zip(starts) {
            let committed = commits.get(&(partition.topic, partition.number)).map(|(offset, _)| *offset);
            let found = self.read_states(&partition, Wanted::KeysAndMarks, Bound::End)?;
            if let Some(Ok(binding)) = &found.binding
                && binding.group != self.group()
            {
                // A handler that was renamed has the same group.
                let expected = self.identity(&partition)?;
                let mismatch = compare(&expected, None, Some(binding), found.has_records).err();
                let reason = mismatch.map_or_else(String::new, |mismatch| mismatch.to_string());
                bail!("{reason}; use another `keys.topic`: nothing was changed");
            }
            if found.binding.is_some() || found.has_records || committed.is_some() {
                let (keys, marks) = (found.states.len(), found.marks.len());
                plan.push(ResetPartition { keys, marks, partition, committed, start });
            }
        }
        Ok(plan)
    }

    /// Resets these partitions. Returns the number of keys that were deleted.
    ///
    /// # Errors
    /// The group has members, or a request failed. The partitions that are marked do not start until the command was
    /// repeated.
    pub fn reset(&mut self, plan: &[ResetPartition]) -> anyhow::Result<usize> {
        let partitions: Vec<&ToolPartition> = plan.iter().map(|reset| &reset.partition).collect();
        self.needs_empty_group()?;
        let transactions = self.transactions()?;
        let marks = vec![RESET_OFFSET; partitions.len()];
        self.bind(&transactions, &partitions, &marks, None)?;
        self.needs_empty_group()?;
        self.finish_reset(&transactions, &partitions)
            .context("the reset is not finished, and its partitions do not start: repeat the command")
    }

    fn finish_reset(
        &mut self,
        transactions: &Transactions,
        partitions: &[&ToolPartition],
    ) -> anyhow::Result<usize> {
        let mut deleted = 0;
        for partition in partitions {
            let found = self.read_states(partition, Wanted::KeysAndMarks, Bound::End)?;
            let keys: Vec<&[u8]> = found.states.keys().chain(found.marks.keys()).map(|key| &**key).collect();
            for keys in keys.chunks(KEYS_MAX) {
                let (topic, partition) = (partition.topic, partition.number);
                let tombstones =
                    keys.iter().map(|key| ChangelogRecord { topic, partition, key, value: None });
                let records: Vec<ChangelogRecord<'_>> = tombstones.collect();
                transactions.run(&records, None)?;
            }
            deleted += found.states.len();
        }
        let starts = self.starts(partitions)?;
        let mut offsets = PartitionList::with_capacity(partitions.len());
        for ((topic, number), start) in self.inputs(partitions)?.iter().zip(&starts) {
            offsets.push_commit(topic, *number, *start, b"", ErrorCode::NONE);
        }
        self.bind(transactions, partitions, &starts, Some(&offsets))?;
        Ok(deleted)
    }

    /// Writes binding records at these offsets, without metadata, and commits `offsets` with them.
    pub(super) fn bind(
        &self,
        transactions: &Transactions,
        partitions: &[&ToolPartition],
        bound_to: &[i64],
        offsets: Option<&PartitionList>,
    ) -> anyhow::Result<()> {
        let mut values = Vec::with_capacity(partitions.len());
        for (partition, offset) in partitions.iter().zip(bound_to) {
            let mut value = Vec::new();
            self.identity(partition)?.encode(*offset, b"", &mut value);
            values.push(value);
        }
        let record = |(partition, value): (&&ToolPartition, _)| ChangelogRecord {
            topic: partition.topic,
            partition: partition.number,
            key: &BINDING_KEY,
            value: Some(value),
        };
        let values = values.iter().map(Vec::as_slice);
        let records: Vec<ChangelogRecord<'_>> = partitions.iter().zip(values).map(record).collect();
        transactions.run(&records, offsets)
    }

    fn starts(&mut self, partitions: &[&ToolPartition]) -> anyhow::Result<Vec<i64>> {
        let inputs = self.inputs(partitions)?;
        self.reader.bounds(&inputs, Bound::Start)
    }
}
