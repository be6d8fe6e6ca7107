//! Guest calls: what may be dispatched, how long a call takes, and how it is cancelled.

use std::time::Duration;

use keylane_core::{CallId, Dispatch, Input, LaneEnd, Row, SHORT_CALLS_MAX};

use super::log::Lane;
use super::plan::{Class, MS, Micros, SECOND};
use super::planted::Planted;
use super::process::{Call, CallRow, key_of};
use super::trace::Seen;
use super::world::{Event, World};

impl World {
    pub(crate) fn dispatch(&mut self, p: usize, dispatch: &Dispatch<'_>) {
        let rows: Vec<_> = dispatch.rows.iter().map(|row| self.take_row(p, row)).collect();
        let lengths = dispatch.lane_lengths.to_vec();
        self.check_call(p, dispatch, &rows);
        self.check_lanes(p, dispatch.call, &rows, &lengths);
        let attempt = self.planted_attempt(p, dispatch, &rows);
        for row in &rows {
            self.check_attempt(p, &attempt, row);
        }
        let fresh = dispatch.fresh;
        let call = Call {
            rows,
            lanes: lengths,
            fresh,
            cancelled: None,
            ended: false,
            reported: false,
            suspended: false,
        };
        self.processes[p].calls.insert(key_of(dispatch.call), call);
        self.check_concurrency(p);
        let first = self.processes[p].calls[&key_of(dispatch.call)].rows[0];
        self.check_capacity(p, key_of(dispatch.call), &first);
        let rows = self.processes[p].calls[&key_of(dispatch.call)].rows.clone();
        if !self.prepare_states(p, dispatch.call, &rows, dispatch.lane_lengths) {
            self.run_call(p, dispatch.call);
        }
    }

    /// A worker takes the call.
    pub(crate) fn run_call(&mut self, p: usize, call: CallId) {
        let duration = self.duration();
        if self.occurs(Class::Suspends, 10) {
            self.after(duration / 3, Event::CallSuspended(p, call));
        }
        self.after(duration, Event::CallEnd(p, call));
        if self.processes[p].stale.contains_key(&call.slot) {
            self.feed_stale_result_soon(p, call);
        }
    }

    fn duration(&mut self) -> Micros {
        if self.occurs(Class::SlowCalls, 10) {
            return self.rng.range(SECOND / 2, 5 * SECOND);
        }
        let longest = self.rng.pick(&[MS, 5 * MS, 50 * MS]);
        self.rng.range(100, longest)
    }

    fn take_row(&mut self, p: usize, row: &Row) -> CallRow {
        let index = self.index(row.partition);
        self.saw(Seen::Events);
        self.note(p, "dispatch", Some(index), row.offset, row.ownership.0 as i64);
        let kept = self.processes[p].kept_at(row.arena_slot);
        let matches = kept.is_some_and(|kept| (kept.partition, kept.offset) == (index, row.offset));
        self.require(matches, "I-slots", index, row.offset, || {
            format!("process {p} dispatches {} from {:?}, which holds {kept:?}", row.offset, row.arena_slot)
        });
        let current = self.reads_current_topic(p, index);
        let committed = self.stored[index].is_some() || self.is_pending(index);
        let started = committed || !current || self.logs[index].offsets_reset;
        self.require(started, "I-start", index, row.offset, || {
            format!("process {p} dispatches {} before the start was committed", row.offset)
        });
        let inside = self.processes[p].ends[index].is_none_or(|end| row.offset < end);
        self.require(inside, "I-end", index, row.offset, || format!("process {p} reads past its end"));
        let incarnation = kept.map_or(0, |kept| kept.incarnation);
        let record = self.record_of(index, incarnation, row.offset);
        let valid = record.is_none_or(|record| record.timestamp == row.timestamp);
        self.require(valid, "I-slots", index, row.offset, || {
            format!("{row:?} has the timestamp of another event")
        });
        let record = self.logs[index].record(row.offset);
        let deliverable = record.is_some_and(|record| !record.filtered)
            && !(self.plan.rejects_unkeyed && record.is_some_and(|record| record.key.is_none()));
        let deliverable =
            deliverable || kept.is_none_or(|kept| kept.incarnation != self.logs[index].incarnation);
        self.require(deliverable, "I-filter", index, row.offset, || {
            format!("process {p} dispatches {}, which is filtered or rejected", row.offset)
        });
        self.check_in_step(p, index, row);
        self.row_of(p, index, row)
    }

