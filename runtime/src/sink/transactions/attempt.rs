//! One attempt to run a transaction: begin, produce, wait for the acknowledgements, send the offsets, commit.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SendError, sync_channel};
use std::time::Duration;

use keylane_core::AbortCause;

use super::reports::Reports;
use super::{RefusedRecord, Transaction, TransactionOffset, Written};
use crate::librdkafka::{
    Deadline, ErrorCode, GroupMetadata, PartitionList, Producer, ProducerTopic, Queue, TransactionError,
};
use crate::sink::errors::{BatchError, classify, is_about_the_record};
use crate::sink::{RecordBatch, SinkRecord, SinkTopic};

/// Longest wait for reports before other conditions are checked.
const POLL: Duration = Duration::from_millis(20);
/// Timeout of one call that commits or aborts. After a retriable error, the call is repeated.
const CALL_TIMEOUT: Duration = Duration::from_secs(1);
/// Timeout of the call that sends the offsets.
const OFFSETS_TIMEOUT: Duration = Duration::from_secs(5);

/// The parts of a producer that an attempt uses.
pub(super) struct Attempt<'p> {
    pub(super) producer: &'p Producer,
    pub(super) topics: &'p [ProducerTopic],
    pub(super) reports: &'p Queue,
    /// When the attempt must have sent its offsets: before the brokers abort the transaction.
    pub(super) deadline: Deadline,
    /// How long the call that sends the offsets may take.
    pub(super) offsets_limit: Duration,
    /// Set when the process ends.
    pub(super) stop: &'p AtomicBool,
}

/// A transaction that was committed.
#[derive(Debug)]
pub(super) struct Committed {
    /// Number of its records.
    pub(super) records: usize,
    /// The last key record in each partition.
    pub(super) written: Vec<Written>,
    /// Whether the producer can be used again: a repeated request of it could take effect in the next transaction.
    pub(super) clean: bool,
}

/// Why an attempt failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) cause: Cause,
    /// Whether the producer can be used again after an abort, as far as the attempt shows.
    pub(super) clean: bool,
    /// Whether the commit was requested: the transaction may have been committed.
    pub(super) commit_requested: bool,
}

#[derive(Debug)]
pub(super) enum Cause {
    /// A record was rejected, or its topic can't be written.
    Record(SinkTopic, ErrorCode),
    /// A call failed.
    Call(&'static str, TransactionError),
    /// Not all records were acknowledged in time.
    TooSlow,
    /// The call that sends the offsets does not return.
    NoAnswer,
    /// The system lacks a thread.
    NoThread(String),
    /// The process ends.
    Stopped,
}

impl Attempt<'_> {
    /// Runs the transaction.
    pub(super) fn run(&self, transaction: &Transaction) -> Result<Committed, Failure> {
        let mut reports = Reports::default();
        let ended = self.publish(transaction, &mut reports);
        if let Err(cause) = ended {
            let clean = match &cause {
                Cause::Call(_, error) => !error.fatal && !error.retriable && !is_ambiguous(error.code),
                Cause::Record(..) | Cause::TooSlow | Cause::NoAnswer => false,
                Cause::NoThread(_) | Cause::Stopped => true,
            };
            let clean = clean && reports.all_acknowledged();
            return Err(Failure { cause, clean, commit_requested: false });
        }
        match self.commit(&mut reports) {
            Ok(clean) => Ok(Committed { records: reports.records(), written: reports.written(), clean }),
            Err(cause) => Err(Failure { cause, clean: false, commit_requested: true }),
        }
    }

    /// Does everything before the commit.
    fn publish(&self, transaction: &Transaction, reports: &mut Reports) -> Result<(), Cause> {
        self.producer.begin_transaction().map_err(|error| Cause::Call("begin", error))?;
        for (batch, records) in &transaction.records {
            for at in records.clone() {
                let produced = batch.lend(at, |record, partition| self.produce(record, partition, reports));
                produced.unwrap_or(Ok(()))?;
            }
        }
        // An error is reported for each record.
        let _flushed: Result<(), ErrorCode> = self.producer.flush(Duration::ZERO);
        while !reports.all_acknowledged() {
            reports.serve(self.reports, POLL);
            self.check(reports)?;
        }
        self.send_offsets(transaction)
    }

