//! Outputs and dead letters: from the produce request to the ack.

use keylane_core::{CallId, FailedEvent, Input, OnExhausted, Reason};

use super::gates::is_of_gate;
use super::log::Lane;
use super::plan::{Class, MS, SECOND};
use super::planted::Planted;
use super::process::{Call, CallRow, key_of};
use super::trace::Seen;
use super::world::{Event, World};

impl World {
    pub(crate) fn produce(&mut self, p: usize, id: CallId, rows: &[u32]) {
        let ascending = rows.is_sorted_by(|a, b| a < b);
        if !ascending || rows.is_empty() {
            self.report_violation("I-protocol", format!("process {p} produces rows {rows:?}"), None, -1);
        }
        for &at in rows {
            let process = &mut self.processes[p];
            let known = process.calls.get_mut(&key_of(id)).and_then(|call| call.rows.get_mut(at as usize));
            let Some(known) = known else {
                self.report_violation("I-protocol", format!("process {p} produces an unknown row"), None, -1);
                return;
            };
            let row = *known;
            known.produced = true;
            known.unanswered = true;
            let valid = row.done && row.has_outputs && !row.produced;
            let open = process.is_open(&row);
            *process.unacked.entry((row.partition, row.lane, row.ownership)).or_default() += 1;
            self.note(p, "produce", Some(row.partition), row.offset, row.ownership as i64);
            self.require(valid, "I-protocol", row.partition, row.offset, || {
                format!("process {p} produces outputs that do not exist, or twice: {row:?}")
            });
            self.require(open, "I6 quiet after ownership", row.partition, row.offset, || {
                format!("process {p} produces outputs of ownership {}, which has ended", row.ownership)
            });
            self.send_output(p, id, at, &row);
        }
    }

    fn send_output(&mut self, p: usize, id: CallId, at: u32, row: &CallRow) {
        if self.occurs(Class::OutputsRejected, 2) {
            self.skip_output(row);
            let delay = self.rng.range(MS, 10 * MS);
            self.after(delay, Event::Reject(p, id, at));
            return;
        }
        let mut delay = self.rng.range(MS / 2, 10 * MS);
        if self.occurs(Class::SlowAcks, 10) {
            delay += self.rng.range(SECOND / 2, 4 * SECOND);
        }
        if self.planted == Some(Planted::SettleBeforeAck) {
            self.after(1, Event::Ack(p, id, at));
        }
        let mut stored_at = self.now + delay;
        if let Some(key) =
            self.record_of(row.partition, row.incarnation, row.offset).and_then(|record| record.key)
        {
            // The producer keeps the order of a key.
            let last = self.processes[p].outputs.last_stored_at.entry((row.partition, key)).or_insert(0);
            stored_at = stored_at.max(*last + 1);
            *last = stored_at;
        }
        self.after(stored_at - self.now, Event::OutputStored(p, id, at));
    }

    /// The results of these rows no longer count: their ownership has ended, or the handler is stopping. Some of their
    /// outputs have already left the process, others have not.
    pub(crate) fn drop_outputs(&mut self, p: usize, id: CallId, first: u32, end: u32) {
        if self.planted == Some(Planted::KeepOutputs) {
            return;
        }
        let left_until = self.now + self.rng.below(20 * MS);
        let rows = self.processes[p].calls.get_mut(&key_of(id)).map(|call| &mut call.rows);
        let rows = rows.and_then(|rows| rows.get_mut(first as usize..end as usize)).unwrap_or_default();
        for row in rows.iter_mut().filter(|row| row.unanswered) {
            row.dropped = Some(left_until);
        }
    }

    /// No output of an ended ownership may be sent later, because another process owns the events.
    pub(crate) fn check_dropped(&mut self, p: usize, ownership: u64) {
        let rows = self.processes[p].calls.values().flat_map(|call| &call.rows);
        let kept = rows.filter(|row| row.ownership == ownership && row.unanswered && row.dropped.is_none());
        if let Some(row) = kept.min_by_key(|row| row.offset).copied() {
            let text = format!("process {p} keeps outputs of ownership {ownership}, which has ended");
            self.report_violation("I6 outputs dropped", text, Some(row.partition), row.offset);
        }
    }

