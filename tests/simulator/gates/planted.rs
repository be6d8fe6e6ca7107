//! Known bugs of gates, planted between the core and its shell.

use keylane_core::{Change, Config, Dispatch, EventId, GateRule, Late, RememberedId};

use super::super::log::Record;
use super::super::plan::MS;
use super::super::planted::Planted;
use super::super::process::CallRow;
use super::super::world::World;
use super::KeyName;
use super::RecordOrder;
use super::memory::NumberedChange;
use super::model::{EventModel, EventState};

impl World {
    /// Changes that the shell does not keep.
    pub(super) fn is_lost(&self, index: usize, key: KeyName, change: Change) -> bool {
        match (self.planted, change) {
            (Some(Planted::HolesForgotten), Change::Holes(..))
            | (Some(Planted::TombstoneLeavesMark), Change::Ended) => true,
            (Some(Planted::FilteredMarkLost), Change::Mark(mark)) => {
                let is_it = |record: &&Record| record.order.key == key && record.order.value == Some(mark);
                self.logs[index].records.iter().find(is_it).is_some_and(|record| record.filtered)
            }
            _ => false,
        }
    }

    /// The mark moves when an event is dispatched.
    pub(super) fn planted_mark(&mut self, p: usize, row: &CallRow) {
        if self.planted != Some(Planted::MarkAtDispatch) {
            return;
        }
        let order = self.record_of(row.partition, row.incarnation, row.offset).map(|record| record.order);
        if let Some(order) = order
            && let Some(value) = order.value
            && self.gate_part(p, row.partition).memory.key(order.key).mark < Some(value)
        {
            let change = Change::Mark(value);
            self.change_memory(p, row.partition, NumberedChange { number: 0, key: order.key, change });
        }
    }

    /// The id of an event that was dead-lettered is remembered.
    pub(super) fn planted_id(&mut self, p: usize, index: usize, offset: i64) {
        let order = self.logs[index].record(offset).map(|record| record.order);
        if self.planted == Some(Planted::IdOfDeadLetter)
            && let Some(order) = order.filter(|order| order.id != 0)
            && self.plan.gates.is_some_and(|plan| plan.duplicates.is_some())
        {
            let settled_ms = (self.now / MS) as i64;
            let change = Change::Id(RememberedId { id: EventId(order.id), settled_ms });
            self.change_memory(p, index, NumberedChange { number: 0, key: order.id_key, change });
        }
    }

    /// An event whose value is not above the mark when it is read is dropped.
    pub(crate) fn is_dropped_at_admission(&mut self, p: usize, index: usize, record: &Record) -> bool {
        if self.planted != Some(Planted::StaleAtAdmission) || !self.is_gated() {
            return false;
        }
        let mark = self.gate_part(p, index).memory.key(record.order.key).mark;
        record.order.value.is_some() && record.order.value <= mark
    }

    /// The order value that the core gets: with some bugs, it compares another one.
    pub(super) fn planted_value(
        &mut self,
        p: usize,
        index: usize,
        order: &RecordOrder,
        mark: Option<i64>,
    ) -> Option<i64> {
        let Some(GateRule::Window(rule)) = self.plan.gates.and_then(|plan| plan.gate).map(|gate| gate.rule)
        else {
            return order.value;
        };
        match (self.planted, order.value.zip(mark)) {
            // Only a value below the mark is late.
            (Some(Planted::LateBelowMarkOnly), Some((value, mark)))
                if value == mark && rule.late != Late::Deliver =>
            {
                value.checked_add(1)
            }
            // The mark has moved to the greatest value that was released.
            (Some(Planted::WindowMarkAtRelease), Some((value, mark))) if value > mark => {
                let model = &self.gate_part(p, index).model;
                let is_released = |event: &&EventModel| {
                    let waited = model.time.now().saturating_sub(event.admitted);
                    event.order.key == order.key && event.state == EventState::Queued && waited >= rule.window
                };
                let released = model.events.values().filter(is_released);
                let is_late = released.filter_map(|event| event.order.value).max() > Some(value);
                Some(if is_late { mark } else { value })
            }
            _ => order.value,
        }
    }

    /// Events that settle without a call when another one is dispatched.
    pub(super) fn planted_releases(&mut self, p: usize, rows: &[CallRow]) {
        let (planted, Some(plan)) = (self.planted, self.plan.gates) else { return };
        for row in rows {
            let model = &self.gate_part(p, row.partition).model;
            let Some(event) = model.events.get(&row.offset) else { continue };
            let is_settled = |other: &&EventModel| {
                let is_queued =
                    other.state == EventState::Queued && !rows.iter().any(|row| row.offset == other.offset);
                let is_lower = other.order.key == event.order.key && other.order.value < event.order.value;
                let is_repeat = (other.order.id_key, other.order.id) == (event.order.id_key, event.order.id);
                is_queued
                    && match planted {
                        Some(Planted::SupersededAtDispatch) => plan.runs_latest_first() && is_lower,
                        Some(Planted::DuplicateOfRunning) => {
                            plan.duplicates.is_some() && event.order.id != 0 && is_repeat
                        }
                        _ => false,
                    }
            };
            let settled: Vec<_> =
                model.events.values().filter(is_settled).map(|event| event.offset).collect();
            let released = settled.into_iter().map(|offset| (row.partition, offset));
            self.processes[p].gates.step.released.extend(released);
        }
    }

    /// An event that has waited long enough is released without those of lower values.
    pub(super) fn planted_rows(&self, rows: &[CallRow]) -> Vec<CallRow> {
        let mut rows = rows.to_vec();
        let rule = self.plan.gates.and_then(|plan| plan.gate).map(|gate| gate.rule);
        if self.planted == Some(Planted::ReleasedAlone) && matches!(rule, Some(GateRule::Window(_))) {
            rows.sort_by_key(|row| row.offset);
        }
        rows
    }

    /// An event that takes the place of one between two attempts begins with its first attempt.
    pub(crate) fn planted_attempt<'d>(
        &self,
        p: usize,
        dispatch: &Dispatch<'d>,
        rows: &[CallRow],
    ) -> Dispatch<'d> {
        let is_reset = self.planted == Some(Planted::AttemptsReset)
            && rows.iter().any(|row| !self.gave_way_to(p, row).is_empty());
        let attempt = if is_reset { 1 } else { dispatch.attempt };
        let last_attempt =
            if is_reset { self.processes[p].retry.max_attempts == 1 } else { dispatch.last_attempt };
        Dispatch { attempt, last_attempt, ..*dispatch }
    }

    /// The core does not know a limit.
    pub(crate) fn planted_gate(&self, config: &mut Config) {
        let Some(gate) = &mut config.gate else { return };
        match (self.planted, &mut gate.rule) {
            (Some(Planted::AheadAccepted), _) => gate.max_ahead = None,
            (Some(Planted::GapTimeoutIgnored), GateRule::Consecutive(rule)) => rule.gap_timeout = None,
            _ => {}
        }
    }
}
