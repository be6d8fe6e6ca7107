//! The publishing state of each call: unacknowledged outputs, errors, dead letters. There is one [`PendingCall`] per
//! call slot. The next call of the slot reuses its memory.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Range;
use std::sync::Arc;

use keylane_core::{CallId, OwnershipId};

use crate::sink::{RecordId, RecordMetadata, SinkTopic};

use super::dead_letters::PendingDeadLetter;

/// The publishing state of all calls whose rows are not all settled.
#[derive(Debug, Default)]
pub(super) struct PendingCalls {
    slots: Vec<PendingCall>,
    /// Calls with rows that were disowned since the last [`PendingCalls::discard_disowned`].
    disowned: Vec<CallId>,
}

/// The publishing state of one call.
#[derive(Debug, Default)]
pub(super) struct PendingCall {
    reuse_count: u32,
    pub(super) attempt: u32,
    /// The digest of the component that was called; `None`: the events had no call.
    pub(super) digest: Option<Arc<str>>,
    /// The ownership of each row; empty if no output has a header with the ownership.
    pub(super) ownerships: Vec<OwnershipId>,
    /// The order value of each row; empty if no output has a header with it.
    pub(super) order_values: Vec<Option<i64>>,
    /// The unanswered records of each row: outputs, or its dead letter.
    unacked: Vec<UnackedRecords>,
    /// Rows with an output that was rejected.
    rejected: Vec<u32>,
    stored: Vec<StoredOutput>,
    /// Errors that guests and brokers reported about rows that are not done.
    errors: Vec<(u32, String)>,
    /// Dead letters that are not acknowledged yet, by row.
    dead_letters: BTreeMap<u32, PendingDeadLetter>,
    /// Rows whose results no longer count: their ownership has ended, or the handler is stopping.
    disowned: Vec<Range<u32>>,
}

/// The unanswered records of a row.
#[derive(Clone, Copy, Debug, Default)]
struct UnackedRecords {
    count: u32,
    /// The topics that they, and answered records before them, were sent to: a bit per topic of the sink. Topics beyond
    /// the 64th have none.
    topics: u64,
}

/// The result of a row whose records are all answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RowDelivery {
    /// The brokers stored all of them.
    Acked,
    /// The brokers rejected at least one, and stored the others.
    Rejected,
}

/// An output that the brokers stored.
#[derive(Clone, Copy, Debug)]
struct StoredOutput {
    row: u32,
    lane: u32,
    /// Position among the outputs of the call.
    output: u32,
    location: RecordMetadata,
}

impl PendingCalls {
    /// Returns the state of a call. Creates it if there is none.
    pub(super) fn entry(&mut self, call: CallId) -> &mut PendingCall {
        let slot = call.slot as usize;
        if self.slots.len() <= slot {
            self.slots.resize_with(slot + 1, PendingCall::default);
        }
        let pending_call = self.slots.get_mut(slot).expect("the slots were resized above");
        if pending_call.reuse_count != call.reuse_count {
            pending_call.renew(call.reuse_count);
        }
        pending_call
    }

    /// Returns the state of a call; `None`: the call is over, and another call has its slot.
    pub(super) fn get(&self, call: CallId) -> Option<&PendingCall> {
        self.slots.get(call.slot as usize).filter(|pending_call| pending_call.reuse_count == call.reuse_count)
    }

    /// Returns the state of a call as [`PendingCalls::get`] does.
    pub(super) fn get_mut(&mut self, call: CallId) -> Option<&mut PendingCall> {
        self.slots
            .get_mut(call.slot as usize)
            .filter(|pending_call| pending_call.reuse_count == call.reuse_count)
    }

    /// Returns the dead letter of a row, until it is acknowledged.
    pub(super) fn dead_letter(&mut self, call: CallId, row: u32) -> Option<&mut PendingDeadLetter> {
        self.get_mut(call)?.dead_letters.get_mut(&row)
    }

