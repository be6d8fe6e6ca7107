//! What is remembered of gate keys: in a process with the changes of its ownership, and by the committed transactions.

use std::collections::BTreeMap;

use keylane_core::{Change, KeyMemory, MemoryChange};

use super::super::planted::Planted;
use super::super::trace::Seen;
use super::super::transactions::Entry;
use super::super::world::World;
use super::KeyName;

/// A change that no committed transaction contains.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NumberedChange {
    pub(super) number: u64,
    pub(super) key: KeyName,
    pub(super) change: Change,
}

/// What a process remembers of the keys of one partition.
#[derive(Debug, Default)]
pub(super) struct GateMemory {
    /// With the changes that are not committed.
    pub(super) keys: BTreeMap<KeyName, KeyMemory>,
    /// The durable changes that are not committed, in their order.
    uncommitted: Vec<NumberedChange>,
}

impl GateMemory {
    pub(super) fn key(&self, key: KeyName) -> KeyMemory {
        self.keys.get(&key).cloned().unwrap_or_default()
    }
}

impl World {
    fn keep_ids(&self) -> usize {
        self.plan.gates.and_then(|plan| plan.duplicates).map_or(0, |duplicates| duplicates.keep as usize)
    }

    fn is_durable(&self, change: Change) -> bool {
        self.plan.gates.is_some_and(|plan| plan.is_durable(change))
    }

    /// An ownership begins with what the committed transactions have left.
    pub(super) fn begin_memory(&mut self, p: usize, index: usize) {
        let is_planted = self.planted == Some(Planted::UncommittedMarks);
        let from = if is_planted { &self.gates.uncommitted } else { &self.gates.committed };
        let keys = from[index].clone();
        self.gate_part(p, index).memory = GateMemory { keys, uncommitted: Vec::new() };
    }

    /// The core makes the shell remember changes.
    pub(crate) fn remember_keys(&mut self, p: usize, changes: &[MemoryChange]) {
        for change in changes {
            let MemoryChange { partition, ownership, key: number, number: settled, change } = *change;
            let index = self.index(partition);
            let is_transactional = self.is_transactional();
            let part = self.gate_part(p, index);
            let (current, key) = (part.ownership, part.numbers.key_of(number));
            self.note(
                p,
                "remembers",
                Some(index),
                -1,
                key.map_or(-1, |key| key as i64).wrapping_mul(1_000_000).wrapping_add(kind(change)),
            );
            self.require(current == Some(ownership.0), "I6 quiet after ownership", index, -1, || {
                format!("process {p} remembers {change:?} of {ownership:?}; the ownership is {current:?}")
            });
            let valid = (settled.0 > 0) == is_transactional;
            let Some(key) = key.filter(|_| valid) else {
                let text = format!(
                    "process {p} remembers {change:?} of {number:?}, which has no events, with {settled:?}"
                );
                return self.report_violation("I-protocol", text, Some(index), -1);
            };
            if !self.is_lost(index, key, change) {
                self.change_memory(p, index, NumberedChange { number: settled.0, key, change });
            }
        }
    }

    pub(super) fn change_memory(&mut self, p: usize, index: usize, numbered: NumberedChange) {
        let NumberedChange { key, change, .. } = numbered;
        let (keep_ids, is_durable) = (self.keep_ids(), self.is_durable(change));
        match change {
            Change::Filled(_) => self.saw(Seen::HolesFilled),
            Change::Ended => self.saw(Seen::GateKeysEnded),
            Change::Broken(true) => self.saw(Seen::GateKeysBroken),
            Change::Mark(_)
            | Change::Holes(..)
            | Change::Broken(false)
            | Change::Delivered(_)
            | Change::Id(_) => {}
        }
        if is_durable {
            self.gates.uncommitted[index].entry(key).or_default().apply(change, keep_ids);
        }
        let memory = &mut self.gate_part(p, index).memory;
        memory.keys.entry(key).or_default().apply(change, keep_ids);
        if is_durable {
            memory.uncommitted.push(numbered);
        }
    }

    /// The changes that a transaction contains.
    pub(crate) fn changes_to_commit(&self, p: usize, entry: &Entry) -> Vec<NumberedChange> {
        let part = self.processes[p].gates.parts.get(&entry.partition);
        let part = part.filter(|part| part.ownership == Some(entry.ownership));
        let uncommitted = part.map_or(&[][..], |part| &part.memory.uncommitted);
        uncommitted.iter().filter(|change| change.number <= entry.through).copied().collect()
    }

    /// The process knows that a transaction was committed.
    pub(crate) fn changes_committed(&mut self, p: usize, entry: &Entry) {
        let part = self.gate_part(p, entry.partition);
        if part.ownership == Some(entry.ownership) {
            part.memory.uncommitted.retain(|change| change.number > entry.through);
        }
    }

    /// A committed transaction takes effect.
    pub(super) fn store_changes(&mut self, entry: &Entry) {
        let keep_ids = self.keep_ids();
        let committed = &mut self.gates.committed[entry.partition];
        for &NumberedChange { key, change, .. } in &entry.changes {
            committed.entry(key).or_default().apply(change, keep_ids);
        }
        if !entry.changes.is_empty() {
            self.saw(Seen::GateMemoriesCommitted);
        }
    }
}

/// For the trace.
fn kind(change: Change) -> i64 {
    match change {
        Change::Mark(value) => value,
        Change::Holes(_, to) => -100 - to,
        Change::Filled(value) => -10_000 - value,
        Change::Broken(broken) => -1 - i64::from(broken),
        Change::Delivered(value) => value,
        Change::Id(_) => -3,
        Change::Ended => -4,
    }
}
