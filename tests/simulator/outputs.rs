//! Outputs and dead letters: from the hand-over to the ack.

use keylane_core::{CallId, DeadLetter, Input, OnExhausted, Reason};

use super::plan::{Class, MS, SECOND};
use super::planted::Planted;
use super::process::{Call, CallRow, key_of};
use super::trace::Seen;
use super::world::{Event, World};

impl World {
    pub(crate) fn hand_over(&mut self, p: usize, id: CallId, rows: &[u32]) {
        let ascending = rows.is_sorted_by(|a, b| a < b);
        if !ascending || rows.is_empty() {
            self.broken("I-protocol", format!("process {p} hands over {rows:?}"), None, -1);
        }
        for &at in rows {
            let process = &mut self.processes[p];
            let known = process.calls.get_mut(&key_of(id)).and_then(|call| call.rows.get_mut(at as usize));
            let Some(known) = known else {
                self.broken("I-protocol", format!("process {p} hands over an unknown row"), None, -1);
                return;
            };
            let row = *known;
            known.handed_over = true;
            known.unanswered = true;
            let sound = row.done && row.has_outputs && !row.handed_over;
            let open = process.is_open(&row);
            *process.unacked.entry((row.partition, row.lane, row.ownership)).or_default() += 1;
            self.note(p, "hand over", Some(row.partition), row.offset, row.ownership as i64);
            self.require(sound, "I-protocol", row.partition, row.offset, || {
                format!("process {p} hands over outputs that are not there, or again: {row:?}")
            });
            self.require(open, "I6 quiet after hand-over", row.partition, row.offset, || {
                format!("process {p} hands over outputs of ownership {}, which has ended", row.ownership)
            });
            self.send_output(p, id, at, &row);
        }
    }

    fn send_output(&mut self, p: usize, id: CallId, at: u32, row: &CallRow) {
        if self.strikes(Class::Refused, 2) {
            self.pass_output(row);
            let delay = self.rng.range(MS, 10 * MS);
            self.after(delay, Event::Refuse(p, id, at));
            return;
        }
        let mut delay = self.rng.range(MS / 2, 10 * MS);
        if self.strikes(Class::SlowAcks, 10) {
            delay += self.rng.range(SECOND / 2, 4 * SECOND);
        }
        if self.planted == Some(Planted::SettleBeforeAck) {
            self.after(1, Event::Ack(p, id, at));
        }
        let mut landing = self.now + delay;
        if let Some(key) =
            self.record_of(row.partition, row.incarnation, row.offset).and_then(|record| record.key)
        {
            // The producer keeps the order of a key.
            let last = self.processes[p].outputs.last_landing.entry((row.partition, key)).or_insert(0);
            landing = landing.max(*last + 1);
            *last = landing;
        }
        self.after(landing - self.now, Event::Land(p, id, at));
    }

    /// The ownership of these rows is over. Some of what they have out has left the process by now, some has not.
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

    /// Nothing of an ownership that is over may be sent later: another process has its events.
    pub(crate) fn check_dropped(&mut self, p: usize, ownership: u64) {
        let rows = self.processes[p].calls.values().flat_map(|call| &call.rows);
        let kept = rows.filter(|row| row.ownership == ownership && row.unanswered && row.dropped.is_none());
        if let Some(row) = kept.min_by_key(|row| row.offset).copied() {
            let text = format!("process {p} keeps outputs of ownership {ownership}, which is over");
            self.broken("I6 dropped", text, Some(row.partition), row.offset);
        }
    }

    /// Whether it never left the process, because its ownership was over.
    fn vanishes(&mut self, p: usize, row: &CallRow) -> bool {
        let vanishes = row.dropped.is_some_and(|left_until| self.now > left_until);
        if vanishes {
            self.saw(Seen::OutputsDropped);
            self.note(p, "dropped", Some(row.partition), row.offset, row.ownership as i64);
        }
        vanishes
    }

