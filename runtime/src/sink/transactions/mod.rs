//! Transactional delivery: publishes records together with the offsets of their events.
//!
//! Each handler has one transactional producer, on a thread of its own, because its calls wait for brokers. One
//! transaction runs at a time: [`attempt`] is the procedure of a transaction, [`thread`] owns the producer and replaces
//! it, and [`reports`] collects the delivery reports.
//!
//! *Invariants.* A transaction is committed only if every record of it was acknowledged and its offsets were accepted. A
//! producer is used again only after an attempt in which every record was acknowledged and every call succeeded at its
//! first try: otherwise librdkafka may give the sequence numbers of unacknowledged records to those of the next
//! transaction, which the brokers then drop as duplicates, or a late request of the attempt may take effect in the next
//! transaction.

mod attempt;
mod batch;
mod first_commit;
mod reports;
mod thread;

use std::ffi::CString;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use keylane_core::{AbortCause, CommitId};

use super::{Sink, SinkTopic};
use crate::librdkafka::{ErrorCode, GroupMetadata, Properties};

pub use batch::{RecordBatch, packed_bytes};

/// How long the end of a handler waits for the abort of an open transaction.
const STOP_MAX: Duration = Duration::from_secs(3);

/// The parameters of a transactional producer.
#[derive(Clone, Debug)]
pub struct TransactionSpec {
    /// The handler's name, for log lines.
    pub handler: String,
    /// The `transactional.id`.
    pub id: String,
    /// Whether a restart of this process keeps the id.
    pub is_named: bool,
    /// The consumer group.
    pub group: CString,
    /// An input topic of the handler, for the test whether the brokers reject the offsets of a stranger.
    pub fencing_topic: CString,
    /// After this time, the brokers abort a transaction.
    pub timeout: Duration,
    /// Properties of the client that reads offsets back.
    pub consumer: Properties,
    /// Whether the broker is the embedded one, which accepts the calls of transactions without their effects: every
    /// record is visible at once, offsets are not stored, and nobody is fenced.
    pub is_embedded: bool,
}

/// A transaction to run.
#[derive(Debug)]
pub struct Transaction {
    /// Repeated in the event about its end.
    pub id: CommitId,
    /// Records to publish, in order.
    pub records: Vec<(Arc<RecordBatch>, Range<usize>)>,
    /// Offsets to store.
    pub offsets: Vec<TransactionOffset>,
    /// The membership that the offsets belong to, from the same moment as the offsets.
    pub group: Arc<GroupMetadata>,
}

/// One offset of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionOffset {
    /// The input topic.
    pub topic: CString,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// Its metadata.
    pub metadata: String,
}

/// The last record that a transaction has written to a partition that was given with the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// The topic.
    pub topic: SinkTopic,
    /// The partition.
    pub partition: i32,
    /// The offset of the record.
    pub offset: i64,
}

/// A record of a transaction that its topic refuses.
#[derive(Clone, Debug)]
pub struct RefusedRecord {
    /// The batch of the transaction with the record.
    pub batch: Arc<RecordBatch>,
    /// Its index in the batch.
    pub at: usize,
    /// Its topic.
    pub topic: SinkTopic,
    /// The error.
    pub code: ErrorCode,
}

/// What the coordinator has stored for a partition: an offset with its metadata, if any.
pub type StoredOffset = Option<(i64, Vec<u8>)>;

/// What happens to transactions.
#[derive(Debug)]
pub enum TransactionEvent {
    /// The transaction was committed.
    Committed {
        /// The transaction.
        id: CommitId,
        /// Number of records.
        records: usize,
        /// The last key record in each partition of a changelog; unknown, and so empty, if the transaction was found to be
        /// committed by its offsets.
        written: Vec<Written>,
    },
    /// The transaction was aborted, or will never be committed.
    Aborted {
        /// The transaction.
        id: CommitId,
        /// The class of the cause.
        why: AbortCause,
        /// The cause, for log lines.
        reason: String,
    },
    /// The answer to the commit was lost. These are the offsets that the coordinator has now, in the order of the
    /// transaction's.
    ReadBack {
        /// The transaction.
        id: CommitId,
        /// The stored offsets.
        stored: Vec<StoredOffset>,
    },
    /// A topic refuses a record, which was alone in its batch: it refuses it for ever. Reported before the end of its
    /// transaction.
    RecordRefused(RefusedRecord),
    /// A topic rejects records or can't be written. Nothing is dropped: the transaction is repeated.
    TopicBlocked {
        /// The topic.
        topic: SinkTopic,
        /// The error.
        code: ErrorCode,
    },
    /// The brokers do not accept the producer at the moment, for this reason. It is tried again.
    Unavailable(String),
    /// The brokers accept the producer.
    Available,
    /// The brokers will never accept the producer: the handler can't continue.
    Refused(String),
}

/// The function that receives the events. It runs on the thread of the producer.
pub type OnEvent = Box<dyn Fn(TransactionEvent) + Send>;

/// The transactional producer of one handler.
pub struct TransactionalProducer {
    requests: Option<SyncSender<Transaction>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// Closed when the thread ends.
    ended: Receiver<()>,
}

impl TransactionalProducer {
    /// Starts the thread. The producer is created and initialised at once: an open transaction of a predecessor with the
    /// same id is aborted.
    ///
    /// # Errors
    ///
    /// The thread can't be created.
    pub fn start(sink: &Sink, spec: TransactionSpec, on_event: OnEvent) -> std::io::Result<Self> {
        let (requests, received) = sync_channel(1);
        let stop = Arc::new(AtomicBool::new(false));
        let mut owner = thread::ProducerOwner::new(sink, spec, on_event, Arc::clone(&stop));
        let (running, ended) = sync_channel(0);
        let thread =
            std::thread::Builder::new().name("keylane-transactions".to_owned()).spawn(move || {
                let _running: SyncSender<()> = running;
                owner.run(&received);
            })?;
        Ok(TransactionalProducer { requests: Some(requests), stop, thread: Some(thread), ended })
    }

    /// Runs a transaction. The one before it has ended.
    pub fn run(&self, transaction: Transaction) {
        if let Some(requests) = &self.requests {
            let sent = requests.try_send(transaction);
            assert!(sent.is_ok(), "a transaction begins after the end of the one before it");
        }
    }
}

impl Drop for TransactionalProducer {
    /// Ends the thread. An open transaction is aborted if the brokers respond within a second.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.requests = None;
        if self.ended.recv_timeout(STOP_MAX) == Err(RecvTimeoutError::Timeout) {
            // The brokers abort its transaction, and the end of the process ends the thread.
            tracing::warn!("transactional producer not stopped in time");
            return;
        }
        if let Some(thread) = self.thread.take()
            && let Err(panic) = thread.join()
        {
            tracing::error!(?panic, "thread of the transactional producer panicked");
        }
    }
}
