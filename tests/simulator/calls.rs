//! Guest calls and their outputs: from dispatch to ack.

use std::collections::BTreeSet;
use std::time::Duration;

use keylane_core::{CallId, Dispatch, Fault, Input, LaneEnd, Row, Verdict};

use super::log::Lane;
use super::plan::{Class, MS, Micros, SECOND};
use super::planted::Planted;
use super::process::{Call, CallRow, key_of};
use super::trace::Seen;
use super::world::{Event, World};

impl World {
    pub(crate) fn dispatch(&mut self, p: usize, dispatch: &Dispatch<'_>) {
        let rows: Vec<_> = dispatch.rows.iter().map(|row| self.take_row(p, row)).collect();
        let lengths = dispatch.lanes.to_vec();
        self.check_call(p, dispatch, &rows);
        self.check_lanes(p, dispatch.call, &rows, &lengths);
        let call =
            Call { rows, lanes: lengths, cancelled: None, ended: false, told: false, suspended: false };
        self.processes[p].calls.insert(key_of(dispatch.call), call);
        self.check_concurrency(p);
        let lasts = self.duration();
        if self.strikes(Class::Suspends, 10) {
            self.after(lasts / 3, Event::CallSuspended(p, dispatch.call));
        }
        self.after(lasts, Event::CallEnd(p, dispatch.call));
        if self.processes[p].stale.contains_key(&dispatch.call.slot) {
            self.feed_stale_result_soon(p, dispatch.call);
        }
    }

    fn duration(&mut self) -> Micros {
        if self.strikes(Class::SlowCalls, 10) {
            return self.rng.range(SECOND / 2, 5 * SECOND);
        }
        let longest = self.rng.pick(&[MS, 5 * MS, 50 * MS]);
        self.rng.range(100, longest)
    }

    fn take_row(&mut self, p: usize, row: &Row) -> CallRow {
        let index = self.index(row.partition);
        self.saw(Seen::Events);
        self.note(p, "dispatch", Some(index), row.offset, row.session.0 as i64);
        let kept = self.processes[p].release(row.place);
        self.require(kept == Some((index, row.offset)), "I-places", index, row.offset, || {
            format!("process {p} dispatches {} from {:?}, where {kept:?} is kept", row.offset, row.place)
        });
        let started = self.stored[index].is_some();
        self.require(started, "I-start", index, row.offset, || {
            format!("process {p} dispatches {} before the start was committed", row.offset)
        });
        let inside = self.processes[p].ends[index].is_none_or(|end| row.offset < end);
        self.require(inside, "I-end", index, row.offset, || format!("process {p} goes past its end"));
        let sound = row.timestamp == row.offset * 7 - 1;
        self.require(sound, "I-places", index, row.offset, || {
            format!("the timestamp of {row:?} is another's")
        });
        let record = self.logs[index].record(row.offset);
        CallRow {
            partition: index,
            epoch: self.processes[p].parts[index].epoch,
            session: row.session.0,
            offset: row.offset,
            lane: record.map_or(Lane::Alone(row.offset), |record| record.lane),
            has_outputs: record.is_some_and(|record| record.has_outputs),
            done: false,
            handed_over: false,
        }
    }

    fn check_call(&mut self, p: usize, dispatch: &Dispatch<'_>, rows: &[CallRow]) {
        let process = &self.processes[p];
        let quiet = process.draining || process.stopping;
        let most = self.plan.config.max_batch as usize;
        let sum: u32 = dispatch.lanes.iter().sum();
        let shape = !rows.is_empty() && rows.len() <= most && sum as usize == rows.len();
        let one_topic = dispatch.rows.iter().all(|row| row.partition.topic == dispatch.topic);
        let fresh = !process.calls.contains_key(&key_of(dispatch.call));
        let (first, offset) = rows.first().map_or((0, -1), |row| (row.partition, row.offset));
        self.require(!quiet, "I6 quiet", first, offset, || format!("process {p} drains and dispatches"));
        self.require(shape && one_topic && fresh, "I-protocol", first, offset, || {
            format!("process {p} dispatches {dispatch:?}; a call carries at most {most} events")
        });
        for row in rows {
            let process = &self.processes[p];
            let part = &process.parts[row.partition];
            let open = process.is_open(row) && part.reader.is_some() && !process.revoking(row.partition);
            let named = part.session == Some(row.session);
            self.require(open && named, "I6 quiet after hand-over", row.partition, row.offset, || {
                format!("process {p} dispatches an event of session {}, which is not open", row.session)
            });
        }
    }

