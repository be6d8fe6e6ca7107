//! A producer.
use std::ffi::{CStr, c_int, c_void};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::Duration;

use rdkafka_sys::{RD_KAFKA_EVENT_DR, RD_KAFKA_EVENT_ERROR, RD_KAFKA_EVENT_STATS, RD_KAFKA_MSG_F_COPY};

use super::code::ErrorCode;
use super::deadline::millis;
use super::record::{Header, Record};
use super::{Client, ClientError, ClientEvent, Properties, Queue, sys};

/// `RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT`.
const PURGE_ALL: c_int = 3;

/// A producer whose delivery reports are events.
#[derive(Clone, Debug)]
pub struct Producer(Arc<Client>);

/// A topic of one producer.
#[derive(Debug)]
pub struct ProducerTopic {
    raw: NonNull<sys::Topic>,
    /// The client; dropped after the handle.
    _client: Arc<Client>,
}

// SAFETY: topic handles are reference counted and refer to an object with an internal lock.
unsafe impl Send for ProducerTopic {}
// SAFETY: as above; nothing is changed through the handle.
unsafe impl Sync for ProducerTopic {}

/// A record to send; the producer copies its bytes.
#[derive(Clone, Copy)]
pub struct ProducerRecord<'a> {
    /// The partition; `None`: the configured partitioner chooses it.
    pub partition: Option<i32>,
    /// Milliseconds since 1970; `None`: now.
    pub timestamp: Option<i64>,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// The headers, in order. Names are bytes: Kafka's own clients write UTF-8, but nothing enforces it.
    pub headers: &'a [Header<'a>],
    /// The number that the delivery report returns.
    pub id: usize,
}

/// The delivery report of one record.
#[derive(Clone, Copy)]
pub struct DeliveryReport<'e> {
    /// The id of the record.
    pub id: usize,
    /// The partition to which the record was sent.
    pub partition: i32,
    /// The record's offset in the partition; meaningless after an error.
    pub offset: i64,
    /// The error; [`ErrorCode::NONE`] if the brokers have stored the record.
    pub error: ErrorCode,
    message: &'e sys::RawMessage,
}

impl<'e> DeliveryReport<'e> {
    /// Returns the record as it was sent; after an error without its timestamp.
    pub fn record(&self) -> Result<Record<'e>, ErrorCode> {
        // SAFETY: the message belongs to the event, which lives during `'e`; in a report, too, it has key, value and
        // headers, whatever its error.
        unsafe { Record::new(self.message) }
    }
}

impl Producer {
    /// Creates a producer that is not connected yet.
    pub fn new(properties: &Properties) -> Result<Producer, ClientError> {
        let events = RD_KAFKA_EVENT_DR | RD_KAFKA_EVENT_ERROR | RD_KAFKA_EVENT_STATS;
        let client = properties.create(sys::TYPE_PRODUCER, events)?;
        Ok(Producer(client))
    }

    /// Returns the underlying client.
    pub fn client(&self) -> &Arc<Client> {
        &self.0
    }

    /// Returns the queue of delivery reports, errors and statistics.
    pub fn main_queue(&self) -> Queue {
        // SAFETY: the client is live.
        let raw = unsafe { sys::rd_kafka_queue_get_main(self.0.raw()) };
        Queue::from_raw(&self.0, raw).expect("every client has this queue")
    }

    /// Creates a handle of a topic; `None` if the topic name is invalid.
    pub fn topic(&self, name: &CStr) -> Option<ProducerTopic> {
        // SAFETY: the client is live; the name is copied; null means the client's default configuration.
        let raw = unsafe { sys::rd_kafka_topic_new(self.0.raw(), name.as_ptr(), ptr::null_mut()) };
        Some(ProducerTopic { raw: NonNull::new(raw)?, _client: Arc::clone(&self.0) })
    }

