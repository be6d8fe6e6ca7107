//! The records of one partition.
use std::ffi::{CStr, c_void};
use std::ops::ControlFlow;
use std::sync::Arc;

use super::code::{self, ErrorCode};
use super::queue::Queue;
use super::record::Record;
use super::{Client, WakeHandle, sys};

/// The queue of one partition, detached from the consumer's main queue.
///
/// Open it on every assign, before the partition is assigned. If it is opened later, records may already be in the main
/// queue. If a queue that was detached before is not opened again, nobody reads its records.
#[derive(Debug)]
pub struct PartitionQueue(Queue);

/// An entry that a read returns.
pub enum QueueEntry<'a> {
    /// A record.
    Record(Record<'a>),
    /// A read error, or the end of the partition.
    Error {
        /// The error code.
        code: ErrorCode,
        /// The offset of the error; for the end of the partition: the lowest offset that the next record can have.
        offset: i64,
        /// The library's message.
        text: String,
    },
}

/// The reason why a read ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadEnd {
    /// The queue is empty; the next record wakes the thread.
    Empty,
    /// The caller stopped the read. There may be more entries, for which no wake-up follows.
    Stopped,
}

impl PartitionQueue {
    /// Detaches the queue and makes it wake the thread. `None` if the library does not know the partition.
    pub fn open(
        client: &Arc<Client>,
        topic: &CStr,
        partition: i32,
        wake: &WakeHandle,
    ) -> Option<PartitionQueue> {
        // SAFETY: the client is live; the name is read during the call.
        let raw = unsafe { sys::rd_kafka_queue_get_partition(client.raw(), topic.as_ptr(), partition) };
        let queue = Queue::from_raw(client, raw)?;
        // SAFETY: the queue is live; a null destination means that it is not forwarded.
        unsafe { sys::rd_kafka_queue_forward(queue.raw(), std::ptr::null_mut()) };
        Some(PartitionQueue(queue.with_wake(wake)))
    }

    /// Returns whether a read may return something: false only if the last read emptied the queue and nothing arrived
    /// since.
    pub fn is_ready(&self) -> bool {
        self.0.is_ready()
    }

    /// Passes the available entries to `each`, without waiting, until `each` breaks.
    ///
    /// Uses the callback interface, because the batch call of this version counts an end-of-partition entry as a record
    /// and advances the position past a record that has not arrived.
    pub fn read(&self, each: &mut dyn FnMut(QueueEntry<'_>) -> ControlFlow<()>) -> ReadEnd {
        if !self.is_ready() {
            return ReadEnd::Empty;
        }
        // Cleared before the read: entries that arrive during it set it again.
        self.0.set_ready(false);
        let mut context = ReadContext { each, client: self.0.client(), stopped: false };
        let opaque: *mut ReadContext<'_> = &raw mut context;
        // SAFETY: the queue is live and has no other reader: that takes a `PartitionQueue`, which is not `Sync`.
        // `on_record` gets the context, which outlives the call and is not used elsewhere meanwhile.
        unsafe { sys::rd_kafka_consume_callback_queue(self.0.raw(), 0, on_record, opaque.cast()) };
        if context.stopped {
            self.0.set_ready(true);
            ReadEnd::Stopped
        } else {
            ReadEnd::Empty
        }
    }
}

struct ReadContext<'a> {
    each: &'a mut dyn FnMut(QueueEntry<'_>) -> ControlFlow<()>,
    client: &'a Arc<Client>,
    stopped: bool,
}

/// Passes an entry to the caller of the read. A panic in this function aborts the process, because it must not unwind
/// through C.
unsafe extern "C" fn on_record(message: *mut sys::RawMessage, opaque: *mut c_void) {
    // SAFETY: `opaque` is the context of the running `read`, which has no other user during the call; the message
    // belongs to the library and stays unchanged until this returns.
    let (context, raw) = unsafe { (&mut *opaque.cast::<ReadContext<'_>>(), &*message) };
    let entry = if raw.err == 0 {
        // SAFETY: a record, which the library keeps until this returns.
        unsafe { Record::new(raw) }.map_or_else(
            |code| QueueEntry::Error {
                code,
                offset: raw.offset,
                text: "the headers can't be read".to_owned(),
            },
            QueueEntry::Record,
        )
    } else {
        // SAFETY: for errors the payload is null or a NUL-terminated text.
        let text = unsafe { code::text(raw.payload.cast()) };
        QueueEntry::Error { code: ErrorCode(raw.err), offset: raw.offset, text }
    };
    if (context.each)(entry).is_break() {
        context.stopped = true;
        // SAFETY: the client is live. The function only sets a flag of this thread, which ends the call after this
        // return; the remaining entries go back to the head of the queue.
        unsafe { sys::rd_kafka_yield(context.client.raw()) };
    }
}
