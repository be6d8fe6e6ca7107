//! What is remembered of keys that have no events, and by committed transactions.

use keylane_core::{Core, OwnershipState};

use super::super::transactions::{Coverage, Entry};
use super::super::world::World;
use super::KeyName;
use super::model::{EventState, KeyModel};

impl World {
    /// When a key has no events, what is remembered of it is what its events have changed.
    pub(super) fn check_quiet(&mut self, p: usize, core: &Core, index: usize, key: KeyName) {
        if !self.reads_current_topic(p, index) {
            return;
        }
        let partition = self.logs[index].partition;
        let part = self.gate_part(p, index);
        let ownership = part.ownership;
        let view = core.view();
        let is_current = view.partitions.iter().any(|view| {
            (view.partition, Some(view.ownership.0), view.state)
                == (partition, ownership, OwnershipState::Active)
        });
        let mut events = part.model.events.values();
        let is_quiet = events.all(|event| {
            event.state == EventState::Settled || (event.order.key != key && event.order.id_key != key)
        });
        if !is_current || !is_quiet {
            return;
        }
        let remembered = KeyModel::from_memory(&part.memory.key(key));
        let expected = part.model.keys.get(&key).map(KeyModel::remembered).unwrap_or_default();
        let few = expected.ranges() < keylane_core::HOLES_MAX;
        self.require(remembered == expected || !few, "G7 memory", index, -1, || {
            format!("process {p} remembers {remembered:?} of {key}, not {expected:?}")
        });
    }

    /// A transaction takes effect: the memory is what the claimed events have left.
    pub(crate) fn commit_memory(&mut self, p: usize, entry: &Entry, before: &Coverage, now: &Coverage) {
        if !self.is_gated() {
            return;
        }
        let index = entry.partition;
        self.store_changes(entry);
        let keep = self.plan.gates.and_then(|plan| plan.duplicates).map_or(0, |ids| ids.keep as usize);
        let mut journal = self.processes[p].gates.journals.remove(&entry.ownership).unwrap_or_default();
        let is_new = |item: &super::model::Entry| now.covers(item.offset) && !before.covers(item.offset);
        let last = journal.iter().filter(|item| is_new(item)).map(|item| item.input).max().unwrap_or(0);
        let (plan, log) = (self.plan.gates, &self.logs[index]);
        let expected = &mut self.gates.expected[index];
        journal.retain(|item| {
            // A set may leave out filtered events that have settled before others.
            let is_filtered = log.record(item.offset).is_some_and(|record| record.filtered);
            let is_committed = is_new(item) || (is_filtered && item.input < last);
            if !is_committed {
                return true;
            }
            if plan.is_some_and(|plan| plan.is_durable(item.change)) {
                expected.entry(item.key).or_default().apply(item.change, keep);
            }
            false
        });
        self.processes[p].gates.journals.insert(entry.ownership, journal);
        let different = self.gates.committed[index].iter().find_map(|(key, memory)| {
            let (mut is, expected) = (KeyModel::from_memory(memory), self.gates.expected[index].get(key));
            let mut expected = expected.map(KeyModel::remembered).unwrap_or_default();
            // Whether a key is broken depends on when a dead letter begins. It is compared while the ownership lasts.
            (is.broken, expected.broken) = (false, false);
            let few = expected.ranges() < keylane_core::HOLES_MAX;
            (is != expected && few).then_some((*key, is, expected))
        });
        if let Some((key, is, expected)) = different {
            let text = format!("process {p} commits {is:?} of {key}, not {expected:?}: {entry:?}");
            self.report_violation("G7 durable memory", text, Some(index), -1);
        }
    }
}
