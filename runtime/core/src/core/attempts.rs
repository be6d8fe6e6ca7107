//! Attempts: another attempt, a rerun or an outcome for an event that is not done. [`super::retry_delay`] computes the
//! delay before another attempt.

use std::time::Duration;

use super::Core;
use super::retry_delay::retry_delay;
use crate::calls::{Awaited, CallLane, Effect, Resume};
use crate::outbox::Pending;
use crate::partitions::Phase;
use crate::{CallFailure, CallId, FailedEvent, KeptEffect, Notice, OnExhausted, Reason, Row, Verdict};

impl Core {
    /// Decides about the first row of a lane that is not done: another attempt, a rerun, or an outcome. `failure`: the
    /// call failed as a whole. In that case only an event that failed in a call of its own, on a fresh instance, is
    /// charged an attempt. The others are dispatched again, and lanes that may contain the failing row are quarantined.
    pub(super) fn decide(
        &mut self,
        id: CallId,
        at: usize,
        verdict: Option<Verdict>,
        failure: Option<CallFailure>,
    ) {
        let call = self.calls.get_mut(id).expect("the caller checked it");
        let (rows, fresh, attempt) = (call.len(), call.fresh, call.attempt);
        let lane = call.lanes.get_mut(at).expect("a lane of the call");
        if lane.disowned {
            return;
        }
        let not_done = lane.decided_to..lane.end;
        let is_consistent =
            if verdict.is_some() { !not_done.is_empty() } else { not_done.is_empty() || failure.is_some() };
        assert!(is_consistent, "{id:?}: a row is neither done nor failed, or both: {lane:?}");
        let (reason, after) = match (verdict, failure) {
            (None, None) => return,
            (Some(Verdict::Retry { after }), _) => (Reason::RetriesExhausted, after),
            (Some(Verdict::Reject), _) => return self.fail_row(id, at, Reason::Rejected),
            (Some(Verdict::Unpublishable), _) => {
                self.outbox.counters.reruns_after_unpublishable += u64::from(lane.end - lane.decided_to - 1);
                return self.fail_row(id, at, Reason::OutputRejected);
            }
            (None, Some(failure)) => {
                let may_contain_failing_row =
                    failure.failing_row.map_or(!not_done.is_empty(), |row| not_done.contains(&row));
                if !may_contain_failing_row {
                    return;
                }
                // A call that requested a fresh instance is treated as having had one; otherwise the event could be
                // retried forever.
                if rows > 1 || !(failure.fresh || fresh) {
                    lane.resume = Resume::Quarantined;
                    self.outbox.counters.reruns_after_faults += u64::from(lane.end - lane.decided_to);
                    return;
                }
                (Reason::Fault(failure.fault), None)
            }
        };
        let partition = lane.partition;
        let row = call.row(not_done.start);
        self.begin_round(partition);
        let retry = &self.config.retry;
        let age = self.now.wall_ms.saturating_sub(row.timestamp).max(0);
        let age = Duration::from_millis(age.unsigned_abs());
        if retry.is_last(attempt) {
            self.fail_row(id, at, reason);
        } else if row.timestamp >= 0 && retry.max_record_age.is_some_and(|max| age > max) {
            self.fail_row(id, at, Reason::TooOld);
        } else {
            let delay = after
                .map_or_else(|| retry_delay(retry, &row, attempt), |after| after.min(retry.max_interval));
            let until = self.now.uptime + delay;
            self.outbox.counters.retries += 1;
            if let Some(lane) = self.calls.get_mut(id).and_then(|call| call.lanes.get_mut(at)) {
                lane.resume = Resume::Retry(until);
            }
        }
    }

    /// Fails the first row that is not done. It is not attempted again. Its outcome is applied when the rows before it
    /// have settled.
    pub(super) fn fail_row(&mut self, id: CallId, at: usize, reason: Reason) {
        let Some(call) = self.calls.get_mut(id) else { return };
        let Some(lane) = call.lanes.get_mut(at).filter(|lane| !lane.disowned) else { return };
        let row = lane.decided_to;
        lane.decided_to += 1;
        call.set_awaited(row, Awaited::Outcome(reason));
    }

