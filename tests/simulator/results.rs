//! Results of guest calls: verdicts, and calls that fail as a whole.

use std::time::Duration;

use keylane_core::{CallFailure, CallId, Fault, Input, LaneEnd, Reason, Verdict};

use super::log::Failure;
use super::plan::{Class, MS};
use super::planted::Planted;
use super::process::{CallRow, Process, key_of};
use super::trace::Seen;
use super::world::World;

/// The size of a state in a transaction.
const STATE_BYTES: u32 = 40;

impl World {
    pub(crate) fn call_ends(&mut self, p: usize, id: CallId) {
        if self.waits_for_states(p, id) {
            return;
        }
        let Some(key) = self.end_call(p, id) else { return };
        let call = &self.processes[p].calls[&key];
        let (rows, lengths, cancelled) = (call.rows.clone(), call.lanes.clone(), call.cancelled.is_some());
        if cancelled {
            self.saw(Seen::CancelsThatEndedFirst);
            if self.planted == Some(Planted::EndCallEarly) {
                return;
            }
        }
        if let Some((failing_row, fault)) = self.whole_call_fault(p, id, &rows) {
            self.call_fails(p, id, &rows, &lengths, failing_row, fault);
            return;
        }
        let lanes = self.verdicts(p, id, &rows, &lengths);
        let with_outputs = self.finish_rows(p, id, &lanes, &lengths);
        let output_bytes = self.output_bytes(p, id, &with_outputs);
        let took = Duration::from_micros(self.plan.row_cost * rows.len() as u64);
        self.feed(
            p,
            Input::CallEnded {
                call: id,
                lanes: &lanes,
                with_outputs: &with_outputs,
                output_bytes: &output_bytes,
                took,
            },
        );
    }

    /// Whether the guest fails in this call, and at which row.
    fn whole_call_fault(&mut self, p: usize, id: CallId, rows: &[CallRow]) -> Option<(usize, Fault)> {
        let faults = [Fault::Trap, Fault::Timeout, Fault::Memory, Fault::Limit, Fault::Contract];
        let poison = rows.iter().position(|row| {
            let record = self.record_of(row.partition, row.incarnation, row.offset);
            record.is_some_and(|record| record.failure == Some(Failure::CallFails))
        });
        if let Some(row) = poison {
            return Some((row, self.rng.pick(&faults)));
        }
        // The current event is not the cause. For example, the memory of the guest is full.
        let used = !self.processes[p].calls[&key_of(id)].fresh;
        if used && self.occurs(Class::UnrelatedFaults, 2) {
            return Some((self.rng.index(rows.len()), self.rng.pick(&faults)));
        }
        None
    }

    fn call_fails(
        &mut self,
        p: usize,
        id: CallId,
        rows: &[CallRow],
        lengths: &[u32],
        failing_row: usize,
        fault: Fault,
    ) {
        self.saw(Seen::CallsFailed);
        self.note(
            p,
            "call failed",
            Some(rows[failing_row].partition),
            rows[failing_row].offset,
            rows.len() as i64,
        );
        let fresh = self.processes[p].calls[&key_of(id)].fresh || self.rng.percent(20);
        if self.planted == Some(Planted::ChargeAll) && rows.len() > 1 {
            let lanes: Vec<_> = lengths
                .iter()
                .map(|_| LaneEnd { done: 0, verdict: Some(Verdict::Retry { after: None }) })
                .collect();
            self.quarantine_rows(p, id, rows, None);
            self.end_without_outputs(p, id, &lanes);
            return;
        }
        // Some guests are called once per event. Then the failing row is known, and the rows before
        // it are done.
        let known = self.plan.loops;
        let mut lanes = Vec::new();
        let mut first = 0;
        for &length in lengths.iter().filter(|_| known) {
            let done = failing_row.saturating_sub(first).min(length as usize) as u32;
            lanes.push(LaneEnd { done, verdict: None });
            first += length as usize;
        }
        let with_outputs = self.finish_rows(p, id, &lanes, lengths);
        let output_bytes = self.output_bytes(p, id, &with_outputs);
        if rows.len() == 1 && fresh {
            self.charge(p, id, &rows[0], Reason::Fault(fault), None);
        } else {
            self.quarantine_rows(p, id, rows, known.then_some(failing_row));
        }
        let failure = CallFailure { fault, failing_row: known.then_some(failing_row as u32), fresh };
        self.feed(
            p,
            Input::CallFailed {
                call: id,
                failure,
                lanes: &lanes,
                with_outputs: &with_outputs,
                output_bytes: &output_bytes,
            },
        );
    }

