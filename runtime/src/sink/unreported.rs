//! The records that were produced and have no final delivery report: they are in flight, or wait to be sent again.
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use keylane_core::CallId;

use super::SinkTopic;
use crate::librdkafka::Deadline;

/// The id of a record, which is an output or the dead letter of a row of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordId {
    /// Index of the handler, whose route receives the report.
    pub handler: u16,
    /// The call.
    pub call: CallId,
    /// Row of the call.
    pub row: u32,
    /// Position of the row's lane in the call; meaningless for a dead letter.
    pub lane: u32,
    /// Position among the outputs of the call; meaningless for a dead letter.
    pub output: u32,
    /// Whether the record is the dead letter of the row, not an output.
    pub dead_letter: bool,
}

/// The ids of records without a final report, and the in-flight bytes per topic. The ids are in a table, because the C
/// library carries only one number per record.
#[derive(Debug)]
pub(super) struct UnreportedRecords {
    state: Mutex<Tracked>,
    empty: Condvar,
    max_bytes_per_topic: usize,
}

#[derive(Debug)]
struct Tracked {
    slots: Vec<TrackedRecord>,
    free: Vec<usize>,
    topics: Vec<OfTopic>,
    /// The number of slots in use: their records are in flight, or wait to be sent again.
    records: usize,
    /// The number of slots in use whose result is no longer needed.
    discarded: usize,
    /// Number of records entered so far.
    entered: u64,
}

/// The in-flight records of one topic.
#[derive(Clone, Copy, Debug, Default)]
struct OfTopic {
    records: usize,
    bytes: usize,
}

#[derive(Clone, Copy, Debug)]
struct TrackedRecord {
    id: RecordId,
    topic: SinkTopic,
    bytes: usize,
    /// Ascending in the order in which records were first produced.
    sequence: u64,
    /// Whether the record is in flight. If not, it waits to be sent again.
    in_flight: bool,
    /// The record's own timestamp, if any. The client does not return the timestamp of a failed record.
    timestamp: Option<i64>,
    /// Whether the record was sent more than once.
    resent: bool,
    /// Whether the record's own timestamp was rejected.
    restamped: bool,
    /// Whether the result is no longer needed. If the record then fails, it is not sent again.
    discarded: bool,
}

/// A record with its final report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FinishedRecord {
    pub(super) id: RecordId,
    /// Whether the record was sent more than once.
    pub(super) resent: bool,
    /// Whether the record has the time of its resend instead of its own timestamp.
    pub(super) restamped: bool,
}

impl Tracked {
    fn take_out_of_flight(&mut self, slot: usize) -> TrackedRecord {
        let record =
            self.slots.get_mut(slot).expect("the library returns the number that was passed with the record");
        let was_in_flight = std::mem::take(&mut record.in_flight);
        let record = *record;
        if was_in_flight && let Some(in_flight) = self.topics.get_mut(record.topic.index()) {
            in_flight.bytes -= record.bytes;
            in_flight.records -= 1;
        }
        record
    }
}

impl UnreportedRecords {
    pub(super) fn new(topics: usize, max_bytes_per_topic: usize) -> UnreportedRecords {
        let state = Tracked {
            slots: Vec::new(),
            free: Vec::new(),
            topics: vec![OfTopic::default(); topics],
            records: 0,
            discarded: 0,
            entered: 0,
        };
        UnreportedRecords { state: Mutex::new(state), empty: Condvar::new(), max_bytes_per_topic }
    }

