//! The look-up thread: every question whose answer comes from a broker.
//!
//! One thread, one bounded queue of questions, one of answers. It shares the consumer with the thread that
//! reads, which never waits for it.
use std::collections::BTreeMap;
use std::ffi::CString;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use keylane_core::Partition;

use super::event::StartFound;
use super::spec::StartPolicy;
use crate::librdkafka::{
    AdminBroker, BEGINNING, Consumer, END, ErrorCode, PartitionList, WakeHandle, describe_topics,
};

/// Questions that may stand in line; more are kept by the asker and put together.
const QUESTIONS: usize = 4;
/// Answers that may stand in line before the thread waits.
const ANSWERS: usize = 1024;
/// What one look-up takes at most is below the five seconds in which an assign is answered.
const COMMITTED_LIMIT: Duration = Duration::from_millis(2_000);
const BOUNDS_LIMIT: Duration = Duration::from_millis(1_000);
const SINGLE_LIMIT: Duration = Duration::from_millis(250);
const TOPIC_LIMIT: Duration = Duration::from_millis(500);

/// A partition under one ownership: an answer for an older one is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) partition: Partition,
    pub(super) epoch: u64,
}

pub(super) enum Question {
    Starts(Vec<Asked>),
    Bounds(Asked),
}

pub(super) enum Answer {
    Start { asked: Asked, found: Result<StartFound, String> },
    Bounds { asked: Asked, found: Result<(i64, i64), String> },
}

/// What was learnt once, before the source subscribed.
#[derive(Clone, Debug)]
pub(super) struct TopicFacts {
    pub(super) name: CString,
    pub(super) id: [u8; 16],
    /// How many partitions it had.
    pub(super) partitions: i32,
    /// Whether the group had a commit for any of them: then the start policy does not apply.
    pub(super) has_commits: bool,
}

/// The asker's end.
pub(super) struct LookUps {
    questions: SyncSender<Question>,
    answers: Receiver<Answer>,
    starts: Vec<Asked>,
    bounds: Vec<Asked>,
    /// Closed when the thread has ended.
    ended: Receiver<()>,
}

impl LookUps {
    pub(super) fn start(
        consumer: Consumer,
        topics: Vec<TopicFacts>,
        broker: AdminBroker,
        policy: StartPolicy,
        wake: WakeHandle,
    ) -> std::io::Result<LookUps> {
        let (questions, inbox) = sync_channel(QUESTIONS);
        let (outbox, answers) = sync_channel(ANSWERS);
        let (end, ended) = sync_channel::<()>(0);
        let worker = Worker { consumer, topics, broker, policy };
        thread::Builder::new().name("keylane-lookup".to_owned()).spawn(move || {
            let _end = end;
            for question in &inbox {
                for answer in worker.answer(&question) {
                    if outbox.send(answer).is_err() {
                        return;
                    }
                }
                wake.wake();
            }
        })?;
        Ok(LookUps { questions, answers, starts: Vec::new(), bounds: Vec::new(), ended })
    }

    pub(super) fn ask_start(&mut self, asked: Asked) {
        self.starts.push(asked);
    }

    pub(super) fn ask_bounds(&mut self, asked: Asked) {
        self.bounds.push(asked);
    }

    /// Sends what was asked since the last time, as one question where that is possible.
    pub(super) fn send(&mut self) {
        if !self.starts.is_empty() {
            match self.questions.try_send(Question::Starts(std::mem::take(&mut self.starts))) {
                Err(TrySendError::Full(Question::Starts(starts))) => self.starts = starts,
                Ok(()) | Err(TrySendError::Full(Question::Bounds(_)) | TrySendError::Disconnected(_)) => {}
            }
        }
        while let Some(asked) = self.bounds.pop() {
            if self.questions.try_send(Question::Bounds(asked)).is_err() {
                self.bounds.push(asked);
                break;
            }
        }
    }

    pub(super) fn next(&mut self) -> Option<Answer> {
        self.answers.try_recv().ok()
    }

    /// Ends the thread after its current question; `false` if that takes longer than the limit.
    pub(super) fn stop(self, limit: Duration) -> bool {
        drop((self.questions, self.answers));
        self.ended.recv_timeout(limit) != Err(RecvTimeoutError::Timeout)
    }
}

