//! `keylane offsets accept`: commits offsets again whose metadata is not Keylane's, or is damaged.

use anyhow::ensure;
use keylane_core::codec::{self, Identity};

use super::adopt::Agreement;
use super::group::Commit;
use super::log_reader::Bound;
use super::{KeyedTools, ToolPartition};
use crate::librdkafka::{ErrorCode, PartitionList};

/// A partition whose offset was committed without metadata.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// The partition.
    pub partition: ToolPartition,
    /// The committed offset, which is unchanged.
    pub offset: i64,
}

impl KeyedTools {
    /// Commits the same offset without metadata for each selected partition whose metadata can't be decoded: events beyond
    /// it may be processed again. A handler with keyed state gets the binding in the same transaction.
    ///
    /// # Errors
    /// The group has members, the handler does not stop because of metadata, its states do not agree with the offset, or a
    /// request failed.
    pub fn accept(&mut self) -> anyhow::Result<Vec<Accepted>> {
        ensure!(
            self.is_transactional,
            "the handler `{}` has at-least-once delivery: it ignores metadata that it can't decode, and processes events \
             beyond the offset again",
            self.handler
        );
        self.needs_empty_group()?;
        let commits = self.commits()?;
        let partitions = self.partitions.clone();
        let inputs = self.inputs(&partitions.iter().collect::<Vec<_>>())?;
        let ends = self.reader.bounds(&inputs, Bound::Committed)?;
        let (mut accepted, mut refused) = (Vec::new(), Vec::new());
        let mut offsets = PartitionList::with_capacity(partitions.len());
        for ((partition, input), end) in partitions.into_iter().zip(&inputs).zip(ends) {
            let commit = commits.get(&(partition.topic, partition.number));
            let Some(commit) = commit else { continue };
            if !self.is_unreadable(&partition, commit, end)? {
                continue;
            }
            let has_state = self.topic(&partition)?.changelog.is_some();
            if has_state && !matches!(self.compare(&partition, Some(commit))?, Agreement::Same) {
                refused.push(format!("{}/{}", partition.input, partition.number));
                continue;
            }
            offsets.push_commit(&input.0, input.1, commit.0, b"", ErrorCode::NONE);
            accepted.push(Accepted { partition, offset: commit.0 });
        }
        ensure!(
            refused.is_empty(),
            "the keyed state of {} is not that of the commit: use `keylane state adopt`, which commits what the state says; \
             nothing was changed",
            refused.join(", ")
        );
        self.write_accepted(&accepted, &offsets)?;
        Ok(accepted)
    }

    fn write_accepted(&self, accepted: &[Accepted], offsets: &PartitionList) -> anyhow::Result<()> {
        if accepted.is_empty() {
            return Ok(());
        }
        if self.topics.iter().all(|topic| topic.changelog.is_none()) {
            return self.commit(offsets);
        }
        let partitions: Vec<&ToolPartition> = accepted.iter().map(|accepted| &accepted.partition).collect();
        let bound_to: Vec<i64> = accepted.iter().map(|accepted| accepted.offset).collect();
        let transactions = self.transactions()?;
        // A transaction is accepted also if a member has joined since the first check.
        self.needs_empty_group()?;
        self.bind(&transactions, &partitions, &bound_to, Some(offsets))
    }

    /// Returns whether a handler stops because of this metadata, as the core decides it. A commit in a former topic of the
    /// same name is another reason.
    fn is_unreadable(
        &self,
        partition: &ToolPartition,
        (offset, metadata): &Commit,
        log_end: i64,
    ) -> anyhow::Result<bool> {
        let topic_id = self.topic(partition)?.input.id;
        let identity = Identity { topic_id, partition: partition.number, offset: *offset };
        Ok(!codec::is_of_another_topic(metadata, &identity)
            && codec::decode(metadata, &identity, log_end).is_none())
    }
}
