//! Records that brokers did not take, and the order in which they are sent again.
//!
//! Brokers refuse *batches*: a refusal says little about one record. So while a topic has suspects nothing new is sent
//! to it; each suspect is sent alone, in its order, after the one before it has its answer. A topic that is unknown or
//! may not be written is tried again now and then, and nothing of it is dropped. The other topics go on.
use std::collections::VecDeque;
use std::time::Duration;

use super::outcome::Refusal;
use super::record::OwnedRecord;
use crate::librdkafka::{Deadline, ErrorCode};

/// How long a topic that can't be written is left alone.
const PAUSE: Duration = Duration::from_secs(1);

/// What is to be sent again, for one topic.
#[derive(Debug, Default)]
pub(super) struct Resend {
    waiting: VecDeque<Quarantined>,
    /// The first one is on its way, by itself.
    alone: bool,
    /// Not before.
    pause: Option<Deadline>,
}

/// One record.
#[derive(Debug)]
pub(super) struct Quarantined {
    /// Its place among the records in flight.
    pub(super) place: usize,
    pub(super) record: OwnedRecord,
    /// Only then is a refusal its own.
    pub(super) alone: bool,
}

/// What an answer about a suspect means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ResendDecision {
    /// It will never land.
    Refused,
    /// Its own time is refused: it is sent again with the time of sending.
    Restamped,
    /// It is sent again, later.
    Blocked,
}

impl Resend {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn push(&mut self, quarantined: Quarantined) {
        self.waiting.push_back(quarantined);
    }

    /// Whether this is the record that is on its way alone.
    pub(super) fn is_alone(&self, place: usize) -> bool {
        self.alone && self.waiting.front().is_some_and(|quarantined| quarantined.place == place)
    }

    /// The record that was alone has its answer, and it was the last one.
    pub(super) fn settled(&mut self) {
        self.alone = false;
        self.waiting.pop_front();
    }

    /// The record that was alone was not taken.
    pub(super) fn refused(&mut self, refusal: Refusal, code: ErrorCode) -> ResendDecision {
        if is_about_the_record(code) {
            return ResendDecision::Refused;
        }
        self.alone = false;
        if code == ErrorCode::INVALID_TIMESTAMP
            && let Some(time) =
                self.waiting.front_mut().and_then(|quarantined| quarantined.record.timestamp.take())
        {
            tracing::debug!(time, "the topic refuses the time of an output");
            return ResendDecision::Restamped;
        }
        self.pause = (refusal != Refusal::Producer).then(|| Deadline::after(PAUSE));
        ResendDecision::Blocked
    }

    /// The next record to send, if it may go now; `in_flight`: records of this topic that are on their way.
    pub(super) fn next(&mut self, in_flight: usize) -> Option<&Quarantined> {
        if self.alone || self.pause.is_some_and(|pause| !pause.is_over()) {
            return None;
        }
        let next = self.waiting.front()?;
        (in_flight == 0 || !next.alone).then_some(next)
    }

    /// The record that [`Resend::next`] gave was handed over.
    pub(super) fn sent(&mut self) {
        self.pause = None;
        if self.waiting.front().is_some_and(|quarantined| quarantined.alone) {
            self.alone = true;
        } else {
            self.waiting.pop_front();
        }
    }

    /// The client did not take it: later.
    pub(super) fn not_now(&mut self) {
        self.pause = Some(Deadline::after(PAUSE));
    }

    /// A producer that could not go on has given everything back, in whatever order: they go as they went first.
    pub(super) fn sort_by_key(&mut self, sequence: impl Fn(usize) -> u64) {
        self.waiting.make_contiguous().sort_by_key(|quarantined| sequence(quarantined.place));
    }

    /// Takes those out that nobody waits for; what is on its way stays. Gives their places.
    pub(super) fn forget(&mut self, which: impl Fn(usize) -> bool) -> Vec<usize> {
        let on_its_way = self.waiting.front().filter(|_| self.alone).map(|quarantined| quarantined.place);
        let mut places = Vec::new();
        self.waiting.retain(|quarantined| {
            let is_out = Some(quarantined.place) != on_its_way && which(quarantined.place);
            places.extend(is_out.then_some(quarantined.place));
            !is_out
        });
        places
    }
}

/// Codes that say, of a batch of one, that this record can't be stored. Any other one may pass.
fn is_about_the_record(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::MSG_SIZE_TOO_LARGE
            | ErrorCode::INVALID_RECORD
            | ErrorCode::INVALID_DIFFERENT_RECORD
            | ErrorCode::INVALID_MSG
            | ErrorCode::RECORD_LIST_TOO_LARGE
            | ErrorCode::POLICY_VIOLATION
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quarantined(place: usize, alone: bool) -> Quarantined {
        let record = OwnedRecord { topic: 0, timestamp: None, key: None, value: None, headers: Vec::new() };
        Quarantined { place, record, alone }
    }

    #[test]
    fn suspects_go_one_by_one_when_nothing_else_is_on_its_way() {
        let mut resend = Resend::default();
        resend.push(quarantined(1, true));
        resend.push(quarantined(2, true));
        assert!(resend.next(5).is_none(), "others are on their way");
        assert_eq!(resend.next(0).map(|next| next.place), Some(1));
        resend.sent();
        assert!(resend.is_alone(1) && resend.next(0).is_none(), "one at a time");
        assert_eq!(resend.refused(Refusal::Again, ErrorCode::MSG_SIZE_TOO_LARGE), ResendDecision::Refused);
        resend.settled();
        assert_eq!(resend.next(0).map(|next| next.place), Some(2));
    }

    #[test]
    fn what_says_nothing_about_the_record_is_tried_again_after_a_pause() {
        let mut resend = Resend::default();
        resend.push(quarantined(1, true));
        resend.sent();
        assert_eq!(
            resend.refused(Refusal::Topic, ErrorCode::TOPIC_AUTHORIZATION_FAILED),
            ResendDecision::Blocked
        );
        assert!(resend.next(0).is_none(), "there is a pause");
        assert!(!resend.is_empty(), "nothing is dropped");
    }

    #[test]
    fn a_refused_time_is_replaced_once() {
        let mut resend = Resend::default();
        let mut own_time = quarantined(1, true);
        own_time.record.timestamp = Some(7);
        resend.push(own_time);
        resend.sent();
        assert_eq!(resend.refused(Refusal::Again, ErrorCode::INVALID_TIMESTAMP), ResendDecision::Restamped);
        assert_eq!(
            resend.next(0).map(|next| next.record.timestamp),
            Some(None),
            "at once, with the time of sending"
        );
        resend.sent();
        assert_eq!(resend.refused(Refusal::Again, ErrorCode::INVALID_TIMESTAMP), ResendDecision::Blocked);
        assert!(!resend.is_empty(), "nothing is dropped");
    }

    #[test]
    fn what_nobody_waits_for_is_not_sent_again() {
        let mut resend = Resend::default();
        for place in [1, 2, 3] {
            resend.push(quarantined(place, true));
        }
        resend.sent();
        assert_eq!(resend.forget(|place| place < 3), [2], "1 is on its way");
        resend.settled();
        assert_eq!(resend.next(0).map(|next| next.place), Some(3));
    }

    #[test]
    fn what_a_lost_producer_had_goes_at_once() {
        let mut resend = Resend::default();
        resend.push(quarantined(1, false));
        resend.push(quarantined(2, false));
        for place in [1, 2] {
            assert_eq!(resend.next(7).map(|next| next.place), Some(place));
            resend.sent();
        }
        assert!(resend.is_empty());
    }
}
