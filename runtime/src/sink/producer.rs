//! The producer of the process.
use std::ffi::CString;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::delivery::Delivery;
use super::delivery_thread::DeliveryThread;
use super::errors::{BatchError, DeliveryError, classify};
use super::record::{RECORD_OVERHEAD, SinkTopic};
use super::spec::{Error, SinkSpec};
use super::topic_limits::{Limits, RecordSize, TimeFit, Unpublishable};
use super::topics;
use super::transactions::TransactionSpec;
use super::unreported::{RecordId, UnreportedRecords};
use crate::librdkafka::{
    ClientError, Deadline, ErrorCode, Header, KeepWaiting, LatestStatistics, Producer, ProducerRecord,
    ProducerTopic, Properties, StartupError, admin_broker,
};

/// Timeout of the request that makes the producer discover its brokers before the first record.
const DISCOVERY_TIMEOUT: Duration = Duration::from_secs(3);

/// The longest timeout of a response to a transactional producer: the client accepts at most five minutes.
const RESPONSE_MAX: Duration = Duration::from_mins(1);

/// The function that receives the deliveries of one handler, in the order of their reports, several at a time. An empty
/// slice means that a closed topic accepts records again. The function runs on the delivery thread, which all handlers
/// share, so it must return quickly.
pub type Route = Box<dyn FnMut(&[Delivery]) + Send>;

/// The function that is called after an authentication failure of the producer: see
/// [`ErrorCode::is_authentication_failure`]. It runs on the delivery thread.
pub type OnAuthenticationFailure = Box<dyn Fn() + Send>;

/// A record to publish.
#[derive(Clone, Copy)]
pub struct SinkRecord<'a> {
    /// Its topic.
    pub topic: SinkTopic,
    /// Milliseconds since the Unix epoch; `None`: the time at which it is sent.
    pub timestamp: Option<i64>,
    /// The key; records with the same key go to the same partition, in order.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Names and values, in order.
    pub headers: &'a [Header<'a>],
}

impl SinkRecord<'_> {
    /// Passes the record to a client, which copies it. `id`: returned in its delivery report.
    pub(super) fn submit(
        &self,
        producer: &Producer,
        topic: &ProducerTopic,
        id: usize,
    ) -> Result<(), ErrorCode> {
        self.submit_to(None, producer, topic, id)
    }

    /// Passes the record to a client as [`SinkRecord::submit`] does. `partition`: `None`: that of the key.
    pub(super) fn submit_to(
        &self,
        partition: Option<i32>,
        producer: &Producer,
        topic: &ProducerTopic,
        id: usize,
    ) -> Result<(), ErrorCode> {
        let &SinkRecord { timestamp, key, value, headers, .. } = self;
        producer.produce(topic, &ProducerRecord { partition, timestamp, key, value, headers, id })
    }

    /// Returns the memory use in bytes while the record is queued.
    pub fn memory(&self) -> usize {
        RecordSize::of(self).content() + RECORD_OVERHEAD
    }
}

/// Why a record was not accepted. No report follows for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProduceError {
    /// The topic has too many bytes in flight, or is closed or blocked: retry after a report.
    #[error("the topic accepts no record now")]
    NotNow,
    /// The client rejects the record.
    #[error("the client rejects the record: {}", .0.code)]
    Rejected(DeliveryError),
}

/// Totals of the producer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProducerTotals {
    /// Number of times the producer was replaced.
    pub replaced: u64,
}

