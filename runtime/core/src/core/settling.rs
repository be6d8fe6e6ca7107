//! Settling: what the end of a call, and the acks of what came of it, mean for its events.
//!
//! A lane's rows settle in their order. Each is done, with or without outputs to wait for, or has an ending of
//! another kind, which begins when its turn comes ([`super::failing`] decides which). Rows behind a failed one go back
//! to their lane.

use std::ops::Range;
use std::time::Duration;

use super::Core;
use crate::calls::{CallState, RowWait};
use crate::outbox::Pending;
use crate::{CallFailure, CallId, LaneEnd, Reason};

/// Whose outputs are left: rows of a call, ascending.
type Rows<'a> = &'a [u32];

impl Core {
    pub(super) fn call_ended(
        &mut self,
        id: CallId,
        lanes: &[LaneEnd],
        with_outputs: Rows<'_>,
        took: Duration,
    ) {
        let Some(call) = self.calls.get(id) else { return };
        if call.state != CallState::Out {
            self.call_terminated(id); // it was cancelled: whatever it returned does not count
            return;
        }
        assert!(lanes.len() == call.parts.len(), "{id:?}: {} ends, {} lanes", lanes.len(), call.parts.len());
        self.sizing.saw_work(call.len(), took);
        self.give_worker_back(id);
        let mut outputs = with_outputs;
        for (at, end) in lanes.iter().enumerate() {
            outputs = self.take_done_rows(id, at, end.done, outputs);
            self.assert_sound(id, at, end.failure.is_none());
            if let Some(verdict) = end.failure {
                self.row_failed(id, at, verdict);
            }
            self.go_on(id, at);
        }
        self.finish_call(id);
    }

    /// What was done before counts; the other rows go back to their lanes, under suspicion or not.
    pub(super) fn call_failed(
        &mut self,
        id: CallId,
        failure: CallFailure,
        lanes: &[LaneEnd],
        with_outputs: Rows<'_>,
    ) {
        let Some(call) = self.calls.get(id) else { return };
        if call.state != CallState::Out {
            self.call_terminated(id);
            return;
        }
        let parts = call.parts.len();
        assert!(lanes.is_empty() || lanes.len() == parts, "{id:?}: {} ends, {parts} lanes", lanes.len());
        self.give_worker_back(id);
        let mut outputs = with_outputs;
        for at in 0..parts {
            let end = lanes.get(at).copied().unwrap_or(LaneEnd { done: 0, failure: None });
            outputs = self.take_done_rows(id, at, end.done, outputs);
            match end.failure {
                Some(verdict) => {
                    self.assert_sound(id, at, false);
                    self.row_failed(id, at, verdict);
                }
                None => self.guest_failed(id, at, failure),
            }
            self.go_on(id, at);
        }
        self.finish_call(id);
    }

    /// A cancelled call is gone: its lanes are free. Rows of ownerships that are still open come again.
    pub(super) fn call_terminated(&mut self, id: CallId) {
        let Some(call) = self.calls.get(id) else { return };
        if !call.is_out() {
            return;
        }
        assert!(call.state != CallState::Out, "{id:?} was never cancelled");
        let parts = call.parts.len();
        self.give_worker_back(id);
        for at in 0..parts {
            self.take_done_rows(id, at, 0, &[]);
            self.go_on(id, at);
        }
        self.remove_if_finished(id);
    }

    pub(super) fn outputs_acked(&mut self, id: CallId, row: u32) {
        self.advance_row(id, row, RowWait::Acks, RowWait::Not);
    }

    pub(super) fn dead_letter_acked(&mut self, id: CallId, row: u32) {
        self.advance_row(id, row, RowWait::DeadLetter, RowWait::Not);
    }

    pub(super) fn output_refused(&mut self, id: CallId, row: u32) {
        self.advance_row(id, row, RowWait::Acks, RowWait::Ending(Reason::OutputRefused));
    }

    /// What a row waited for has come. If it is its turn, its lane goes on.
    fn advance_row(&mut self, id: CallId, row: u32, before: RowWait, after: RowWait) {
        let Some(call) = self.calls.get_mut(id) else { return };
        if call.waits(row) != before {
            return; // its ownership is over, or it was said before
        }
        call.set_waits(row, after);
        let at = call.part_of(row);
        let part = *call.parts.get(at).expect("every row belongs to a lane");
        if part.over || part.settled_to != row {
            return; // an earlier event of its lane has not settled
        }
        self.go_on(id, at);
        self.remove_if_finished(id);
    }

