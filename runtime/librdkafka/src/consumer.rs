//! A consumer of one group.
use std::ffi::{CStr, c_void};
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use rdkafka_sys::{RD_KAFKA_EVENT_ERROR, RD_KAFKA_EVENT_OFFSET_COMMIT, RD_KAFKA_EVENT_REBALANCE};

use super::code::{self, ErrorCode};
use super::deadline::millis;
use super::{Client, ConfigError, PartitionList, Properties, Queue, sys};

/// Asks for the first offset of the log.
pub const BEGINNING: i64 = -2;
/// Asks for one past the last offset of the log; also the answer to a timestamp after the last record.
pub const END: i64 = -1;

/// A consumer. Functions that wait for a broker say so: they are for a helper thread.
#[derive(Clone, Debug)]
pub struct Consumer(Arc<Client>);

impl Consumer {
    /// A consumer that is in no group yet.
    pub fn new(properties: &Properties) -> Result<Consumer, ConfigError> {
        let events = RD_KAFKA_EVENT_REBALANCE | RD_KAFKA_EVENT_ERROR | RD_KAFKA_EVENT_OFFSET_COMMIT;
        let client = properties.create(sys::TYPE_CONSUMER, events)?;
        // SAFETY: the client is live and a consumer. Errors then come to the consumer's queue, too.
        let code = ErrorCode(unsafe { sys::rd_kafka_poll_set_consumer(client.raw()) });
        code.into_result().map_err(|code| ConfigError::Client(code.to_string()))?;
        Ok(Consumer(client))
    }

    /// The client behind it.
    pub fn client(&self) -> &Arc<Client> {
        &self.0
    }

    /// The queue of rebalances and errors. It must be polled at least every `max.poll.interval.ms`.
    pub fn main_queue(&self) -> Queue {
        // SAFETY: the client is live.
        let raw = unsafe { sys::rd_kafka_queue_get_consumer(self.0.raw()) };
        Queue::from_raw(&self.0, raw).expect("a consumer with a group has this queue")
    }

    /// Joins the group for these topics (partition and offset are not looked at).
    pub fn subscribe(&self, topics: &PartitionList) -> Result<(), ErrorCode> {
        // SAFETY: client and list are live; the list is copied.
        ErrorCode(unsafe { sys::rd_kafka_subscribe(self.0.raw(), topics.raw()) }).into_result()
    }

    /// Reads exactly these; `None` gives everything up. For groups that assign anew each time.
    pub fn assign(&self, list: Option<&PartitionList>) -> Result<(), ErrorCode> {
        let raw = list.map_or(ptr::null(), PartitionList::raw);
        // SAFETY: client and list are live; the list is copied.
        ErrorCode(unsafe { sys::rd_kafka_assign(self.0.raw(), raw) }).into_result()
    }

    /// Reads these as well. For cooperative groups.
    pub fn incremental_assign(&self, list: &PartitionList) -> Result<(), ErrorCode> {
        // SAFETY: client and list are live; the error object is ours.
        unsafe { code::take(sys::rd_kafka_incremental_assign(self.0.raw(), list.raw())) }
    }

    /// Gives these up; each must be assigned. For cooperative groups.
    pub fn incremental_unassign(&self, list: &PartitionList) -> Result<(), ErrorCode> {
        // SAFETY: as above.
        unsafe { code::take(sys::rd_kafka_incremental_unassign(self.0.raw(), list.raw())) }
    }

    /// Whether what is being taken away belongs to someone else already.
    pub fn is_assignment_lost(&self) -> bool {
        // SAFETY: the client is live.
        unsafe { sys::rd_kafka_assignment_lost(self.0.raw()) != 0 }
    }

    /// Moves the readers of these partitions. What was fetched before is dropped at once: no older record is read after
    /// this returns. The library's own thread answers, no broker; the first partition that it did not move is the error.
    pub fn seek(&self, list: &mut PartitionList, limit: Duration) -> Result<(), ErrorCode> {
        // SAFETY: client and list are live; nothing is written to the list after this returns.
        unsafe { code::take(sys::rd_kafka_seek_partitions(self.0.raw(), list.raw_mut(), millis(limit))) }?;
        list.iter().try_for_each(|entry| entry.error.into_result())
    }

    /// Asks the coordinator to store these offsets; the answer comes to the queue as a commit event that
    /// carries the number.
    pub fn commit(&self, list: &PartitionList, answers: &Queue, request: usize) -> Result<(), ErrorCode> {
        let opaque: *mut c_void = ptr::without_provenance_mut(request);
        // SAFETY: client, list and queue are live; the list is copied, the library holds the queue until it has
        // answered, and the number is never followed as a pointer. Without a callback the answer is an event.
        let code =
            unsafe { sys::rd_kafka_commit_queue(self.0.raw(), list.raw(), answers.raw(), None, opaque) };
        ErrorCode(code).into_result()
    }

    /// One past the last offset of the log as of the last fetch; `None` before the first one. Does not wait.
    pub fn last_known_end(&self, topic: &CStr, partition: i32) -> Option<i64> {
        let (mut low, mut high) = (0, 0);
        // SAFETY: the client is live, the name is read during the call and both numbers outlive it.
        let code = unsafe {
            sys::rd_kafka_get_watermark_offsets(
                self.0.raw(),
                topic.as_ptr(),
                partition,
                &raw mut low,
                &raw mut high,
            )
        };
        (code == 0 && high >= 0).then_some(high)
    }

    /// Asks to leave the group, as soon as a join that is under way has ended: the rebalance that follows comes to the main
    /// queue and is to be answered. See [`Consumer::is_member`].
    pub fn unsubscribe(&self) -> Result<(), ErrorCode> {
        // SAFETY: the client is live.
        ErrorCode(unsafe { sys::rd_kafka_unsubscribe(self.0.raw()) }).into_result()
    }

    /// Whether the group has this member, as far as the client knows: false from when it asked to leave.
    pub fn is_member(&self) -> bool {
        // SAFETY: the client is live; the text is null or ends with a NUL, and is ours until it is freed.
        unsafe {
            let id = sys::rd_kafka_memberid(self.0.raw());
            if id.is_null() {
                return false;
            }
            let is_member = *id != 0;
            sys::rd_kafka_mem_free(self.0.raw(), id.cast());
            is_member
        }
    }

    /// Begins to leave the group: what is still to be said (the last revoke) comes to this queue from now on.
    pub fn close(&self, events: &Queue) -> Result<(), ErrorCode> {
        // SAFETY: client and queue are live; the library holds the queue as long as it needs it.
        unsafe { code::take(sys::rd_kafka_consumer_close_queue(self.0.raw(), events.raw())) }
    }

    /// Whether the group is left.
    pub fn is_closed(&self) -> bool {
        // SAFETY: the client is live.
        unsafe { sys::rd_kafka_consumer_closed(self.0.raw()) != 0 }
    }
}