    /// Reserves a slot before the record is produced. `None` if the topic has too many bytes in flight; a topic without
    /// bytes in flight accepts any record. `timestamp`: the record's own timestamp; `None` if the client sets it.
    pub(super) fn enter(
        &self,
        id: RecordId,
        topic: SinkTopic,
        bytes: usize,
        timestamp: Option<i64>,
    ) -> Option<usize> {
        let mut state = self.lock();
        let in_flight = state.topics.get_mut(topic.index())?;
        if in_flight.bytes > 0 && in_flight.bytes + bytes > self.max_bytes_per_topic {
            return None;
        }
        in_flight.bytes += bytes;
        in_flight.records += 1;
        state.records += 1;
        state.entered += 1;
        let sequence = state.entered;
        let record = TrackedRecord {
            id,
            topic,
            bytes,
            sequence,
            in_flight: true,
            timestamp,
            resent: false,
            restamped: false,
            discarded: false,
        };
        match state.free.pop() {
            Some(slot) => {
                let free = state.slots.get_mut(slot).expect("a free slot is in the table");
                *free = record;
                Some(slot)
            }
            None => {
                state.slots.push(record);
                Some(state.slots.len() - 1)
            }
        }
    }

    /// Releases a slot. Each reserved slot is released exactly once.
    pub(super) fn leave(&self, slot: usize) -> FinishedRecord {
        let mut state = self.lock();
        let record = state.take_out_of_flight(slot);
        state.free.push(slot);
        state.records -= 1;
        state.discarded -= usize::from(record.discarded);
        if state.records == 0 {
            self.empty.notify_all();
        }
        FinishedRecord { id: record.id, resent: record.resent, restamped: record.restamped }
    }

    /// Marks records of a handler whose results are no longer needed. Records in flight can't be recalled.
    pub(super) fn discard(&self, handler: u16, which: &dyn Fn(&RecordId) -> bool) {
        let mut state = self.lock();
        let Tracked { slots, free, discarded, .. } = &mut *state;
        let mut is_free = vec![false; slots.len()];
        free.iter().filter_map(|&slot| is_free.get_mut(slot).map(|free| *free = true)).for_each(drop);
        let tracked = slots.iter_mut().zip(is_free).filter(|(_, is_free)| !is_free).map(|(record, _)| record);
        for record in tracked.filter(|record| record.id.handler == handler && which(&record.id)) {
            *discarded += usize::from(!std::mem::replace(&mut record.discarded, true));
        }
    }

    /// Returns whether the result of the record in this slot is no longer needed.
    pub(super) fn is_discarded(&self, slot: usize) -> bool {
        self.lock().slots.get(slot).is_some_and(|record| record.discarded)
    }

    /// Returns whether the results of some records are no longer needed.
    pub(super) fn has_discarded(&self) -> bool {
        self.lock().discarded > 0
    }

    /// Marks the record in this slot as failed. The slot stays reserved. Returns the topic of the record.
    pub(super) fn mark_for_resend(&self, slot: usize) -> SinkTopic {
        self.lock().take_out_of_flight(slot).topic
    }

    /// Marks the record in this slot as in flight again.
    pub(super) fn mark_resent(&self, slot: usize) {
        let mut state = self.lock();
        let Some(record) = state.slots.get_mut(slot) else { return };
        record.in_flight = true;
        record.resent = true;
        let TrackedRecord { topic, bytes, .. } = *record;
        if let Some(in_flight) = state.topics.get_mut(topic.index()) {
            in_flight.bytes += bytes;
            in_flight.records += 1;
        }
    }

    /// Returns the sequence number of the record in this slot: its position in the order of production.
    pub(super) fn sequence(&self, slot: usize) -> u64 {
        self.lock().slots.get(slot).map_or(0, |record| record.sequence)
    }

    /// Returns the own timestamp of the record in this slot, if it has one.
    pub(super) fn timestamp(&self, slot: usize) -> Option<i64> {
        self.lock().slots.get(slot).and_then(|record| record.timestamp)
    }

    /// Removes the own timestamp of the record in this slot: from now on the client sets the timestamp.
    pub(super) fn restamp(&self, slot: usize) {
        if let Some(record) = self.lock().slots.get_mut(slot) {
            record.timestamp = None;
            record.restamped = true;
        }
    }

    /// Returns the topic of the record in this slot.
    pub(super) fn topic(&self, slot: usize) -> SinkTopic {
        self.lock().slots.get(slot).map_or(SinkTopic(0), |record| record.topic)
    }