    /// The first rows of one lane are done: those with outputs wait for acks. Gives back the rows with outputs of the
    /// lanes after it.
    fn take_done_rows<'a>(&mut self, id: CallId, at: usize, done: u32, outputs: Rows<'a>) -> Rows<'a> {
        let call = self.calls.get_mut(id).expect("the call that ended");
        let part = *call.parts.get(at).expect("a lane of the call");
        let (mine, rest) = outputs.split_at(outputs.partition_point(|&row| row < part.end));
        if part.over {
            return rest;
        }
        let done_to = part.first + done;
        assert!(done_to <= part.end, "{id:?}: {done} done of {} rows", part.end - part.first);
        for &row in mine.iter().filter(|&&row| row < done_to) {
            call.set_waits(row, RowWait::Acks);
            call.to_produce.push(row);
        }
        if let Some(part) = call.parts.get_mut(at) {
            part.done_to = done_to;
        }
        let state = self.partitions.get_mut(part.partition);
        state.running -= 1;
        state.unacked += 1;
        rest
    }

    /// A lane is done, or its first row that is not has a verdict.
    fn assert_sound(&self, id: CallId, at: usize, done: bool) {
        let part = self.calls.get(id).and_then(|call| call.parts.get(at));
        let sound = part.is_some_and(|part| part.over || (part.done_to == part.end) == done);
        assert!(sound, "{id:?}: a row is neither done nor failed, or both: {part:?}");
    }

    /// Of what these rows have with the shell, nothing must be sent any more.
    pub(super) fn drop_outputs(&mut self, id: CallId, rows: Range<u32>) {
        let Some(call) = self.calls.get(id) else { return };
        let with_shell = |row| matches!(call.waits(row), RowWait::Acks | RowWait::DeadLetter);
        if !call.is_out() && rows.clone().any(with_shell) {
            self.outbox.push(Pending::DropOutputs { call: id, first: rows.start, end: rows.end });
        }
    }

    fn finish_call(&mut self, id: CallId) {
        if self.calls.get(id).is_some_and(|call| !call.to_produce.is_empty()) {
            self.outbox.push(Pending::Produce(id));
        }
        self.remove_if_finished(id);
    }

    /// Settles the rows of a lane up to the first one that waits for something. If none does, the lane goes on with
    /// what is left, or with what is queued.
    pub(super) fn go_on(&mut self, id: CallId, at: usize) {
        loop {
            let call = self.calls.get_mut(id).expect("a call that has rows to settle");
            let part = call.parts.get(at).expect("a lane of the call");
            if part.over {
                self.release_part(id, at); // its ownership is over: the lane waited only for the end of the call
                return;
            }
            let (row, done_to) = (part.settled_to, part.done_to);
            if row == done_to {
                self.finish_part(id, at);
                return;
            }
            match call.waits(row) {
                RowWait::Not => self.settle_rows(id, at),
                RowWait::Acks | RowWait::DeadLetter => return,
                RowWait::Ending(reason) => self.apply_outcome(id, at, row, reason),
            }
        }
    }

    /// Settles the rows of a lane that wait for nothing, from the first unsettled one on.
    fn settle_rows(&mut self, id: CallId, at: usize) {
        let call = self.calls.get_mut(id).expect("a call that has rows to settle");
        let part = call.parts.get_mut(at).expect("a lane of the call");
        let state = self.partitions.get_mut(part.partition);
        let open = state.ownership == part.ownership && state.is_open();
        assert!(open, "{}: a result of a closed ownership", state.id);
        let range = part.settled_to as usize..part.done_to as usize;
        let rows = call.rows.get(range.clone()).expect("rows of this call");
        let known = call.row_states.get(range).expect("rows of this call");
        let before = part.settled_to;
        for (row, known) in rows.iter().zip(known) {
            if known.waits != RowWait::Not {
                break;
            }
            state.ledger.settle(row.offset);
            state.queued_bytes = state.queued_bytes.saturating_sub(u64::from(known.bytes));
            self.outbox.release(row.arena_slot);
            part.settled_to += 1;
        }
        let settled = u64::from(part.settled_to - before);
        state.commit.changes += settled;
        self.committer.count_settled(settled);
        self.failures.settled += settled;
        if state.reading.full {
            self.to_grant.push(part.partition);
        }
    }

    pub(super) fn release_part(&mut self, id: CallId, at: usize) {
        let Some(call) = self.calls.get_mut(id) else { return };
        let Some(part) = call.parts.get_mut(at) else { return };
        if std::mem::replace(&mut part.released, true) {
            return;
        }
        let lane = part.lane;
        call.parts_left -= 1;
        self.lanes.release(lane);
    }

    /// The call has really ended: its worker takes another one.
    fn give_worker_back(&mut self, id: CallId) {
        let Some(call) = self.calls.get_mut(id) else { return };
        call.state = CallState::Unacked;
        self.calls.out -= 1;
        if self.calls.get(id).is_some_and(|call| !call.suspended) {
            self.sizing.call_returned();
        }
    }

    pub(super) fn remove_if_finished(&mut self, id: CallId) {
        if self.calls.get(id).is_some_and(|call| call.parts_left == 0) {
            self.calls.forget(id);
        }
    }
}
