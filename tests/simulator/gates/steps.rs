//! What a core does in one step: it is explained when the step is over, because actions do not show in which order the core
//! has decided.

use std::time::Duration;

use keylane_core::{
    ArenaSlot, CallId, Change, ClosedGap, Core, EventId, FetchedRow, OwnershipState, Reason, RememberedId,
};

use super::super::plan::MS;
use super::super::process::{CallRow, key_of};
use super::super::trace::Seen;
use super::super::world::World;
use super::model::{Entry, EventModel, EventState, Model, Place};
use super::stream_time::StreamTime;
use super::{KeyModel, KeyName};

#[derive(Debug, Default)]
pub(super) struct Step {
    /// Partition, offset and timestamp of rows that were read.
    pub(super) read: Vec<(usize, i64, i64)>,
    /// Partition and offset of events that were released and have no outcome yet.
    pub(super) released: Vec<(usize, i64)>,
    /// Events that the gate has rejected.
    pub(super) rejected: Vec<(usize, i64, Reason)>,
    pub(super) gaps: Vec<(usize, ClosedGap)>,
    /// The rows of the lanes of calls.
    pub(super) dispatched: Vec<Vec<CallRow>>,
    /// Keys whose last event was released.
    pub(super) quiet: Vec<(usize, KeyName)>,
}

impl Step {
    pub(super) fn unexplained(&self) -> usize {
        self.released.len() + self.rejected.len() + self.gaps.len()
    }

    pub(super) fn is_rejected(&self, index: usize, offset: i64) -> bool {
        self.rejected.iter().any(|&(of, at, _)| (of, at) == (index, offset))
    }
}

/// Whether a gate may give an event this reason.
pub(crate) fn is_of_gate(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::NoOrderValue | Reason::OrderValueAhead | Reason::BelowFirst | Reason::Gap | Reason::Late
    )
}

impl World {
    /// An ownership begins.
    pub(crate) fn begin_gates(&mut self, p: usize, index: usize, (ownership, offset): (u64, i64)) {
        if !self.is_gated() {
            return;
        }
        self.processes[p].parts[index].claimed.begin_at(offset);
        self.begin_memory(p, index);
        let keys = self.gates.committed[index].iter();
        let keys = keys.map(|(&key, memory)| (key, KeyModel::begin(memory))).collect();
        let time = StreamTime::begin(self.uptime(p));
        let part = self.gate_part(p, index);
        part.ownership = Some(ownership);
        part.model = Model { keys, time, ..Model::default() };
    }

    pub(crate) fn end_gates(&mut self, p: usize, index: usize, ownership: u64) {
        let part = self.gate_part(p, index);
        if part.ownership == Some(ownership) {
            part.ownership = None;
            part.model = Model::default();
        }
    }

    /// The next offset of a partition, if its ownership is active.
    fn next_offset(core: &Core, partition: keylane_core::Partition) -> Option<i64> {
        let view = core.view();
        let view = view.partitions.iter().find(|view| view.partition == partition)?;
        (view.state == OwnershipState::Active).then_some(view.next_offset)
    }

    /// Rows are about to be passed to the core: those that it does not have are admitted, unless it says otherwise.
    pub(crate) fn admit_rows(&mut self, p: usize, index: usize, rows: &[FetchedRow]) {
        if !self.is_gated() {
            return;
        }
        let partition = self.logs[index].partition;
        let next = self.processes[p].core.as_ref().and_then(|core| World::next_offset(core, partition));
        let Some(next) = next else { return };
        let end = self.processes[p].ends[index].unwrap_or(i64::MAX);
        let wall_ms = (self.now / MS) as i64;
        for row in rows.iter().filter(|row| row.offset >= next && row.offset < end) {
            let Some(record) = self.logs[index].record(row.offset) else { continue };
            let (lane, order, filtered) = (record.lane, record.order, record.filtered);
            let slot = row.arena_slot.0;
            if self.processes[p].gates.slots.contains_key(&slot) {
                let model = &mut self.gate_part(p, index).model;
                let admitted_mark = model.keys.get(&order.key).and_then(|key| key.mark);
                let event = EventModel {
                    offset: row.offset,
                    admitted_mark,
                    lane,
                    order,
                    filtered,
                    state: EventState::Queued,
                    admitted: Duration::ZERO,
                    admitted_ms: wall_ms,
                    rejected: None,
                };
                self.gate_part(p, index).model.events.entry(row.offset).or_insert(event);
            }
            self.processes[p].gates.step.read.push((index, row.offset, row.timestamp));
        }
    }