    /// Whether the output never left the process, because the results of its row no longer counted.
    fn is_discarded(&mut self, p: usize, row: &CallRow) -> bool {
        let is_discarded = row.dropped.is_some_and(|left_until| self.now > left_until);
        if is_discarded {
            self.saw(Seen::OutputsDropped);
            self.note(p, "dropped", Some(row.partition), row.offset, row.ownership as i64);
        }
        is_discarded
    }

    pub(crate) fn store_output(&mut self, p: usize, id: CallId, at: u32) {
        let row = self.processes[p].calls[&key_of(id)].rows[at as usize];
        if self.is_discarded(p, &row) {
            return;
        }
        let Some(record) = self.record_of(row.partition, row.incarnation, row.offset).cloned() else {
            return;
        };
        if !self.processes[p].alive {
            let name = (row.partition, record.key.unwrap_or(u64::MAX - row.offset as u64));
            if self.processes[p].outputs.stopped_keys.contains(&name) || self.rng.percent(40) {
                self.processes[p].outputs.stopped_keys.insert(name);
                self.note(p, "discarded", Some(row.partition), row.offset, 0);
                return;
            }
            self.saw(Seen::OutputsStoredAfterKill);
        }
        self.saw(Seen::OutputsStored);
        self.note(p, "stored", Some(row.partition), row.offset, row.ownership as i64);
        self.count_outcome(&row);
        if let Some(key) = record.key {
            self.check_order(p, &row, key, record.seq);
        }
        if self.planted != Some(Planted::SettleBeforeAck) {
            let delay = self.rng.range(100, 5 * MS);
            self.after(delay, Event::Ack(p, id, at));
        }
    }

    fn check_order(&mut self, p: usize, row: &CallRow, key: u64, seq: u32) {
        if self.logs[row.partition].incarnation > 0 {
            return; // a reader that had not noticed the new topic began in the middle of its log
        }
        let follows = self.logs[row.partition].store_output(key, seq);
        self.require(follows || self.is_gated(), "I2 no gap", row.partition, row.offset, || {
            format!("output {seq} of key {key} is stored before the previous one")
        });
        if self.is_gated() {
            return; // the order of calls is checked instead
        }
        let stored = &mut self.processes[p].outputs.stored;
        let before = stored.insert((row.ownership, row.partition, key), seq);
        self.require(
            before.is_none_or(|before| before < seq),
            "I3 forward",
            row.partition,
            row.offset,
            || format!("output {seq} of key {key} is stored after {before:?} in ownership {}", row.ownership),
        );
    }

    pub(crate) fn ack(&mut self, p: usize, call: CallId, row: u32) {
        self.acknowledged(p, call, row, "ack");
        self.settle_done_rows(p, call);
        self.feed(p, Input::EffectsAcked { call, row });
    }

    pub(crate) fn reject(&mut self, p: usize, call: CallId, row: u32) {
        self.saw(Seen::OutputsRejected);
        let of_call = self.processes[p].calls[&key_of(call)].rows[row as usize];
        self.failed_permanently(p, call, &of_call, Reason::OutputRejected);
        self.acknowledged(p, call, row, "rejected");
        self.feed(p, Input::OutputRejected { call, row });
    }

