//! The producer of the process, and how records are handed to it.
use std::ffi::CString;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::delivery::DeliveryThread;
use super::in_flight::{InFlight, Token};
use super::limits::{Limits, RecordSize, TimeFit, Unpublishable};
use super::outcome::{Delivery, DeliveryError, Refusal, refusal};
use super::record::RECORD_OVERHEAD;
use super::start::{Error, SinkSpec};
use super::topics;
use crate::librdkafka::{
    ConfigError, Deadline, ErrorCode, Header, PermanentStartupError, ProduceRecord, Producer, ProducerTopic,
    Properties, StartupRetry, admin_broker,
};

/// How long the producer may take to know its brokers before something is sent.
const INTRODUCTION_LIMIT: Duration = Duration::from_secs(3);

/// Tells one handler what became of its records: in the order of their reports, several at a time, or none if only
/// there is room again. Runs on the delivery thread, which all handlers share: it must hand over and return.
pub type Route = Box<dyn FnMut(&[Delivery]) + Send>;

/// Is called when a connection of the producer was refused: see [`ErrorCode::is_refusal`]. Runs on the delivery thread.
pub type OnRefusal = Box<dyn Fn() + Send>;

/// A record to publish.
#[derive(Clone, Copy)]
pub struct OutputRecord<'a> {
    /// Index into the topics of the [`SinkSpec`].
    pub topic: u16,
    /// Milliseconds since 1970; `None`: the time at which it is sent.
    pub timestamp: Option<i64>,
    /// The key; records with one key go to one partition, in order.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// In order.
    pub headers: &'a [Header<'a>],
}

impl OutputRecord<'_> {
    /// Bytes of memory that it takes while it waits.
    pub fn memory(&self) -> usize {
        RecordSize::of(self).content() + RECORD_OVERHEAD
    }
}

/// Why a record was not taken. No report will come for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProduceError {
    /// Its topic has too much on its way, or can't be written now: try again after a report.
    #[error("too much is on its way to this topic")]
    Full,
    /// The client refuses it.
    #[error("the client refuses the record: {}", .0.code)]
    Refused(DeliveryError),
}

/// What the client says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SinkHealth {
    /// How often the producer had to be replaced.
    pub replaced: u64,
    /// The last error, for people; errors that pass are among them.
    pub last_error: Option<String>,
}

/// The producer of the process. Used by all consumer threads at once.
pub struct Sink {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What the delivery thread and those who produce share.
pub(super) struct Shared {
    pub(super) current: RwLock<Current>,
    /// Topics to which nothing new is sent: something is sent again first.
    pub(super) closed: Vec<AtomicBool>,
    /// Topics that people know to be blocked.
    blocked: Vec<AtomicBool>,
    pub(super) in_flight: InFlight,
    pub(super) health: Mutex<SinkHealth>,
    pub(super) stop: AtomicBool,
    pub(super) names: Vec<CString>,
    limits: Limits,
    properties: Properties,
}

/// A producer with its topics. Field order is drop order: topics before the producer.
pub(super) struct Current {
    topics: Vec<ProducerTopic>,
    pub(super) producer: Producer,
}

impl Sink {
    /// Checks that every topic exists, and learns what it takes. Waits for brokers that do not answer: `retry` is told
    /// each time and may break it off. `routes` by handler index.
    pub fn start(
        spec: &SinkSpec,
        routes: Vec<Route>,
        on_refusal: OnRefusal,
        retry: StartupRetry<'_>,
    ) -> Result<Sink, Error> {
        let names = spec.topic_names()?;
        let mut properties = spec.properties();
        let told = topics::limits(&properties, spec, &names, retry)?;
        let limits = Limits::new(told, &properties);
        limits.apply(&mut properties);
        let producer = Producer::new(&properties)?;
        introduce(&producer);
        let reports = producer.main_queue();
        let current = Current::with_topics(producer, &names)
            .map_err(|name| PermanentStartupError::TopicName(name.to_string_lossy().into_owned()))?;
        let shared = Arc::new(Shared {
            current: RwLock::new(current),
            closed: names.iter().map(|_| AtomicBool::new(false)).collect(),
            blocked: names.iter().map(|_| AtomicBool::new(false)).collect(),
            in_flight: InFlight::new(names.len(), spec.max_bytes_per_topic),
            health: Mutex::default(),
            stop: AtomicBool::new(false),
            names,
            limits,
            properties,
        });
        let mut delivery = DeliveryThread::new(Arc::clone(&shared), reports, routes, on_refusal);
        let thread =
            thread::Builder::new().name("keylane-delivery".to_owned()).spawn(move || delivery.run())?;
        Ok(Sink { shared, thread: Some(thread) })
    }

