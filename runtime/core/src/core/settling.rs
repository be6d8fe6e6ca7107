//! Settling: handles the results of calls, and the acks of outputs and dead letters.
//!
//! The rows of a lane settle in order. Each is done, with or without outputs to be acked, or has another outcome, which
//! is applied when the rows before it have settled ([`super::attempts`] decides which). A row that is retried, and the
//! rows after a failed one, go back to their lane.

use super::Core;
use super::committing::Transactions;
use crate::calls::{Awaited, CallState, Effect, RowState};
use crate::gates::SettledAs;
use crate::outbox::{Outbox, Pending};
use crate::partitions::PartitionState;
use crate::slab::NONE;
use crate::{CallFailure, CallId, KeptEffect, KeptEffects, LaneEnd, MemoryChange, Reason, Row, SettleNumber};
use std::ops::Range;
use std::time::Duration;

/// Bytes of a dead letter besides the event itself.
const DEAD_LETTER_BYTES: u64 = 1024;

/// Rows of a call with outputs, ascending.
type Rows<'a> = &'a [u32];

impl Core {
    /// Handles the end of a call. `failure`: it failed as a whole, and only its rows that were done before count.
    pub(super) fn call_ended(
        &mut self,
        id: CallId,
        ends: &[LaneEnd],
        with_outputs: Rows<'_>,
        failure: Option<CallFailure>,
    ) {
        let Some(call) = self.calls.get(id) else { return };
        if call.state != CallState::Running {
            self.call_terminated(id); // it was cancelled: its result does not count
            return;
        }
        let lanes = call.lanes.len();
        let is_valid = ends.len() == lanes || failure.is_some() && ends.is_empty();
        assert!(is_valid, "{id:?}: {} ends, {lanes} lanes", ends.len());
        self.mark_terminated(id);
        let mut outputs = with_outputs;
        for at in 0..lanes {
            let end = ends.get(at).copied().unwrap_or(LaneEnd { done: 0, verdict: None });
            outputs = self.take_done_rows(id, at, end.done, outputs);
            self.decide(id, at, end.verdict, failure);
            self.advance_lane(id, at);
        }
        if self.calls.get(id).is_some_and(|call| !call.to_produce.is_empty()) {
            self.outbox.push(Pending::Produce(id));
        }
        self.remove_if_finished(id);
    }

    /// Handles the termination of a cancelled call: its lanes are released. Rows of active ownerships are dispatched
    /// again.
    pub(super) fn call_terminated(&mut self, id: CallId) {
        let Some(call) = self.calls.get(id) else { return };
        if !call.is_unterminated() {
            return;
        }
        assert!(call.state != CallState::Running, "{id:?} was never cancelled");
        let lanes = call.lanes.len();
        self.mark_terminated(id);
        for at in 0..lanes {
            self.take_done_rows(id, at, 0, &[]);
            self.advance_lane(id, at);
        }
        self.remove_if_finished(id);
    }

    pub(super) fn effects_acked(&mut self, id: CallId, row: u32) {
        self.advance_row(id, row, Awaited::Nothing);
    }

    pub(super) fn output_rejected(&mut self, id: CallId, row: u32) {
        self.advance_row(id, row, Awaited::Outcome(Reason::OutputRejected));
    }

    /// Handles the answer to the effects of a row: advances its lane if all rows before it have settled.
    fn advance_row(&mut self, id: CallId, row: u32, after: Awaited) {
        let Some(call) = self.calls.get_mut(id) else { return };
        let Awaited::Acks(effect) = call.awaited(row) else {
            return; // its results do not count any more, or this is a repeated input
        };
        call.set_awaited(row, after);
        let at = call.lane_of(row);
        let lane = *call.lanes.get(at).expect("every row belongs to a lane");
        if lane.disowned || lane.settled_to != row {
            return; // an earlier event of its lane has not settled
        }
        // A dead letter is requested only after all earlier events have settled, so its event settles now.
        self.outbox.counters.dead_letters +=
            u64::from(effect == Effect::DeadLetter && after == Awaited::Nothing);
        self.advance_lane(id, at);
        self.remove_if_finished(id);
    }