    /// Returns the last error that was reported about a row.
    pub(super) fn error_of(&self, call: CallId, row: u32) -> &str {
        let errors = self.get(call).map_or(&[][..], |pending_call| pending_call.errors.as_slice());
        errors.iter().rev().find(|(known, _)| *known == row).map_or("", |(_, error)| error.as_str())
    }

    /// Marks rows as disowned: their results no longer count.
    pub(super) fn disown(&mut self, call: CallId, rows: Range<u32>) {
        if let Some(pending_call) = self.get_mut(call) {
            pending_call.disowned.push(rows);
        }
        self.disowned.push(call); // even if the call is over: its outputs may be in flight
    }

    /// Drops the dead letters of disowned rows. Returns false if nothing was disowned since the last call.
    pub(super) fn discard_disowned(&mut self) -> bool {
        let mut calls = std::mem::take(&mut self.disowned);
        let any = !calls.is_empty();
        for call in calls.drain(..) {
            if let Some(PendingCall { dead_letters, disowned, .. }) = self.get_mut(call) {
                dead_letters.retain(|row, _| !disowned.iter().any(|rows| rows.contains(row)));
            }
        }
        self.disowned = calls;
        any
    }

    /// Returns whether the row's records are no longer needed: the row is disowned, or its call is over.
    pub(super) fn is_disowned(&self, call: CallId, row: u32) -> bool {
        self.get(call).is_none_or(|pending_call| pending_call.disowned.iter().any(|rows| rows.contains(&row)))
    }
}

impl PendingCall {
    fn renew(&mut self, reuse_count: u32) {
        self.reuse_count = reuse_count;
        self.attempt = 0;
        self.digest = None;
        self.ownerships.clear();
        self.order_values.clear();
        self.unacked.clear();
        self.rejected.clear();
        self.stored.clear();
        self.errors.clear();
        self.dead_letters.clear();
        self.disowned.clear();
    }

    /// Counts a record of this row as sent to this topic.
    pub(super) fn sent(&mut self, row: u32, topic: SinkTopic) {
        let row = row as usize;
        if self.unacked.len() <= row {
            self.unacked.resize(row + 1, UnackedRecords::default());
        }
        if let Some(unacked) = self.unacked.get_mut(row) {
            unacked.count += 1;
            unacked.topics |= bit(topic);
        }
    }

    /// Returns whether records of this row are unanswered, and some of them were sent to this topic.
    pub(super) fn awaits(&self, row: u32, topic: SinkTopic) -> bool {
        self.unacked.get(row as usize).is_some_and(|unacked| unacked.topics & bit(topic) != 0)
    }

    /// Records that the brokers stored an output. Returns the result of the row if all of its outputs are answered.
    pub(super) fn acked(&mut self, id: &RecordId, location: RecordMetadata) -> Option<RowDelivery> {
        let &RecordId { row, lane, output, .. } = id;
        self.stored.push(StoredOutput { row, lane, output, location });
        self.count_answer(row)
    }

    /// Records that an output was rejected. Returns the result of the row if all of its outputs are answered: the dead
    /// letter can then list those that are stored.
    pub(super) fn rejected(&mut self, row: u32) -> Option<RowDelivery> {
        self.rejected.push(row);
        self.count_answer(row)
    }

    fn count_answer(&mut self, row: u32) -> Option<RowDelivery> {
        let unacked = self.unacked.get_mut(row as usize).filter(|unacked| unacked.count > 0)?;
        unacked.count -= 1;
        if unacked.count > 0 {
            return None;
        }
        unacked.topics = 0;
        Some(if self.rejected.contains(&row) { RowDelivery::Rejected } else { RowDelivery::Acked })
    }

    pub(super) fn add_error(&mut self, row: u32, error: String) {
        self.errors.push((row, error));
    }

    /// Adds the dead letter of a row and counts it as sent to this topic. Rejections of the row's outputs no longer
    /// count.
    pub(super) fn add_dead_letter(&mut self, row: u32, topic: SinkTopic, dead_letter: PendingDeadLetter) {
        self.dead_letters.insert(row, dead_letter);
        self.rejected.retain(|rejected| *rejected != row);
        self.sent(row, topic);
    }

