//! `keylane state set-mark` and `seed`: write what the gate remembers of keys.
//!
//! The marks of a partition that has started belong to the events below its committed offset, which its binding record has.
//! They are changed without it. A partition that has never started gets a binding record that says so, in the last transaction:
//! before it, the partition does not start.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail, ensure};
use keylane_state::{BINDING_KEY, MarkRecord, SEEDED_OFFSET, compare};

use super::group::Commit;
use super::log_reader::Bound;
use super::reset::KEYS_MAX;
use super::states::{PartitionStates, Wanted};
use super::transaction::ChangelogRecord;
use super::{KeyedTools, ToolPartition};

/// New marks by partition, and by the key of the mark record.
pub type NewMarks = BTreeMap<i32, BTreeMap<Vec<u8>, i64>>;

/// What happens to a mark that a key has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KnownMark {
    /// It is replaced.
    Replaced,
    /// It is kept if it is not below the new one: the handler has processed later events than the new mark knows.
    KeptIfHigher,
}

/// The marks that a command has written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WrittenMarks {
    /// Number of keys whose mark was set.
    pub written: usize,
    /// Number of keys that have kept their mark.
    pub kept: usize,
    /// Number of partitions with a mark that was set.
    pub partitions: usize,
}

/// The records of one partition.
struct PartitionMarks {
    partition: ToolPartition,
    /// By key: the value of the mark record.
    records: Vec<(Vec<u8>, Vec<u8>)>,
    /// Whether the partition has never started, so that it needs a binding record.
    needs_binding: bool,
}

impl KeyedTools {
    /// Sets marks. The connection has the partitions of one topic.
    ///
    /// # Errors
    /// The group has members, a partition is not selected or would not start, or a request failed. Before the first
    /// transaction, nothing was changed.
    pub fn write_marks(&mut self, marks: &NewMarks, known: KnownMark) -> anyhow::Result<WrittenMarks> {
        self.needs_equal_partitions()?;
        self.needs_empty_group()?;
        let commits = self.commits()?;
        let (mut plan, mut written) = (Vec::new(), WrittenMarks::default());
        for (number, marks) in marks {
            let selected = self.partitions.iter().find(|partition| partition.number == *number);
            let partition =
                selected.with_context(|| format!("no selected topic has a partition {number}"))?.clone();
            let found = self.read_states(&partition, Wanted::Marks, Bound::End)?;
            let commit = commits.get(&(partition.topic, partition.number));
            let needs_binding = self.needs_binding(&partition, commit, &found)?;
            let records = changed(marks, &found, known);
            written.written += records.len();
            written.kept += marks.len() - records.len();
            written.partitions += usize::from(!records.is_empty());
            plan.push(PartitionMarks { partition, records, needs_binding });
        }
        plan.retain(|partition| !partition.records.is_empty());
        if !plan.is_empty() {
            self.write(&plan)?;
        }
        Ok(written)
    }

    /// Returns whether the partition has never started. Refuses one that would not start.
    fn needs_binding(
        &self,
        partition: &ToolPartition,
        commit: Option<&Commit>,
        found: &PartitionStates,
    ) -> anyhow::Result<bool> {
        let (input, number) = (&partition.input, partition.number);
        let binding = match &found.binding {
            Some(Err(error)) => bail!(
                "the binding record of {input}/{number} (key {BINDING_KEY:?}) can't be read: {error}; nothing was changed"
            ),
            Some(Ok(binding)) => Some(binding),
            None => None,
        };
        // Marks without a binding are those of a `seed` that was interrupted.
        if binding.is_none() && commit.is_none() && !found.has_states {
            return Ok(true);
        }
        let commit = commit.map(|(offset, metadata)| (*offset, metadata.as_slice()));
        match compare(&self.identity(partition)?, commit, binding, found.has_records) {
            Ok(()) => Ok(false),
            Err(mismatch) => bail!(
                "{mismatch}; nothing was changed: see docs/keyed-state.md, \"When a partition does not start\""
            ),
        }
    }