    /// The rows of a read were admitted, up to the next offset of the partition: stream time follows them.
    pub(super) fn follow_records(&mut self, p: usize, core: &Core) {
        let (wall_ms, uptime) = ((self.now / MS) as i64, self.uptime(p));
        for (index, offset, timestamp) in std::mem::take(&mut self.processes[p].gates.step.read) {
            let next = World::next_offset(core, self.logs[index].partition);
            if next.is_some_and(|next| offset < next) {
                let model = &mut self.gate_part(p, index).model;
                model.time.record(timestamp, wall_ms, uptime);
                let now = model.time.now();
                model.events.entry(offset).and_modify(|event| event.admitted = now);
            }
        }
    }

    /// Whether no call may begin, or a rebalance is not answered: then stream time stands.
    pub(super) fn is_paused(&self, p: usize) -> bool {
        self.processes[p].backlog || self.processes[p].outstanding.is_some()
    }

    /// The end of a log was seen.
    pub(super) fn end_seen(&mut self, p: usize, index: usize, end: i64, sent_at: Duration) {
        let partition = self.logs[index].partition;
        let next = self.processes[p].core.as_ref().and_then(|core| World::next_offset(core, partition));
        if self.is_paused(p) {
            let uptime = self.uptime(p);
            self.gate_part(p, index).model.time.stand(uptime);
        } else if next.is_some_and(|next| next >= end) {
            self.saw(Seen::LogEndsReached);
            self.gate_part(p, index).model.time.at_end(sent_at);
        }
    }

    pub(crate) fn release_gated(&mut self, p: usize, slot: ArenaSlot, offset: i64) {
        let Some((keys, quiet)) = self.release_keys(p, slot) else { return };
        let index = keys.index;
        let part = self.gate_part(p, index);
        let is_open = part.model.events.get(&offset).is_some_and(|event| event.state != EventState::Settled);
        // An event that was read again has two slots.
        let is_kept = self.processes[p]
            .gates
            .slots
            .values()
            .any(|other| (other.index, other.offset) == (index, offset));
        let step = &mut self.processes[p].gates.step;
        if is_open && !is_kept {
            step.released.push((index, offset));
        }
        step.quiet.extend(quiet.into_iter().map(|key| (index, key)));
    }

    /// Rows of one lane are dispatched.
    pub(crate) fn dispatch_gated(&mut self, p: usize, rows: &[CallRow]) {
        rows.iter().for_each(|row| self.planted_mark(p, row));
        self.planted_releases(p, rows);
        let rows = self.planted_rows(rows);
        self.processes[p].gates.step.dispatched.push(rows);
    }

    pub(crate) fn gap_closed(&mut self, p: usize, gap: ClosedGap) {
        let index = self.index(gap.partition);
        self.note(p, "gap closed", Some(index), gap.early.1, gap.early.0);
        self.processes[p].gates.step.gaps.push((index, gap));
    }

    /// The gate rejects an event.
    pub(crate) fn reject_gated(&mut self, p: usize, index: usize, offset: i64, reason: Reason) {
        self.processes[p].gates.step.rejected.push((index, offset, reason));
    }

    /// The rows of a call that are done settle in the order of their lanes, when the effects before them are acknowledged.
    pub(crate) fn settle_done_rows(&mut self, p: usize, call: CallId) {
        if !self.is_gated() {
            return;
        }
        // The result of a cancelled call does not count.
        let call = self.processes[p].calls.get(&key_of(call)).filter(|call| call.cancelled.is_none());
        let Some(call) = call else { return };
        let (rows, lengths) = (call.rows.clone(), call.lanes.clone());
        let is_transactional = self.is_transactional();
        let mut first = 0;
        for length in lengths {
            let of_lane = &rows[first..first + length as usize];
            first += length as usize;
            for row in of_lane {
                let part = self.gate_part(p, row.partition);
                let event = part.model.events.get(&row.offset);
                let is_settled = event.is_some_and(|event| event.state == EventState::Settled);
                let acked = is_transactional || !row.has_outputs || (row.produced && !row.unanswered);
                if is_settled {
                    continue;
                }
                if !row.done || !acked || self.has_failed(p, row) || !self.processes[p].is_open(row) {
                    break;
                }
                self.done_gated(p, row.partition, row.ownership, row.offset);
            }
        }
    }

    /// The dead letter of an event is acknowledged.
    pub(crate) fn dead_letter_acked_gated(&mut self, p: usize, call: CallId, at: u32) {
        let of_call = self.processes[p].calls.get(&key_of(call));
        let row = of_call.and_then(|call| call.rows.get(at as usize)).copied();
        let Some(row) = row.filter(|row| self.is_gated() && self.processes[p].is_open(row)) else { return };
        let part = self.gate_part(p, row.partition);
        let rejected = part.model.events.get(&row.offset).and_then(|event| event.rejected);
        let reason = rejected.unwrap_or(Reason::Rejected);
        self.failed_gated(p, row.partition, row.ownership, row.offset, reason);
        self.settle_done_rows(p, call);
    }