    /// Rows are grouped by lane in offset order, and no lane has another call or unacked outputs.
    fn check_lanes(&mut self, p: usize, call: CallId, rows: &[CallRow], lengths: &[u32]) {
        let mut rest = rows;
        for &length in lengths {
            let (group, after) = rest.split_at(rest.len().min(length as usize));
            rest = after;
            let Some(&first) = group.first() else {
                self.broken("I-protocol", format!("process {p} dispatches a lane without rows"), None, -1);
                return;
            };
            let (index, lane) = (first.partition, first.lane);
            let ordered = group.is_sorted_by(|a, b| {
                (a.partition, a.lane, a.session) == (b.partition, b.lane, b.session) && a.offset < b.offset
            });
            self.require(ordered, "I-protocol", index, first.offset, || {
                format!("a lane's rows are of several lanes or not in order: {group:?}")
            });
            let other = self.processes[p].lanes_out.insert((index, lane), key_of(call));
            self.require(other.is_none(), "I5 one call per lane", index, first.offset, || {
                format!("process {p} dispatches {lane:?} again; call {other:?} has not really ended")
            });
            let unacked = self.processes[p].unacked.get(&(index, lane, first.session)).copied().unwrap_or(0);
            self.require(unacked == 0, "I5 acks before the next call", index, first.offset, || {
                format!("process {p} dispatches {lane:?}, which waits for {unacked} acks")
            });
        }
    }

    fn check_concurrency(&mut self, p: usize) {
        let (busy, out) = (self.processes[p].busy(), self.processes[p].out());
        let (workers, most) = (self.plan.workers as usize, self.plan.config.max_concurrency as usize);
        if busy > workers || out > most {
            let text = format!("process {p}: {busy} calls for {workers} workers, {out} out of {most}");
            self.broken("I-limits", text, None, -1);
        }
    }

    pub(crate) fn call_suspended(&mut self, p: usize, id: CallId) {
        let Some(call) = self.processes[p].calls.get_mut(&key_of(id)) else { return };
        if call.ended || call.told {
            return;
        }
        call.suspended = true;
        self.saw(Seen::CallsSuspended);
        self.feed(p, Input::CallSuspended { call: id });
    }

    pub(crate) fn cancel(&mut self, p: usize, id: CallId) {
        self.saw(Seen::Cancels);
        let now = self.now;
        let known = self.processes[p]
            .calls
            .get_mut(&key_of(id))
            .filter(|call| !call.told && call.cancelled.is_none());
        let Some(call) = known else {
            self.broken("I-protocol", format!("process {p} cancels {id:?}, which is not out"), None, -1);
            return;
        };
        call.cancelled = Some(now);
        let first = call.rows.first().copied();
        self.note(p, "cancel", first.map(|row| row.partition), first.map_or(-1, |row| row.offset), 0);
        // A host call may hold it longer.
        let longest = if self.strikes(Class::SlowCalls, 20) { 4 * SECOND } else { 150 * MS };
        let gone = self.rng.range(MS, longest);
        if self.rng.percent(30) {
            // It ends by itself just before.
            let just_before = self.rng.range(1, MS);
            self.after(gone - just_before, Event::CallEnd(p, id));
        }
        if self.planted == Some(Planted::ForgetOldCall) {
            self.after(1, Event::CallSaidGone(p, id));
        }
        self.after(gone, Event::CallGone(p, id));
    }

    pub(crate) fn call_gone(&mut self, p: usize, id: CallId) {
        let Some(call) = self.end_call(p, id) else { return };
        if self.planted == Some(Planted::StaleResult) {
            self.processes[p].stale.insert(id.slot, call);
        }
        if self.planted != Some(Planted::ForgetOldCall) {
            self.feed(p, Input::CallReallyEnded { call: id });
        }
    }

    /// A planted bug: the core is told that a call is gone while its guest still runs.
    pub(crate) fn say_gone(&mut self, p: usize, id: CallId) {
        let call = self.processes[p].calls.get_mut(&key_of(id)).filter(|call| !call.told);
        if let Some(call) = call {
            call.told = true;
            self.feed(p, Input::CallReallyEnded { call: id });
        }
    }

