//! The thread that owns the transactional producer: creates it, runs transactions, and replaces it after an attempt that
//! was not clean.
use std::ffi::CString;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use super::attempt::{Attempt, Cause, Committed, Failure, send_offsets};
use super::first_commit;
use super::{OnEvent, StoredOffset, Transaction, TransactionEvent, TransactionOffset, TransactionSpec};
use keylane_core::AbortCause;

use crate::librdkafka::{
    Deadline, END, ErrorCode, GroupMetadata, GroupReader, PartitionList, Producer, ProducerTopic, Properties,
    Queue, TransactionError,
};
use crate::sink::{Sink, SinkTopic};

/// Timeout of one call that initialises a producer.
const INIT_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause before a new producer is tried, and before offsets are read back again.
const PAUSE: Duration = Duration::from_millis(100);
/// Timeout of one read of offsets.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// A shorter refusal is not reported: after a restart with the same name, the brokers often complete the transaction of the
/// predecessor first.
const UNAVAILABLE_MIN: Duration = Duration::from_secs(2);
/// The time before the brokers abort a transaction that is left for its offsets and its commit.
const COMMIT_RESERVE: Duration = Duration::from_secs(2);
/// How long each record has a batch of its own after a topic has refused a batch, but none of its records.
const SINGLE_PERIOD: Duration = Duration::from_mins(1);

/// How often another producer with our id may replace ours within [`FENCED_PERIOD`] before two processes are assumed to
/// have the same name.
const FENCED_MAX: usize = 3;
const FENCED_PERIOD: Duration = Duration::from_mins(1);

/// The owner of a transactional producer.
pub(super) struct ProducerOwner {
    spec: TransactionSpec,
    properties: Properties,
    names: Vec<CString>,
    on_event: OnEvent,
    stop: Arc<AtomicBool>,
    current: Option<Current>,
    /// When the brokers' refusal is worth a report, if they do not accept the producer.
    unavailable: Option<Deadline>,
    /// Whether it was reported.
    reported: bool,
    reader: Option<GroupReader>,
    /// Whether the brokers were seen to reject the offsets of a stranger.
    fencing_tested: bool,
    /// Whether a committed transaction was seen to be stored.
    commit_tested: bool,
    /// Until then, each record has a batch of its own.
    single: Option<Deadline>,
    /// For each time that another producer has replaced ours: when it no longer counts.
    fenced: Vec<Deadline>,
}

/// An initialised producer. Field order is drop order: topics and queue before the producer.
struct Current {
    topics: Vec<ProducerTopic>,
    reports: Queue,
    producer: Producer,
    /// Whether each record has a batch of its own.
    single: bool,
}

/// Why no producer could be initialised.
enum InitError {
    /// The process ends.
    Stopped,
    /// The brokers will never accept it.
    Refused(String),
}

impl InitError {
    /// Returns the event that ends a transaction without a producer; `None`: the process ends.
    fn into_event(self) -> Option<TransactionEvent> {
        match self {
            InitError::Stopped => None,
            InitError::Refused(reason) => Some(TransactionEvent::Refused(reason)),
        }
    }
}

impl ProducerOwner {
    pub(super) fn new(sink: &Sink, spec: TransactionSpec, on_event: OnEvent, stop: Arc<AtomicBool>) -> Self {
        let (properties, names) = sink.for_transactions(&spec);
        ProducerOwner {
            spec,
            properties,
            names,
            on_event,
            stop,
            current: None,
            unavailable: None,
            reported: false,
            reader: None,
            fencing_tested: false,
            commit_tested: false,
            single: None,
            fenced: Vec::new(),
        }
    }

    /// Runs transactions until the sender of `requests` is dropped.
    pub(super) fn run(&mut self, requests: &Receiver<Transaction>) {
        // Before the first transaction: an open transaction of a predecessor holds its partitions.
        if let Err(InitError::Refused(reason)) = self.renew() {
            (self.on_event)(TransactionEvent::Refused(reason));
        }
        while let Ok(transaction) = requests.recv() {
            let event = self.run_one(&transaction);
            let Some(event) = event else { return };
            (self.on_event)(event);
        }
    }