    /// Transactional delivery: a dead letter is kept.
    pub(crate) fn dead_letter_gated(&mut self, p: usize, row: &CallRow, reason: Reason) {
        if is_of_gate(reason) {
            self.reject_gated(p, row.partition, row.offset, reason);
        } else if self.is_gated() {
            self.failed_gated(p, row.partition, row.ownership, row.offset, reason);
        }
    }

    /// An event is skipped.
    pub(crate) fn skip_gated(
        &mut self,
        p: usize,
        index: usize,
        offset: i64,
        (call, reason): (CallId, Reason),
    ) {
        if !self.is_gated() {
            return;
        }
        if is_of_gate(reason) {
            return self.reject_gated(p, index, offset, reason);
        }
        if let Some(ownership) = self.gate_part(p, index).ownership {
            self.failed_gated(p, index, ownership, offset, reason);
            self.settle_done_rows(p, call);
        }
    }

    // -- what settles -------------------------------------------------------------------------------

    /// The handler has processed an event, and its outputs are acknowledged.
    pub(crate) fn done_gated(&mut self, p: usize, index: usize, ownership: u64, offset: i64) {
        let wall_ms = (self.now / MS) as i64;
        let Some(plan) = self.plan.gates else { return };
        let part = self.gate_part(p, index);
        let Some(event) = part.model.events.get(&offset).copied() else { return };
        if part.ownership != Some(ownership) || event.state == EventState::Settled {
            return;
        }
        let key = part.model.keys.entry(event.order.key).or_default();
        let place = event.order.value.zip(plan.gate).map(|(value, gate)| key.place(gate.rule, value));
        let is_late = matches!(place, Some(Place::Hole | Place::Late)) && !event.ends_key(&plan);
        let may_have_waited = event.may_have_waited(key);
        let changes = super::checks::changes_of_done(&plan, key, &event);
        if is_late {
            self.processes[p].gates.counted.late(place == Some(Place::Hole) || !may_have_waited);
        }
        self.settle_gated(p, index, offset, &changes);
        if event.order.id != 0 && plan.duplicates.is_some() {
            let id = RememberedId { id: EventId(event.order.id), settled_ms: wall_ms };
            self.change_model(p, index, offset, event.order.id_key, Change::Id(id));
        }
    }

    /// An event was dead-lettered or skipped.
    pub(crate) fn failed_gated(
        &mut self,
        p: usize,
        index: usize,
        ownership: u64,
        offset: i64,
        reason: Reason,
    ) {
        let Some(plan) = self.plan.gates else { return };
        let part = self.gate_part(p, index);
        let Some(event) = part.model.events.get(&offset).copied() else { return };
        if part.ownership != Some(ownership) || event.state == EventState::Settled {
            return;
        }
        let key = part.model.keys.entry(event.order.key).or_default();
        let changes = super::checks::changes_of_failed(&plan, key, &event, reason);
        if !is_of_gate(reason) {
            key.failed = key.failed.max(event.order.value);
        }
        self.settle_gated(p, index, offset, &changes);
        self.planted_id(p, index, offset);
    }

    /// An event has settled, and changes its key.
    pub(super) fn settle_gated(&mut self, p: usize, index: usize, offset: i64, changes: &[Change]) {
        let model = &mut self.gate_part(p, index).model;
        let Some(event) = model.events.get_mut(&offset) else { return };
        event.state = EventState::Settled;
        let key = event.order.key;
        if !changes.is_empty() {
            let attached = model.keys.entry(key).or_default().attached.split_off(0);
            for change in attached {
                self.write_journal(p, index, offset, key, change); // it was applied before
            }
        }
        for &change in changes {
            self.change_model(p, index, offset, key, change);
        }
        if changes.contains(&Change::Ended) {
            self.gate_part(p, index).model.keys.entry(key).or_default().ended_at = Some(offset);
        }
    }

    fn change_model(&mut self, p: usize, index: usize, offset: i64, key: KeyName, change: Change) {
        let keep = self.plan.gates.and_then(|plan| plan.duplicates).map_or(0, |ids| ids.keep as usize);
        self.gate_part(p, index).model.keys.entry(key).or_default().apply(change, keep);
        self.write_journal(p, index, offset, key, change);
    }

    fn write_journal(&mut self, p: usize, index: usize, offset: i64, key: KeyName, change: Change) {
        let Some(ownership) = self.gate_part(p, index).ownership else { return };
        let input = self.processes[p].shell.inputs;
        let entry = Entry { input, offset, key, change };
        self.processes[p].gates.journals.entry(ownership).or_default().push(entry);
    }
}