    /// The guest is gone: its lanes are free in this process.
    fn end_call(&mut self, p: usize, id: CallId) -> Option<(u32, u32)> {
        let key = key_of(id);
        let process = &mut self.processes[p];
        let call = process.calls.get_mut(&key).filter(|call| !call.ended)?;
        call.ended = true;
        call.told = true;
        process.lanes_out.retain(|_, out| *out != key);
        Some(key)
    }

    pub(crate) fn call_ends(&mut self, p: usize, id: CallId) {
        let Some(key) = self.end_call(p, id) else { return };
        let call = &self.processes[p].calls[&key];
        let (rows, lengths, cancelled) = (call.rows.clone(), call.lanes.clone(), call.cancelled.is_some());
        if cancelled {
            self.saw(Seen::CancelsThatEndedFirst);
            if self.planted == Some(Planted::ForgetOldCall) {
                return;
            }
        }
        let fault = self.rng.pick(&[Fault::Trap, Fault::Timeout, Fault::Limit, Fault::Contract]);
        if self.strikes(Class::Poison, 1) {
            self.note(p, "call failed", rows.first().map(|row| row.partition), rows[0].offset, 0);
            self.feed(p, Input::CallFailed { call: id, fault });
            return;
        }
        let lanes = self.verdicts(&lengths);
        let with_outputs = self.finish_rows(p, id, &lanes, &lengths);
        let took = Duration::from_micros(self.plan.row_cost * rows.len() as u64);
        self.feed(p, Input::CallEnded { call: id, lanes: &lanes, with_outputs: &with_outputs, took });
    }

    fn verdicts(&mut self, lengths: &[u32]) -> Vec<LaneEnd> {
        let mut lanes = Vec::with_capacity(lengths.len());
        for &length in lengths {
            let failed = self.strikes(Class::Poison, 1);
            let verdict = self.rng.pick(&[Verdict::Retry, Verdict::Reject]);
            lanes.push(if failed {
                LaneEnd { done: self.rng.below(u64::from(length)) as u32, failure: Some(verdict) }
            } else {
                LaneEnd { done: length, failure: None }
            });
        }
        lanes
    }

    /// Marks what is done; what has no outputs came to its ending, if its session is open. Gives back the rows
    /// with outputs.
    fn finish_rows(&mut self, p: usize, id: CallId, lanes: &[LaneEnd], lengths: &[u32]) -> Vec<u32> {
        let mut with_outputs = Vec::new();
        let mut first = 0;
        for (lane, length) in lanes.iter().zip(lengths) {
            for at in first..first + lane.done {
                let process = &mut self.processes[p];
                let Some(call) = process.calls.get_mut(&key_of(id)) else { continue };
                call.rows[at as usize].done = true;
                let row = call.rows[at as usize];
                let highest = process.highest_done.entry(row.partition).or_insert(-1);
                *highest = (*highest).max(row.offset);
                let open = process.is_open(&row) && !call_is_cut(process, id);
                if row.has_outputs {
                    with_outputs.push(at);
                } else if open {
                    self.note(p, "done", Some(row.partition), row.offset, row.session as i64);
                    self.came_to_its_end(row.partition, row.offset);
                }
                if !open {
                    self.saw(Seen::DroppedResults);
                }
            }
            first += length;
        }
        with_outputs
    }

    pub(crate) fn hand_over(&mut self, p: usize, id: CallId, rows: &[u32]) {
        let ascending = rows.is_sorted_by(|a, b| a < b);
        if !ascending || rows.is_empty() {
            self.broken("I-protocol", format!("process {p} hands over {rows:?}"), None, -1);
        }
        let mut refused = BTreeSet::new();
        for &at in rows {
            let process = &mut self.processes[p];
            let known = process.calls.get_mut(&key_of(id)).and_then(|call| call.rows.get_mut(at as usize));
            let Some(known) = known else {
                self.broken("I-protocol", format!("process {p} hands over an unknown row"), None, -1);
                return;
            };
            let row = *known;
            known.handed_over = true;
            let sound = row.done && row.has_outputs && !row.handed_over;
            let open = process.is_open(&row);
            *process.unacked.entry((row.partition, row.lane, row.session)).or_default() += 1;
            self.note(p, "hand over", Some(row.partition), row.offset, row.session as i64);
            self.require(sound, "I-protocol", row.partition, row.offset, || {
                format!("process {p} hands over outputs that are not there, or again: {row:?}")
            });
            self.require(open, "I6 quiet after hand-over", row.partition, row.offset, || {
                format!("process {p} hands over outputs of session {}, which has ended", row.session)
            });
            self.send_output(p, id, at, &row, &mut refused);
        }
    }

