//! The position of a group in each partition, collected from several responses.
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, CString};

use super::errors;
use crate::librdkafka::{ErrorCode, GroupMember, ListEntry};
use crate::source::delivery_suffix::split;
use crate::status::{GroupOwner, GroupPartitionStatus};

/// A topic and the number of a partition.
pub(super) type TopicKey = (CString, i32);

/// The positions, by topic and number.
#[derive(Default)]
pub(super) struct Positions(BTreeMap<TopicKey, Position>);

#[derive(Default)]
struct Position {
    committed: Option<i64>,
    log_end: Option<i64>,
    owner: Option<GroupOwner>,
    error: Option<ErrorCode>,
}

impl Positions {
    /// Adds a partition of which nothing else is known.
    pub(super) fn add(&mut self, key: TopicKey) {
        self.0.entry(key).or_default();
    }

    /// Adds the partitions of a member.
    pub(super) fn add_member(&mut self, member: &GroupMember) {
        for key in &member.partitions {
            self.0.entry(key.clone()).or_default().owner = Some(GroupOwner {
                client_id: split(&member.client_id).0.to_owned(),
                host: member.host.clone(),
                member_id: member.member_id.clone(),
            });
        }
    }

    /// Adds a committed offset, or the error in its place. A negative offset means that none is committed.
    pub(super) fn add_commit(&mut self, commit: &ListEntry<'_>) {
        let position = self.0.entry((commit.topic.to_owned(), commit.partition)).or_default();
        position.committed = (commit.offset >= 0).then_some(commit.offset);
        position.error = commit.error.into_result().err();
    }

    /// Returns the topics of all partitions.
    pub(super) fn topics(&self) -> BTreeSet<CString> {
        self.0.keys().map(|(topic, _)| topic.clone()).collect()
    }

    /// Returns the partitions without an error.
    pub(super) fn without_error(&self) -> Vec<TopicKey> {
        self.0.iter().filter(|(_, position)| position.error.is_none()).map(|(key, _)| key.clone()).collect()
    }

    pub(super) fn set_topic_error(&mut self, topic: &CStr, code: ErrorCode) {
        let of_topic = self.0.iter_mut().filter(|((name, _), _)| name.as_c_str() == topic);
        of_topic.for_each(|(_, position)| position.error = Some(code));
    }

    pub(super) fn set_error(&mut self, key: &TopicKey, code: ErrorCode) {
        if let Some(position) = self.0.get_mut(key) {
            position.error = Some(code);
        }
    }

    pub(super) fn set_log_end(&mut self, key: &TopicKey, end: i64) {
        if let Some(position) = self.0.get_mut(key) {
            position.log_end = Some(end);
        }
    }

    /// Describes the partitions with an error, if there are any.
    pub(super) fn problem(&self) -> Option<String> {
        let mut failed =
            self.0.iter().filter_map(|((topic, number), position)| Some((topic, *number, position.error?)));
        let (topic, number, code) = failed.next()?;
        Some(errors::of_partitions(topic, number, code, failed.count() + 1))
    }

    /// Returns the partitions in the order of their topics and numbers.
    pub(super) fn into_status(self) -> Vec<GroupPartitionStatus> {
        let of_partition = |((topic, partition), position): (TopicKey, Position)| {
            let Position { committed, log_end, owner, error } = position;
            let lag = committed.zip(log_end).and_then(|(committed, end)| u64::try_from(end - committed).ok());
            GroupPartitionStatus {
                topic: topic.to_string_lossy().into_owned(),
                partition,
                committed,
                log_end,
                lag,
                owner,
                error: error.map(|code| code.to_string()),
            }
        };
        self.0.into_iter().map(of_partition).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(topic: &CStr, partition: i32, offset: i64, error: ErrorCode) -> ListEntry<'_> {
        ListEntry { topic, partition, offset, metadata: b"", error }
    }

    #[test]
    fn partitions_are_in_order_with_their_owner_and_lag() {
        let mut positions = Positions::default();
        (0..11).for_each(|number| positions.add((c"orders".to_owned(), number)));
        positions.add_member(&GroupMember {
            client_id: "keylane".to_owned(),
            host: "10.0.0.1".to_owned(),
            member_id: "keylane-1".to_owned(),
            instance_id: None,
            partitions: vec![(c"orders".to_owned(), 10), (c"a".to_owned(), 0)],
        });
        positions.add_commit(&commit(c"orders", 10, 41, ErrorCode::NONE));
        positions.add_commit(&commit(c"orders", 2, -1, ErrorCode::NONE));
        positions.add_commit(&commit(c"gone", 0, 3, ErrorCode::NONE));
        for key in [(c"orders".to_owned(), 10), (c"orders".to_owned(), 2)] {
            positions.set_log_end(&key, 100);
        }
        positions.set_topic_error(c"gone", ErrorCode::UNKNOWN_TOPIC_OR_PART);
        let problem = positions.problem().expect("a topic is missing");
        assert!(problem.starts_with("partition gone/0 can't be described: "), "{problem}");
        let found: Vec<_> = positions
            .into_status()
            .into_iter()
            .map(|row| {
                let owner = row.owner.map(|owner| owner.client_id);
                (format!("{}/{}", row.topic, row.partition), row.committed, row.lag, owner)
            })
            .collect();
        let expected = |at: usize| found.get(at).cloned().expect("the partition exists");
        assert_eq!(expected(0), ("a/0".to_owned(), None, None, Some("keylane".to_owned())));
        assert_eq!(expected(1), ("gone/0".to_owned(), Some(3), None, None));
        assert_eq!(expected(4), ("orders/2".to_owned(), None, None, None));
        assert_eq!(expected(12), ("orders/10".to_owned(), Some(41), Some(59), Some("keylane".to_owned())));
        assert_eq!(found.len(), 13);
    }
}