    /// Records that the brokers stored the dead letter of a row. Returns the result of the row.
    pub(super) fn dead_letter_acked(&mut self, row: u32) -> Option<RowDelivery> {
        self.dead_letters.remove(&row)?;
        self.count_answer(row)
    }

    /// Returns whether an output, stored at `location`, was stored after a later one of its lane. That is possible only
    /// for resent outputs: all others are stored in the order in which they were produced. Outputs on different
    /// partitions have no observable order.
    pub(super) fn was_overtaken(&self, id: &RecordId, location: RecordMetadata) -> bool {
        let later = |stored: &StoredOutput| stored.lane == id.lane && stored.output > id.output;
        let ahead = |other: RecordMetadata| {
            (other.topic, other.partition) == (location.topic, location.partition)
                && other.offset < location.offset
        };
        self.stored.iter().any(|stored| later(stored) && ahead(stored.location))
    }

    /// Lists the stored outputs of a row as `topic/partition/offset`, separated by commas.
    pub(super) fn published(&self, row: u32, topics: &[String]) -> String {
        let mut text = String::new();
        for StoredOutput { location, .. } in self.stored.iter().filter(|stored| stored.row == row) {
            let separator = if text.is_empty() { "" } else { "," };
            let topic = topics.get(location.topic.index()).map_or("?", String::as_str);
            write!(text, "{separator}{topic}/{}/{}", location.partition, location.offset)
                .expect("writing to a string can't fail");
        }
        text
    }
}

