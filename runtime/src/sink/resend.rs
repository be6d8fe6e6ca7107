//! Records that failed, and the order in which they are sent again.
//!
//! Brokers reject *batches*: an error does not identify the record. While a topic has failed records, no new record is
//! sent to it. Each failed record is sent alone, in order, after the previous one has its report; records of a failed
//! producer are sent without these waits. A topic that is unknown or not writable is retried at intervals, and none of
//! its records is dropped. Other topics are not affected.
use std::collections::VecDeque;
use std::time::Duration;

use super::errors::{BatchError, is_about_the_record};
use super::record::OwnedRecord;
use crate::librdkafka::{Deadline, ErrorCode};

/// Pause before a blocked topic is tried again.
const BLOCKED_TOPIC_PAUSE: Duration = Duration::from_secs(1);

/// The records of one topic to send again.
#[derive(Debug, Default)]
pub(super) struct ResendQueue {
    waiting: VecDeque<FailedRecord>,
    /// Whether the first record is in flight, alone.
    front_in_flight: bool,
    /// The pause during which no record is sent.
    pause: Option<Deadline>,
}

/// A failed record.
#[derive(Debug)]
pub(super) struct FailedRecord {
    /// Its slot in the table of unreported records.
    pub(super) slot: usize,
    pub(super) record: OwnedRecord,
    /// Whether the record is sent alone, so that an error applies to this record.
    pub(super) must_be_alone: bool,
}

/// The consequence of an error of a record that was sent alone.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ResendDecision {
    /// The record will never be stored.
    ReportRejected,
    /// The record's own timestamp was rejected. The record is sent again with the time of sending.
    Restamp,
    /// The record is sent again later.
    RetryLater,
}

impl ResendQueue {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn push(&mut self, failed: FailedRecord) {
        self.waiting.push_back(failed);
    }

    /// Returns whether this is the record that is in flight alone.
    pub(super) fn is_in_flight_alone(&self, slot: usize) -> bool {
        self.front_in_flight && self.waiting.front().is_some_and(|failed| failed.slot == slot)
    }

    /// Removes the record that was sent alone, because it has its final report.
    pub(super) fn finished(&mut self) {
        self.front_in_flight = false;
        self.waiting.pop_front();
    }

    /// Decides what follows a failure of the record that was sent alone.
    pub(super) fn failed(&mut self, error: BatchError, code: ErrorCode) -> ResendDecision {
        if is_about_the_record(code) {
            return ResendDecision::ReportRejected;
        }
        self.front_in_flight = false;
        if code == ErrorCode::INVALID_TIMESTAMP
            && let Some(time) = self.waiting.front_mut().and_then(|failed| failed.record.timestamp.take())
        {
            tracing::debug!(time, "timestamp of an output rejected by the topic");
            return ResendDecision::Restamp;
        }
        self.pause = (error != BatchError::Producer).then(|| Deadline::after(BLOCKED_TOPIC_PAUSE));
        ResendDecision::RetryLater
    }

    /// Returns the next record to send, if it may be sent now. `in_flight`: number of in-flight records of this topic.
    pub(super) fn next(&mut self, in_flight: usize) -> Option<&FailedRecord> {
        if self.front_in_flight || self.pause.is_some_and(|pause| !pause.is_over()) {
            return None;
        }
        let next = self.waiting.front()?;
        (in_flight == 0 || !next.must_be_alone).then_some(next)
    }

    /// Notes that the client accepted the record from [`ResendQueue::next`].
    pub(super) fn sent(&mut self) {
        self.pause = None;
        if self.waiting.front().is_some_and(|failed| failed.must_be_alone) {
            self.front_in_flight = true;
        } else {
            self.waiting.pop_front();
        }
    }

    /// Pauses, because the client did not accept the record from [`ResendQueue::next`].
    pub(super) fn pause(&mut self) {
        self.pause = Some(Deadline::after(BLOCKED_TOPIC_PAUSE));
    }

