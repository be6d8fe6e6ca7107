//! The producer and its delivery thread.
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::in_flight::{InFlight, Token};
use super::outcome::{Delivery, DeliveryError, Landed};
use super::start::{Error, SinkSpec, Waiting, check_topics};
use crate::librdkafka::{
    Deadline, Delivered, ErrorCode, Event, EventKind, Header, ProduceRecord, Producer, ProducerTopic, Queue,
};

/// The delivery thread looks around at least so often.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// What a record takes in memory beside its bytes.
const RECORD_OVERHEAD: usize = 200;

/// Tells one handler what became of its records: in the order of their reports, several at a time. Runs on the
/// delivery thread, which all handlers share: it must hand over and return.
pub type Route = Box<dyn FnMut(&[Delivery]) + Send>;

/// A record to publish.
#[derive(Clone, Copy)]
pub struct Output<'a> {
    /// Index into the topics of the [`SinkSpec`].
    pub topic: u16,
    /// The key; records with one key go to one partition, in order.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// In order.
    pub headers: &'a [Header<'a>],
}

/// Why a record was not taken. No report will come for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProduceError {
    /// Its topic has too much on its way: try again after a report.
    #[error("too much is on its way to this topic")]
    Full,
    /// The client refuses it.
    #[error("the client refuses the record: {}", .0.code)]
    Refused(DeliveryError),
}

/// What the client says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SinkHealth {
    /// The producer has ended and must be replaced.
    pub fatal: Option<String>,
    /// The last error, for people; errors that pass are among them.
    pub last_error: Option<String>,
}

/// The producer of the process. Used by all consumer threads at once.
pub struct Sink {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// Field order is drop order: topics before the producer.
struct Shared {
    topics: Vec<ProducerTopic>,
    in_flight: InFlight,
    health: Mutex<SinkHealth>,
    stop: AtomicBool,
    producer: Producer,
}

impl Sink {
    /// Checks that every topic exists. Waits for brokers that do not answer: `patience` is told each time and
    /// may break it off. `routes` by handler index.
    pub fn start(
        spec: &SinkSpec,
        routes: Vec<Route>,
        patience: &mut dyn FnMut(&Waiting) -> ControlFlow<()>,
    ) -> Result<Sink, Error> {
        let names = spec.topic_names()?;
        let producer = Producer::new(&spec.properties())?;
        let reports = producer.main_queue();
        check_topics(&producer, &reports, spec, &names, patience)?;
        let mut topics = Vec::with_capacity(names.len());
        for name in &names {
            let topic = producer.topic(name);
            topics.push(topic.ok_or_else(|| Error::TopicName(name.to_string_lossy().into_owned()))?);
        }
        let in_flight = InFlight::new(topics.len(), spec.max_bytes_per_topic);
        let shared = Arc::new(Shared {
            topics,
            in_flight,
            health: Mutex::default(),
            stop: AtomicBool::new(false),
            producer,
        });
        let mut delivery = DeliveryThread::new(Arc::clone(&shared), routes);
        let thread = thread::Builder::new()
            .name("keylane-delivery".to_owned())
            .spawn(move || delivery.run(&reports))?;
        Ok(Sink { shared, thread: Some(thread) })
    }

    /// Hands a record over; its bytes are copied.
    pub fn produce(&self, output: &Output<'_>, token: Token) -> Result<(), ProduceError> {
        let shared = &*self.shared;
        let topic = shared
            .topics
            .get(usize::from(output.topic))
            .ok_or(ProduceError::Refused(DeliveryError::alone(ErrorCode::UNKNOWN_TOPIC)))?;
        let place = shared.in_flight.enter(token, output.topic, size(output)).ok_or(ProduceError::Full)?;
        let record = ProduceRecord {
            partition: None,
            timestamp: None,
            key: output.key,
            value: output.value,
            headers: output.headers,
            token: place,
        };
        shared.producer.produce(topic, &record).map_err(|code| {
            shared.in_flight.leave(place);
            match code {
                ErrorCode::QUEUE_FULL => ProduceError::Full,
                code => ProduceError::Refused(DeliveryError::alone(code)),
            }
        })
    }

    /// Records that were handed over and have no report yet.
    pub fn in_flight(&self) -> usize {
        self.shared.in_flight.records()
    }

    /// Sends what waits for a fuller batch and waits for all reports; `false` if the limit came first.
    pub fn flush(&self, limit: Duration) -> bool {
        let limit = Deadline::after(limit);
        // It times out while a broker is away; whether anything is left is counted here.
        let flushed = self.shared.producer.flush(limit.remaining());
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

/// Takes reports and sorts them by handler.
struct DeliveryThread {
    shared: Arc<Shared>,
    routes: Vec<Route>,
    /// What is collected per handler from one event of the library.
    sorted: Vec<Vec<Delivery>>,
}

impl DeliveryThread {
    fn new(shared: Arc<Shared>, routes: Vec<Route>) -> DeliveryThread {
        let sorted = routes.iter().map(|_| Vec::new()).collect();
        DeliveryThread { shared, routes, sorted }
    }

    fn run(&mut self, reports: &Queue) {
        while !self.shared.stop.load(Ordering::Acquire) {
            if let Some(mut event) = reports.poll(POLL_INTERVAL) {
                match event.kind() {
                    EventKind::Delivery => self.deliver(&mut event),
                    EventKind::Error => self.note(&event),
                    EventKind::Rebalance | EventKind::Commit | EventKind::Record | EventKind::Other(_) => {}
                }
            }
        }
    }

    fn deliver(&mut self, event: &mut Event) {
        while let Some(report) = event.next_delivered() {
            let delivery =
                Delivery { token: self.shared.in_flight.leave(report.token), result: result(report) };
            let handler = usize::from(delivery.token.handler);
            let collected = self.sorted.get_mut(handler).expect("every handler that produces has a route");
            collected.push(delivery);
        }
        for (route, collected) in self.routes.iter_mut().zip(&mut self.sorted) {
            if !collected.is_empty() {
                route(collected);
                collected.clear();
            }
        }
    }

    fn note(&self, event: &Event) {
        let text = format!("{} ({})", event.text(), event.error().name());
        tracing::warn!(text, "producer error");
        let mut health = self.shared.health.lock().unwrap_or_else(PoisonError::into_inner);
        if event.is_fatal() {
            let fatal = self.shared.producer.client().fatal_error();
            health.fatal =
                Some(fatal.map_or(text.clone(), |(code, text)| format!("{text} ({})", code.name())));
        }
        health.last_error = Some(text);
    }
}

fn result(report: Delivered) -> Result<Landed, DeliveryError> {
    match report.error.into_result() {
        Ok(()) => Ok(Landed { partition: report.partition, offset: report.offset }),
        Err(code) => Err(DeliveryError::new(code)),
    }
}

fn size(output: &Output<'_>) -> usize {
    let headers: usize =
        output.headers.iter().map(|(name, value)| name.len() + value.map_or(0, <[u8]>::len)).sum();
    output.key.map_or(0, <[u8]>::len) + output.value.map_or(0, <[u8]>::len) + headers + RECORD_OVERHEAD
}