/// The producer of the process. Shared by all event loops.
pub struct Sink {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// State shared by the delivery thread and the event loops.
pub(super) struct Shared {
    pub(super) current: RwLock<Current>,
    /// Topics that accept no new record until failed records are sent again.
    pub(super) closed: Vec<AtomicBool>,
    /// Topics that were logged as blocked.
    logged_as_blocked: Vec<AtomicBool>,
    pub(super) unreported: UnreportedRecords,
    pub(super) totals: Mutex<ProducerTotals>,
    pub(super) stop: AtomicBool,
    pub(super) names: Vec<CString>,
    limits: Limits,
    properties: Properties,
    /// The properties of transactional producers, without those of each handler.
    transactional_properties: Properties,
    pub(super) statistics: Option<Arc<LatestStatistics>>,
}

/// A producer with its topics. Field order is drop order: topics before the producer.
pub(super) struct Current {
    topics: Vec<ProducerTopic>,
    pub(super) producer: Producer,
}

impl Sink {
    /// Checks that every topic exists, and requests its limits. Waits for brokers that do not answer: `keep_waiting`
    /// is called repeatedly and may end the wait. `routes` is indexed by handler.
    pub fn start(
        spec: &SinkSpec,
        routes: Vec<Route>,
        on_authentication_failure: OnAuthenticationFailure,
        keep_waiting: KeepWaiting<'_>,
    ) -> Result<Sink, Error> {
        let names = spec.topic_names()?;
        let mut properties = spec.properties();
        let topic_limits = topics::prepare_topics(&properties, spec, &names, keep_waiting)?;
        let limits = Limits::new(topic_limits, &properties);
        limits.apply(&mut properties);
        let transactional_properties = properties.clone();
        if spec.statistics.is_some() {
            properties.enable_statistics();
        }
        let producer = Producer::new(&properties)?;
        discover_brokers(&producer);
        let reports = producer.main_queue();
        let current = Current::with_topics(producer, &names)
            .map_err(|name| StartupError::TopicName(name.to_string_lossy().into_owned()))?;
        let shared = Arc::new(Shared {
            current: RwLock::new(current),
            closed: names.iter().map(|_| AtomicBool::new(false)).collect(),
            logged_as_blocked: names.iter().map(|_| AtomicBool::new(false)).collect(),
            unreported: UnreportedRecords::new(names.len(), spec.max_bytes_per_topic),
            totals: Mutex::default(),
            stop: AtomicBool::new(false),
            names,
            limits,
            properties,
            transactional_properties,
            statistics: spec.statistics.clone(),
        });
        let mut delivery =
            DeliveryThread::new(Arc::clone(&shared), reports, routes, on_authentication_failure);
        let thread =
            thread::Builder::new().name("keylane-delivery".to_owned()).spawn(move || delivery.run())?;
        Ok(Sink { shared, thread: Some(thread) })
    }

    /// Checks whether a record of this size can be stored, as far as known before it is sent. If a topic's limits have
    /// changed since the start, the brokers may still reject the record.
    pub fn check(&self, topic: SinkTopic, size: RecordSize) -> Result<(), Unpublishable> {
        self.shared.limits.check(topic, size)
    }

    /// Returns the topic's name.
    pub fn topic_name(&self, topic: SinkTopic) -> String {
        self.shared.name(topic)
    }

    /// Returns whether the topic is compacted, and so accepts no record without a key.
    pub fn is_compacted(&self, topic: SinkTopic) -> bool {
        self.shared.limits.is_compacted(topic)
    }

    /// Returns the size of the largest record that the topic may accept, in bytes, as far as known.
    pub fn max_record_bytes(&self, topic: SinkTopic) -> usize {
        self.shared.limits.max_record_bytes(topic)
    }

    /// Returns whether the topic accepts and keeps a record with this timestamp, as far as known. Times are in
    /// milliseconds since the Unix epoch.
    pub fn timestamp_fit(&self, topic: SinkTopic, timestamp: i64, now: i64) -> TimeFit {
        self.shared.limits.timestamp_fit(topic, timestamp, now)
    }