    pub(crate) fn land(&mut self, p: usize, id: CallId, at: u32) {
        let row = self.processes[p].calls[&key_of(id)].rows[at as usize];
        if self.vanishes(p, &row) {
            return;
        }
        let Some(record) = self.record_of(row.partition, row.incarnation, row.offset).cloned() else {
            return;
        };
        if !self.processes[p].alive {
            let name = (row.partition, record.key.unwrap_or(u64::MAX - row.offset as u64));
            if self.processes[p].outputs.cut.contains(&name) || self.rng.percent(40) {
                self.processes[p].outputs.cut.insert(name);
                self.note(p, "vanished", Some(row.partition), row.offset, 0);
                return;
            }
            self.saw(Seen::OutputsLandedAfterDeath);
        }
        self.saw(Seen::OutputsLanded);
        self.note(p, "landed", Some(row.partition), row.offset, row.ownership as i64);
        self.came_to_its_end(&row);
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
            return; // a reader that did not know yet began in the middle of another log
        }
        let follows = self.logs[row.partition].land(key, seq);
        self.require(follows, "I2 no gap", row.partition, row.offset, || {
            format!("output {seq} of key {key} landed before the one before it")
        });
        let landed = &mut self.processes[p].outputs.landed;
        let before = landed.insert((row.ownership, row.partition, key), seq);
        self.require(
            before.is_none_or(|before| before < seq),
            "I3 forward",
            row.partition,
            row.offset,
            || format!("output {seq} of key {key} landed after {before:?} in ownership {}", row.ownership),
        );
    }

    pub(crate) fn ack(&mut self, p: usize, call: CallId, row: u32) {
        self.acknowledged(p, call, row, "ack");
        self.feed(p, Input::OutputsAcked { call, row });
    }

    pub(crate) fn refuse(&mut self, p: usize, call: CallId, row: u32) {
        self.saw(Seen::OutputsRefused);
        let of_call = self.processes[p].calls[&key_of(call)].rows[row as usize];
        self.failed_for_good(p, call, &of_call, Reason::OutputRefused);
        self.acknowledged(p, call, row, "refused");
        self.feed(p, Input::OutputRefused { call, row });
    }

    pub(crate) fn dead_letter(&mut self, p: usize, letter: &DeadLetter) {
        let index = self.index(letter.event.partition);
        let offset = letter.event.offset;
        self.saw(Seen::DeadLetters);
        self.note(p, "dead letter", Some(index), offset, letter.event.ownership.0 as i64);
        if letter.reason == Reason::NoKey {
            // The guest never saw it: there was no call. It began when a call might have.
            let row = self.row_of(p, index, &letter.event);
            let process = &self.processes[p];
            let quiet = process.draining || process.stopping || process.backlog;
            self.require(!quiet, "I6 quiet", index, offset, || {
                format!("process {p} sends {letter:?} all the same")
            });
            self.saw(Seen::LettersWithoutCall);
            let call = Call {
                rows: vec![row],
                lanes: vec![1],
                fresh: false,
                cancelled: None,
                ended: true,
                told: true,
                suspended: false,
            };
            self.processes[p].calls.insert(key_of(letter.call), call);
        }
        let call = self.processes[p].calls.get(&key_of(letter.call));
        let row = call.and_then(|call| call.rows.get(letter.row as usize)).copied();
        let Some(row) = row.filter(|row| (row.partition, row.offset) == (index, offset)) else {
            self.broken(
                "I-protocol",
                format!("process {p} sends {letter:?}, another's"),
                Some(index),
                offset,
            );
            return;
        };
        let kept = self.processes[p].kept_at(letter.event.arena_slot);
        let kept = kept.map(|kept| (kept.partition, kept.offset));
        self.require(kept == Some((index, offset)), "I-places", index, offset, || {
            format!("process {p} sends {letter:?}, where {kept:?} is kept")
        });
        let open = self.processes[p].is_open(&row);
        self.require(open, "I6 quiet after hand-over", index, offset, || {
            format!("process {p} sends a dead letter of ownership {}, which has ended", row.ownership)
        });
        self.check_letter(p, letter, &row);
        *self.processes[p].unacked.entry((row.partition, row.lane, row.ownership)).or_default() += 1;
        let call = self.processes[p].calls.get_mut(&key_of(letter.call));
        if let Some(row) = call.and_then(|call| call.rows.get_mut(letter.row as usize)) {
            row.unanswered = true;
        }
        let mut delay = self.rng.range(MS / 2, 10 * MS);
        if self.strikes(Class::LettersBlocked, 30) {
            delay += self.rng.range(SECOND / 2, 5 * SECOND);
        }
        let (call, at) = (letter.call, letter.row);
        if self.planted == Some(Planted::LetterUnacked) {
            self.after(1, Event::LetterAck(p, call, at));
        }
        self.after(delay, Event::LetterLands(p, call, at));
    }

    pub(crate) fn letter_lands(&mut self, p: usize, call: CallId, at: u32) {
        let row = self.processes[p].calls[&key_of(call)].rows[at as usize];
        if self.vanishes(p, &row) {
            return;
        }
        if !self.processes[p].alive && self.rng.percent(40) {
            self.note(p, "vanished", Some(row.partition), row.offset, 0);
            return;
        }
        self.note(p, "letter landed", Some(row.partition), row.offset, row.ownership as i64);
        self.came_to_its_end(&row);
        let record = self.record_of(row.partition, row.incarnation, row.offset).cloned();
        if let Some(record) = record.filter(|record| record.has_outputs && !row.handed_over)
            && let Some(key) = record.key
        {
            // It stands for the outputs of its event: a lane waits for it as for them.
            self.check_order(p, &row, key, record.seq);
        }
        if self.planted != Some(Planted::LetterUnacked) {
            let delay = self.rng.range(100, 5 * MS);
            self.after(delay, Event::LetterAck(p, call, at));
        }
    }

    pub(crate) fn letter_acked(&mut self, p: usize, call: CallId, row: u32) {
        self.acknowledged(p, call, row, "letter acked");
        self.feed(p, Input::DeadLetterAcked { call, row });
    }

    /// Whether events that can't be handled go to the dead letters in this process.
    pub(crate) fn buries(&self, p: usize) -> bool {
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
