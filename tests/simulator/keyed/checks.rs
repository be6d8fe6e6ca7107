//! What holds for states: a committed transaction leaves the fold of the events that are claimed as done since a state was
//! forgotten last, which is old then, an ownership
//! begins with that fold, and a store contains nothing that no transaction has committed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use keylane_state::{BINDING_KEY, Binding, Entry, KeyBytes, Mismatch, StateValue};

use super::super::plan::Micros;
use super::super::transactions::Entry as TransactionEntry;
use super::super::world::World;
use super::fold;
use super::store::Content;

/// What the changelog of a partition must contain.
#[derive(Debug, Default)]
pub(super) struct Truth {
    /// The folds of the events that are claimed as done.
    pub(super) states: BTreeMap<u64, StateValue>,
    /// When the event settled that has changed a state last.
    pub(super) changed_at: BTreeMap<u64, Micros>,
    /// The offset and metadata of the last transaction.
    pub(super) bound: Option<(i64, Vec<u8>)>,
    /// Every key and value of a transaction that is committed, or is going to be.
    decided: BTreeSet<(KeyBytes, StateValue)>,
}

impl World {
    /// An event is claimed as done by a transaction that takes effect now. Events of a lane come in their order.
    pub(crate) fn fold_done(&mut self, index: usize, offset: i64, settled_at: Micros) {
        let Some(key) = self.logs[index].record(offset).and_then(|record| record.key) else { return };
        if self.is_keyed() {
            let truth = &mut self.keyed.truths[index];
            let state = truth.states.entry(key).or_default();
            let before = std::mem::replace(state, fold::after(state, key, offset));
            if *state != before {
                truth.changed_at.insert(key, settled_at);
            }
        }
    }

    /// A transaction was decided. Its markers may not be written yet.
    pub(crate) fn key_records_decided(&mut self, transaction: (usize, u64)) {
        if self.is_keyed() {
            for record in self.key_records_of(transaction) {
                self.keyed.truths[record.partition].decided.insert((record.key, record.value));
            }
        }
    }

    /// A transaction was committed, and is visible.
    pub(crate) fn check_changelogs(&mut self, p: usize, entries: &[TransactionEntry]) {
        if !self.is_keyed() {
            return;
        }
        for entry in entries {
            let (index, offset) = (entry.partition, entry.offset);
            let bound = Some((offset, entry.metadata.clone()));
            self.keyed.truths[index].bound.clone_from(&bound);
            let binding = self.latest_binding(index).map(|binding| (binding.offset, binding.metadata));
            self.require(binding == bound, "T8 binding", index, offset, || {
                format!("process {p} commits {bound:?}, but the binding is {binding:?}")
            });
            if self.is_bound_elsewhere(index) {
                continue; // a process that has not noticed the new topic
            }
            let latest = &self.keyed.changelogs[index].latest;
            let found = |key| latest.get(&key).and_then(|(_, value)| value.clone());
            let differs = self.first_difference(index, found);
            if let Some((key, expected, found)) = differs {
                let text = format!("process {p} leaves {found:?} of key {key}; its fold is {expected:?}");
                self.report_violation("T3 state", text, Some(index), offset);
            }
        }
    }

    /// The first key whose state is not the fold of its done events.
    fn first_difference(
        &self,
        index: usize,
        mut found: impl FnMut(KeyBytes) -> StateValue,
    ) -> Option<(u64, StateValue, StateValue)> {
        let truth = &self.keyed.truths[index];
        (0..self.plan.keys).find_map(|key| {
            let expected = truth.states.get(&key).cloned().flatten();
            let found = found(fold::record_key(key));
            (expected != found).then_some((key, expected, found))
        })
    }

    pub(super) fn latest_binding(&self, index: usize) -> Option<Binding> {
        let (_, value) = self.keyed.changelogs[index].latest.get(&BINDING_KEY[..])?;
        Binding::decode(value.as_deref()?).ok()
    }

    /// Whether the committed offset of a partition is not that of its states.
    pub(crate) fn is_unbound(&self, index: usize) -> bool {
        let stored = self.stored[index].as_ref().map(|stored| (stored.offset, &stored.metadata));
        let bound = self.keyed.truths[index].bound.as_ref().map(|(offset, metadata)| (*offset, metadata));
        self.is_keyed() && (stored != bound || self.is_bound_elsewhere(index))
    }