    fn send_output(&mut self, p: usize, id: CallId, at: u32, row: &CallRow, refused: &mut BTreeSet<Lane>) {
        if refused.contains(&row.lane) || self.strikes(Class::Refused, 1) {
            // Those behind it in its lane are not sent either.
            refused.insert(row.lane);
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
        if let Some(key) = self.logs[row.partition].record(row.offset).and_then(|record| record.key) {
            // The producer keeps the order of a key.
            let last = self.processes[p].outputs.last_landing.entry((row.partition, key)).or_insert(0);
            landing = landing.max(*last + 1);
            *last = landing;
        }
        self.after(landing - self.now, Event::Land(p, id, at));
    }

    pub(crate) fn land(&mut self, p: usize, id: CallId, at: u32) {
        let row = self.processes[p].calls[&key_of(id)].rows[at as usize];
        let Some(record) = self.logs[row.partition].record(row.offset).cloned() else { return };
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
        self.note(p, "landed", Some(row.partition), row.offset, row.session as i64);
        self.came_to_its_end(row.partition, row.offset);
        if let Some(key) = record.key {
            self.check_order(p, &row, key, record.seq);
        }
        if self.planted != Some(Planted::SettleBeforeAck) {
            let delay = self.rng.range(100, 5 * MS);
            self.after(delay, Event::Ack(p, id, at));
        }
    }

    fn check_order(&mut self, p: usize, row: &CallRow, key: u64, seq: u32) {
        let follows = self.logs[row.partition].land(key, seq);
        self.require(follows, "I2 no gap", row.partition, row.offset, || {
            format!("output {seq} of key {key} landed before the one before it")
        });
        let landed = &mut self.processes[p].outputs.landed;
        let before = landed.insert((row.session, row.partition, key), seq);
        self.require(
            before.is_none_or(|before| before < seq),
            "I3 forward",
            row.partition,
            row.offset,
            || format!("output {seq} of key {key} landed after {before:?} in session {}", row.session),
        );
    }

    pub(crate) fn ack(&mut self, p: usize, call: CallId, row: u32) {
        self.acknowledged(p, call, row, "ack");
        self.feed(p, Input::OutputsAcked { call, row });
    }

    pub(crate) fn refuse(&mut self, p: usize, call: CallId, row: u32) {
        self.saw(Seen::OutputsRefused);
        self.acknowledged(p, call, row, "refused");
        self.feed(p, Input::OutputRefused { call, row });
    }

    fn acknowledged(&mut self, p: usize, id: CallId, at: u32, what: &'static str) {
        let process = &mut self.processes[p];
        let row = process.calls[&key_of(id)].rows[at as usize];
        if let Some(count) = process.unacked.get_mut(&(row.partition, row.lane, row.session)) {
            *count -= 1;
        }
        self.note(p, what, Some(row.partition), row.offset, row.session as i64);
    }

    fn feed_stale_result_soon(&mut self, p: usize, id: CallId) {
        self.after(1, Event::StaleResult(p, id));
    }

    /// A planted bug: what the cancelled call of this place returned is taken for the result of its new user.
    pub(crate) fn stale_result(&mut self, p: usize, id: CallId) {
        let Some(old) = self.processes[p].stale.remove(&id.slot) else { return };
        let had_outputs = self.processes[p].calls[&old].rows.iter().any(|row| row.has_outputs);
        let Some(key) = self.end_call(p, id) else { return };
        let lengths = self.processes[p].calls[&key].lanes.clone();
        let lanes: Vec<_> = lengths.iter().map(|&done| LaneEnd { done, failure: None }).collect();
        self.note(p, "stale result", None, -1, i64::from(had_outputs));
        self.feed(p, Input::CallEnded { call: id, lanes: &lanes, with_outputs: &[], took: Duration::ZERO });
    }
}

/// Whether the core has cut the call off: nothing of it counts any more.
fn call_is_cut(process: &super::process::Process, id: CallId) -> bool {
    process.calls.get(&key_of(id)).is_none_or(|call| call.cancelled.is_some())
}
