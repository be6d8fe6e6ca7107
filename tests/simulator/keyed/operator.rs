//! An operator, who stops all processes first: the group's offsets can be changed only while it has no members.

use keylane_state::BINDING_KEY;

use super::super::commits::Stored;
use super::super::plan::{MS, SECOND};
use super::super::trace::Seen;
use super::super::transactions::Coverage;
use super::super::world::{Event, Stage, World};
use super::changelog::KeyRecord;

/// What the operator does when nobody runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Visit {
    /// Resets an offset, or it expires.
    Reset,
    /// Repairs the partitions that do not start.
    Repair,
}

impl World {
    pub(crate) fn call_operator_to_reset(&mut self) {
        self.call_operator(Visit::Reset);
    }

    /// A partition does not start, because its states are not those of the committed offset.
    pub(crate) fn call_operator_to_repair(&mut self) {
        self.call_operator(Visit::Repair);
    }

    fn call_operator(&mut self, visit: Visit) {
        let before = self.keyed.operator;
        if self.stage == Stage::Leaving || (before.is_some() && visit == Visit::Reset) {
            return;
        }
        self.keyed.operator = Some(visit);
        if before.is_none() {
            self.after(MS, Event::Operator);
        }
    }

    /// Whether processes may not start now.
    pub(crate) fn is_operated(&self) -> bool {
        self.keyed.operator.is_some()
    }

    pub(crate) fn operate(&mut self) {
        let Some(visit) = self.keyed.operator else { return };
        for p in 0..self.processes.len() {
            if self.processes[p].alive && !self.processes[p].draining && !self.processes[p].paused {
                self.drain(p);
            }
        }
        let runs = self.processes.iter().any(|process| process.alive) || !self.group.members.is_empty();
        if runs || (0..self.logs.len()).any(|index| self.is_pending(index)) {
            self.after(100 * MS, Event::Operator);
            return;
        }
        self.keyed.operator = None;
        match visit {
            Visit::Reset if self.stage == Stage::Faults => {
                let index = self.rng.index(self.logs.len());
                self.reset_without_state(index);
            }
            Visit::Reset => {}
            Visit::Repair => {
                for index in 0..self.logs.len() {
                    if self.is_unbound(index) {
                        self.repair(index);
                    }
                }
            }
        }
        if self.stage == Stage::Healing {
            self.deadline_at = self.now + 60 * SECOND;
            self.after(60 * SECOND, Event::Deadline);
        }
    }

    /// The offset of a partition is reset by a tool that does not know the states, or it expires.
    fn reset_without_state(&mut self, index: usize) {
        if self.stored[index].is_none() {
            return;
        }
        self.saw(Seen::OffsetsReset);
        let (start, end) = (self.logs[index].start, self.logs[index].end);
        let to = self.rng.range(start as u64, end as u64) as i64;
        let expires = self.rng.percent(30);
        self.note(0, "offset reset", Some(index), to, i64::from(expires));
        let sent = self.trace.lines.len() as u64;
        self.stored[index] = (!expires).then(|| Stored::new(to, Vec::new(), sent));
    }

    fn repair(&mut self, index: usize) {
        match self.latest_binding(index) {
            Some(binding) if self.rng.percent(50) && !self.is_bound_elsewhere(index) => {
                self.adopt(index, binding.offset, binding.metadata)
            }
            Some(_) | None => self.reset_states(index),
        }
    }

    /// The group continues from the states: their offset and metadata are committed again.
    fn adopt(&mut self, index: usize, offset: i64, metadata: Vec<u8>) {
        self.saw(Seen::StatesAdopted);
        self.note(0, "adopted", Some(index), offset, 0);
        let claimed = self.coverage(index, offset, &metadata);
        self.set_claimed(index, claimed.unwrap_or_else(|| Coverage::up_to(offset)));
        let sent = self.trace.lines.len() as u64;
        self.stored[index] = Some(Stored::new(offset, metadata, sent));
    }

    /// The states are deleted, and the group continues from an offset: in one transaction.
    fn reset_states(&mut self, index: usize) {
        self.saw(Seen::StatesReset);
        let log = &self.logs[index];
        let offset = self.stored[index].as_ref().map_or(log.start, |stored| stored.offset);
        let offset = offset.clamp(log.start, log.end);
        self.note(0, "states reset", Some(index), offset, 0);
        self.waive(index);
        let live = self.keyed.changelogs[index].latest.iter().filter(|(_, (_, value))| value.is_some());
        let partition = index;
        let mut records: Vec<KeyRecord> =
            live.map(|(key, _)| KeyRecord { partition, key: key.clone(), value: None }).collect();
        let identity = self.binding_identity(index, self.logs[index].topic_id);
        let value = Some(World::binding(&identity, offset, &[]));
        records.push(KeyRecord { partition, key: BINDING_KEY.as_slice().into(), value });
        self.append_of_operator(&records);
        let truth = &mut self.keyed.truths[index];
        truth.states.clear();
        truth.changed_at.clear();
        truth.bound = Some((offset, Vec::new()));
        self.set_claimed(index, Coverage::up_to(offset));
        let sent = self.trace.lines.len() as u64;
        self.stored[index] = Some(Stored::new(offset, Vec::new(), sent));
    }
}
