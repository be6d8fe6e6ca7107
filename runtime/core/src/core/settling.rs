//! Settling: what the end of a call, and the acks of its outputs, mean for its events.

use std::time::Duration;

use super::Core;
use crate::calls::{CallState, RowOutputs};
use crate::outbox::Pending;
use crate::{CallId, Fault, HandlerStop, LaneEnd, Verdict};

impl Core {
    pub(super) fn call_ended(&mut self, id: CallId, lanes: &[LaneEnd], with_outputs: &[u32], took: Duration) {
        let Some(call) = self.calls.get(id) else { return };
        if call.state != CallState::Out {
            self.call_really_ended(id); // it was cancelled: whatever it returned does not count
            return;
        }
        assert!(lanes.len() == call.parts.len(), "{id:?}: {} ends, {} lanes", lanes.len(), call.parts.len());
        self.pace.saw_work(call.len(), took);
        self.give_worker_back(id);
        let mut outputs = with_outputs;
        for (at, lane) in lanes.iter().enumerate() {
            outputs = self.end_part(id, at, lane, outputs);
        }
        if self.calls.get(id).is_some_and(|call| !call.hand_over.is_empty()) {
            self.outbox.push(Pending::HandOver(id));
        }
        self.forget_if_over(id);
    }

    pub(super) fn call_failed(&mut self, id: CallId, fault: Fault) {
        let Some(call) = self.calls.get(id) else { return };
        if call.state != CallState::Out {
            self.call_really_ended(id);
            return;
        }
        self.give_worker_back(id);
        let parts = self.calls.get(id).map_or(0, |call| call.parts.len());
        for at in 0..parts {
            self.fail_part(id, at, HandlerStop::Fault(fault), 0);
            self.release_part(id, at);
        }
        self.forget_if_over(id);
    }

    /// A cancelled call is gone: its lanes are free.
    pub(super) fn call_really_ended(&mut self, id: CallId) {
        let Some(call) = self.calls.get(id) else { return };
        if !call.is_out() {
            return;
        }
        assert!(call.state != CallState::Out, "{id:?} was never cancelled");
        self.give_worker_back(id);
        let parts = self.calls.get(id).map_or(0, |call| call.parts.len());
        for at in 0..parts {
            self.release_part(id, at);
        }
        self.forget_if_over(id);
    }

    pub(super) fn outputs_acked(&mut self, id: CallId, row: u32) {
        let Some(call) = self.calls.get_mut(id) else { return };
        if call.outputs(row) != RowOutputs::Unacked {
            return; // its session is over, or it was said before
        }
        call.set_outputs(row, RowOutputs::Acked);
        let at = call.parts.partition_point(|part| part.end <= row);
        let part = *call.parts.get(at).expect("every row belongs to a lane");
        if part.over || part.settled_to != row {
            return; // an earlier event of its lane has not settled
        }
        self.settle_part(id, at);
        self.forget_if_over(id);
    }

    pub(super) fn output_refused(&mut self, id: CallId, row: u32) {
        let Some(call) = self.calls.get(id) else { return };
        if call.outputs(row) != RowOutputs::Unacked {
            return;
        }
        let at = call.parts.partition_point(|part| part.end <= row);
        let part = *call.parts.get(at).expect("every row belongs to a lane");
        if part.over {
            return;
        }
        self.fail_part(id, at, HandlerStop::OutputRefused, row - part.first);
        self.settle_part(id, at); // it is over, unless rows before this one wait for acks that may still come
        self.forget_if_over(id);
    }

    /// Takes the result of one lane: its rows' outputs are marked, what needs no ack is settled. Gives back the
    /// rows with outputs of the lanes after it.
    fn end_part<'a>(&mut self, id: CallId, at: usize, end: &LaneEnd, outputs: &'a [u32]) -> &'a [u32] {
        let call = self.calls.get_mut(id).expect("the call that ended");
        let part = *call.parts.get(at).expect("one end per lane");
        let (mine, rest) = outputs.split_at(outputs.partition_point(|&row| row < part.end));
        if part.over {
            self.release_part(id, at);
            return rest;
        }
        let done_to = part.first + end.done;
        assert!(done_to <= part.end, "{id:?}: {} done of {} rows", end.done, part.end - part.first);
        let all_done = done_to == part.end;
        assert!(
            all_done != end.failure.is_some(),
            "{id:?}: a row is neither done nor failed, or both: {end:?}"
        );
        for &row in mine.iter().filter(|&&row| row < done_to) {
            call.set_outputs(row, RowOutputs::Unacked);
            call.hand_over.push(row);
        }
        if let Some(part) = call.parts.get_mut(at) {
            part.done_to = done_to;
        }
        let state = self.partitions.get_mut(part.partition);
        state.running -= 1;
        state.unacked += 1;
        if let Some(verdict) = end.failure {
            let reason = match verdict {
                Verdict::Retry => HandlerStop::Retry,
                Verdict::Reject => HandlerStop::Reject,
            };
            self.fail_part(id, at, reason, end.done);
        }
        self.settle_part(id, at);
        rest
    }

    /// Settles the done rows of a lane up to the first one that waits for acks. If none does, the lane may have its
    /// next call.
    fn settle_part(&mut self, id: CallId, at: usize) {
        let call = self.calls.get_mut(id).expect("a call that has rows to settle");
        let part = call.parts.get_mut(at).expect("a lane of the call");
        let state = self.partitions.get_mut(part.partition);
        assert!(
            state.session == part.session && state.is_open(),
            "{}: a result of a closed session",
            state.id
        );
        let done = part.settled_to as usize..part.done_to as usize;
        let rows = call.rows.get(done.clone()).expect("rows of this call");
        let known = call.known.get(done).expect("rows of this call");
        let settled_before = part.settled_to;
        for (row, known) in rows.iter().zip(known) {
            if known.outputs == RowOutputs::Unacked {
                break;
            }
            state.ledger.settle(row.offset);
            state.queued_bytes = state.queued_bytes.saturating_sub(u64::from(known.bytes));
            part.settled_to += 1;
        }
        let settled = u64::from(part.settled_to - settled_before);
        state.commit.changes += settled;
        self.committer.count_settled(settled);
        if state.reading.full {
            self.to_grant.push(part.partition);
        }
        if part.settled_to == part.done_to {
            part.over = true;
            state.unacked -= 1;
            self.release_part(id, at);
        }
    }

    /// A row can't be passed: the handler stops. The row and those after it stay open in the ledger.
    fn fail_part(&mut self, id: CallId, at: usize, reason: HandlerStop, row: u32) {
        let Some(call) = self.calls.get_mut(id) else { return };
        let Some(part) = call.parts.get_mut(at).filter(|part| !part.over) else { return };
        let (partition, failed) = (part.partition, part.first + row);
        let state = self.partitions.get_mut(partition);
        match reason {
            HandlerStop::Fault(_) => {
                part.over = true;
                state.running -= 1;
            }
            HandlerStop::OutputRefused => part.done_to = part.done_to.min(failed),
            HandlerStop::Retry | HandlerStop::Reject => {} // `done_to` lies before it already
        }
        let offset = call.row(failed).offset;
        if !std::mem::replace(&mut self.stopping, true) {
            let partition = self.partitions.get(partition).id;
            self.outbox.push(Pending::StopHandler(partition, offset, reason));
        }
    }

    fn release_part(&mut self, id: CallId, at: usize) {
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
            self.pace.workers_free(1);
        }
    }

    fn forget_if_over(&mut self, id: CallId) {
        if self.calls.get(id).is_some_and(|call| call.parts_left == 0) {
            self.calls.forget(id);
        }
    }
}