/// Returns the bit of a topic; 0: it has none.
fn bit(topic: SinkTopic) -> u64 {
    u32::try_from(topic.index()).ok().and_then(|index| 1_u64.checked_shl(index)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPIC: SinkTopic = SinkTopic(0);
    const STORED: RecordMetadata = RecordMetadata { topic: SinkTopic(0), partition: 3, offset: 7 };

    fn call(slot: u32, reuse_count: u32) -> CallId {
        CallId { slot, reuse_count }
    }

    fn id(call: CallId, row: u32) -> RecordId {
        RecordId { handler: 0, call, row, lane: row / 10, output: row, dead_letter: false }
    }

    fn acked(calls: &mut PendingCalls, id: RecordId) -> Option<RowDelivery> {
        calls.get_mut(id.call)?.acked(&id, STORED)
    }

    #[test]
    fn a_row_is_acked_when_its_last_output_is() {
        let call = call(2, 7);
        let mut calls = PendingCalls::default();
        let pending_call = calls.entry(call);
        [3, 3, 0].into_iter().for_each(|row| pending_call.sent(row, TOPIC));
        assert_eq!(acked(&mut calls, id(call, 3)), None);
        assert_eq!(acked(&mut calls, id(call, 0)), Some(RowDelivery::Acked));
        assert_eq!(acked(&mut calls, id(call, 3)), Some(RowDelivery::Acked));
        assert_eq!(acked(&mut calls, id(call, 3)), None, "nothing is left of it");
        let topics = ["out".to_owned()];
        assert_eq!(
            calls.get(call).map(|pending_call| pending_call.published(0, &topics)),
            Some("out/3/7".to_owned())
        );
    }

    #[test]
    fn the_topics_of_unanswered_records_are_known() {
        let call = call(0, 1);
        let mut calls = PendingCalls::default();
        let pending_call = calls.entry(call);
        let (first, second, beyond) = (SinkTopic(0), SinkTopic(63), SinkTopic(64));
        pending_call.sent(2, first);
        pending_call.sent(2, beyond);
        let awaited = |call: &PendingCall, row| [first, second, beyond].map(|topic| call.awaits(row, topic));
        assert_eq!(awaited(pending_call, 2), [true, false, false]);
        assert_eq!(awaited(pending_call, 1), [false; 3]);
        assert_eq!(pending_call.rejected(2), None);
        assert_eq!(pending_call.acked(&id(call, 2), STORED), Some(RowDelivery::Rejected));
        assert_eq!(awaited(pending_call, 2), [false; 3], "all are answered");
        pending_call.sent(2, second);
        assert_eq!(awaited(pending_call, 2), [false, true, false]);
    }

    #[test]
    fn records_of_an_older_call_do_not_count() {
        let (old, new) = (call(0, 1), call(0, 2));
        let mut calls = PendingCalls::default();
        calls.entry(old).sent(0, TOPIC);
        calls.entry(old).add_error(0, "no price".to_owned());
        calls.entry(old).add_error(0, "still none".to_owned());
        assert_eq!((calls.error_of(old, 0), calls.error_of(old, 1)), ("still none", ""));
        calls.entry(new).sent(0, TOPIC);
        assert_eq!(acked(&mut calls, id(old, 0)), None);
        assert_eq!((calls.error_of(old, 0), calls.error_of(new, 0)), ("", ""));
        assert_eq!(acked(&mut calls, id(new, 0)), Some(RowDelivery::Acked));
    }

    #[test]
    fn a_row_is_rejected_when_its_other_outputs_are_answered() {
        let call = call(0, 1);
        let mut calls = PendingCalls::default();
        let pending_call = calls.entry(call);
        [5, 5, 6].into_iter().for_each(|row| pending_call.sent(row, TOPIC));
        assert_eq!(pending_call.rejected(5), None);
        assert_eq!(pending_call.acked(&id(call, 6), STORED), Some(RowDelivery::Acked));
        assert_eq!(pending_call.acked(&id(call, 5), STORED), Some(RowDelivery::Rejected));
    }

    #[test]
    fn disowned_rows_are_those_of_ended_ownerships_and_of_calls_that_are_over() {
        let (old, new) = (call(7, 1), call(7, 2));
        let mut calls = PendingCalls::default();
        calls.entry(old);
        assert!(!calls.discard_disowned(), "nothing was disowned");
        calls.disown(old, 4..6);
        calls.disown(old, 0..2);
        let disowned =
            |calls: &PendingCalls, call| (0..7).filter(|&row| calls.is_disowned(call, row)).collect();
        let rows: Vec<u32> = disowned(&calls, old);
        assert_eq!(rows, [0, 1, 4, 5]);
        assert!(calls.discard_disowned() && !calls.discard_disowned());
        calls.disown(old, 2..3);
        calls.entry(new);
        assert!(calls.discard_disowned(), "even if its slot has another user");
        let (of_old, of_new): (Vec<u32>, Vec<u32>) = (disowned(&calls, old), disowned(&calls, new));
        assert_eq!((of_old.len(), of_new.len()), (7, 0));
    }

    /// Rows 0 to 9 are one lane, 10 to 19 the next.
    #[test]
    fn an_output_is_overtaken_by_a_later_one_of_its_lane_that_is_stored_before_it() {
        let call = call(0, 1);
        let at = |partition, offset| RecordMetadata { topic: SinkTopic(0), partition, offset };
        let mut calls = PendingCalls::default();
        let pending_call = calls.entry(call);
        (0..20).for_each(|row| pending_call.sent(row, TOPIC));
        for (row, partition, offset) in [(1, 0, 50), (5, 0, 60), (7, 1, 10), (12, 0, 20)] {
            pending_call.acked(&id(call, row), at(partition, offset));
        }
        for (row, partition, offset, overtaken, why) in [
            (4, 0, 61, true, "5 is before it"),
            (4, 0, 59, false, "5 is behind it, although its acknowledgement came first"),
            (6, 0, 61, false, "nothing later is before it"),
            (6, 1, 11, true, "7 is before it"),
            (6, 2, 99, false, "nothing is on this partition"),
            (11, 0, 19, false, "other lanes do not count"),
            (11, 0, 61, true, "12 is before it"),
        ] {
            assert_eq!(
                pending_call.was_overtaken(&id(call, row), at(partition, offset)),
                overtaken,
                "{row}: {why}"
            );
        }
    }
}