struct Worker {
    consumer: Consumer,
    topics: Vec<TopicFacts>,
    broker: AdminBroker,
    policy: StartPolicy,
}

/// Answers per partition; absent: not known.
type PerPartition<T> = BTreeMap<Partition, T>;

impl Worker {
    fn answer(&self, question: &Question) -> Vec<Answer> {
        match question {
            Question::Starts(all) => self.starts(all),
            Question::Bounds(asked) => {
                vec![Answer::Bounds { asked: *asked, found: self.bounds(asked.partition) }]
            }
        }
    }

    fn bounds(&self, partition: Partition) -> Result<(i64, i64), String> {
        let start = self.offsets(&[partition], BEGINNING);
        let end = self.offsets(&[partition], END);
        match (start.get(&partition), end.get(&partition)) {
            (Some(Ok(start)), Some(Ok(end))) => Ok((*start, *end)),
            (Some(Err(code)), _) | (_, Some(Err(code))) => Err(code.to_string()),
            _ => Err("the bounds of the log are not known".to_owned()),
        }
    }

    fn starts(&self, all: &[Asked]) -> Vec<Answer> {
        let partitions: Vec<Partition> = all.iter().map(|asked| asked.partition).collect();
        let committed = self.committed(&partitions);
        let starts = self.offsets(&partitions, BEGINNING);
        let ends = self.offsets(&partitions, END);
        let by_time = match self.policy {
            StartPolicy::Timestamp(millis) => {
                let wanted: Vec<Partition> =
                    partitions.iter().copied().filter(|p| self.is_first_time(*p, &committed)).collect();
                self.offsets(&wanted, millis)
            }
            StartPolicy::Earliest | StartPolicy::Latest => PerPartition::new(),
        };
        let ids = self.topic_ids();
        all.iter()
            .map(|asked| {
                let partition = asked.partition;
                let found = Found {
                    committed: committed.get(&partition),
                    log_start: starts.get(&partition),
                    log_end: ends.get(&partition),
                    by_time: by_time.get(&partition),
                };
                let found = self.resolve(partition, found, &committed, &ids);
                Answer::Start { asked: *asked, found }
            })
            .collect()
    }

    fn resolve(
        &self,
        partition: Partition,
        found: Found<'_>,
        committed: &PerPartition<Result<Option<(i64, Vec<u8>)>, ErrorCode>>,
        ids: &[[u8; 16]],
    ) -> Result<StartFound, String> {
        let commit = match found.committed {
            Some(Ok(commit)) => commit.clone(),
            Some(Err(code)) => return Err(format!("committed offset: {code}")),
            None => return Err("the committed offset is not known".to_owned()),
        };
        let log_start = match found.log_start {
            Some(Ok(offset)) => *offset,
            Some(Err(code)) => return Err(format!("start of the log: {code}")),
            None => return Err("the start of the log is not known".to_owned()),
        };
        let log_end = found.log_end.and_then(|end| end.as_ref().ok().copied());
        let fallback = if self.is_first_time(partition, committed) {
            self.first_start(log_start, log_end, found.by_time)?
        } else {
            log_start
        };
        let topic_id = ids.get(usize::from(partition.topic)).copied().unwrap_or_default();
        Ok(StartFound { partition, committed: commit, fallback, log_start, log_end, topic_id })
    }

    /// Where the policy puts a partition of a topic that the group never committed.
    fn first_start(
        &self,
        log_start: i64,
        log_end: Option<i64>,
        by_time: Option<&Result<i64, ErrorCode>>,
    ) -> Result<i64, String> {
        let end = || log_end.ok_or_else(|| "the end of the log is not known".to_owned());
        match self.policy {
            StartPolicy::Earliest => Ok(log_start),
            StartPolicy::Latest => end(),
            StartPolicy::Timestamp(_) => match by_time {
                Some(Ok(END)) => end(),
                Some(Ok(offset)) => Ok(*offset),
                Some(Err(code)) => Err(format!("offset of the start timestamp: {code}")),
                None => Err("the offset of the start timestamp is not known".to_owned()),
            },
        }
    }