    /// Restores the original order after a failed producer has returned its records in any order.
    pub(super) fn sort_by_key(&mut self, sequence: impl Fn(usize) -> u64) {
        self.waiting.make_contiguous().sort_by_key(|failed| sequence(failed.slot));
    }

    /// Removes records whose results are no longer needed, except one in flight. Returns their slots.
    pub(super) fn discard(&mut self, which: impl Fn(usize) -> bool) -> Vec<usize> {
        let in_flight = self.waiting.front().filter(|_| self.front_in_flight).map(|failed| failed.slot);
        let mut slots = Vec::new();
        self.waiting.retain(|failed| {
            let is_out = Some(failed.slot) != in_flight && which(failed.slot);
            slots.extend(is_out.then_some(failed.slot));
            !is_out
        });
        slots
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::SinkTopic;

    fn failed(slot: usize, must_be_alone: bool) -> FailedRecord {
        let record =
            OwnedRecord { topic: SinkTopic(0), timestamp: None, key: None, value: None, headers: Vec::new() };
        FailedRecord { slot, record, must_be_alone }
    }

    #[test]
    fn failed_records_are_sent_one_by_one_when_nothing_else_is_in_flight() {
        let mut queue = ResendQueue::default();
        queue.push(failed(1, true));
        queue.push(failed(2, true));
        assert!(queue.next(5).is_none(), "other records are in flight");
        assert_eq!(queue.next(0).map(|next| next.slot), Some(1));
        queue.sent();
        assert!(queue.is_in_flight_alone(1) && queue.next(0).is_none(), "one at a time");
        assert_eq!(
            queue.failed(BatchError::ResendAlone, ErrorCode::MSG_SIZE_TOO_LARGE),
            ResendDecision::ReportRejected
        );
        queue.finished();
        assert_eq!(queue.next(0).map(|next| next.slot), Some(2));
    }

    #[test]
    fn errors_not_about_the_record_are_retried_after_a_pause() {
        let mut queue = ResendQueue::default();
        queue.push(failed(1, true));
        queue.sent();
        assert_eq!(
            queue.failed(BatchError::Topic, ErrorCode::TOPIC_AUTHORIZATION_FAILED),
            ResendDecision::RetryLater
        );
        assert!(queue.next(0).is_none(), "the topic is paused");
        assert!(!queue.is_empty(), "nothing is dropped");
    }

    #[test]
    fn a_rejected_timestamp_is_replaced_once() {
        let mut queue = ResendQueue::default();
        let mut own_time = failed(1, true);
        own_time.record.timestamp = Some(7);
        queue.push(own_time);
        queue.sent();
        assert_eq!(
            queue.failed(BatchError::ResendAlone, ErrorCode::INVALID_TIMESTAMP),
            ResendDecision::Restamp
        );
        assert_eq!(
            queue.next(0).map(|next| next.record.timestamp),
            Some(None),
            "at once, with the time of sending"
        );
        queue.sent();
        assert_eq!(
            queue.failed(BatchError::ResendAlone, ErrorCode::INVALID_TIMESTAMP),
            ResendDecision::RetryLater
        );
        assert!(!queue.is_empty(), "nothing is dropped");
    }

    #[test]
    fn discarded_records_are_not_sent_again() {
        let mut queue = ResendQueue::default();
        for slot in [1, 2, 3] {
            queue.push(failed(slot, true));
        }
        queue.sent();
        assert_eq!(queue.discard(|slot| slot < 3), [2], "1 is in flight");
        queue.finished();
        assert_eq!(queue.next(0).map(|next| next.slot), Some(3));
    }

    #[test]
    fn records_of_a_failed_producer_are_sent_at_once() {
        let mut queue = ResendQueue::default();
        queue.push(failed(1, false));
        queue.push(failed(2, false));
        for slot in [1, 2] {
            assert_eq!(queue.next(7).map(|next| next.slot), Some(slot));
            queue.sent();
        }
        assert!(queue.is_empty());
    }
}