    /// Runs one transaction to its end. `None`: the process ends.
    fn run_one(&mut self, transaction: &Transaction) -> Option<TransactionEvent> {
        let single = self.single.take_if(|single| single.is_over()).is_none() && self.single.is_some();
        let is_usable = self.current.as_ref().is_some_and(|current| single || !current.single);
        if !is_usable && let Err(end) = self.renew() {
            return end.into_event();
        }
        let current = self.current.as_ref()?;
        let attempt = self.attempt(current);
        let Failure { cause, clean, commit_requested } = match attempt.run(transaction) {
            Ok(Committed { records, written, clean }) => {
                if !clean {
                    self.current = None;
                }
                if let Some(reason) = self.lost_commit(transaction) {
                    (self.on_event)(TransactionEvent::Refused(reason));
                }
                return Some(TransactionEvent::Committed { id: transaction.id, records, written });
            }
            Err(failure) => failure,
        };
        if matches!(cause, Cause::Stopped) {
            attempt.abort();
            return None;
        }
        let time_left = attempt.deadline.remaining();
        if !(clean && attempt.abort()) {
            self.current = None;
        }
        let names = self.names.clone();
        let name = |topic: SinkTopic| {
            names.get(topic.index()).map_or(String::new(), |name| name.to_string_lossy().into_owned())
        };
        let reason = cause.text(name);
        tracing::debug!(handler = self.spec.handler, reason, clean, commit_requested, "transaction failed");
        if let Some((topic, code)) = cause.refusing_topic() {
            return self.probe(transaction, (topic, code), reason);
        }
        if let Some((topic, code)) = cause.blocked_topic() {
            (self.on_event)(TransactionEvent::TopicBlocked { topic, code });
        }
        if cause.is_fenced() && self.has_name_twice(time_left) {
            return Some(TransactionEvent::Refused(SAME_NAME.to_owned()));
        }
        if commit_requested {
            return self.read_back(transaction);
        }
        Some(TransactionEvent::Aborted { id: transaction.id, why: cause.abort_cause(), reason })
    }

    fn attempt<'a>(&'a self, current: &'a Current) -> Attempt<'a> {
        Attempt {
            producer: &current.producer,
            topics: &current.topics,
            reports: &current.reports,
            deadline: Deadline::after(self.spec.timeout.saturating_sub(COMMIT_RESERVE)),
            // The client limits the call by `socket.timeout.ms`, if it finds the coordinator.
            offsets_limit: self.spec.timeout + COMMIT_RESERVE,
            stop: &self.stop,
        }
    }

    /// Finds out which record a topic refuses: brokers refuse batches. Each record is published in a batch of its own, in a
    /// transaction that is aborted.
    fn probe(
        &mut self,
        transaction: &Transaction,
        (topic, code): (SinkTopic, ErrorCode),
        reason: String,
    ) -> Option<TransactionEvent> {
        self.single = Some(Deadline::after(SINGLE_PERIOD));
        if let Err(end) = self.renew() {
            return end.into_event();
        }
        let current = self.current.as_ref()?;
        let attempt = self.attempt(current);
        let found = attempt.probe(transaction, topic);
        attempt.abort();
        self.current = None;
        let mut why = AbortCause::Excluded;
        match found {
            Ok(Some(refused)) => {
                self.single = None;
                (self.on_event)(TransactionEvent::RecordRefused(refused));
            }
            Ok(None) => {
                let topic =
                    self.names.get(topic.index()).map(|name| name.to_string_lossy()).unwrap_or_default();
                tracing::warn!(
                    handler = self.spec.handler,
                    %topic,
                    %code,
                    remedy = "restart this process: it reads the topic's limits at the start",
                    "topic rejects a batch, but none of its records: each is sent alone for a minute"
                );
            }
            Err(Cause::Stopped) => return None,
            Err(cause) => {
                self.single = None;
                if matches!(cause, Cause::TooSlow) {
                    why = AbortCause::TooSlow; // the next transaction is smaller
                } else {
                    (self.on_event)(TransactionEvent::TopicBlocked { topic, code });
                }
            }
        }
        Some(TransactionEvent::Aborted { id: transaction.id, why, reason })
    }