    pub(crate) fn row_of(&self, p: usize, index: usize, row: &Row) -> CallRow {
        let kept = self.processes[p].kept_at(row.arena_slot);
        let incarnation = kept.map_or(0, |kept| kept.incarnation);
        let record = self.record_of(index, incarnation, row.offset);
        CallRow {
            partition: index,
            epoch: self.processes[p].parts[index].epoch,
            ownership: row.ownership.0,
            incarnation,
            offset: row.offset,
            lane: kept.map_or(Lane::Unkeyed(row.offset), |kept| kept.lane),
            has_outputs: record.is_some_and(|record| record.has_outputs),
            changes_state: false,
            done: false,
            produced: false,
            unanswered: false,
            dropped: None,
        }
    }

    fn check_call(&mut self, p: usize, dispatch: &Dispatch<'_>, rows: &[CallRow]) {
        let process = &self.processes[p];
        let must_be_quiet = process.draining || process.stopping || process.backlog;
        let most = self.plan.config.max_batch as usize;
        let sum: u32 = dispatch.lane_lengths.iter().sum();
        let shape = !rows.is_empty() && rows.len() <= most && sum as usize == rows.len();
        let one_topic = dispatch.rows.iter().all(|row| row.partition.topic == dispatch.topic);
        let fresh = !process.calls.contains_key(&key_of(dispatch.call));
        let (first, offset) = rows.first().map_or((0, -1), |row| (row.partition, row.offset));
        self.require(!must_be_quiet, "I6 quiet", first, offset, || {
            format!("process {p} dispatches while it drains, stops or has a full backlog")
        });
        self.require(shape && one_topic && fresh, "I-protocol", first, offset, || {
            format!("process {p} dispatches {dispatch:?}; a call carries at most {most} events")
        });
        for row in rows {
            let process = &self.processes[p];
            let part = &process.parts[row.partition];
            let open = process.is_open(row) && part.reader.is_some() && !process.revoking(row.partition);
            let named = part.ownership == Some(row.ownership);
            self.require(open && named, "I6 quiet after ownership", row.partition, row.offset, || {
                format!("process {p} dispatches an event of ownership {}, which has ended", row.ownership)
            });
        }
    }

    /// Rows are grouped by lane in offset order, and no lane has another call or unacknowledged outputs.
    fn check_lanes(&mut self, p: usize, call: CallId, rows: &[CallRow], lengths: &[u32]) {
        let mut rest = rows;
        for &length in lengths {
            let (group, after) = rest.split_at(rest.len().min(length as usize));
            rest = after;
            let Some(&first) = group.first() else {
                self.report_violation(
                    "I-protocol",
                    format!("process {p} dispatches a lane without rows"),
                    None,
                    -1,
                );
                return;
            };
            let (index, lane) = (first.partition, first.lane);
            let ordered = group.is_sorted_by(|a, b| {
                (a.partition, a.lane, a.ownership) == (b.partition, b.lane, b.ownership)
                    && (a.offset < b.offset || self.is_gated())
            });
            self.require(ordered, "I-protocol", index, first.offset, || {
                format!("the rows of a lane belong to several lanes or are not in order: {group:?}")
            });
            if self.is_gated() {
                self.dispatch_gated(p, group);
            } else {
                self.check_front(p, call, group);
            }
            let other = self.processes[p].lanes_in_flight.insert((index, lane), key_of(call));
            self.require(other.is_none(), "I5 one call per lane", index, first.offset, || {
                format!("process {p} dispatches {lane:?} again; call {other:?} still runs")
            });
            let unacked =
                self.processes[p].unacked.get(&(index, lane, first.ownership)).copied().unwrap_or(0);
            self.require(unacked == 0, "I5 acks before the next call", index, first.offset, || {
                format!("process {p} dispatches {lane:?}, which waits for {unacked} acks")
            });
        }
    }