    /// Produces a record; its bytes are copied.
    pub fn produce(&self, record: &SinkRecord<'_>, id: RecordId) -> Result<(), ProduceError> {
        let shared = &*self.shared;
        // Closing a topic, and replacing the producer, takes the write lock. So a record that finds its topic open goes
        // to the current producer, and is counted before any record is sent again.
        let current = shared.current();
        if shared.is_closed(record.topic) {
            return Err(ProduceError::NotNow);
        }
        let slot = shared.unreported.enter(id, record.topic, record.memory(), record.timestamp);
        let slot = slot.ok_or(ProduceError::NotNow)?;
        current.submit(record, slot).map_err(|code| {
            shared.unreported.leave(slot);
            // The record is in no batch yet: the error is about its own size.
            if code == ErrorCode::MSG_SIZE_TOO_LARGE {
                return ProduceError::Rejected(DeliveryError { topic: record.topic, code });
            }
            // The client's queue is full, the topic is not writable, or the producer is about to be replaced: in each
            // case the record has to wait.
            if classify(code) == BatchError::Topic {
                shared.log_blocked(record.topic, code);
            }
            ProduceError::NotNow
        })
    }

    /// Returns the properties of a transactional producer, and the names of its topics, which are those of the sink.
    pub(super) fn for_transactions(&self, spec: &TransactionSpec) -> (Properties, Vec<CString>) {
        let mut properties = self.shared.transactional_properties.clone();
        properties.set("transactional.id", &spec.id);
        properties.set("transaction.timeout.ms", spec.timeout.as_millis());
        // A record that is not acknowledged in time fails its transaction, which is repeated.
        properties.set("message.timeout.ms", spec.timeout.as_millis());
        properties.set("socket.timeout.ms", spec.timeout.min(RESPONSE_MAX).as_millis());
        // The next transaction often begins while the brokers complete the one before. With the client's default of
        // 100 ms, every second transaction would take that long.
        properties.set("retry.backoff.ms", 5);
        properties.set_default("reconnect.backoff.ms", 50);
        properties.set_default("reconnect.backoff.max.ms", 1000);
        properties.set("topic.metadata.propagation.max.ms", 3000);
        properties.set("linger.ms", 0);
        (properties, self.shared.names.clone())
    }

    /// Discards records of a handler whose results are no longer needed: those that wait for a resend are not sent.
    pub fn discard(&self, handler: u16, which: &dyn Fn(&RecordId) -> bool) {
        self.shared.unreported.discard(handler, which);
    }

    /// Returns the number of produced records without a report.
    pub fn unreported(&self) -> usize {
        self.shared.unreported.records()
    }

    /// Sends incomplete batches and waits for all reports; `false` after a timeout.
    pub fn flush(&self, timeout: Duration) -> bool {
        let deadline = Deadline::after(timeout);
        // The client's flush times out while a broker is unavailable; the slots in use decide the result.
        let producer = self.shared.current().producer.clone();
        let flushed = producer.flush(deadline.remaining());
        let empty = self.shared.unreported.wait_until_empty(deadline);
        if !empty {
            let records = self.unreported();
            tracing::warn!(records, ?flushed, "flush timed out with outputs in flight");
        }
        empty
    }

    /// Returns the totals of the producer.
    pub fn totals(&self) -> ProducerTotals {
        *self.shared.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Injects a fatal error into the producer.
    #[cfg(test)]
    pub(super) fn break_down(&self) {
        self.shared.current().producer.raise_fatal_error();
    }
}

impl Drop for Sink {
    /// Ends the delivery thread. Records without a report get none: call [`Sink::flush`] before.
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take()
            && let Err(panic) = thread.join()
        {
            tracing::error!(?panic, "delivery thread panicked");
        }
    }
}

impl Shared {
    pub(super) fn current(&self) -> RwLockReadGuard<'_, Current> {
        // No code panics while it holds the write lock.
        self.current.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_closed(&self, topic: SinkTopic) -> bool {
        self.closed.get(topic.index()).is_none_or(|closed| closed.load(Ordering::Acquire))
    }