    /// Counts that another producer has replaced ours. Returns whether another process has our name. A transaction that the
    /// brokers have aborted because of its age looks the same, so old ones do not count.
    fn has_name_twice(&mut self, time_left: Duration) -> bool {
        self.fenced.retain(|deadline| !deadline.is_over());
        if self.spec.is_named && time_left + COMMIT_RESERVE > self.spec.timeout / 2 {
            self.fenced.push(Deadline::after(FENCED_PERIOD));
        }
        self.fenced.len() >= FENCED_MAX
    }

    /// Creates and initialises a producer. Waits for brokers, however long it takes.
    fn renew(&mut self) -> Result<(), InitError> {
        self.current = None;
        loop {
            match self.create() {
                Ok(current) if self.init(&current.producer)? && self.is_tested(&current.producer)? => {
                    self.report_available();
                    self.current = Some(current);
                    return Ok(());
                }
                Ok(_) => self.pause()?,
                Err(reason) => {
                    self.report_unavailable(reason);
                    self.pause()?;
                }
            }
        }
    }

    /// Initialises a producer. Returns false if another one is needed.
    fn init(&mut self, producer: &Producer) -> Result<bool, InitError> {
        loop {
            if self.stop.load(Ordering::Acquire) {
                return Err(InitError::Stopped);
            }
            let Err(error) = producer.init_transactions(INIT_TIMEOUT) else { return Ok(true) };
            if let Some(remedy) = refusal(error.code) {
                return Err(InitError::Refused(format!("{error}; {remedy}")));
            }
            self.report_unavailable(error.to_string());
            if !error.retriable || error.fatal {
                return Ok(false);
            }
            self.pause()?;
        }
    }

    /// Tests once whether the brokers reject the offsets of a member that does not exist. Without that, a process that
    /// has lost its partitions could commit offsets over those of their new owner. Returns false if the test has to be
    /// repeated with another producer.
    fn is_tested(&mut self, producer: &Producer) -> Result<bool, InitError> {
        if self.fencing_tested || self.spec.is_embedded {
            return Ok(true);
        }
        let Some(stranger) = GroupMetadata::of_stranger(&self.spec.group) else { return Ok(false) };
        let mut offsets = PartitionList::with_capacity(1);
        offsets.push(&self.spec.fencing_topic, 0, 0);
        let limits = (self.spec.timeout + COMMIT_RESERVE, &*self.stop);
        let sent = match producer.begin_transaction() {
            Ok(()) => send_offsets(producer, offsets, Arc::new(stranger), limits),
            Err(error) => Ok(Err(error)),
        };
        let sent = match sent {
            Ok(sent) => sent,
            Err(Cause::Stopped) => return Err(InitError::Stopped),
            Err(_) => return Ok(false),
        };
        let is_aborted = producer.abort_transaction(INIT_TIMEOUT).is_ok();
        match is_rejected_stranger(&sent) {
            Some(true) => {
                self.fencing_tested = true;
                Ok(is_aborted)
            }
            Some(false) => Err(InitError::Refused(
                "the brokers accept offsets from members that have left the group, so transactions would not be \
                 safe; use `delivery = \"at-least-once\"`, or brokers of Kafka 2.5 or later"
                    .to_owned(),
            )),
            None => {
                if let Err(error) = sent {
                    self.report_unavailable(error.to_string());
                }
                Ok(false)
            }
        }
    }

    fn create(&self) -> Result<Current, String> {
        let mut properties = self.properties.clone();
        let single = self.single.is_some();
        if single {
            properties.set("batch.num.messages", 1);
        }
        let producer = Producer::new(&properties).map_err(|error| error.to_string())?;
        let topic =
            |name: &CString| producer.topic(name).ok_or_else(|| format!("invalid topic name {name:?}"));
        let topics = self.names.iter().map(topic).collect::<Result<Vec<_>, _>>()?;
        Ok(Current { topics, reports: producer.main_queue(), producer, single })
    }

    fn report_unavailable(&mut self, reason: String) {
        let due = *self.unavailable.get_or_insert_with(|| Deadline::after(UNAVAILABLE_MIN));
        if due.is_over() && !std::mem::replace(&mut self.reported, true) {
            (self.on_event)(TransactionEvent::Unavailable(reason));
        }
    }