    /// Applies the outcome of a row that can't be handled. All rows before it have settled.
    pub(super) fn apply_outcome(&mut self, id: CallId, at: usize, row: u32, reason: Reason) {
        let call = self.calls.get_mut(id).expect("a call that has rows to settle");
        let failed = FailedEvent { call: id, row, event: call.row(row), attempt: call.attempt, reason };
        call.set_failed(row);
        // The settings of gates that name the dead-letter topic mean it.
        let is_dead_letter = matches!(reason, Reason::Gap | Reason::Late);
        let on_exhausted =
            if is_dead_letter { OnExhausted::DeadLetter } else { self.config.retry.on_exhausted };
        match on_exhausted {
            OnExhausted::Skip => {
                call.set_awaited(row, Awaited::Nothing);
                let Row { partition, offset, .. } = failed.event;
                self.outbox.notice(Notice::Skipped { partition, offset, call: id, row, reason });
            }
            OnExhausted::DeadLetter if self.transactions.is_some() => {
                call.set_awaited(row, Awaited::Transaction(KeptEffect::DeadLetter(reason)));
            }
            OnExhausted::DeadLetter => {
                call.set_awaited(row, Awaited::Acks(Effect::DeadLetter));
                self.outbox.push(Pending::DeadLetter(failed));
            }
            OnExhausted::Stop => {
                if let Some(lane) = call.lanes.get_mut(at) {
                    lane.decided_to = row; // the row and those after it stay open, for the next owner
                    lane.resume = Resume::Unchanged;
                    let after = row + 1..lane.end;
                    self.drop_outputs(id, after);
                }
                if !std::mem::replace(&mut self.stopping, true) {
                    self.outbox.push(Pending::StopHandler(failed));
                }
            }
        }
    }

    /// Returns whether a dead letter that was not polled yet still counts.
    pub(super) fn is_current(&self, failed: &FailedEvent) -> bool {
        let call = self.calls.get(failed.call);
        call.is_some_and(|call| call.lanes.get(call.lane_of(failed.row)).is_some_and(|lane| !lane.disowned))
    }

    /// Finishes a lane whose rows have settled as far as possible: returns the other rows to the lane and releases it.
    pub(super) fn finish_lane(&mut self, id: CallId, at: usize) {
        let call = self.calls.get(id).expect("a call that holds a lane");
        let lane = *call.lanes.get(at).expect("a lane of the call");
        let state = self.partitions.get_mut(lane.partition);
        state.unacked -= 1;
        // A closing ownership dispatches nothing more: the next owner reads these events again.
        if state.phase == Phase::Active {
            self.return_rows(id, &lane);
        } else {
            (lane.decided_to..lane.end).for_each(|row| self.outbox.release(call.row(row).arena_slot));
        }
        self.release_lane(id, at);
    }

    /// Returns the rows that did not settle to their lane.
    fn return_rows(&mut self, id: CallId, lane: &CallLane) {
        let call = self.calls.get(id).expect("a call that holds a lane");
        for row in (lane.decided_to..lane.end).rev() {
            let mut event = call.event(row);
            match lane.resume {
                Resume::Retry(_) if row == lane.decided_to => event.attempt = event.attempt.saturating_add(1),
                Resume::Quarantined => event.quarantined = true,
                Resume::Retry(_) | Resume::Unchanged => {}
            }
            self.lanes.put_back(lane.index, event);
        }
        match lane.resume {
            Resume::Retry(until) => self.lanes.delay(lane.index, until),
            Resume::Quarantined => self.lanes.record_fault(lane.index),
            Resume::Unchanged if lane.decided_to == lane.end => self.lanes.record_clean_call(lane.index),
            Resume::Unchanged => {}
        }
    }
}