    fn verdicts(&mut self, p: usize, id: CallId, rows: &[CallRow], lengths: &[u32]) -> Vec<LaneEnd> {
        let mut lanes = Vec::with_capacity(lengths.len());
        let mut first = 0;
        for &length in lengths {
            let mut end = LaneEnd { done: length, verdict: None };
            for at in first..first + length {
                if let Some(verdict) = self.verdict(p, id, &rows[at as usize]) {
                    end = LaneEnd { done: at - first, verdict: Some(verdict) };
                    break;
                }
            }
            first += length;
            lanes.push(end);
        }
        lanes
    }

    /// The verdict of the guest about an event that is not done.
    fn verdict(&mut self, p: usize, id: CallId, row: &CallRow) -> Option<Verdict> {
        let failure =
            self.record_of(row.partition, row.incarnation, row.offset).and_then(|record| record.failure);
        let rejected = failure == Some(Failure::Rejected) || self.occurs(Class::Poison, 1);
        let again = failure == Some(Failure::NeverDone) || self.occurs(Class::Flaky, 8);
        if rejected {
            self.failed_permanently(p, id, row, Reason::Rejected);
            return Some(Verdict::Reject);
        }
        if row.has_outputs && !again && self.occurs(Class::OutputsRejected, 1) {
            self.saw(Seen::OutputsUnpublishable);
            self.failed_permanently(p, id, row, Reason::OutputRejected);
            return Some(Verdict::Unpublishable);
        }
        if !again {
            return None;
        }
        let after = self.rng.percent(30).then(|| Duration::from_micros(self.rng.range(0, 3_000 * MS)));
        self.charge(p, id, row, Reason::RetriesExhausted, after);
        let delay = match self.planted {
            Some(Planted::RetryTooSoon) => Some(Duration::ZERO),
            _ => after,
        };
        Some(Verdict::Retry { after: delay })
    }

    /// The bytes of the outputs and states of these rows, under transactional delivery.
    fn output_bytes(&self, p: usize, id: CallId, with_outputs: &[u32]) -> Vec<u32> {
        let rows = &self.processes[p].calls[&key_of(id)].rows;
        let rows = with_outputs.iter().filter(|_| self.is_transactional()).map(|&at| &rows[at as usize]);
        rows.map(|row| {
            let record = self.record_of(row.partition, row.incarnation, row.offset);
            let bytes = record.filter(|_| row.has_outputs).map_or(0, |record| record.bytes);
            bytes + u32::from(row.changes_state) * STATE_BYTES
        })
        .collect()
    }

    /// Marks the rows that are done. Those without outputs have their outcome if their ownership is open. Returns the
    /// rows with outputs.
    fn finish_rows(&mut self, p: usize, id: CallId, lanes: &[LaneEnd], lengths: &[u32]) -> Vec<u32> {
        let changed = self.fold_lanes(p, id, lanes, lengths);
        let mut with_outputs = Vec::new();
        let mut first = 0;
        for (lane, length) in lanes.iter().zip(lengths) {
            for at in first..first + lane.done {
                let process = &mut self.processes[p];
                let Some(call) = process.calls.get_mut(&key_of(id)) else { continue };
                call.rows[at as usize].done = true;
                call.rows[at as usize].changes_state = changed.contains(&at);
                let row = call.rows[at as usize];
                let highest = process.highest_done.entry(row.partition).or_insert(-1);
                *highest = (*highest).max(row.offset);
                let open = counts(process, id, &row);
                if open {
                    self.record_done(p, &row);
                }
                if row.has_outputs || row.changes_state {
                    with_outputs.push(at);
                } else if open {
                    self.note(p, "done", Some(row.partition), row.offset, row.ownership as i64);
                    self.count_outcome(&row);
                }
                if !open {
                    self.saw(Seen::DroppedResults);
                }
            }
            first += length;
        }
        self.settle_done_rows(p, id);
        with_outputs
    }
}

/// Whether the result of this call counts for the row: its ownership is open, and the call was not cancelled.
pub(super) fn counts(process: &Process, id: CallId, row: &CallRow) -> bool {
    let cancelled = process.calls.get(&key_of(id)).is_none_or(|call| call.cancelled.is_some());
    process.is_open(row) && !cancelled
}
