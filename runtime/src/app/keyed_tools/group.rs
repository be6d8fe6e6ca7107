//! The group of a handler: whether it has members, and its committed offsets.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::thread;
use std::time::Duration;

use anyhow::{anyhow, bail, ensure};

use super::{KeyedTools, ToolPartition, text};
use crate::librdkafka::{
    Consumer, Deadline, ErrorCode, EventKind, GroupReader, ListEntry, PartitionList, Queue,
};
use crate::source::configured_client_id;

/// Time limit of a request to the coordinator, and of a commit.
const TIMEOUT: Duration = Duration::from_secs(20);
/// How long an open transaction with offsets of the group is waited for: more than the default timeout of transactions.
const UNDECIDED_MAX: Duration = Duration::from_secs(90);
/// The pause before a request is repeated.
const PAUSE: Duration = Duration::from_millis(250);

/// A committed offset and its metadata.
pub(super) type Commit = (i64, Vec<u8>);

impl KeyedTools {
    /// Refuses a group that has members: they would not notice that their states change.
    pub(super) fn needs_empty_group(&self) -> anyhow::Result<()> {
        let deadline = Deadline::after(TIMEOUT);
        let described = loop {
            let reader = GroupReader::new(&self.consumer_properties)?;
            match reader.describe(&self.group, deadline.remaining()).1 {
                Ok(described) => break described,
                Err(code) if is_temporary(code) && !deadline.is_over() => thread::sleep(PAUSE),
                Err(code) => return Err(self.group_error(code)),
            }
        };
        let names: Vec<String> = described
            .members
            .iter()
            .map(|member| format!("{} at {}", configured_client_id(&member.client_id), member.host))
            .collect();
        ensure!(
            names.is_empty(),
            "the group `{}` has members: {}; stop all of them first (a killed process stays a member until \
             `session.timeout.ms` has passed)",
            self.group(),
            names.join(", ")
        );
        Ok(())
    }

    /// Reads the committed offsets of the selected partitions. Waits for open transactions that contain some.
    pub(super) fn commits(&self) -> anyhow::Result<BTreeMap<(usize, i32), Commit>> {
        let mut wanted = PartitionList::with_capacity(self.partitions.len());
        for partition in &self.partitions {
            wanted.push(&self.topic(partition)?.input.name, partition.number, -1);
        }
        let (deadline, undecided) = (Deadline::after(TIMEOUT), Deadline::after(UNDECIDED_MAX));
        loop {
            let reader = GroupReader::new(&self.consumer_properties)?;
            let found = reader.read(&self.group, Some(&wanted), true, TIMEOUT).1;
            match found.and_then(|found| self.commits_of(&found)) {
                Ok(commits) => return Ok(commits),
                Err(ErrorCode::UNSTABLE_OFFSET_COMMIT) => {
                    ensure!(
                        !undecided.is_over(),
                        "a transaction with offsets of the group `{}` is open: find it with `kafka-transactions.sh \
                         find-hanging`, and abort it",
                        self.group()
                    );
                    thread::sleep(PAUSE);
                }
                Err(code) if is_temporary(code) && !deadline.is_over() => thread::sleep(PAUSE),
                Err(code) => return Err(self.group_error(code)),
            }
        }
    }

    fn commits_of(&self, found: &PartitionList) -> Result<BTreeMap<(usize, i32), Commit>, ErrorCode> {
        let mut commits = BTreeMap::new();
        for ListEntry { topic, partition, offset, metadata, error } in found.iter() {
            error.into_result()?;
            let index = self.topics.iter().position(|known| known.input.name.as_c_str() == topic);
            if let Some(index) = index.filter(|_| offset >= 0) {
                commits.insert((index, partition), (offset, metadata.to_vec()));
            }
        }
        Ok(commits)
    }

    /// Commits offsets, as a client that is no member: the coordinator rejects it if the group has members.
    pub(super) fn commit(&self, offsets: &PartitionList) -> anyhow::Result<()> {
        let consumer = Consumer::new(&self.consumer_properties)?;
        let responses = Queue::new(consumer.client());
        let group = self.group();
        let rejected = |code: ErrorCode| match code {
            ErrorCode::UNKNOWN_MEMBER_ID
            | ErrorCode::ILLEGAL_GENERATION
            | ErrorCode::REBALANCE_IN_PROGRESS => {
                anyhow!("a member has joined the group `{group}`: stop it, and repeat the command")
            }
            code => anyhow!(
                "the offsets of the group `{group}` can't be committed: {code}; this user needs READ on the group and on \
                 its topics"
            ),
        };
        consumer.commit(offsets, &responses, 1).map_err(rejected)?;
        let deadline = Deadline::after(TIMEOUT);
        while !deadline.is_over() {
            let Some(event) = responses.poll(deadline.remaining()) else { break };
            if event.kind() != EventKind::Commit {
                continue;
            }
            event.error().into_result().map_err(rejected)?;
            return event
                .partitions()
                .iter()
                .try_for_each(|entry| entry.error.into_result())
                .map_err(rejected);
        }
        bail!(
            "the coordinator of the group `{group}` does not respond: the offsets may be committed; repeat the command"
        )
    }

    /// Returns the selected partitions as topics and numbers.
    pub(super) fn inputs(&self, partitions: &[&ToolPartition]) -> anyhow::Result<Vec<(CString, i32)>> {
        let input =
            |partition: &&ToolPartition| Ok((self.topic(partition)?.input.name.clone(), partition.number));
        partitions.iter().map(input).collect()
    }

    fn group_error(&self, code: ErrorCode) -> anyhow::Error {
        let group = text(&self.group);
        let remedy = match code {
            ErrorCode::GROUP_AUTHORIZATION_FAILED => "grant this user READ and DESCRIBE on it",
            ErrorCode::TOPIC_AUTHORIZATION_FAILED => "grant this user READ and DESCRIBE on its topics",
            _ => "check that the brokers that store its offsets run",
        };
        anyhow!("the group `{group}` can't be described: {code}; {remedy}")
    }
}

fn is_temporary(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::COORDINATOR_LOAD_IN_PROGRESS
            | ErrorCode::COORDINATOR_NOT_AVAILABLE
            | ErrorCode::NOT_COORDINATOR
    )
}
