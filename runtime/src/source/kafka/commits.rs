//! Commits in flight. Each one gets a response for all its partitions, or times out.

use std::collections::BTreeMap;
use std::time::Duration;

use keylane_core::{CommitEntry, CommitError, CommitId, Partition};

use crate::librdkafka::{ClientEvent, ErrorCode, EventKind, PartitionList, Queue};
use crate::source::errors::commit_error;
use crate::source::event::SourceEvent;
use crate::source::partitions::ConsumerContext;

/// Placeholder in a commit's list for a partition without a response of the coordinator.
const NO_RESPONSE: ErrorCode = ErrorCode(-9_999);

/// The commits that the coordinator has not responded to.
pub(super) struct PendingCommits {
    responses: Queue,
    timeout: Duration,
    pending: BTreeMap<CommitId, PendingCommit>,
}

struct PendingCommit {
    deadline: Duration,
    partitions: Vec<Partition>,
}

impl PendingCommits {
    /// Starts without commits. `responses`: a queue for commits only, which wakes the thread.
    pub(super) fn new(responses: Queue, timeout: Duration) -> Self {
        PendingCommits { responses, timeout, pending: BTreeMap::new() }
    }

    /// Sends a commit. Returns its results if the client rejects it at once.
    pub(super) fn send(
        &mut self,
        context: &ConsumerContext,
        now: Duration,
        id: CommitId,
        entries: &[CommitEntry],
        metadata: &str,
    ) -> Vec<SourceEvent> {
        let mut list = PartitionList::with_capacity(entries.len());
        for entry in entries {
            if let Some(topic) = context.topic(entry.partition) {
                let bytes = entry.metadata_in(metadata).as_bytes();
                list.push_commit(topic, entry.partition.number, entry.offset, bytes, NO_RESPONSE);
            }
        }
        let partitions: Vec<Partition> = entries.iter().map(|entry| entry.partition).collect();
        let request = usize::try_from(id.0).unwrap_or(usize::MAX);
        match context.consumer.commit(&list, &self.responses, request) {
            Ok(()) => {
                self.pending.insert(id, PendingCommit { deadline: now + self.timeout, partitions });
                Vec::new()
            }
            Err(code) => partitions.iter().map(|&partition| commit_result(id, partition, code)).collect(),
        }
    }

    /// Returns the next response of the coordinator.
    pub(super) fn next_response(&self) -> Option<ClientEvent> {
        self.responses.poll_now()
    }

    /// Returns the results of a response: one per partition of its commit.
    pub(super) fn results(&mut self, event: &ClientEvent, context: &ConsumerContext) -> Vec<SourceEvent> {
        if event.kind() != EventKind::Commit {
            return Vec::new();
        }
        let id = CommitId(u64::try_from(event.request()).unwrap_or(u64::MAX));
        let Some(commit) = self.pending.remove(&id) else { return Vec::new() };
        let committed = event.partitions();
        let all = event.error();
        let code_of = |partition: Partition| {
            let topic = context.topic(partition)?;
            let mut entries = committed.iter();
            entries
                .find(|entry| entry.topic == topic && entry.partition == partition.number)
                .map(|entry| entry.error)
        };
        let result = |&partition: &Partition| {
            // The code of the request applies only if the coordinator did not respond for the partition.
            let code = match code_of(partition) {
                Some(code) if code != NO_RESPONSE => code,
                _ if !all.is_none() => all,
                _ => NO_RESPONSE,
            };
            commit_result(id, partition, code)
        };
        commit.partitions.iter().map(result).collect()
    }

    /// Removes a commit whose timeout has passed. A later response is dropped.
    pub(super) fn expire(&mut self, now: Duration) -> Option<CommitId> {
        let (&id, _) = self.pending.iter().find(|(_, commit)| commit.deadline <= now)?;
        self.pending.remove(&id);
        Some(id)
    }

    /// Returns the earliest timeout.
    pub(super) fn next_timeout(&self) -> Option<Duration> {
        self.pending.values().map(|commit| commit.deadline).min()
    }
}

fn commit_result(id: CommitId, partition: Partition, code: ErrorCode) -> SourceEvent {
    let result: Result<(), CommitError> = code.into_result().map_err(commit_error);
    SourceEvent::CommitResult { id, partition, result, code }
}