    /// Publishes the records of one topic without a commit, to find the one that the topic refuses. The producer sends each in
    /// a batch of its own. `None`: the topic refuses none of them.
    pub(super) fn probe(
        &self,
        transaction: &Transaction,
        topic: SinkTopic,
    ) -> Result<Option<RefusedRecord>, Cause> {
        let mut reports = Reports::default();
        let mut probed = Vec::new();
        self.producer.begin_transaction().map_err(|error| Cause::Call("begin", error))?;
        let ranges = transaction.records.iter();
        let records = ranges.flat_map(|(batch, range)| range.clone().map(move |at| (batch, at)));
        let is_of_topic = |batch: &RecordBatch, at| batch.topics(at..at + 1).eq([topic]);
        for (batch, at) in records.filter(|(batch, at)| is_of_topic(batch, *at)) {
            let refused = |code| RefusedRecord { batch: Arc::clone(batch), at, topic, code };
            probed.push((batch, at));
            match batch.lend(at, |record, partition| self.produce(record, partition, &mut reports)) {
                Some(Ok(())) | None => {}
                // Another record has failed the transaction meanwhile.
                Some(Err(Cause::Record(..))) if reports.first_failure().is_some() => break,
                Some(Err(Cause::Record(_, code))) if is_about_the_record(code) => {
                    return Ok(Some(refused(code)));
                }
                Some(Err(cause)) => return Err(cause),
            }
        }
        // An error is reported for each record.
        let _flushed: Result<(), ErrorCode> = self.producer.flush(Duration::ZERO);
        while !reports.is_complete() && reports.refused().is_none() {
            reports.serve(self.reports, POLL);
            if self.stop.load(Ordering::Acquire) {
                return Err(Cause::Stopped);
            }
            if self.deadline.is_over() {
                return Err(Cause::TooSlow);
            }
        }
        if let Some((id, code)) = reports.refused() {
            let found = probed.get(id).map(|&(batch, at)| RefusedRecord {
                batch: Arc::clone(batch),
                at,
                topic,
                code,
            });
            return Ok(found);
        }
        reports.first_failure().map_or(Ok(None), |(topic, code)| Err(self.diagnose(topic, code)))
    }

    fn send_offsets(&self, transaction: &Transaction) -> Result<(), Cause> {
        let (offsets, group) = (list_of(&transaction.offsets), Arc::clone(&transaction.group));
        let sent = send_offsets(self.producer, offsets, group, (self.offsets_limit, self.stop))?;
        sent.map_err(|error| Cause::Call("send offsets", error))
    }

    /// `partition`: that of a key record, whose offset is of interest; `None`: that of the record's key.
    fn produce(
        &self,
        record: &SinkRecord<'_>,
        partition: Option<i32>,
        reports: &mut Reports,
    ) -> Result<(), Cause> {
        let topic = self.topics.get(record.topic.index());
        let topic = topic.ok_or(Cause::Record(record.topic, ErrorCode::UNKNOWN_TOPIC))?;
        loop {
            let id = reports.add(record.topic, partition.is_some());
            let produced = record.submit_to(partition, self.producer, topic, id);
            match produced {
                Ok(()) => return Ok(()),
                Err(ErrorCode::QUEUE_FULL) => {
                    reports.remove_last();
                    reports.serve(self.reports, POLL);
                    self.check(reports)?;
                }
                // A transaction can be committed without a record that the client did not accept.
                Err(code) => {
                    reports.remove_last();
                    return Err(Cause::Record(record.topic, code));
                }
            }
        }
    }

    /// Checks whether the attempt has to end.
    fn check(&self, reports: &Reports) -> Result<(), Cause> {
        if let Some((topic, code)) = reports.first_failure() {
            return Err(self.diagnose(topic, code));
        }
        if self.stop.load(Ordering::Acquire) {
            return Err(Cause::Stopped);
        }
        if self.deadline.is_over() { Err(Cause::TooSlow) } else { Ok(()) }
    }

    /// Finds the cause of a record's error: a transaction that has failed purges its other records, and the error of the
    /// next call is the cause.
    fn diagnose(&self, topic: SinkTopic, code: ErrorCode) -> Cause {
        if !matches!(code, ErrorCode::PURGE_QUEUE | ErrorCode::PURGE_INFLIGHT) {
            return Cause::Record(topic, code);
        }
        match self.producer.client().fatal_error() {
            Some((code, text)) => {
                let error = TransactionError { code, fatal: true, retriable: false, text };
                Cause::Call("produce", error)
            }
            // An abortable error is returned by the next call that begins nothing.
            None => match self.producer.begin_transaction() {
                Err(error) if error.code == ErrorCode::TOPIC_AUTHORIZATION_FAILED => {
                    Cause::Record(topic, error.code)
                }
                Err(error) => Cause::Call("produce", error),
                Ok(()) => Cause::Record(topic, code),
            },
        }
    }

    /// Commits. A commit that was begun can only be repeated until it is decided. Returns whether the first call succeeded.
    fn commit(&self, reports: &mut Reports) -> Result<bool, Cause> {
        let mut at_first_try = true;
        loop {
            match self.producer.commit_transaction(CALL_TIMEOUT) {
                Ok(()) => return Ok(at_first_try),
                Err(error) if error.retriable && !error.fatal => {
                    at_first_try = false;
                    reports.serve(self.reports, POLL);
                    if self.stop.load(Ordering::Acquire) {
                        return Err(Cause::Stopped);
                    }
                }
                Err(error) => return Err(Cause::Call("commit", error)),
            }
        }
    }

    /// Aborts the transaction. Returns whether the first call succeeded.
    pub(super) fn abort(&self) -> bool {
        self.producer.abort_transaction(CALL_TIMEOUT).is_ok()
    }
}

