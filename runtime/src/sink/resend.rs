//! Records that brokers did not take, and the order in which they are sent again.
//!
//! Brokers refuse *batches*: a refusal says little about one record. So while a topic has suspects nothing new is sent
//! to it; each suspect is sent alone, in its order, after the one before it has its answer. A topic that is unknown or
//! may not be written is tried again now and then, and nothing of it is dropped. The other topics go on.
use std::collections::VecDeque;
use std::time::Duration;

use super::outcome::Refusal;
use super::record::Record;
use crate::librdkafka::{Deadline, ErrorCode};

/// How long a topic that can't be written is left alone.
const PAUSE: Duration = Duration::from_secs(1);

/// What is to be sent again, for one topic.
#[derive(Debug, Default)]
pub(super) struct Resend {
    waiting: VecDeque<Suspect>,
    /// The first one is on its way, by itself.
    alone: bool,
    /// Not before.
    pause: Option<Deadline>,
}

/// One record.
#[derive(Debug)]
pub(super) struct Suspect {
    /// Its place among the records in flight.
    pub(super) place: usize,
    pub(super) record: Record,
    /// Only then is a refusal its own.
    pub(super) alone: bool,
}

/// What an answer about a suspect means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
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

    pub(super) fn push(&mut self, suspect: Suspect) {
        self.waiting.push_back(suspect);
    }

    /// Whether this is the record that is on its way alone.
    pub(super) fn is_alone(&self, place: usize) -> bool {
        self.alone && self.waiting.front().is_some_and(|suspect| suspect.place == place)
    }

    /// The record that was alone has its answer, and it was the last one.
    pub(super) fn settled(&mut self) {
        self.alone = false;
        self.waiting.pop_front();
    }

    /// The record that was alone was not taken.
    pub(super) fn refused(&mut self, refusal: Refusal, code: ErrorCode) -> Verdict {
        if is_about_the_record(code) {
            return Verdict::Refused;
        }
        self.alone = false;
        if code == ErrorCode::INVALID_TIMESTAMP
            && let Some(time) = self.waiting.front_mut().and_then(|suspect| suspect.record.timestamp.take())
        {
            tracing::debug!(time, "the topic refuses the time of an output");
            return Verdict::Restamped;
        }
        self.pause = (refusal != Refusal::Producer).then(|| Deadline::after(PAUSE));
        Verdict::Blocked
    }

    /// The next record to send, if it may go now; `in_flight`: records of this topic that are on their way.
    pub(super) fn next(&mut self, in_flight: usize) -> Option<&Suspect> {
        if self.alone || self.pause.is_some_and(|pause| !pause.is_over()) {
            return None;
        }
        let next = self.waiting.front()?;
        (in_flight == 0 || !next.alone).then_some(next)
    }

    /// The record that [`Resend::next`] gave was handed over.
    pub(super) fn sent(&mut self) {
        self.pause = None;
        if self.waiting.front().is_some_and(|suspect| suspect.alone) {
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
        self.waiting.make_contiguous().sort_by_key(|suspect| sequence(suspect.place));
    }

    /// Takes those out that nobody waits for; what is on its way stays. Gives their places.
    pub(super) fn forget(&mut self, which: impl Fn(usize) -> bool) -> Vec<usize> {
        let on_its_way = self.waiting.front().filter(|_| self.alone).map(|suspect| suspect.place);
        let mut places = Vec::new();
        self.waiting.retain(|suspect| {
            let is_out = Some(suspect.place) != on_its_way && which(suspect.place);
            places.extend(is_out.then_some(suspect.place));
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

    fn suspect(place: usize, alone: bool) -> Suspect {
        let record = Record { topic: 0, timestamp: None, key: None, value: None, headers: Vec::new() };
        Suspect { place, record, alone }
    }

    #[test]
    fn suspects_go_one_by_one_when_nothing_else_is_on_its_way() {
        let mut resend = Resend::default();
        resend.push(suspect(1, true));
        resend.push(suspect(2, true));
        assert!(resend.next(5).is_none(), "others are on their way");
        assert_eq!(resend.next(0).map(|next| next.place), Some(1));
        resend.sent();
        assert!(resend.is_alone(1) && resend.next(0).is_none(), "one at a time");
        assert_eq!(resend.refused(Refusal::Again, ErrorCode::MSG_SIZE_TOO_LARGE), Verdict::Refused);
        resend.settled();
        assert_eq!(resend.next(0).map(|next| next.place), Some(2));
    }

    #[test]
    fn what_says_nothing_about_the_record_is_tried_again_after_a_pause() {
        let mut resend = Resend::default();
        resend.push(suspect(1, true));
        resend.sent();
        assert_eq!(resend.refused(Refusal::Topic, ErrorCode::TOPIC_AUTHORIZATION_FAILED), Verdict::Blocked);
        assert!(resend.next(0).is_none(), "there is a pause");
        assert!(!resend.is_empty(), "nothing is dropped");
    }

    #[test]
    fn a_refused_time_is_replaced_once() {
        let mut resend = Resend::default();
        let mut own_time = suspect(1, true);
        own_time.record.timestamp = Some(7);
        resend.push(own_time);
        resend.sent();
        assert_eq!(resend.refused(Refusal::Again, ErrorCode::INVALID_TIMESTAMP), Verdict::Restamped);
        assert_eq!(
            resend.next(0).map(|next| next.record.timestamp),
            Some(None),
            "at once, with the time of sending"
        );
        resend.sent();
        assert_eq!(resend.refused(Refusal::Again, ErrorCode::INVALID_TIMESTAMP), Verdict::Blocked);
        assert!(!resend.is_empty(), "nothing is dropped");
    }

    #[test]
    fn what_nobody_waits_for_is_not_sent_again() {
        let mut resend = Resend::default();
        for place in [1, 2, 3] {
            resend.push(suspect(place, true));
        }
        resend.sent();
        assert_eq!(resend.forget(|place| place < 3), [2], "1 is on its way");
        resend.settled();
        assert_eq!(resend.next(0).map(|next| next.place), Some(3));
    }

    #[test]
    fn what_a_lost_producer_had_goes_at_once() {
        let mut resend = Resend::default();
        resend.push(suspect(1, false));
        resend.push(suspect(2, false));
        for place in [1, 2] {
            assert_eq!(resend.next(7).map(|next| next.place), Some(place));
            resend.sent();
        }
        assert!(resend.is_empty());
    }
}
