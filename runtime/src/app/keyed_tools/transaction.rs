//! The transactions of a command: records of changelogs, and offsets of the group.

use std::ffi::CStr;
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};

use super::KeyedTools;
use crate::librdkafka::{
    ClientEvent, Deadline, ErrorCode, GroupMetadata, PartitionList, Producer, ProducerRecord, ProducerTopic,
    Queue, TransactionError,
};

/// The brokers abort an open transaction of an interrupted command after this time.
const TRANSACTION_TIMEOUT: Duration = Duration::from_mins(1);
/// Time limit of each call.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest wait for reports before the deadline is checked.
const POLL: Duration = Duration::from_millis(100);

/// A producer of transactions.
pub(super) struct Transactions {
    /// The changelog of each topic of the handler. Field order is drop order: topics and queue before the producer.
    topics: Vec<ProducerTopic>,
    names: Vec<String>,
    reports: Queue,
    id: String,
    group: GroupMetadata,
    producer: Producer,
}

/// A record of a changelog.
pub(super) struct ChangelogRecord<'r> {
    /// Index of the topic of the handler.
    pub(super) topic: usize,
    pub(super) partition: i32,
    pub(super) key: &'r [u8],
    /// `None` deletes the key.
    pub(super) value: Option<&'r [u8]>,
}

impl KeyedTools {
    /// Creates a producer of transactions for the changelogs.
    pub(super) fn transactions(&self) -> anyhow::Result<Transactions> {
        // Each command has its own id: none fences another.
        let unique = RandomState::new().hash_one(std::process::id());
        let id = format!("{}/{}/tools/{unique:016x}", self.group(), self.handler);
        let mut properties = self.producer_properties.clone();
        properties.set("transactional.id", &id);
        properties.set("transaction.timeout.ms", TRANSACTION_TIMEOUT.as_millis());
        properties.set("message.timeout.ms", TRANSACTION_TIMEOUT.as_millis());
        properties.set("enable.idempotence", "true");
        properties.set("acks", "all");
        properties.set("queue.buffering.max.messages", 0);
        let producer = Producer::new(&properties)?;
        let changelogs = self.topics.iter().filter_map(|topic| topic.changelog.as_ref());
        let names: Vec<&CStr> = changelogs.map(|changelog| changelog.name.as_c_str()).collect();
        let topic = |name: &&CStr| producer.topic(name).context("invalid name of a changelog");
        let transactions = Transactions {
            topics: names.iter().map(topic).collect::<anyhow::Result<_>>()?,
            names: names.iter().map(|name| super::text(name)).collect(),
            reports: producer.main_queue(),
            group: GroupMetadata::of_no_member(&self.group).context("invalid name of a group")?,
            id,
            producer,
        };
        let deadline = Deadline::after(CALL_TIMEOUT);
        transactions.repeat(deadline, || transactions.producer.init_transactions(deadline.remaining()))?;
        Ok(transactions)
    }
}

impl Transactions {
    /// Runs a transaction: all of it takes effect, or nothing. After an error in which the commit was requested, it may
    /// have taken effect.
    pub(super) fn run(
        &self,
        records: &[ChangelogRecord<'_>],
        offsets: Option<&PartitionList>,
    ) -> anyhow::Result<()> {
        self.producer.begin_transaction().map_err(|error| self.failed(&error))?;
        if let Err(error) = self.fill(records, offsets) {
            // Otherwise the brokers abort it after its timeout.
            let _aborted: Result<(), TransactionError> = self.producer.abort_transaction(CALL_TIMEOUT);
            return Err(error);
        }
        let deadline = Deadline::after(CALL_TIMEOUT);
        self.repeat(deadline, || self.producer.commit_transaction(deadline.remaining()))
            .context("the transaction may have taken effect; repeat the command")
    }

    fn fill(&self, records: &[ChangelogRecord<'_>], offsets: Option<&PartitionList>) -> anyhow::Result<()> {
        for record in records {
            self.produce(record)?;
        }
        // An error is reported for each record.
        let _flushed: Result<(), ErrorCode> = self.producer.flush(Duration::ZERO);
        let (mut open, deadline) = (records.len(), Deadline::after(CALL_TIMEOUT));
        while open > 0 {
            if deadline.is_over() {
                bail!("the brokers do not acknowledge the records of the changelog: check that they run");
            }
            if let Some(event) = self.reports.poll(POLL) {
                open = open.saturating_sub(self.acknowledged(event)?);
            }
        }
        let Some(offsets) = offsets else { return Ok(()) };
        let deadline = Deadline::after(CALL_TIMEOUT);
        self.repeat(deadline, || self.producer.send_offsets(offsets, &self.group, deadline.remaining()))
    }

    fn produce(&self, record: &ChangelogRecord<'_>) -> anyhow::Result<()> {
        let topic = self.topics.get(record.topic).context("the topic has no changelog")?;
        let produced = ProducerRecord {
            partition: Some(record.partition),
            timestamp: None,
            key: Some(record.key),
            value: record.value,
            headers: &[],
            id: record.topic,
        };
        self.producer.produce(topic, &produced).map_err(|code| self.rejected(record.topic, code))
    }

    /// Returns the number of acknowledged records in an event.
    fn acknowledged(&self, mut event: ClientEvent) -> anyhow::Result<usize> {
        let mut count = 0;
        while let Some(report) = event.next_report() {
            match report.error {
                ErrorCode::NONE => count += 1,
                // The transaction has failed, and the next call returns the cause.
                ErrorCode::PURGE_QUEUE | ErrorCode::PURGE_INFLIGHT => {
                    let cause = self.producer.begin_transaction().err();
                    return Err(cause.map_or_else(
                        || self.rejected(report.id, report.error),
                        |cause| self.failed(&cause),
                    ));
                }
                code => return Err(self.rejected(report.id, code)),
            }
        }
        Ok(count)
    }

    /// Repeats a call that may succeed later, until the deadline.
    fn repeat(
        &self,
        deadline: Deadline,
        call: impl Fn() -> Result<(), TransactionError>,
    ) -> anyhow::Result<()> {
        loop {
            match call() {
                Ok(()) => return Ok(()),
                Err(error) if error.retriable && !error.fatal && !deadline.is_over() => {}
                Err(error) => return Err(self.failed(&error)),
            }
        }
    }

    fn failed(&self, error: &TransactionError) -> anyhow::Error {
        let remedy = match error.code {
            ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED => {
                format!(
                    "; grant this user WRITE and DESCRIBE on the transactional id `{}`, or on its prefix",
                    self.id
                )
            }
            ErrorCode::TOPIC_AUTHORIZATION_FAILED => {
                format!("; grant this user WRITE on {}", self.names.join(", "))
            }
            ErrorCode::GROUP_AUTHORIZATION_FAILED => "; grant this user READ on the group".to_owned(),
            _ => String::new(),
        };
        anyhow!("the transaction failed: {error}{remedy}")
    }

    fn rejected(&self, topic: usize, code: ErrorCode) -> anyhow::Error {
        let topic = self.names.get(topic).map_or("", String::as_str);
        let remedy = match code {
            ErrorCode::TOPIC_AUTHORIZATION_FAILED => "; grant this user WRITE on it",
            _ => "",
        };
        anyhow!("the changelog `{topic}` can't be written: {code}{remedy}")
    }
}
