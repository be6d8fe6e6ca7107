//! Topics that can't be written for a while, and outputs that a topic refuses: a transaction with such effects fails before
//! anything of it is stored.

use keylane_core::{AbortCause, Input, OwnershipId};

use super::super::plan::{Class, MS, SECOND};
use super::super::planted::Planted;
use super::super::process::CallRow;
use super::super::trace::Seen;
use super::super::world::{Event, World};
use super::kept::Effect;
use super::producer::Step;
use super::requests::{Entry, Produced};

impl World {
    /// Whether a topic fails the transaction that begins. The core receives the partition that this concerns.
    pub(super) fn is_refused(&mut self, p: usize) -> bool {
        if !self.has(Class::EffectsRefused) && !self.has(Class::TopicsBlocked) {
            return false;
        }
        let Some(effect) = self.some_effect(p) else { return false };
        let Effect { partition: index, ownership, offset, number, .. } = effect;
        let partition = self.logs[index].partition;
        if self.occurs(Class::EffectsRefused, 2) {
            self.saw(Seen::EffectsRefused);
            self.note(p, "effect refused", Some(index), offset, number as i64);
            if self.planted == Some(Planted::RefusedDropped) {
                self.processes[p].shell.kept.remove(&(number, offset));
            } else {
                let ownership = OwnershipId(ownership);
                self.feed(p, Input::EffectRefused { partition, ownership, offset });
            }
        } else if self.occurs(Class::TopicsBlocked, 4) {
            self.saw(Seen::PartitionsExcluded);
            self.note(p, "excluded", Some(index), offset, ownership as i64);
            self.processes[p].shell.excluded.insert(index, ownership);
            if self.planted != Some(Planted::ExclusionUnheard) {
                self.feed(p, Input::ExcludePartition { partition, excluded: true });
            }
            let delay = self.rng.range(100 * MS, 3 * SECOND);
            self.after(delay, Event::Producer(p, Step::Include(index)));
        } else {
            return false;
        }
        if self.processes[p].alive {
            self.fail(p, AbortCause::Excluded, false);
        }
        true
    }

    /// An effect of the transaction whose ownership is open.
    fn some_effect(&mut self, p: usize) -> Option<Effect> {
        let attempt = self.processes[p].shell.producer.attempt.as_ref()?;
        let open = |entry: &&Entry| self.is_own(p, entry);
        let open: Vec<u64> = attempt.entries.iter().filter(open).map(|entry| entry.ownership).collect();
        let effects = attempt.records.iter().filter_map(Produced::as_effect);
        let effects: Vec<Effect> =
            effects.filter(|effect| open.contains(&effect.ownership)).copied().collect();
        if effects.is_empty() { None } else { effects.get(self.rng.index(effects.len())).copied() }
    }

    /// The pause of a topic is over: the next transaction contains the partition again.
    pub(super) fn include(&mut self, p: usize, index: usize) {
        self.processes[p].shell.excluded.remove(&index);
        let partition = self.logs[index].partition;
        self.feed(p, Input::ExcludePartition { partition, excluded: false });
    }

    /// A transaction contains no partition that is excluded.
    pub(super) fn check_excluded(&mut self, p: usize, entry: &Entry) {
        let excluded = self.processes[p].shell.excluded.get(&entry.partition) == Some(&entry.ownership);
        let valid = !excluded || self.planted == Some(Planted::ExclusionUnheard);
        self.require(valid, "I-excluded", entry.partition, entry.offset, || {
            format!("process {p} begins a transaction with {entry:?}, which is excluded")
        });
    }

    /// Nothing new of an excluded partition is dispatched if its effects exceed the limit of all partitions.
    pub(super) fn check_share(&mut self, p: usize, row: &CallRow) {
        let Some(limits) = self.plan.config.transactions else { return };
        let shell = &self.processes[p].shell;
        let excluded = shell.excluded.get(&row.partition) == Some(&row.ownership);
        let kept = shell.kept.values().filter(|effect| effect.ownership == row.ownership);
        let kept: u64 = kept.map(|effect| effect.bytes).sum();
        let valid = !excluded || kept <= limits.kept_bytes || self.planted == Some(Planted::ExclusionUnheard);
        self.require(valid, "T7 capacity", row.partition, row.offset, || {
            format!("process {p} dispatches an event of an excluded partition that keeps {kept} bytes")
        });
    }
}
