//! Topics that can't be written, or that reject a record. Partitions with effects for such a topic, or whose changelog it
//! is, are excluded from transactions, and the others continue. After a pause the partitions are included again: the next
//! transaction shows whether the topic still rejects them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use keylane_core::{Input, Partition};

use crate::librdkafka::ErrorCode;
use crate::sink::{RecordBatch, SinkTopic};

use super::super::Keyed;
use super::kept::KeptRecords;
use super::observed::LeftOut;

/// What the partitions write to: their kept effects, and their changelogs.
pub(super) type Writers<'a> = (&'a KeptRecords, Option<&'a Keyed>);

/// The first pause. It is doubled after each failed try, because a failed transaction holds the readers of its topics.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(super) struct BlockedTopics {
    topics: BTreeMap<SinkTopic, Blocked>,
    excluded: BTreeSet<Partition>,
}

#[derive(Clone, Copy, Debug)]
struct Blocked {
    /// The last error.
    code: ErrorCode,
    /// The pause after the next failure.
    pause: Duration,
    /// When the topic is tried again; `None`: it is being tried.
    again_at: Option<Duration>,
    /// Whether the running transaction has records for the topic.
    in_transaction: bool,
}

impl BlockedTopics {
    /// Records that a topic has failed a transaction.
    pub(super) fn block(&mut self, topic: SinkTopic, code: ErrorCode, now: Duration) {
        let new = Blocked { code, pause: PAUSE_MIN, again_at: None, in_transaction: false };
        let blocked = self.topics.entry(topic).or_insert(new);
        blocked.code = code;
        blocked.again_at = Some(now + blocked.pause);
        blocked.pause = (blocked.pause * 2).min(PAUSE_MAX);
    }

    /// Excludes the partitions that write to blocked topics. Returns the inputs for the core.
    pub(super) fn exclude(&mut self, writers: Writers<'_>) -> Vec<Input<'static>> {
        let affected: BTreeSet<Partition> =
            partitions_with(writers, |topic| self.is_blocked(topic)).into_keys().collect();
        let input = |partition: &Partition| Input::ExcludePartition { partition: *partition, excluded: true };
        let inputs = affected.iter().map(input).collect();
        self.excluded.extend(affected);
        inputs
    }

    /// Includes partitions again when the pauses of their topics are over. Returns the inputs for the core.
    pub(super) fn try_again(&mut self, writers: Writers<'_>, now: Duration) -> Vec<Input<'static>> {
        if self.topics.is_empty() {
            return Vec::new();
        }
        let mut any = false;
        for blocked in self.topics.values_mut() {
            any |= blocked.again_at.take_if(|at| *at <= now).is_some();
        }
        if !any {
            return Vec::new();
        }
        let still: BTreeSet<Partition> =
            partitions_with(writers, |topic| self.is_blocked(topic)).into_keys().collect();
        let included: Vec<Partition> = self.excluded.difference(&still).copied().collect();
        self.excluded = still;
        let input = |partition| Input::ExcludePartition { partition, excluded: false };
        included.into_iter().map(input).collect()
    }

    /// Returns the partitions that write to blocked topics. Topics that are being tried are among them: most tries fail.
    pub(super) fn left_out(&self, writers: Writers<'_>, name: impl Fn(SinkTopic) -> String) -> Vec<LeftOut> {
        if self.topics.is_empty() {
            return Vec::new();
        }
        let affected = partitions_with(writers, |topic| self.topics.contains_key(&topic));
        let left_out = affected.into_iter().filter_map(|(partition, topic)| {
            let error = self.topics.get(&topic)?.code.to_string();
            Some(LeftOut { partition, topic: name(topic), error })
        });
        left_out.collect()
    }

    /// Returns when a topic is tried again.
    pub(super) fn next_try(&self) -> Option<Duration> {
        self.topics.values().filter_map(|blocked| blocked.again_at).min()
    }

    /// Returns whether any of these records is for a blocked topic.
    pub(super) fn contains_any(&self, records: &[(Arc<RecordBatch>, Range<usize>)]) -> bool {
        !self.topics.is_empty() && topics_of(records).any(|topic| self.is_blocked(topic))
    }

    /// Notes that a transaction with these records begins.
    pub(super) fn attempt(&mut self, records: &[(Arc<RecordBatch>, Range<usize>)]) {
        if self.topics.is_empty() {
            return;
        }
        self.topics.values_mut().for_each(|blocked| blocked.in_transaction = false);
        for topic in topics_of(records) {
            if let Some(blocked) = self.topics.get_mut(&topic) {
                blocked.in_transaction = true;
            }
        }
    }

    /// Notes that the transaction was committed: the topics of its records are not blocked.
    pub(super) fn attempt_committed(&mut self) {
        self.topics.retain(|_, blocked| !blocked.in_transaction);
    }

    fn is_blocked(&self, topic: SinkTopic) -> bool {
        self.topics.get(&topic).is_some_and(|blocked| blocked.again_at.is_some())
    }
}

/// Returns the partitions that write to any of these topics, each with one of them.
fn partitions_with(
    (kept, keyed): Writers<'_>,
    is_topic: impl Fn(SinkTopic) -> bool,
) -> BTreeMap<Partition, SinkTopic> {
    let mut found = kept.partitions_with(&is_topic);
    for (partition, changelog) in keyed.into_iter().flat_map(Keyed::changelogs) {
        if is_topic(changelog) {
            found.entry(partition).or_insert(changelog);
        }
    }
    found
}

fn topics_of(records: &[(Arc<RecordBatch>, Range<usize>)]) -> impl Iterator<Item = SinkTopic> {
    records.iter().flat_map(|(batch, range)| batch.topics(range.clone()))
}