impl Cause {
    /// Returns what the core learns of the cause.
    pub(super) fn abort_cause(&self) -> AbortCause {
        match self {
            Cause::TooSlow => AbortCause::TooSlow,
            _ if self.blocked_topic().is_some() => AbortCause::Excluded,
            Cause::Record(_, ErrorCode::MSG_TIMED_OUT) => AbortCause::TooSlow,
            Cause::Call(_, error) => match error.code {
                ErrorCode::ILLEGAL_GENERATION
                | ErrorCode::UNKNOWN_MEMBER_ID
                | ErrorCode::REBALANCE_IN_PROGRESS
                | ErrorCode::FENCED_INSTANCE_ID => AbortCause::Stale,
                ErrorCode::OFFSET_METADATA_TOO_LARGE => AbortCause::MetadataTooLarge,
                ErrorCode::INVALID_COMMIT_OFFSET_SIZE | ErrorCode::UNKNOWN_SERVER_ERROR => {
                    AbortCause::RequestTooLarge
                }
                _ => AbortCause::Other,
            },
            Cause::Record(..) | Cause::NoAnswer | Cause::NoThread(_) | Cause::Stopped => AbortCause::Other,
        }
    }

    /// Returns the topic, if the cause is a topic that can't be written, or that rejects a record.
    pub(super) fn blocked_topic(&self) -> Option<(SinkTopic, ErrorCode)> {
        let &Cause::Record(topic, code) = self else { return None };
        (classify(code) == BatchError::Topic
            || is_about_the_record(code)
            || code == ErrorCode::INVALID_TIMESTAMP)
            .then_some((topic, code))
    }

    /// Returns the topic, if it has refused a record or its batch.
    pub(super) fn refusing_topic(&self) -> Option<(SinkTopic, ErrorCode)> {
        let &Cause::Record(topic, code) = self else { return None };
        is_about_the_record(code).then_some((topic, code))
    }

    /// Returns whether another producer with the same id has replaced this one, or the brokers have aborted the
    /// transaction.
    pub(super) fn is_fenced(&self) -> bool {
        matches!(self, Cause::Call(_, error) if error.code == ErrorCode::FENCED)
    }

    /// Describes the cause. `name`: returns the name of a topic.
    pub(super) fn text(&self, name: impl Fn(SinkTopic) -> String) -> String {
        match self {
            Cause::Record(topic, code) => format!("topic `{}`: {code}", name(*topic)),
            Cause::Call(call, error) => format!("{call}: {error}"),
            Cause::TooSlow => "not all records were acknowledged in time".to_owned(),
            Cause::NoAnswer => "the client does not find the coordinator of the group".to_owned(),
            Cause::NoThread(error) => error.clone(),
            Cause::Stopped => "the process ends".to_owned(),
        }
    }
}

/// Sends offsets, on a thread of its own: the call may never return. The client caches the coordinator of the group
/// (`rdkafka_coord.c`), and requests wait for the cached broker, even if it has left the cluster. Such a call keeps its
/// producer. A new producer with the same id fences it, so a late request has no effect. An error: the call has not
/// returned.
pub(super) fn send_offsets(
    producer: &Producer,
    offsets: PartitionList,
    group: Arc<GroupMetadata>,
    (limit, stop): (Duration, &AtomicBool),
) -> Result<Result<(), TransactionError>, Cause> {
    let producer = producer.clone();
    let (answer, answered) = sync_channel(1);
    let call = move || {
        // After the limit, nobody waits for the answer.
        let _sent: Result<(), SendError<_>> =
            answer.send(producer.send_offsets(&offsets, &group, OFFSETS_TIMEOUT));
    };
    let thread = std::thread::Builder::new().name("keylane-offsets".to_owned());
    thread.spawn(call).map_err(|error| Cause::NoThread(error.to_string()))?;
    let limit = Deadline::after(limit);
    while !limit.is_over() {
        if let Ok(result) = answered.recv_timeout(POLL) {
            return Ok(result);
        }
        if stop.load(Ordering::Acquire) {
            return Err(Cause::Stopped);
        }
    }
    Err(Cause::NoAnswer)
}

/// Returns whether a request with this error may still be in the network, or may have been applied.
fn is_ambiguous(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::TIMED_OUT
            | ErrorCode::TRANSPORT
            | ErrorCode::REQUEST_TIMED_OUT
            | ErrorCode::COORDINATOR_LOAD_IN_PROGRESS
            | ErrorCode::COORDINATOR_NOT_AVAILABLE
            | ErrorCode::NOT_COORDINATOR
            | ErrorCode::CONFLICT
    )
}

fn list_of(offsets: &[TransactionOffset]) -> PartitionList {
    let mut list = PartitionList::with_capacity(offsets.len());
    for TransactionOffset { topic, partition, offset, metadata } in offsets {
        list.push_commit(topic, *partition, *offset, metadata.as_bytes(), ErrorCode::NONE);
    }
    list
}