    /// Whether a record of this size can be stored, as far as it is known before it is handed over: what topics take may
    /// have changed since the start, and then the brokers refuse it.
    pub fn check(&self, topic: u16, size: RecordSize) -> Result<(), Unpublishable> {
        self.shared.limits.check(topic, size)
    }

    /// What the topic is called.
    pub fn topic_name(&self, topic: u16) -> String {
        self.shared.name(topic.into())
    }

    /// Whether the topic takes no record without a key.
    pub fn is_compacted(&self, topic: u16) -> bool {
        self.shared.limits.is_compacted(topic)
    }

    /// Bytes of the largest record that the topic may take, as far as it is known.
    pub fn largest_taken(&self, topic: u16) -> usize {
        self.shared.limits.largest_taken(topic)
    }

    /// What the topic makes of a record's time, as far as it is known before it is handed over; milliseconds since 1970.
    pub fn time(&self, topic: u16, timestamp: i64, now: i64) -> TimeFit {
        self.shared.limits.time(topic, timestamp, now)
    }

    /// Hands a record over; its bytes are copied.
    pub fn produce(&self, output: &OutputRecord<'_>, token: Token) -> Result<(), ProduceError> {
        let shared = &*self.shared;
        // Topics are closed, and the producer is replaced, under the same lock: what finds its topic open goes to the
        // producer of that moment, and is counted before anything is sent again.
        let current = shared.current();
        if shared.is_closed(output.topic) {
            return Err(ProduceError::Full);
        }
        let place = shared.in_flight.enter(token, output.topic, size(output), output.timestamp);
        let place = place.ok_or(ProduceError::Full)?;
        current.hand_over(output, place).map_err(|code| {
            shared.in_flight.leave(place);
            // It is in no batch yet: its size is its own.
            if code == ErrorCode::MSG_SIZE_TOO_LARGE {
                return ProduceError::Refused(DeliveryError { topic: output.topic, code });
            }
            // The client's queue is full, it has looked at the topic and found that it may not write, or it is
            // about to be replaced: whatever it is, the record has to wait.
            if refusal(code) == Refusal::Topic {
                shared.alarm(output.topic.into(), code);
            }
            ProduceError::Full
        })
    }

    /// Nobody waits for these records of a handler any more: what has not left by now is not sent.
    pub fn forget(&self, handler: u16, which: &dyn Fn(&Token) -> bool) {
        self.shared.in_flight.forget(handler, which);
    }

    /// Records that were handed over and have no report yet.
    pub fn in_flight(&self) -> usize {
        self.shared.in_flight.records()
    }

    /// Sends what waits for a fuller batch and waits for all reports; `false` if the limit came first.
    pub fn flush(&self, limit: Duration) -> bool {
        let limit = Deadline::after(limit);
        // It times out while a broker is away; whether anything is left is counted here.
        let producer = self.shared.current().producer.clone();
        let flushed = producer.flush(limit.remaining());
        let empty = self.shared.in_flight.wait_until_empty(limit);
        if !empty {
            let records = self.in_flight();
            tracing::warn!(records, ?flushed, "outputs are still on their way at the limit");
        }
        empty
    }

    /// What the client says of itself.
    pub fn health(&self) -> SinkHealth {
        self.shared.health.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes the producer believe that it can't go on.
    #[cfg(test)]
    pub(super) fn break_down(&self) {
        self.shared.current().producer.break_down();
    }
}

impl Drop for Sink {
    /// Ends the delivery thread. What has no report by now gets none: [`Sink::flush`] before.
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take()
            && let Err(panic) = thread.join()
        {
            tracing::error!(?panic, "the delivery thread panicked");
        }
    }
}

impl Shared {
    pub(super) fn current(&self) -> RwLockReadGuard<'_, Current> {
        // Nothing panics while it is held for writing.
        self.current.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_closed(&self, topic: u16) -> bool {
        self.closed.get(usize::from(topic)).is_none_or(|closed| closed.load(Ordering::Acquire))
    }