    fn report_available(&mut self) {
        self.unavailable = None;
        if std::mem::take(&mut self.reported) {
            (self.on_event)(TransactionEvent::Available);
        }
    }

    fn pause(&self) -> Result<(), InitError> {
        std::thread::sleep(PAUSE);
        if self.stop.load(Ordering::Acquire) { Err(InitError::Stopped) } else { Ok(()) }
    }

    /// Reads the offsets of a transaction whose commit was requested without an answer. A new producer must be
    /// initialised before: its predecessor's transaction is then decided, and no late request of it has an effect.
    fn read_back(&mut self, transaction: &Transaction) -> Option<TransactionEvent> {
        if let Err(end) = self.renew() {
            return end.into_event();
        }
        loop {
            match self.read(&transaction.offsets) {
                Ok(stored) => {
                    self.report_available();
                    return Some(TransactionEvent::ReadBack { id: transaction.id, stored });
                }
                Err(code) if code == ErrorCode::UNSTABLE_OFFSET_COMMIT => {}
                Err(code) => self.report_unavailable(format!("committed offsets can't be read: {code}")),
            }
            self.pause().ok()?;
        }
    }

    /// Reads the offsets of the first committed transaction. Returns the reason to stop, if they are not there.
    fn lost_commit(&mut self, transaction: &Transaction) -> Option<String> {
        if self.commit_tested || self.spec.is_embedded {
            return None;
        }
        // If they can't be read, the next commit is tested.
        let stored = self.read(&transaction.offsets).ok()?;
        self.commit_tested = true;
        first_commit::lost(&transaction.offsets, &stored).map(|reason| format!("{reason}; {NO_COMMITS}"))
    }

    fn read(&mut self, offsets: &[TransactionOffset]) -> Result<Vec<StoredOffset>, ErrorCode> {
        let reader = match self.reader.take() {
            Some(reader) => reader,
            None => GroupReader::new(&self.spec.consumer).map_err(|_| ErrorCode::CRIT_SYS_RESOURCE)?,
        };
        let mut list = PartitionList::with_capacity(offsets.len());
        for TransactionOffset { topic, partition, .. } in offsets {
            list.push(topic, *partition, END);
        }
        let found;
        (self.reader, found) = reader.read(&self.spec.group, Some(&list), true, READ_TIMEOUT);
        let found = found?;
        let stored = |offset: &TransactionOffset| {
            let mut entries = found.iter();
            let is_same = |topic: &std::ffi::CStr, partition| {
                topic == offset.topic.as_c_str() && partition == offset.partition
            };
            let entry = entries.find(|entry| is_same(entry.topic, entry.partition));
            let entry = entry.ok_or(ErrorCode::UNKNOWN_PARTITION)?;
            entry.error.into_result()?;
            Ok((entry.offset >= 0).then(|| (entry.offset, entry.metadata.to_vec())))
        };
        offsets.iter().map(stored).collect()
    }
}

const SAME_NAME: &str = "another process with the same `runtime.instance` or `group_instance_id` replaces the transactional \
                         producer of this one again and again; give each process its own name";

const NO_COMMITS: &str = "transactional delivery needs both: look for a proxy between Keylane and the brokers, and for a tool that \
                          changes the offsets of the group, or use `delivery = \"at-least-once\"`";

/// Returns the remedy, if the brokers will never accept the producer.
fn refusal(code: ErrorCode) -> Option<&'static str> {
    match code {
        ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED => Some(
            "grant this user WRITE and DESCRIBE on the transactional ids that begin with the group's name",
        ),
        ErrorCode::INVALID_TRANSACTION_TIMEOUT => {
            Some("lower `transactions.timeout`, or raise the brokers' `transaction.max.timeout.ms`")
        }
        _ => None,
    }
}

/// Returns whether the coordinator rejected the offsets of a member that does not exist; `None`: it did not answer.
fn is_rejected_stranger(sent: &Result<(), TransactionError>) -> Option<bool> {
    match sent {
        Ok(()) => Some(false),
        Err(error) if matches!(error.code, ErrorCode::ILLEGAL_GENERATION | ErrorCode::UNKNOWN_MEMBER_ID) => {
            Some(true)
        }
        Err(_) => None,
    }
}