    fn check_concurrency(&mut self, p: usize) {
        let (busy, in_flight) = (self.processes[p].busy(), self.processes[p].in_flight());
        let workers = (self.plan.workers * SHORT_CALLS_MAX) as usize;
        let most = self.plan.config.max_concurrency as usize;
        if busy > workers || in_flight > most {
            let text = format!(
                "process {p}: {busy} busy calls of at most {workers}, {in_flight} in flight of at most {most}"
            );
            self.report_violation("I-limits", text, None, -1);
        }
    }

    pub(crate) fn call_suspended(&mut self, p: usize, id: CallId) {
        let Some(call) = self.processes[p].calls.get_mut(&key_of(id)) else { return };
        if call.ended || call.reported {
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
            .filter(|call| !call.reported && call.cancelled.is_none());
        let Some(call) = known else {
            self.report_violation(
                "I-protocol",
                format!("process {p} cancels {id:?}, which is not in flight"),
                None,
                -1,
            );
            return;
        };
        call.cancelled = Some(now);
        let first = call.rows.first().copied();
        self.note(p, "cancel", first.map(|row| row.partition), first.map_or(-1, |row| row.offset), 0);
        // A host call may delay the end.
        let longest = if self.occurs(Class::SlowCalls, 20) { 4 * SECOND } else { 150 * MS };
        let delay = self.rng.range(MS, longest);
        if self.rng.percent(30) && !self.waits_for_states(p, id) {
            // The call ends by itself just before the cancellation takes effect.
            let just_before = self.rng.range(1, MS);
            self.after(delay - just_before, Event::CallEnd(p, id));
        }
        if self.planted == Some(Planted::EndCallEarly) {
            self.after(1, Event::CallReportedTerminated(p, id));
        }
        self.after(delay, Event::CallTerminated(p, id));
    }

    pub(crate) fn call_terminated(&mut self, p: usize, id: CallId) {
        let Some(call) = self.end_call(p, id) else { return };
        self.forget_call_states(p, id);
        if self.planted == Some(Planted::StaleResult) {
            self.processes[p].stale.insert(id.slot, call);
        }
        if self.planted != Some(Planted::EndCallEarly) {
            self.feed(p, Input::CallTerminated { call: id });
        }
    }

    /// A planted bug: the core is notified that a call has terminated while its guest still runs.
    pub(crate) fn report_terminated_early(&mut self, p: usize, id: CallId) {
        let call = self.processes[p].calls.get_mut(&key_of(id)).filter(|call| !call.reported);
        if let Some(call) = call {
            call.reported = true;
            self.feed(p, Input::CallTerminated { call: id });
        }
    }

    /// The guest has ended. Its lanes are free in this process.
    pub(crate) fn end_call(&mut self, p: usize, id: CallId) -> Option<(u32, u32)> {
        let key = key_of(id);
        let process = &mut self.processes[p];
        let call = process.calls.get_mut(&key).filter(|call| !call.ended)?;
        call.ended = true;
        call.reported = true;
        process.lanes_in_flight.retain(|_, call| *call != key);
        Some(key)
    }

    fn feed_stale_result_soon(&mut self, p: usize, id: CallId) {
        self.after(1, Event::StaleResult(p, id));
    }

    /// A planted bug: the result of the cancelled call of this slot is mistaken for the result of
    /// the next call.
    pub(crate) fn stale_result(&mut self, p: usize, id: CallId) {
        let Some(old) = self.processes[p].stale.remove(&id.slot) else { return };
        let had_outputs = self.processes[p].calls[&old].rows.iter().any(|row| row.has_outputs);
        let Some(key) = self.end_call(p, id) else { return };
        let lengths = self.processes[p].calls[&key].lanes.clone();
        let lanes: Vec<_> = lengths.iter().map(|&done| LaneEnd { done, verdict: None }).collect();
        self.note(p, "stale result", None, -1, i64::from(had_outputs));
        self.end_without_outputs(p, id, &lanes);
    }

    /// Reports a result without outputs.
    pub(super) fn end_without_outputs(&mut self, p: usize, call: CallId, lanes: &[LaneEnd]) {
        let took = Duration::ZERO;
        self.feed(p, Input::CallEnded { call, lanes, with_outputs: &[], output_bytes: &[], took });
    }
}