    /// Closes the topic. Once this returns, the topic accepts no new record. Returns whether it was closed before.
    pub(super) fn close(&self, topic: SinkTopic) -> bool {
        let Some(closed) = self.closed.get(topic.index()) else { return true };
        // Only the delivery thread closes topics.
        closed.load(Ordering::Acquire) || {
            let _no_producing = self.current.write().unwrap_or_else(PoisonError::into_inner);
            closed.swap(true, Ordering::AcqRel)
        }
    }

    pub(super) fn open(&self, topic: SinkTopic) {
        if let Some(closed) = self.closed.get(topic.index()) {
            closed.store(false, Ordering::Release);
        }
    }

    /// Logs, once per blockage, that a topic can't be written.
    pub(super) fn log_blocked(&self, topic: SinkTopic, code: ErrorCode) {
        if self
            .logged_as_blocked
            .get(topic.index())
            .is_some_and(|blocked| !blocked.swap(true, Ordering::AcqRel))
        {
            let remedy = match classify(code) {
                _ if code == ErrorCode::INVALID_TIMESTAMP => {
                    "compare the clocks of this machine and the brokers, or raise the topic's \
                     `message.timestamp.before.max.ms` and `message.timestamp.after.max.ms`"
                }
                BatchError::Topic => "create it, or grant this user WRITE on it",
                BatchError::ResendAlone | BatchError::Producer => {
                    "no action needed: the records are sent again"
                }
            };
            let topic = self.name(topic);
            tracing::error!(topic, %code, remedy, "topic blocked: lanes with outputs to it wait; no record is dropped");
        }
    }

    /// Logs, after a record was stored, that the topic is no longer blocked, if the blockage was logged.
    pub(super) fn log_unblocked(&self, topic: SinkTopic) {
        let was_blocked =
            |blocked: &AtomicBool| blocked.load(Ordering::Relaxed) && blocked.swap(false, Ordering::AcqRel);
        if self.logged_as_blocked.get(topic.index()).is_some_and(was_blocked) {
            tracing::info!(topic = self.name(topic), "topic unblocked");
        }
    }

    pub(super) fn name(&self, topic: SinkTopic) -> String {
        self.names.get(topic.index()).map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// Replaces a failed producer and returns it. Every topic is closed, even if no new producer can be created.
    pub(super) fn replace_producer(&self) -> Result<Producer, ClientError> {
        for topic in SinkTopic::all(self.closed.len()) {
            self.close(topic);
        }
        let producer = Producer::new(&self.properties)?;
        let current = Current::with_topics(producer, &self.names);
        let current = current.unwrap_or_else(|name| unreachable!("{name:?} was a topic before"));
        let mut guard = self.current.write().unwrap_or_else(PoisonError::into_inner);
        Ok(std::mem::replace(&mut *guard, current).producer)
    }
}

impl Current {
    /// Creates the handles of the topics. Fails with the first invalid topic name.
    fn with_topics(producer: Producer, names: &[CString]) -> Result<Current, CString> {
        let topic = |name: &CString| producer.topic(name).ok_or_else(|| name.clone());
        let topics = names.iter().map(topic).collect::<Result<Vec<_>, _>>()?;
        Ok(Current { topics, producer })
    }

    /// Passes a record that has a slot to the client.
    pub(super) fn submit(&self, record: &SinkRecord<'_>, slot: usize) -> Result<(), ErrorCode> {
        let topic = self.topics.get(record.topic.index()).ok_or(ErrorCode::UNKNOWN_TOPIC)?;
        record.submit(&self.producer, topic, slot)
    }
}

/// Requests the list of brokers. After the answer the client requests the producer id that it needs to send records;
/// without this request it would do so half a second later. An error is not returned, because the client retries.
fn discover_brokers(producer: &Producer) {
    if let Err(code) = admin_broker(producer.client(), DISCOVERY_TIMEOUT) {
        tracing::debug!(%code, "the brokers do not respond to the producer yet");
    }
}