    fn write(&self, plan: &[PartitionMarks]) -> anyhow::Result<()> {
        let bindings = self.bindings(plan)?;
        let marks = plan.iter().flat_map(|marks| {
            let (topic, partition) = (marks.partition.topic, marks.partition.number);
            marks.records.iter().map(move |(key, value)| ChangelogRecord {
                topic,
                partition,
                key,
                value: Some(value),
            })
        });
        let bindings = bindings.iter().map(|(partition, value)| ChangelogRecord {
            topic: partition.topic,
            partition: partition.number,
            key: &BINDING_KEY,
            value: Some(value),
        });
        let records: Vec<ChangelogRecord<'_>> = marks.chain(bindings).collect();
        let transactions = self.transactions()?;
        self.needs_empty_group()?;
        for records in records.chunks(KEYS_MAX) {
            let written = transactions.run(records, None);
            written.context(
                "some marks may have been written: repeat the command before the handler is started",
            )?;
        }
        // A member that has joined before the last transaction may have read the marks before it.
        self.needs_empty_group().context("the marks were written, but not all members may know them")
    }

    /// Returns the binding records of the partitions that need one.
    fn bindings<'p>(&self, plan: &'p [PartitionMarks]) -> anyhow::Result<Vec<(&'p ToolPartition, Vec<u8>)>> {
        let new = plan.iter().filter(|marks| marks.needs_binding).map(|marks| &marks.partition);
        let binding = |partition| {
            let mut value = Vec::new();
            self.identity(partition)?.encode(SEEDED_OFFSET, b"", &mut value);
            Ok((partition, value))
        };
        new.map(binding).collect()
    }

    /// Refuses several input topics: the partition of a key is a number of one of them.
    ///
    /// # Errors
    /// The selection has partitions of several topics.
    pub fn needs_one_topic(&self) -> anyhow::Result<()> {
        let mut topics: Vec<&str> =
            self.partitions.iter().map(|partition| partition.input.as_str()).collect();
        topics.dedup();
        ensure!(topics.len() == 1, "the handler reads several topics: choose one with `--topic`");
        Ok(())
    }
}

/// Returns the records of the keys whose mark changes.
fn changed(
    marks: &BTreeMap<Vec<u8>, i64>,
    found: &PartitionStates,
    known: KnownMark,
) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut records = Vec::with_capacity(marks.len());
    for (key, value) in marks {
        let mut record = match found.marks.get(key.as_slice()) {
            // What can't be read is replaced.
            None | Some(Err(_)) => MarkRecord::default(),
            Some(Ok(record)) => record.clone(),
        };
        if known == KnownMark::KeptIfHigher && record.mark.is_some_and(|mark| mark >= *value) {
            continue;
        }
        record.set(*value);
        let mut encoded = Vec::new();
        record.encode(&mut encoded);
        records.push((key.clone(), encoded));
    }
    records
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_higher_mark_is_kept_by_a_seed_only() {
        let record = MarkRecord { mark: Some(7), broken: true, ..MarkRecord::default() };
        let mut found = PartitionStates::default();
        found.marks.insert(b"a"[..].into(), Ok(record));
        let marks = BTreeMap::from([(b"a".to_vec(), 5), (b"b".to_vec(), 5)]);
        let values = |known| -> Vec<(Vec<u8>, MarkRecord)> {
            let records = changed(&marks, &found, known);
            let decoded = |value: Vec<u8>| MarkRecord::decode(&value).expect("encoded above");
            records.into_iter().map(|(key, value)| (key, decoded(value))).collect()
        };
        let five = MarkRecord { mark: Some(5), ..MarkRecord::default() };
        assert_eq!(values(KnownMark::KeptIfHigher), [(b"b".to_vec(), five.clone())]);
        assert_eq!(values(KnownMark::Replaced), [(b"a".to_vec(), five.clone()), (b"b".to_vec(), five)]);
    }
}
