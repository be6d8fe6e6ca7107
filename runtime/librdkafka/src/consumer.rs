//! A consumer of one group.
use std::ffi::{CStr, c_void};
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use rdkafka_sys::{
    RD_KAFKA_EVENT_ERROR, RD_KAFKA_EVENT_OFFSET_COMMIT, RD_KAFKA_EVENT_REBALANCE, RD_KAFKA_EVENT_STATS,
};

use super::code::{self, ErrorCode};
use super::deadline::millis;
use super::{Client, ClientError, PartitionList, Properties, Queue, sys};

/// The marker for the first offset of the log.
pub const BEGINNING: i64 = -2;
/// The marker for one past the last offset of the log; also the result for a timestamp after the last record.
pub const END: i64 = -1;

/// A consumer. None of its functions waits for a broker.
#[derive(Clone, Debug)]
pub struct Consumer(Arc<Client>);

impl Consumer {
    /// Creates a consumer that is not a member of a group yet.
    pub fn new(properties: &Properties) -> Result<Consumer, ClientError> {
        let events = RD_KAFKA_EVENT_REBALANCE
            | RD_KAFKA_EVENT_ERROR
            | RD_KAFKA_EVENT_OFFSET_COMMIT
            | RD_KAFKA_EVENT_STATS;
        let client = properties.create(sys::TYPE_CONSUMER, events)?;
        // SAFETY: the client is live and a consumer. After this, errors arrive in the consumer's queue, too.
        let code = ErrorCode(unsafe { sys::rd_kafka_poll_set_consumer(client.raw()) });
        code.into_result().map_err(|code| ClientError::NotCreated(code.to_string()))?;
        Ok(Consumer(client))
    }

    /// Returns the underlying client.
    pub fn client(&self) -> &Arc<Client> {
        &self.0
    }

    /// Returns the queue of rebalances, errors and statistics. It must be polled at least every `max.poll.interval.ms`.
    pub fn main_queue(&self) -> Queue {
        // SAFETY: the client is live.
        let raw = unsafe { sys::rd_kafka_queue_get_consumer(self.0.raw()) };
        Queue::from_raw(&self.0, raw).expect("a consumer with a group has this queue")
    }

    /// Joins the group for these topics (partitions and offsets in the list are ignored).
    pub fn subscribe(&self, topics: &PartitionList) -> Result<(), ErrorCode> {
        // SAFETY: client and list are live; the list is copied.
        ErrorCode(unsafe { sys::rd_kafka_subscribe(self.0.raw(), topics.raw()) }).into_result()
    }

    /// Assigns exactly these partitions; `None` unassigns all. For groups with the eager protocol.
    pub fn assign(&self, list: Option<&PartitionList>) -> Result<(), ErrorCode> {
        let raw = list.map_or(ptr::null(), PartitionList::raw);
        // SAFETY: client and list are live; the list is copied.
        ErrorCode(unsafe { sys::rd_kafka_assign(self.0.raw(), raw) }).into_result()
    }

    /// Assigns these partitions in addition to those already assigned. For cooperative groups.
    pub fn incremental_assign(&self, list: &PartitionList) -> Result<(), ErrorCode> {
        // SAFETY: client and list are live; the error object is ours.
        unsafe { code::take(sys::rd_kafka_incremental_assign(self.0.raw(), list.raw())) }
    }

    /// Unassigns these partitions; each must be assigned. For cooperative groups.
    pub fn incremental_unassign(&self, list: &PartitionList) -> Result<(), ErrorCode> {
        // SAFETY: as above.
        unsafe { code::take(sys::rd_kafka_incremental_unassign(self.0.raw(), list.raw())) }
    }

    /// Returns whether the partitions being revoked may already have another owner.
    pub fn is_assignment_lost(&self) -> bool {
        // SAFETY: the client is live.
        unsafe { sys::rd_kafka_assignment_lost(self.0.raw()) != 0 }
    }

    /// Moves the readers of these partitions. Records fetched before are dropped at once: no older record is read after
    /// this returns. The library's own thread responds, not a broker. The error is that of the first partition that was
    /// not moved.
    pub fn seek(&self, list: &mut PartitionList, timeout: Duration) -> Result<(), ErrorCode> {
        // SAFETY: client and list are live; nothing is written to the list after this returns.
        unsafe { code::take(sys::rd_kafka_seek_partitions(self.0.raw(), list.raw_mut(), millis(timeout))) }?;
        list.iter().try_for_each(|entry| entry.error.into_result())
    }

    /// Commits these offsets at the coordinator; the response arrives in the queue as a commit event with the
    /// number `request`.
    pub fn commit(&self, list: &PartitionList, responses: &Queue, request: usize) -> Result<(), ErrorCode> {
        let opaque: *mut c_void = ptr::without_provenance_mut(request);
        // SAFETY: client, list and queue are live; the list is copied, the library holds the queue until it has
        // responded, and the number is never dereferenced. Without a callback the response is an event.
        let code =
            unsafe { sys::rd_kafka_commit_queue(self.0.raw(), list.raw(), responses.raw(), None, opaque) };
        ErrorCode(code).into_result()
    }

    /// Returns one past the last offset of the log as of the last fetch; `None` before the first fetch.
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

    /// Requests to leave the group, after a join in progress has ended: the rebalance that follows arrives in the main
    /// queue and must be answered. See [`Consumer::is_member`].
    pub fn unsubscribe(&self) -> Result<(), ErrorCode> {
        // SAFETY: the client is live.
        ErrorCode(unsafe { sys::rd_kafka_unsubscribe(self.0.raw()) }).into_result()
    }

    /// Returns whether the client is a member of the group, as far as it knows: false after it has requested to leave.
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

    /// Begins to leave the group: the remaining events (the last revoke) arrive in this queue from now on.
    pub fn close(&self, events: &Queue) -> Result<(), ErrorCode> {
        // SAFETY: client and queue are live; the library holds the queue while it needs it.
        unsafe { code::take(sys::rd_kafka_consumer_close_queue(self.0.raw(), events.raw())) }
    }

    /// Returns whether the client has left the group.
    pub fn is_closed(&self) -> bool {
        // SAFETY: the client is live.
        unsafe { sys::rd_kafka_consumer_closed(self.0.raw()) != 0 }
    }
}
