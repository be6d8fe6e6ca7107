//! The owned partitions and their read positions.
use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::ops::ControlFlow;
use std::time::Duration;

use keylane_core::{Partition, ReadError};

use super::errors::{FetchErrorClass, fetch_error_class};
use super::event::ReadResult;
use super::lookups::LookupId;
use crate::librdkafka::{
    Consumer, ErrorCode, PartitionList, PartitionQueue, QueueEntry, ReadEnd, Record, WakeHandle,
};

/// The partitions that the group has assigned to this consumer.
#[derive(Debug, Default)]
pub(super) struct OwnedPartitions {
    owned: BTreeMap<Partition, OwnedPartition>,
    /// The number of assignments so far, which numbers the next one. A result for an older assignment is dropped.
    assignments: u64,
}

#[derive(Debug)]
struct OwnedPartition {
    /// The number of the assignment.
    assignment: u64,
    /// The id of the topic that the partition is read from; zeros if it is unknown.
    topic_id: [u8; 16],
    /// `None` while the partition is not assigned in the library, for example until its start position is known.
    reader: Option<PartitionReader>,
}

#[derive(Debug)]
pub(super) struct PartitionReader {
    queue: PartitionQueue,
    /// The next offset to read. The library's own position is not used: it moves past records that were never read.
    pub(super) next: i64,
    /// When records were read last, or when it was opened.
    pub(super) read_at: Duration,
    /// Whether reading has stopped until the partition is repositioned, because of an error that was not an
    /// interruption.
    halted: bool,
}

/// The result of a read, before a range error is resolved.
pub(super) struct RawRead {
    pub(super) result: ReadResult,
    /// Whether the position is outside the log. The bounds of the log must then be requested.
    pub(super) out_of_range: bool,
    /// The error that ended the read, as the client reports it.
    pub(super) error: Option<FetchError>,
}

/// An error as the client reports it.
pub(super) struct FetchError {
    pub(super) code: ErrorCode,
    pub(super) offset: i64,
    pub(super) text: String,
}

impl OwnedPartitions {
    /// Begins a new assignment.
    pub(super) fn add(&mut self, partition: Partition) {
        self.assignments += 1;
        let owned = OwnedPartition { assignment: self.assignments, topic_id: [0; 16], reader: None };
        self.owned.insert(partition, owned);
    }

    /// Ends an assignment and closes its queue.
    pub(super) fn remove(&mut self, partition: Partition) {
        self.owned.remove(&partition);
    }

    /// Stops reading a partition that stays owned.
    pub(super) fn close(&mut self, partition: Partition) {
        if let Some(owned) = self.owned.get_mut(&partition) {
            owned.reader = None;
        }
    }

    pub(super) fn lookup_id(&self, partition: Partition) -> Option<LookupId> {
        self.owned.get(&partition).map(|owned| LookupId { partition, assignment: owned.assignment })
    }

    pub(super) fn is_current(&self, id: LookupId) -> bool {
        self.lookup_id(id.partition) == Some(id)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = Partition> + '_ {
        self.owned.keys().copied()
    }

    /// Returns the id of the topic that the partition is read from; zeros if it is unknown.
    pub(super) fn topic_id(&self, partition: Partition) -> [u8; 16] {
        self.owned.get(&partition).map_or([0; 16], |owned| owned.topic_id)
    }

    pub(super) fn set_topic_id(&mut self, partition: Partition, topic_id: [u8; 16]) {
        if let Some(owned) = self.owned.get_mut(&partition) {
            owned.topic_id = topic_id;
        }
    }

    pub(super) fn is_owned(&self, partition: Partition) -> bool {
        self.owned.contains_key(&partition)
    }

    pub(super) fn reader(&self, partition: Partition) -> Option<&PartitionReader> {
        self.owned.get(&partition)?.reader.as_ref()
    }

    pub(super) fn reader_mut(&mut self, partition: Partition) -> Option<&mut PartitionReader> {
        self.owned.get_mut(&partition)?.reader.as_mut()
    }