    /// Queues a record. After an error nothing is queued and no report follows.
    pub fn produce(&self, topic: &ProducerTopic, record: &ProducerRecord<'_>) -> Result<(), ErrorCode> {
        let headers = OwnedHeaders::new(record.headers);
        let id: *mut c_void = ptr::without_provenance_mut(record.id);
        let (key, key_len) = parts(record.key);
        let (value, value_len) = parts(record.value);
        // SAFETY: client and topic are live, and the topic belongs to the client or the library rejects it. Every tag
        // is followed by arguments of the types that rdkafka.h specifies for it, up to END. Key and value are copied
        // (MSG_F_COPY). The headers belong to the library if and only if it returns success.
        let code = unsafe {
            sys::rd_kafka_producev(
                self.0.raw(),
                sys::vtype::TOPIC,
                topic.raw.as_ptr(),
                sys::vtype::PARTITION,
                record.partition.unwrap_or(-1),
                sys::vtype::FLAGS,
                RD_KAFKA_MSG_F_COPY,
                sys::vtype::KEY,
                key,
                key_len,
                sys::vtype::VALUE,
                value,
                value_len,
                sys::vtype::TIMESTAMP,
                record.timestamp.unwrap_or(0),
                sys::vtype::HEADERS,
                headers.0,
                sys::vtype::OPAQUE,
                id,
                sys::vtype::END,
            )
        };
        let result = ErrorCode(code).into_result();
        if result.is_ok() {
            std::mem::forget(headers);
        }
        result
    }

    /// Sends the queued records without waiting for more to fill a batch, and waits until every record has its
    /// report. Another thread must take the reports meanwhile.
    pub fn flush(&self, timeout: Duration) -> Result<(), ErrorCode> {
        // SAFETY: the client is live.
        ErrorCode(unsafe { sys::rd_kafka_flush(self.0.raw(), millis(timeout)) }).into_result()
    }

    /// Drops every record that has no report yet: each gets a report with an error.
    pub fn purge(&self) -> Result<(), ErrorCode> {
        // SAFETY: the client is live.
        ErrorCode(unsafe { sys::rd_kafka_purge(self.0.raw(), PURGE_ALL) }).into_result()
    }

    /// Raises a fatal error, as an idempotent producer does when its sequence is broken, to test the replacement of the
    /// producer.
    #[doc(hidden)]
    pub fn raise_fatal_error(&self) {
        // SAFETY: the client is live and the text ends with a NUL.
        unsafe {
            sys::rd_kafka_test_fatal_error(
                self.0.raw(),
                ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER.0,
                c"a test".as_ptr(),
            )
        };
    }

    /// Returns the number of records and reports in the producer's queues.
    pub fn queued(&self) -> usize {
        // SAFETY: the client is live.
        usize::try_from(unsafe { sys::rd_kafka_outq_len(self.0.raw()) }).unwrap_or(0)
    }
}

impl ClientEvent {
    /// Returns the next report of a delivery event.
    pub fn next_report(&mut self) -> Option<DeliveryReport<'_>> {
        self.next_message().map(|message| DeliveryReport {
            id: message.private.addr(),
            partition: message.partition,
            offset: message.offset,
            error: ErrorCode(message.err),
            message,
        })
    }
}

impl Drop for ProducerTopic {
    fn drop(&mut self) {
        // SAFETY: the reference is ours and the client is live.
        unsafe { sys::rd_kafka_topic_destroy(self.raw.as_ptr()) }
    }
}

/// Headers that do not belong to the library yet.
struct OwnedHeaders(*mut sys::KafkaHeaders);

impl OwnedHeaders {
    fn new(headers: &[Header<'_>]) -> OwnedHeaders {
        // SAFETY: the argument is a number; the library aborts the process rather than return null.
        let raw = unsafe { sys::rd_kafka_headers_new(headers.len()) };
        for (name, value) in headers {
            let (value, size) = parts(*value);
            // SAFETY: the headers are ours; name and value are copied, each with the size passed.
            unsafe {
                sys::rd_kafka_header_add(raw, name.as_ptr().cast(), signed(name.len()), value, signed(size));
            }
        }
        OwnedHeaders(raw)
    }
}

impl Drop for OwnedHeaders {
    fn drop(&mut self) {
        // SAFETY: they do not belong to the library, or they would have been forgotten.
        unsafe { sys::rd_kafka_headers_destroy(self.0) }
    }
}

/// Returns null for an absent value, and never null for a present one, even if it is empty.
fn parts(bytes: Option<&[u8]>) -> (*const c_void, usize) {
    bytes.map_or((ptr::null(), 0), |bytes| (bytes.as_ptr().cast(), bytes.len()))
}

/// Converts the size of a slice, which always fits.
fn signed(size: usize) -> isize {
    isize::try_from(size).expect("a slice is never longer than isize::MAX")
}