    /// Returns the number of in-flight records of one topic.
    pub(super) fn in_flight_to(&self, topic: SinkTopic) -> usize {
        self.lock().topics.get(topic.index()).map_or(0, |in_flight| in_flight.records)
    }

    /// Returns the number of slots in use.
    pub(super) fn records(&self) -> usize {
        self.lock().records
    }

    /// Waits until no slot is in use; `false` after the deadline.
    pub(super) fn wait_until_empty(&self, deadline: Deadline) -> bool {
        let mut state = self.lock();
        while state.records > 0 {
            if deadline.is_over() {
                return false;
            }
            let (woken, _) =
                self.empty.wait_timeout(state, deadline.remaining()).unwrap_or_else(PoisonError::into_inner);
            state = woken;
        }
        true
    }

    /// Locks the state. A panic while the lock is held is a broken invariant, which ends the process.
    fn lock(&self) -> MutexGuard<'_, Tracked> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn id(row: u32) -> RecordId {
        RecordId {
            handler: 0,
            call: CallId { slot: 1, reuse_count: 2 },
            row,
            lane: 0,
            output: row,
            dead_letter: false,
        }
    }

    fn left(row: u32, resent: bool) -> FinishedRecord {
        FinishedRecord { id: id(row), resent, restamped: false }
    }

    #[test]
    fn a_full_topic_does_not_block_another() {
        let unreported = UnreportedRecords::new(2, 100);
        let first =
            unreported.enter(id(0), SinkTopic(0), 90, None).expect("an empty topic accepts the record");
        assert_eq!(unreported.enter(id(1), SinkTopic(0), 20, None), None);
        let other =
            unreported.enter(id(2), SinkTopic(1), 500, None).expect("an empty topic accepts any record");
        assert_eq!(unreported.leave(first), left(0, false));
        let reused = unreported.enter(id(3), SinkTopic(0), 20, None).expect("capacity is available again");
        assert_eq!(reused, first, "slots are reused");
        assert!(!unreported.wait_until_empty(Deadline::after(Duration::ZERO)));
        assert_eq!(unreported.leave(reused), left(3, false));
        assert_eq!(unreported.leave(other), left(2, false));
        assert!(unreported.wait_until_empty(Deadline::after(Duration::ZERO)));
        assert_eq!(unreported.records(), 0);
    }

    #[test]
    fn discarded_records_are_marked_until_they_leave() {
        let unreported = UnreportedRecords::new(1, 100);
        let slots: Vec<_> =
            (0..3).filter_map(|row| unreported.enter(id(row), SinkTopic(0), 10, None)).collect();
        unreported.leave(slots[0]);
        unreported.discard(1, &|_| true);
        assert!(!unreported.has_discarded(), "the records belong to another handler");
        unreported.discard(0, &|id| id.row < 2);
        unreported.discard(0, &|id| id.row < 2);
        assert_eq!([1, 2].map(|row| unreported.is_discarded(slots[row])), [true, false]);
        unreported.leave(slots[1]);
        assert!(!unreported.has_discarded());
        let reused = unreported.enter(id(9), SinkTopic(0), 10, None).expect("capacity is available");
        assert!(!unreported.is_discarded(reused), "the slot belongs to a new record");
    }

    #[test]
    fn a_record_waiting_for_its_resend_frees_capacity_and_keeps_its_slot() {
        let unreported = UnreportedRecords::new(1, 100);
        let slot =
            unreported.enter(id(0), SinkTopic(0), 90, None).expect("an empty topic accepts the record");
        assert_eq!(
            (unreported.mark_for_resend(slot), unreported.in_flight_to(SinkTopic(0)), unreported.records()),
            (SinkTopic(0), 0, 1)
        );
        unreported.mark_resent(slot);
        assert_eq!(
            (unreported.in_flight_to(SinkTopic(0)), unreported.enter(id(1), SinkTopic(0), 20, None)),
            (1, None)
        );
        assert_eq!((unreported.leave(slot), unreported.records()), (left(0, true), 0), "it was sent again");
    }
}
