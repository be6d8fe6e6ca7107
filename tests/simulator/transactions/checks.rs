//! What holds for each committed transaction: it claims exactly the events whose effects it contains, besides those
//! without effects, and no claim of an earlier one is taken back.

use std::collections::BTreeMap;

use keylane_core::codec;

use super::super::log::Record;
use super::super::world::World;
use super::coordinator::Open;
use super::kept::{Effect, Settled};
use super::requests::Entry;

/// The events of a partition that are claimed: those below an offset, and a set beyond it.
#[derive(Clone, Debug)]
pub(crate) struct Coverage {
    pub(super) offset: i64,
    pub(super) ranges: Vec<(i64, i64)>,
}

/// A record, as the checks see it.
struct Checked {
    offset: i64,
    waived: bool,
    needs_outcome: bool,
    is_effectless_by_plan: bool,
}

impl Coverage {
    pub(super) fn nothing() -> Self {
        Coverage::up_to(i64::MIN)
    }

    pub(crate) fn up_to(offset: i64) -> Self {
        Coverage { offset, ranges: Vec::new() }
    }

    /// Claims everything below this offset, too.
    pub(crate) fn begin_at(&mut self, offset: i64) {
        self.offset = self.offset.max(offset);
    }

    pub(crate) fn covers(&self, at: i64) -> bool {
        at < self.offset || self.ranges.iter().any(|&(from, to)| from <= at && at < to)
    }
}

impl Default for Coverage {
    fn default() -> Self {
        Coverage::nothing()
    }
}

impl From<&Record> for Checked {
    fn from(record: &Record) -> Self {
        Checked {
            offset: record.offset,
            waived: record.waived,
            needs_outcome: !record.outcome_not_required,
            is_effectless_by_plan: record.filtered,
        }
    }
}

impl World {
    /// What an offset and its metadata claim in the current log. `None`: the metadata is not a set of this offset.
    pub(crate) fn coverage(&self, index: usize, offset: i64, metadata: &[u8]) -> Option<Coverage> {
        let ranges = codec::decode(metadata, &self.identity(index, offset), self.logs[index].end)?;
        Some(Coverage { offset, ranges })
    }

    /// Checks a transaction that takes effect now.
    pub(super) fn check_transaction(&mut self, name: usize, open: &Open) {
        let effects = self.effects_of(name, open.serial);
        let strange = effects
            .iter()
            .find(|effect| !open.offsets.iter().any(|entry| entry.partition == effect.partition));
        if let Some(&Effect { partition, offset, .. }) = strange {
            let current = self.logs[partition].incarnation == 0;
            self.require(!current, "T2 effects and claims", partition, offset, || {
                format!("process {} commits effects without an offset of their partition", open.process)
            });
        }
        for entry in &open.offsets {
            let incarnation = self.logs[entry.partition].incarnation;
            if entry.incarnation == incarnation && incarnation == 0 {
                self.check_entry(open.process, entry, &effects);
            } else {
                self.count_claims_of_new_log(open.process, entry);
            }
        }
    }

    fn check_entry(&mut self, p: usize, entry: &Entry, effects: &[Effect]) {
        let (index, offset) = (entry.partition, entry.offset);
        let Some(now) = self.coverage(index, offset, &entry.metadata) else {
            let text = format!("process {p} commits {offset} with an unreadable completed set");
            return self.report_violation("I8 commit safety", text, Some(index), offset);
        };
        let before = std::mem::replace(&mut self.brokers.claimed[index], now.clone());
        // None of their keys had an event or an uncommitted change, so events of them settled later.
        self.fold_deletions(p, entry);
        let mut counts: BTreeMap<i64, u32> = BTreeMap::new();
        for effect in effects.iter().filter(|effect| effect.partition == index) {
            *counts.entry(effect.offset).or_default() += 1;
        }
        self.commit_memory(p, entry, &before, &now);
        let records: Vec<Checked> = self.logs[index].records.iter().map(Checked::from).collect();
        let mut done = Vec::new();
        for record in records {
            let at = record.offset;
            let effects = counts.get(&at).copied().unwrap_or(0);
            let (was, is) = (before.covers(at), now.covers(at));
            let (before, now) = (&before, &now);
            self.require(is || !was || record.waived, "T2 claims grow", index, at, || {
                format!("process {p} commits {now:?} after {before:?}")
            });
            if is && !was {
                done.extend(self.check_new_claim(p, entry, &record, effects));
                if let Some(record) = self.logs[index].record_mut(at) {
                    record.outcomes += 1;
                }
            } else {
                let valid = effects == 0 || record.waived;
                self.require(valid, "T2 effects and claims", index, at, || {
                    format!("process {p} commits effects of {at}; it claims {now:?} after {before:?}")
                });
                self.check_left_out(p, entry, &record, is);
            }
        }
        self.fold_in_order(index, done);
    }