    /// Whether the start policy decides: no commit, none for the whole topic when the process began, and a
    /// partition that existed then. A partition that was added later starts at its first record.
    fn is_first_time(
        &self,
        partition: Partition,
        committed: &PerPartition<Result<Option<(i64, Vec<u8>)>, ErrorCode>>,
    ) -> bool {
        let new = matches!(committed.get(&partition), Some(Ok(None)));
        let topic = self.topics.get(usize::from(partition.topic));
        new && topic.is_some_and(|topic| !topic.has_commits && partition.number < topic.partitions)
    }

    fn list(&self, partitions: &[Partition], offset: i64) -> PartitionList {
        let mut list = PartitionList::with_capacity(partitions.len());
        for partition in partitions {
            if let Some(topic) = self.topics.get(usize::from(partition.topic)) {
                list.push(&topic.name, partition.number, offset);
            }
        }
        list
    }

    fn partition_of(&self, topic: &std::ffi::CStr, number: i32) -> Option<Partition> {
        let index = self.topics.iter().position(|facts| facts.name.as_c_str() == topic)?;
        Some(Partition { topic: u16::try_from(index).ok()?, number })
    }

    fn committed(&self, partitions: &[Partition]) -> PerPartition<Result<Option<(i64, Vec<u8>)>, ErrorCode>> {
        let mut list = self.list(partitions, END);
        if let Err(code) = self.consumer.committed(&mut list, COMMITTED_LIMIT) {
            return partitions.iter().map(|partition| (*partition, Err(code))).collect();
        }
        list.iter()
            .filter_map(|entry| {
                let commit = (entry.offset >= 0).then(|| (entry.offset, entry.metadata.to_vec()));
                let result = entry.error.into_result().map(|()| commit);
                Some((self.partition_of(entry.topic, entry.partition)?, result))
            })
            .collect()
    }

    /// One request for all; if that fails as a whole (one leader away is enough), one by one.
    fn offsets(&self, partitions: &[Partition], at: i64) -> PerPartition<Result<i64, ErrorCode>> {
        if partitions.is_empty() {
            return PerPartition::new();
        }
        let mut list = self.list(partitions, at);
        match self.consumer.offsets_for_times(&mut list, BOUNDS_LIMIT) {
            Ok(()) => list
                .iter()
                .filter_map(|entry| {
                    let result = entry.error.into_result().map(|()| entry.offset);
                    Some((self.partition_of(entry.topic, entry.partition)?, result))
                })
                .collect(),
            Err(code) if partitions.len() == 1 => partitions.iter().map(|p| (*p, Err(code))).collect(),
            Err(_) => partitions.iter().map(|p| (*p, self.single_offset(*p, at))).collect(),
        }
    }

    fn single_offset(&self, partition: Partition, at: i64) -> Result<i64, ErrorCode> {
        let mut list = self.list(&[partition], at);
        self.consumer.offsets_for_times(&mut list, SINGLE_LIMIT)?;
        let entry = list.iter().next().ok_or(ErrorCode::UNKNOWN_PARTITION)?;
        entry.error.into_result().map(|()| entry.offset)
    }

    /// The topics' ids now: a topic that was deleted and made anew has another. What does not answer keeps the
    /// id it had at the start.
    fn topic_ids(&self) -> Vec<[u8; 16]> {
        let names: Vec<CString> = self.topics.iter().map(|topic| topic.name.clone()).collect();
        let described =
            describe_topics(self.consumer.client(), &names, self.broker, TOPIC_LIMIT).unwrap_or_default();
        let now = |name: &CString| {
            described.iter().find(|topic| topic.name == *name && topic.error.is_none()).map(|topic| topic.id)
        };
        self.topics.iter().map(|topic| now(&topic.name).unwrap_or(topic.id)).collect()
    }
}

/// What was found for one partition.
struct Found<'a> {
    committed: Option<&'a Result<Option<(i64, Vec<u8>)>, ErrorCode>>,
    log_start: Option<&'a Result<i64, ErrorCode>>,
    log_end: Option<&'a Result<i64, ErrorCode>>,
    by_time: Option<&'a Result<i64, ErrorCode>>,
}
