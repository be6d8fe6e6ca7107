//! Events of the library.
use std::ptr::NonNull;

use rdkafka_sys as consts;

use super::code::{self, ErrorCode};
use super::{PartitionList, sys};

/// One event. It can be sent between threads.
#[derive(Debug)]
pub struct ClientEvent(NonNull<sys::KafkaEvent>);

// SAFETY: an event is memory that we own until we destroy it; the library no longer uses it.
unsafe impl Send for ClientEvent {}

/// The kinds of events that are distinguished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// Partitions are assigned or revoked: [`ClientEvent::error`] returns which of the two, [`ClientEvent::partitions`]
    /// which partitions.
    Rebalance,
    /// An error.
    Error,
    /// The response to a commit.
    Commit,
    /// Delivery reports of records.
    Delivery,
    /// Statistics: see [`LatestStatistics`](super::LatestStatistics).
    Statistics,
    /// A record on a queue that should have none.
    Record,
    /// Another kind, by the library's number.
    Other(i32),
}

impl ClientEvent {
    pub(super) fn from_raw(raw: NonNull<sys::KafkaEvent>) -> ClientEvent {
        ClientEvent(raw)
    }

    /// Returns the kind of the event.
    pub fn kind(&self) -> EventKind {
        // SAFETY: the event is live.
        match unsafe { sys::rd_kafka_event_type(self.raw()) } {
            consts::RD_KAFKA_EVENT_REBALANCE => EventKind::Rebalance,
            consts::RD_KAFKA_EVENT_ERROR => EventKind::Error,
            consts::RD_KAFKA_EVENT_OFFSET_COMMIT => EventKind::Commit,
            consts::RD_KAFKA_EVENT_DR => EventKind::Delivery,
            consts::RD_KAFKA_EVENT_STATS => EventKind::Statistics,
            consts::RD_KAFKA_EVENT_FETCH => EventKind::Record,
            other => EventKind::Other(other),
        }
    }

    /// Returns the error code.
    pub fn error(&self) -> ErrorCode {
        // SAFETY: the event is live.
        ErrorCode(unsafe { sys::rd_kafka_event_error(self.raw()) })
    }

    /// Returns the error message.
    pub fn text(&self) -> String {
        // SAFETY: the event is live; the string lives as long as it and is copied.
        unsafe { code::text(sys::rd_kafka_event_error_string(self.raw())) }
    }

    /// Returns whether the client can't continue after this event.
    pub fn is_fatal(&self) -> bool {
        // The kind is checked here, because the library reads the field without checking it.
        // SAFETY: the event is live and of the kind that has the field.
        self.kind() == EventKind::Error && unsafe { sys::rd_kafka_event_error_is_fatal(self.raw()) } != 0
    }

    /// Returns the number of the request to which this event is the response.
    pub fn request(&self) -> usize {
        // SAFETY: the event is live. The pointer is a number of ours and never dereferenced.
        unsafe { sys::rd_kafka_event_opaque(self.raw()) }.addr()
    }

    /// Returns the partitions of the event.
    pub fn partitions(&self) -> PartitionList {
        // SAFETY: the event is live and so is its list, which is copied.
        unsafe { PartitionList::copy_of(sys::rd_kafka_event_topic_partition_list(self.raw())) }
    }

    /// Returns the next message of a delivery event, valid as long as the event.
    pub(super) fn next_message(&mut self) -> Option<&sys::RawMessage> {
        // SAFETY: the event is live; messages belong to it and live until it is destroyed.
        unsafe { sys::rd_kafka_event_message_next(self.raw()).as_ref() }
    }

    pub(super) fn raw(&self) -> *mut sys::KafkaEvent {
        self.0.as_ptr()
    }
}

impl Drop for ClientEvent {
    fn drop(&mut self) {
        // SAFETY: owned by `self` only.
        unsafe { sys::rd_kafka_event_destroy(self.0.as_ptr()) }
    }
}