    /// Marks the first rows of one lane as done: those with outputs wait for acks. Returns the rows with outputs of the
    /// lanes after it.
    fn take_done_rows<'a>(&mut self, id: CallId, at: usize, done: u32, outputs: Rows<'a>) -> Rows<'a> {
        let call = self.calls.get_mut(id).expect("the caller checked it");
        let lane = *call.lanes.get(at).expect("a lane of the call");
        let (own, rest) = outputs.split_at(outputs.partition_point(|&row| row < lane.end));
        if lane.disowned {
            return rest;
        }
        let decided_to = lane.start + done;
        assert!(decided_to <= lane.end, "{id:?}: {done} done of {} rows", lane.end - lane.start);
        for &row in own.iter().filter(|&&row| row < decided_to) {
            if self.transactions.is_some() {
                call.set_awaited(row, Awaited::Transaction(KeptEffect::Outputs));
            } else {
                call.set_awaited(row, Awaited::Acks(Effect::Outputs));
                call.to_produce.push(row);
            }
        }
        if let Some(lane) = call.lanes.get_mut(at) {
            lane.decided_to = decided_to;
        }
        let state = self.partitions.get_mut(lane.partition);
        state.running -= 1;
        state.unacked += 1;
        rest
    }

    /// Makes the shell drop the outputs and dead letters of these rows that it has not sent.
    pub(super) fn drop_outputs(&mut self, id: CallId, rows: Range<u32>) {
        let Some(call) = self.calls.get(id) else { return };
        let is_submitted = |row| matches!(call.awaited(row), Awaited::Acks(_));
        if !call.is_unterminated() && rows.clone().any(is_submitted) {
            self.outbox.push(Pending::DropOutputs { call: id, first: rows.start, end: rows.end });
        }
    }

    /// Settles the rows of a lane and applies outcomes, up to the first row that awaits acks. If there is none, the
    /// lane is released and continues with the remaining rows, or with queued events.
    pub(super) fn advance_lane(&mut self, id: CallId, at: usize) {
        loop {
            let call = self.calls.get_mut(id).expect("a call that has rows to settle");
            let lane = call.lanes.get(at).expect("a lane of the call");
            if lane.disowned {
                self.release_lane(id, at); // its results do not count: it waited only for the end of the call
                return;
            }
            let (row, decided_to) = (lane.settled_to, lane.decided_to);
            if row == decided_to {
                self.finish_lane(id, at);
                return;
            }
            match call.awaited(row) {
                Awaited::Nothing | Awaited::Transaction(_) => self.settle_rows(id, at),
                Awaited::Acks(_) => return,
                Awaited::Outcome(reason) => self.apply_outcome(id, at, row, reason),
            }
        }
    }

    /// Settles the rows of a lane that await nothing, from the first unsettled one on.
    fn settle_rows(&mut self, id: CallId, at: usize) {
        let call = self.calls.get_mut(id).expect("a call that has rows to settle");
        let lane = call.lanes.get_mut(at).expect("a lane of the call");
        let state = self.partitions.get_mut(lane.partition);
        let open = state.ownership == lane.ownership && state.accepts_results();
        assert!(open, "{}: a result of a closed ownership", state.id);
        let range = lane.settled_to as usize..lane.decided_to as usize;
        let rows = call.rows.get(range.clone()).expect("rows of this call");
        let row_states = call.row_states.get(range).expect("rows of this call");
        let before = lane.settled_to;
        for (row, row_state) in rows.iter().zip(row_states) {
            if !matches!(row_state.awaited, Awaited::Nothing | Awaited::Transaction(_)) {
                break;
            }
            state.ledger.settle(row.offset);
            let mut number = SettleNumber::default();
            if let Some(transactions) = &mut self.transactions {
                let shares = transactions.limits.keyed_state && lane.settled_to > before;
                let now = self.now.uptime;
                let kept = KeptRow { now, id, row: lane.settled_to, of_call: row, row_state, shares };
                number =
                    kept.settle(transactions, state, (call.attempt, &call.output_bytes), &mut self.outbox);
            }
            self.times.record_settled(row.timestamp, self.now);
            if row_state.order != NONE {
                let how = if row_state.failed { SettledAs::Failed } else { SettledAs::Done };
                let (partition, ownership) = (state.id, state.ownership);
                let outbox = &mut self.outbox;
                let emit = |key, change| {
                    outbox.remember(MemoryChange { partition, ownership, key, number, change });
                };
                let settled = self.lanes.order_settled((row.offset, row_state.order), how, emit);
                self.outbox.counters.holes_forgotten += settled.holes_forgotten;
                self.outbox.counters.late_delivered += u64::from(settled.late);
            }
            state.queued_bytes = state.queued_bytes.saturating_sub(u64::from(row_state.bytes));
            self.outbox.release(row.arena_slot);
            lane.settled_to += 1;
        }
        let settled = u64::from(lane.settled_to - before);
        state.commit.changes += settled;
        self.committer.count_settled(settled);
        self.outbox.counters.settled += settled;
        if state.reading.paused.is_some() {
            self.reads.to_decide.push(lane.partition);
        }
    }

    /// Transactional delivery: records the bytes of the outputs of a call.
    pub(super) fn record_output_bytes(&mut self, id: CallId, rows: Rows<'_>, bytes: &[u32]) {
        if self.transactions.is_none() {
            return;
        }
        if let Some(call) = self.calls.get_mut(id) {
            call.output_bytes.extend(rows.iter().copied().zip(bytes.iter().copied()));
        }
    }

    pub(super) fn release_lane(&mut self, id: CallId, at: usize) {
        let Some(call) = self.calls.get_mut(id) else { return };
        let Some(lane) = call.lanes.get_mut(at) else { return };
        if std::mem::replace(&mut lane.released, true) {
            return;
        }
        let index = lane.index;
        call.lanes_held -= 1;
        self.lanes.release(index);
    }

    /// Frees the worker of a call that has terminated.
    fn mark_terminated(&mut self, id: CallId) {
        let Some(call) = self.calls.get_mut(id) else { return };
        call.state = CallState::Terminated;
        self.calls.unterminated -= 1;
        if self.calls.get(id).is_some_and(|call| !call.suspended) {
            self.sizing.free_capacity();
        }
    }

    pub(super) fn remove_if_finished(&mut self, id: CallId) {
        if self.calls.get(id).is_some_and(|call| call.lanes_held == 0) {
            self.calls.remove(id);
        }
    }
}