    /// Whether the states are those of a topic that was recreated.
    pub(super) fn is_bound_elsewhere(&self, index: usize) -> bool {
        let now = self.binding_identity(index, self.logs[index].topic_id).topic_id;
        self.latest_binding(index).is_some_and(|binding| binding.topic_id != now)
    }

    /// An ownership begins: its states are the fold of the events that the committed offset claims as done. A process
    /// that does not know yet that it has lost the partition can't commit anything.
    pub(super) fn check_start(&mut self, p: usize, index: usize) {
        if self.group.owner[index] != Some(p) {
            return;
        }
        let Some(mut session) = self.processes[p].shell.keyed.sessions.remove(&index) else { return };
        let bound = self.keyed.truths[index].bound.clone();
        let (committed, offset) = (session.committed.clone(), bound.as_ref().map_or(-1, |bound| bound.0));
        self.require(committed == bound, "T8 start", index, offset, || {
            format!("process {p} starts at {committed:?} with states of {bound:?}")
        });
        let store = &session.store.content;
        let states = &mut session.states;
        let differs = self.first_difference(index, |key| {
            let known = states.as_mut().and_then(|states| states.get(&key));
            known.unwrap_or_else(|| store.get(&key).map(|row| Arc::clone(&row.value)))
        });
        if let Some((key, expected, found)) = differs {
            let text = format!("process {p} starts with {found:?} of key {key}; its fold is {expected:?}");
            self.report_violation("T3 state", text, Some(index), offset);
        }
        self.processes[p].shell.keyed.sessions.insert(index, session);
    }

    /// Only a partition whose committed offset is not that of its states is refused.
    pub(super) fn check_refused(&mut self, p: usize, index: usize, mismatch: &Mismatch) {
        let valid = self.is_unbound(index) || self.group.owner[index] != Some(p);
        self.require(valid, "T8 refused", index, -1, || {
            format!("process {p} does not start, although states and offset are equal: {mismatch}")
        });
    }

    /// A file has no value that is older than its position, and none that no transaction has committed.
    pub(super) fn check_file(&mut self, p: usize, index: usize, content: &Content, position: i64) {
        let committed = &self.keyed.changelogs[index].committed;
        let keys = (0..self.plan.keys).map(fold::record_key).chain([BINDING_KEY.as_slice().into()]);
        let wrong = keys.map(|key| (content.get(&key).map(|row| Arc::clone(&row.value)), key)).find(
            |(found, key)| {
                let (from, at, to) =
                    ((key.clone(), i64::MIN), (key.clone(), position), (key.clone(), i64::MAX));
                let before =
                    committed.range(from..at.clone()).next_back().and_then(|(_, value)| value.clone());
                before != *found && !committed.range(at..to).any(|(_, value)| value == found)
            },
        );
        if let Some((found, key)) = wrong {
            let text = format!("process {p} opens a file at {position} with {found:?} of {key:?}");
            self.report_violation("T5 store", text, Some(index), -1);
        }
    }

    /// The end of the simulation: every changelog is bound to the committed offset.
    pub(crate) fn check_states_end(&mut self) {
        for index in 0..self.logs.len() {
            let bound = self.keyed.truths[index].bound.clone();
            let valid = !self.is_unbound(index);
            self.require(valid, "T8 binding", index, -1, || {
                format!("the states are of {bound:?}, which is not the committed offset")
            });
            let latest = &self.keyed.changelogs[index].latest;
            let found = |key| latest.get(&key).and_then(|(_, value)| value.clone());
            if let Some((key, expected, found)) = self.first_difference(index, found) {
                let text =
                    format!("the state of key {key} is {found:?} at the end; its fold is {expected:?}");
                self.report_violation("T3 state", text, Some(index), -1);
            }
        }
    }

    /// The store gets entries of committed transactions only.
    pub(super) fn check_entries(&mut self, p: usize, index: usize, entries: &[Entry]) {
        for entry in entries {
            let value: StateValue = entry.value.clone();
            let known = self.keyed.truths[index].decided.contains(&(entry.key.clone(), value));
            self.require(known, "T5 store", index, -1, || {
                format!("process {p} stores {entry:?}, which no transaction has committed")
            });
        }
    }
}
