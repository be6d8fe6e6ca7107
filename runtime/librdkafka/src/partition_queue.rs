//! The records of one partition.
use std::ffi::{CStr, c_void};
use std::ops::ControlFlow;
use std::sync::Arc;

use super::code::{self, ErrorCode};
use super::message::Message;
use super::queue::Queue;
use super::{Client, WakeHandle, sys};

/// The queue of one partition, cut off from the consumer's main queue.
///
/// Open it before the partition is assigned, on every assign: opened later, records that went to the main
/// queue meanwhile would come out of order; not opened, the partition falls silent.
#[derive(Debug)]
pub struct PartitionQueue(Queue);

/// What a read finds.
pub enum Entry<'a> {
    /// A record.
    Record(Message<'a>),
    /// Reading failed, or the end of the partition was reached.
    Error {
        /// Which error.
        code: ErrorCode,
        /// Where; for the end of the partition: the offset that the next record will have at the least.
        offset: i64,
        /// What the library says of it.
        text: String,
    },
}

/// How a read ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadEnd {
    /// There is nothing more for now; the next record wakes the thread.
    Drained,
    /// The reader said stop: there may be more, and nobody is woken for it.
    Stopped,
}

impl PartitionQueue {
    /// Cuts the queue off and makes it wake the thread. `None` if the library does not know such a partition.
    pub fn open(
        client: &Arc<Client>,
        topic: &CStr,
        partition: i32,
        wake: &WakeHandle,
    ) -> Option<PartitionQueue> {
        // SAFETY: the client is live; the name is read during the call.
        let raw = unsafe { sys::rd_kafka_queue_get_partition(client.raw(), topic.as_ptr(), partition) };
        let queue = Queue::from_raw(client, raw)?;
        // SAFETY: the queue is live; a null destination means that it is to be forwarded nowhere.
        unsafe { sys::rd_kafka_queue_forward(queue.raw(), std::ptr::null_mut()) };
        Some(PartitionQueue(queue.wakes(wake)))
    }

    /// Whether a read may find something. False only if the last one found the queue empty and nothing came.
    pub fn is_ready(&self) -> bool {
        self.0.is_ready()
    }

    /// Hands over what is there, without waiting, until the reader breaks.
    ///
    /// By callback, not by batch: the batch call of this version counts an end-of-partition entry as a record
    /// and moves the position past a record that has not arrived.
    pub fn read(&self, each: &mut dyn FnMut(Entry<'_>) -> ControlFlow<()>) -> ReadEnd {
        if !self.is_ready() {
            return ReadEnd::Drained;
        }
        // Before the look: what comes during it sets it again.
        self.0.set_ready(false);
        let mut reader = ReadContext { each, client: self.0.client(), stopped: false };
        let opaque: *mut ReadContext<'_> = &raw mut reader;
        // SAFETY: the queue is live and served by nobody else: it takes a `PartitionQueue`, which is not `Sync`.
        // `on_record` gets the reader, which outlives the call and is not touched meanwhile.
        unsafe { sys::rd_kafka_consume_callback_queue(self.0.raw(), 0, on_record, opaque.cast()) };
        if reader.stopped {
            self.0.set_ready(true);
            ReadEnd::Stopped
        } else {
            ReadEnd::Drained
        }
    }
}

struct ReadContext<'a> {
    each: &'a mut dyn FnMut(Entry<'_>) -> ControlFlow<()>,
    client: &'a Arc<Client>,
    stopped: bool,
}

/// A panic in here ends the process: it must not unwind through C.
unsafe extern "C" fn on_record(message: *mut sys::RawMessage, opaque: *mut c_void) {
    // SAFETY: `opaque` is the reader of the running `read`, used by nobody else during the call; the message is
    // the library's and stays unchanged until this returns.
    let (reader, raw) = unsafe { (&mut *opaque.cast::<ReadContext<'_>>(), &*message) };
    let entry = if raw.err == 0 {
        // SAFETY: a record, which the library keeps until this returns.
        unsafe { Message::new(raw) }.map_or_else(
            |code| Entry::Error { code, offset: raw.offset, text: "the headers can't be read".to_owned() },
            Entry::Record,
        )
    } else {
        // SAFETY: for errors the payload is null or a NUL-terminated text.
        let text = unsafe { code::text(raw.payload.cast()) };
        Entry::Error { code: ErrorCode(raw.err), offset: raw.offset, text }
    };
    if (reader.each)(entry).is_break() {
        reader.stopped = true;
        // SAFETY: the client is live. It only sets a flag of this thread, which ends the call after this return;
        // what is left goes back to the head of the queue.
        unsafe { sys::rd_kafka_yield(reader.client.raw()) };
    }
}