    /// Iterates over the partitions that are being read, with the next offset of each.
    pub(super) fn readers(&self) -> impl Iterator<Item = (Partition, i64)> + '_ {
        self.owned.iter().filter_map(|(partition, owned)| Some((*partition, owned.reader.as_ref()?.next)))
    }

    /// Iterates over the partitions from which nothing was read since then.
    pub(super) fn idle_since(&self, then: Duration) -> impl Iterator<Item = Partition> + '_ {
        let is_idle = move |reader: &PartitionReader| !reader.halted && reader.read_at <= then;
        let idle = self.owned.iter().filter(move |(_, owned)| owned.reader.as_ref().is_some_and(is_idle));
        idle.map(|(partition, _)| *partition)
    }

    /// Detaches the partition's queue from the main queue, to read it from this offset. Call it before every assign of
    /// the partition.
    pub(super) fn open(
        &mut self,
        context: &ConsumerContext,
        partition: Partition,
        offset: i64,
        now: Duration,
    ) -> Result<(), ErrorCode> {
        let owned = self.owned.get_mut(&partition).ok_or(ErrorCode::UNKNOWN_PARTITION)?;
        // The old handle is dropped first: this removes the wake-up from its queue, which may be the queue opened
        // below.
        owned.reader = None;
        let topic = context.topic(partition).ok_or(ErrorCode::UNKNOWN_TOPIC)?;
        let queue = PartitionQueue::open(context.consumer.client(), topic, partition.number, &context.wake)
            .ok_or(ErrorCode::UNKNOWN_PARTITION)?;
        owned.reader = Some(PartitionReader { queue, next: offset, read_at: now, halted: false });
        Ok(())
    }
}

/// A consumer, its topics, and the thread that uses it.
pub(super) struct ConsumerContext {
    pub(super) consumer: Consumer,
    /// The names of the topics; `Partition::topic` is an index into them.
    pub(super) topics: Vec<CString>,
    pub(super) wake: WakeHandle,
}

impl ConsumerContext {
    /// Returns the name of the partition's topic.
    pub(super) fn topic(&self, partition: Partition) -> Option<&CStr> {
        self.topics.get(usize::from(partition.topic)).map(CString::as_c_str)
    }

    /// Builds the list for an assign.
    pub(super) fn list(&self, starts: impl Iterator<Item = (Partition, i64)>) -> PartitionList {
        let mut list = PartitionList::with_capacity(starts.size_hint().0);
        for (partition, offset) in starts {
            if let Some(topic) = self.topic(partition) {
                list.push(topic, partition.number, offset);
            }
        }
        list
    }
}

impl PartitionReader {
    pub(super) fn is_ready(&self) -> bool {
        !self.halted && self.queue.is_ready()
    }

    pub(super) fn moved(&mut self, offset: i64) {
        self.next = offset;
        self.halted = false;
    }

    /// Stops reading until the partition is repositioned.
    pub(super) fn halt(&mut self) {
        self.halted = true;
    }

    /// Reads until a limit, an error, the end of the partition or the end of the fetched records is reached. `each`
    /// returns the number of bytes that its record counts as.
    pub(super) fn read(
        &mut self,
        max_events: u32,
        max_bytes: u64,
        each: &mut dyn FnMut(Record<'_>) -> u32,
    ) -> RawRead {
        let mut read = RawRead { result: ReadResult::default(), out_of_range: false, error: None };
        if self.halted || max_events == 0 {
            return read;
        }
        let (next, halted) = (&mut self.next, &mut self.halted);
        let mut bytes = 0;
        let end = self.queue.read(&mut |entry| match entry {
            QueueEntry::Record(record) => {
                *next = record.offset() + 1;
                read.result.records += 1;
                bytes += u64::from(each(record));
                if read.result.records >= max_events || bytes >= max_bytes {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            }
            QueueEntry::Error { code: ErrorCode::PARTITION_EOF, offset, .. } => {
                *next = offset.max(*next);
                read.result.end_of_partition = Some(offset);
                ControlFlow::Break(())
            }
            QueueEntry::Error { code, offset, text } => {
                let class = fetch_error_class(code);
                match class {
                    FetchErrorClass::OutOfRange => read.out_of_range = true,
                    FetchErrorClass::Failed(error) => read.result.error = Some(error),
                }
                read.error = Some(FetchError { code, offset, text });
                *halted = class != FetchErrorClass::Failed(ReadError::Interrupted);
                ControlFlow::Break(())
            }
        });
        read.result.more = end == ReadEnd::Stopped && !self.halted;
        read
    }
}