/// A row that settles under transactional delivery.
struct KeptRow<'c> {
    now: Duration,
    id: CallId,
    row: u32,
    of_call: &'c Row,
    row_state: &'c RowState,
    /// Whether it shares a state with the row before it.
    shares: bool,
}

impl KeptRow<'_> {
    /// Numbers the event and keeps its effects, if it has any.
    fn settle(
        &self,
        transactions: &mut Transactions,
        state: &mut PartitionState,
        (attempt, output_bytes): (u32, &[(u32, u32)]),
        outbox: &mut Outbox,
    ) -> SettleNumber {
        let &KeptRow { now, id: call, row, of_call: event, row_state, shares } = self;
        let effect = match row_state.awaited {
            Awaited::Transaction(effect) => Some(effect),
            Awaited::Nothing | Awaited::Acks(_) | Awaited::Outcome(_) => None,
        };
        let bytes = match effect {
            None => 0,
            Some(KeptEffect::DeadLetter(_)) => {
                outbox.counters.dead_letters += 1;
                u64::from(row_state.bytes) + DEAD_LETTER_BYTES
            }
            Some(KeptEffect::Outputs) => {
                let at = output_bytes.binary_search_by_key(&row, |&(row, _)| row).ok();
                at.and_then(|at| output_bytes.get(at)).map_or(0, |&(_, bytes)| bytes.into())
            }
        };
        let number = transactions.number(now, state, (event.offset, bytes), shares);
        if let Some(effect) = effect {
            outbox.keep(KeptEffects { number, effect, call, row, event: *event, attempt });
        }
        number
    }
}