    pub(crate) fn dead_letter(&mut self, p: usize, dead_letter: &FailedEvent) {
        let index = self.index(dead_letter.event.partition);
        let offset = dead_letter.event.offset;
        self.saw(Seen::DeadLetters);
        self.note(p, "dead letter", Some(index), offset, dead_letter.event.ownership.0 as i64);
        if dead_letter.reason == Reason::NoLaneKey || is_of_gate(dead_letter.reason) {
            // The guest never received the event, because there was no call. Such a dead letter may
            // be sent only when a call may begin.
            let mut row = self.row_of(p, index, &dead_letter.event);
            row.lane = Lane::Unkeyed(offset);
            let process = &self.processes[p];
            let must_be_quiet = process.draining || process.stopping || process.backlog;
            self.require(!must_be_quiet, "I6 quiet", index, offset, || {
                format!("process {p} sends {dead_letter:?} while it drains, stops or has a full backlog")
            });
            self.saw(Seen::DeadLettersWithoutCall);
            let call = Call {
                rows: vec![row],
                lanes: vec![1],
                fresh: false,
                cancelled: None,
                ended: true,
                reported: true,
                suspended: false,
            };
            self.processes[p].calls.insert(key_of(dead_letter.call), call);
        }
        let call = self.processes[p].calls.get(&key_of(dead_letter.call));
        let row = call.and_then(|call| call.rows.get(dead_letter.row as usize)).copied();
        let Some(row) = row.filter(|row| (row.partition, row.offset) == (index, offset)) else {
            self.report_violation(
                "I-protocol",
                format!("process {p} sends {dead_letter:?} with the row of another event"),
                Some(index),
                offset,
            );
            return;
        };
        let kept = self.processes[p].kept_at(dead_letter.event.arena_slot);
        let kept = kept.map(|kept| (kept.partition, kept.offset));
        self.require(kept == Some((index, offset)), "I-slots", index, offset, || {
            format!("process {p} sends {dead_letter:?} from a slot that holds {kept:?}")
        });
        let open = self.processes[p].is_open(&row);
        self.require(open, "I6 quiet after ownership", index, offset, || {
            format!("process {p} sends a dead letter of ownership {}, which has ended", row.ownership)
        });
        self.check_dead_letter(p, dead_letter, &row);
        if is_of_gate(dead_letter.reason) {
            self.reject_gated(p, index, offset, dead_letter.reason);
        }
        *self.processes[p].unacked.entry((row.partition, row.lane, row.ownership)).or_default() += 1;
        let call = self.processes[p].calls.get_mut(&key_of(dead_letter.call));
        if let Some(row) = call.and_then(|call| call.rows.get_mut(dead_letter.row as usize)) {
            row.unanswered = true;
        }
        let mut delay = self.rng.range(MS / 2, 10 * MS);
        if self.occurs(Class::DeadLettersBlocked, 30) {
            delay += self.rng.range(SECOND / 2, 5 * SECOND);
        }
        let (call, at) = (dead_letter.call, dead_letter.row);
        if self.planted == Some(Planted::DeadLetterUnacked) {
            self.after(1, Event::DeadLetterAck(p, call, at));
        }
        self.after(delay, Event::DeadLetterStored(p, call, at));
    }

    pub(crate) fn store_dead_letter(&mut self, p: usize, call: CallId, at: u32) {
        let row = self.processes[p].calls[&key_of(call)].rows[at as usize];
        if self.is_discarded(p, &row) {
            return;
        }
        if !self.processes[p].alive && self.rng.percent(40) {
            self.note(p, "discarded", Some(row.partition), row.offset, 0);
            return;
        }
        self.note(p, "dead letter stored", Some(row.partition), row.offset, row.ownership as i64);
        self.count_outcome(&row);
        let record = self.record_of(row.partition, row.incarnation, row.offset).cloned();
        if let Some(record) = record.filter(|record| record.has_outputs && !row.produced)
            && let Some(key) = record.key
        {
            // The dead letter counts as the outputs of its event. The lane waits for it in the same
            // way.
            self.check_order(p, &row, key, record.seq);
        }
        if self.planted != Some(Planted::DeadLetterUnacked) {
            let delay = self.rng.range(100, 5 * MS);
            self.after(delay, Event::DeadLetterAck(p, call, at));
        }
    }

    pub(crate) fn dead_letter_acked(&mut self, p: usize, call: CallId, row: u32) {
        self.acknowledged(p, call, row, "dead letter ack");
        self.dead_letter_acked_gated(p, call, row);
        self.feed(p, Input::EffectsAcked { call, row });
    }

    /// Whether this process publishes events that can't be handled to the dead-letter topic.
    pub(crate) fn publishes_dead_letters(&self, p: usize) -> bool {
        self.processes[p].retry.on_exhausted == OnExhausted::DeadLetter
    }

    fn acknowledged(&mut self, p: usize, id: CallId, at: u32, what: &'static str) {
        let process = &mut self.processes[p];
        let known = process.calls.get_mut(&key_of(id)).and_then(|call| call.rows.get_mut(at as usize));
        let Some(known) = known else { return };
        known.unanswered = false;
        let row = *known;
        if let Some(count) = process.unacked.get_mut(&(row.partition, row.lane, row.ownership)) {
            *count -= 1;
        }
        self.note(p, what, Some(row.partition), row.offset, row.ownership as i64);
    }
}