    /// Nothing new is sent to this topic when this returns. True: it was so before.
    pub(super) fn close(&self, topic: usize) -> bool {
        let Some(closed) = self.closed.get(topic) else { return true };
        // Only the delivery thread closes.
        closed.load(Ordering::Acquire) || {
            let _nobody_produces = self.current.write().unwrap_or_else(PoisonError::into_inner);
            closed.swap(true, Ordering::AcqRel)
        }
    }

    pub(super) fn open(&self, topic: usize) {
        if let Some(closed) = self.closed.get(topic) {
            closed.store(false, Ordering::Release);
        }
    }

    /// Says, once per blockage, that a topic can't be written.
    pub(super) fn alarm(&self, topic: usize, code: ErrorCode) {
        if self.blocked.get(topic).is_some_and(|blocked| !blocked.swap(true, Ordering::AcqRel)) {
            let remedy = match refusal(code) {
                _ if code == ErrorCode::INVALID_TIMESTAMP => {
                    "compare the clocks of this machine and the brokers, or raise the topic's \
                     `message.timestamp.before.max.ms` and `message.timestamp.after.max.ms`"
                }
                Refusal::Topic => "create it, or grant this user WRITE on it",
                Refusal::Again | Refusal::Producer => "it is tried again",
            };
            let topic = self.name(topic);
            tracing::error!(topic, %code, remedy, "output topic is blocked: its lanes wait, nothing is dropped");
        }
        self.note_error(format!("{code}"));
    }

    /// A record landed there: takes the alarm back, if there was one.
    pub(super) fn all_clear(&self, topic: usize) {
        let was_blocked =
            |blocked: &AtomicBool| blocked.load(Ordering::Relaxed) && blocked.swap(false, Ordering::AcqRel);
        if self.blocked.get(topic).is_some_and(was_blocked) {
            tracing::info!(topic = self.name(topic), "output topic can be written again");
        }
    }

    pub(super) fn name(&self, topic: usize) -> String {
        self.names.get(topic).map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// Another producer takes the place of one that can't go on. Every topic is closed, whether one could be made or not.
    pub(super) fn replace_producer(&self) -> Result<Producer, ConfigError> {
        for topic in 0..self.closed.len() {
            self.close(topic);
        }
        let producer = Producer::new(&self.properties)?;
        let current = Current::with_topics(producer, &self.names);
        let current = current.unwrap_or_else(|name| unreachable!("{name:?} was a topic before"));
        let mut place = self.current.write().unwrap_or_else(PoisonError::into_inner);
        Ok(std::mem::replace(&mut *place, current).producer)
    }

    pub(super) fn note_error(&self, text: String) {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).last_error = Some(text);
    }
}

impl Current {
    /// Fails with the name of a topic that can't be one.
    fn with_topics(producer: Producer, names: &[CString]) -> Result<Current, CString> {
        let topic = |name: &CString| producer.topic(name).ok_or_else(|| name.clone());
        let topics = names.iter().map(topic).collect::<Result<Vec<_>, _>>()?;
        Ok(Current { topics, producer })
    }

    /// Gives a record that has its place to the client.
    pub(super) fn hand_over(&self, output: &OutputRecord<'_>, place: usize) -> Result<(), ErrorCode> {
        let topic = self.topics.get(usize::from(output.topic)).ok_or(ErrorCode::UNKNOWN_TOPIC)?;
        let record = ProduceRecord {
            partition: None,
            timestamp: output.timestamp,
            key: output.key,
            value: output.value,
            headers: output.headers,
            token: place,
        };
        self.producer.produce(topic, &record)
    }
}

/// Asks the brokers for themselves. The client wants a producer id as soon as they have answered, and without a question
/// half a second later: that long nothing could be sent. Whatever the answer is, the client goes on trying.
fn introduce(producer: &Producer) {
    if let Err(code) = admin_broker(producer.client(), INTRODUCTION_LIMIT) {
        tracing::debug!(%code, "the brokers do not answer the producer yet");
    }
}

fn size(output: &OutputRecord<'_>) -> usize {
    let headers: usize =
        output.headers.iter().map(|(name, value)| name.len() + value.map_or(0, <[u8]>::len)).sum();
    output.key.map_or(0, <[u8]>::len) + output.value.map_or(0, <[u8]>::len) + headers + RECORD_OVERHEAD
}