    /// An event is claimed that was not claimed before. Returns the event if it is done.
    fn check_new_claim(
        &mut self,
        p: usize,
        entry: &Entry,
        record: &Checked,
        effects: u32,
    ) -> Option<(Settled, i64)> {
        let (index, offset) = (entry.partition, record.offset);
        let settled = self.processes[p].shell.settled.get(&(entry.ownership, offset)).copied();
        if let Some(settled) = settled {
            let fits = effects == u32::from(settled.publishes);
            self.require(fits || record.waived, "T2 effects and claims", index, offset, || {
                format!("process {p} claims {offset}, {settled:?}, with {effects} effects: {entry:?}")
            });
            if !settled.publishes {
                self.skip_output_of(index, offset);
            } else if let Some(record) = self.logs[index].record_mut(offset) {
                record.claimed_with_effects = true;
            }
            return settled.is_done.then_some((settled, offset));
        }
        let valid = !record.needs_outcome && effects == 0;
        self.require(valid || record.waived, "I8 commit safety", index, offset, || {
            format!("process {p} claims {offset}, which has not settled: {entry:?}")
        });
        None
    }

    /// Folds events that are claimed as done. With a gate, those of a lane are not in the order of their offsets.
    fn fold_in_order(&mut self, index: usize, mut done: Vec<(Settled, i64)>) {
        done.sort_by_key(|(settled, _)| settled.order);
        for (settled, offset) in done {
            self.fold_done(index, offset, settled.at);
        }
    }

    /// No event with a number up to the claimed one is left out.
    fn check_left_out(&mut self, p: usize, entry: &Entry, record: &Checked, is_claimed: bool) {
        if is_claimed || record.is_effectless_by_plan {
            return;
        }
        let (index, offset) = (entry.partition, record.offset);
        let shell = &self.processes[p].shell;
        let settled = shell.settled.get(&(entry.ownership, offset));
        let left_out = settled.is_some_and(|settled| shell.settled_before(settled, entry.through));
        self.require(!left_out, "T2 left out", index, offset, || {
            format!("process {p} does not claim {offset}, which settled before {}", entry.through)
        });
    }

    /// An event was claimed without outputs, so the events after it do not wait for them.
    fn skip_output_of(&mut self, index: usize, offset: i64) {
        let Some(record) = self.logs[index].record(offset) else { return };
        if let (Some(key), true, seq) = (record.key, record.has_outputs, record.seq) {
            self.logs[index].store_output(key, seq);
        }
    }

    /// The records of a topic that was recreated: only their loss and their states are checked.
    fn count_claims_of_new_log(&mut self, p: usize, entry: &Entry) {
        let index = entry.partition;
        if entry.incarnation != self.logs[index].incarnation {
            return;
        }
        let Some(now) = self.coverage(index, entry.offset, &entry.metadata) else { return };
        let before = &self.brokers.claimed[index];
        let mut done = Vec::new();
        for record in &mut self.logs[index].records {
            record.outcomes += u32::from(record.outcomes == 0 && now.covers(record.offset));
            let settled = self.processes[p].shell.settled.get(&(entry.ownership, record.offset));
            let is_new = now.covers(record.offset) && !before.covers(record.offset);
            let settled = settled.filter(|settled| settled.is_done && is_new);
            done.extend(settled.map(|settled| (*settled, record.offset)));
        }
        self.fold_deletions(p, entry);
        self.fold_in_order(index, done);
        let before = std::mem::replace(&mut self.brokers.claimed[index], now.clone());
        self.commit_memory(p, entry, &before, &now);
    }
}
