//! The order values, ids and timestamps of records: each gate key has a sequence, some of whose values are appended later
//! than they should be, twice, or never.

use keylane_core::{Consecutive, First, GateRule};

use super::super::plan::MS;
use super::super::rng::Rng;
use super::super::world::World;
use super::draw::MS_NS;
use super::{GatesPlan, KeyName};

/// The fields of a record that gates read.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RecordOrder {
    pub(crate) key: KeyName,
    /// The key of its lane, whose ids are compared with its own.
    pub(crate) id_key: KeyName,
    pub(crate) value: Option<i64>,
    /// 0: it has no id.
    pub(crate) id: u128,
    pub(crate) tombstone: bool,
}

/// The order values of one gate key that are appended next.
#[derive(Debug, Default)]
pub(super) struct Sequence {
    first: i64,
    next: i64,
    /// The greatest value before it was begun anew.
    greatest: i64,
    /// Values that were left out, and after how many records they come.
    postponed: Vec<(u64, i64)>,
}

/// A value that is far above the others.
const FAR: i64 = 1_000_000;
/// The keys of ids, if they are not the gate keys.
const ID_KEYS: KeyName = 1_000_000;

impl World {
    /// Gives the record that was just appended its timestamp and its order.
    pub(crate) fn order_last_record(&mut self, index: usize) {
        let Some(plan) = self.plan.gates else { return };
        let now_ms = (self.now / MS) as i64;
        let Some(&key) = self.logs[index].records.last().and_then(|record| record.key.as_ref()) else {
            return;
        };
        let rng = &mut self.gates.rng;
        let timestamp = timestamp(rng, &plan, now_ms);
        let name = key * plan.keys_per_lane + rng.below(plan.keys_per_lane);
        let id_key = if plan.keys_per_lane == 1 { name } else { ID_KEYS + key };
        let sequence = self.gates.sequences.entry((index, name)).or_insert_with(|| Sequence::new(rng, &plan));
        let (value, tombstone) = sequence.draw(rng, &plan, now_ms);
        let ids = self.gates.ids.entry((index, id_key)).or_default();
        let id = match rng.below(100) {
            0..4 => 0,
            4..14 if !ids.is_empty() => {
                let recent = rng.range(1, ids.len().min(20) as u64) as usize;
                ids[ids.len() - recent]
            }
            _ => u128::from(rng.next()) << 64 | u128::from(rng.next()) | 1,
        };
        if id != 0 {
            ids.push(id);
        }
        let order = RecordOrder { key: name, id_key, value, id, tombstone };
        if let Some(record) = self.logs[index].records.last_mut() {
            (record.order, record.timestamp) = (order, timestamp);
        }
    }

    /// Appends the values of all keys again: gaps are not closed otherwise.
    pub(crate) fn resend_values(&mut self) {
        let Some(plan) = self.plan.gates.filter(|plan| plan.resends) else { return };
        let sequences = self.gates.sequences.iter();
        let missing: Vec<_> = sequences
            .map(|(&(index, name), sequence)| {
                (index, name, sequence.first, sequence.next.max(sequence.greatest))
            })
            .collect();
        for (index, name, first, next) in missing {
            let key = name / plan.keys_per_lane;
            for value in first..next {
                self.logs[index].append(&self.plan, &mut self.gates.rng, Some(key));
                self.order_last_record(index);
                let Some(record) = self.logs[index].records.last_mut() else { continue };
                record.failure = None;
                let order = &mut record.order;
                (order.key, order.value, order.tombstone, order.id) = (name, Some(value), false, 0);
            }
        }
        for p in 0..self.processes.len() {
            for index in 0..self.logs.len() {
                self.wake_reader(p, index);
            }
        }
    }
}

/// Mostly the wall clock.
fn timestamp(rng: &mut Rng, plan: &GatesPlan, now_ms: i64) -> i64 {
    if !rng.percent(plan.wrong_clocks) {
        return now_ms.saturating_sub(rng.below(300) as i64).max(0);
    }
    match rng.below(4) {
        0 => -1,
        1 => now_ms + 3_600_000,
        2 => now_ms + 30_000,
        _ => now_ms / 2,
    }
}

impl Sequence {
    fn new(rng: &mut Rng, plan: &GatesPlan) -> Sequence {
        let first = match plan.gate.map(|gate| gate.rule) {
            Some(GateRule::Consecutive(Consecutive { first: First::At(first), .. })) => first,
            _ => rng.range(0, 5) as i64,
        };
        Sequence { first, next: first, greatest: first, postponed: Vec::new() }
    }

    /// The order value of the next record, and whether the record has no value.
    fn draw(&mut self, rng: &mut Rng, plan: &GatesPlan, now_ms: i64) -> (Option<i64>, bool) {
        let ends = plan.gate.is_some_and(|gate| gate.ends_at_tombstone);
        let has_limit = plan.gate.is_some_and(|gate| gate.max_ahead.is_some());
        match rng.below(200) {
            0..6 if ends => {
                if rng.percent(80) {
                    self.greatest = self.greatest.max(self.next);
                    self.next = self.first;
                    self.postponed.clear();
                }
                return (rng.percent(50).then_some(self.next), true);
            }
            0..6 => return (Some(self.take(rng, plan, now_ms)), true),
            6..12 => return (None, false),
            12..18 if !plan.times && self.next > self.first => {
                return (Some(rng.range(0, (self.next - self.first - 1) as u64) as i64 + self.first), false);
            }
            18..20 if !plan.times => return (Some(self.first - 1), false),
            20..24 if has_limit => {
                let far = if plan.times { FAR * MS_NS } else { FAR };
                return (Some(self.take(rng, plan, now_ms).saturating_add(far)), false);
            }
            _ => {}
        }
        (Some(self.take(rng, plan, now_ms)), false)
    }

    fn take(&mut self, rng: &mut Rng, plan: &GatesPlan, now_ms: i64) -> i64 {
        self.postponed.iter_mut().for_each(|(left, _)| *left = left.saturating_sub(1));
        if let Some(due) = self.postponed.iter().position(|&(left, _)| left == 0) {
            return self.postponed.remove(due).1;
        }
        loop {
            let value = self.step(rng, plan, now_ms);
            if !rng.percent(plan.displaced) || self.postponed.len() > 12 {
                return value;
            }
            if !rng.percent(8) {
                self.postponed.push((rng.range(1, plan.displacement), value));
            }
        }
    }

    fn step(&mut self, rng: &mut Rng, plan: &GatesPlan, now_ms: i64) -> i64 {
        if plan.times {
            // Several records of one millisecond have different times, some the same.
            self.next = (self.next + rng.below(3) as i64 * 1_000).max(now_ms * MS_NS);
            return self.next;
        }
        let value = self.next;
        self.next += if plan.is_consecutive() || rng.percent(70) { 1 } else { rng.range(0, 4) as i64 };
        value
    }
}
