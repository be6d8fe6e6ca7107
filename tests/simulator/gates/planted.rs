//! Known bugs of gates, planted between the core and its shell.

use keylane_core::{Change, Config, EventId, RememberedId};

use super::super::log::Record;
use super::super::plan::MS;
use super::super::planted::Planted;
use super::super::process::CallRow;
use super::super::world::World;
use super::KeyName;
use super::memory::NumberedChange;

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

    /// The core does not know a limit.
    pub(crate) fn planted_gate(&self, config: &mut Config) {
        if self.planted == Some(Planted::AheadAccepted)
            && let Some(gate) = &mut config.gate
        {
            gate.max_ahead = None;
        }
    }
}
