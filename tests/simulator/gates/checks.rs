//! The explanation of a step: everything that the core has done must follow from the rules, in some order.

use std::time::Duration;

use keylane_core::{Change, Core, GateRule, OwnershipState, Reason};

use super::super::plan::{Class, MS};
use super::super::transactions::Coverage;
use super::super::world::World;
use super::model::{EventModel, KeyModel, Place};
use super::steps::{Step, is_of_gate};
use super::{GatesPlan, KeyName};

/// The core counts whole milliseconds.
pub(super) const ROUNDING: Duration = Duration::from_millis(1);

/// The changes of an event that is done.
pub(super) fn changes_of_done(plan: &GatesPlan, key: &KeyModel, event: &EventModel) -> Vec<Change> {
    if event.ends_key(plan) {
        return vec![Change::Ended];
    }
    let (Some(gate), Some(value)) = (plan.gate, event.order.value) else { return Vec::new() };
    let is_above = key.mark.is_none_or(|mark| value > mark);
    match (gate.rule, key.place(gate.rule, value)) {
        (GateRule::Consecutive(_), Place::Hole) => vec![Change::Filled(value)],
        (GateRule::Consecutive(_), Place::Due | Place::PerhapsFirst) => moves_mark(key, value),
        (GateRule::Newest(rule), _) => {
            let delivered = (rule.tolerance > 0).then_some(Change::Delivered(value));
            is_above.then_some(Change::Mark(value)).into_iter().chain(delivered).collect()
        }
        (GateRule::Window(_), _) if is_above => vec![Change::Mark(value)],
        _ => Vec::new(),
    }
}

pub(super) fn moves_mark(key: &KeyModel, value: i64) -> Vec<Change> {
    let mends = key.broken.then_some(Change::Broken(false));
    std::iter::once(Change::Mark(value)).chain(mends).collect()
}

/// The changes of an event that was dead-lettered or skipped.
pub(super) fn changes_of_failed(
    plan: &GatesPlan,
    key: &KeyModel,
    event: &EventModel,
    reason: Reason,
) -> Vec<Change> {
    if reason == Reason::Gap {
        // Its dead letter may begin when the next value has already come.
        return key.is_closed.then_some(Change::Broken(true)).into_iter().collect();
    }
    if is_of_gate(reason) {
        return Vec::new();
    }
    if event.ends_key(plan) {
        return vec![Change::Ended];
    }
    let (Some(gate), Some(value)) = (plan.gate, event.order.value) else { return Vec::new() };
    match (gate.rule, key.place(gate.rule, value)) {
        (GateRule::Consecutive(_), Place::Due | Place::PerhapsFirst) => {
            let mut changes = moves_mark(key, value);
            changes.insert(1, Change::Holes(value, value));
            changes
        }
        _ => Vec::new(),
    }
}

impl World {
    /// Explains what the core has done in this step.
    pub(crate) fn end_gate_step(&mut self, p: usize, core: &Core) {
        let Some(plan) = self.plan.gates else { return };
        self.follow_records(p, core);
        let mut step = std::mem::take(&mut self.processes[p].gates.step);
        // A gap may have stopped its partition, after other events had settled.
        let stopped: Vec<usize> = step.gaps.iter().map(|&(index, _)| index).collect();
        self.drop_released(p, core, &mut step, &stopped);
        self.explain(p, &mut step, &plan);
        self.drop_released(p, core, &mut step, &[]);
        // Then its events are dropped, and which of them had settled before is not known.
        step.gaps.retain(|_| !plan.stops_at_gaps());
        if let Some(&(index, offset)) = step.released.first() {
            let text = format!("process {p} settles {} without a call", self.describe(p, index, offset));
            self.report_violation("G3 without call", text, Some(index), offset);
        }
        if let Some(&(index, offset, reason)) = step.rejected.first() {
            let text = format!("process {p} rejects {}: {reason:?}", self.describe(p, index, offset));
            self.report_violation("G3 without call", text, Some(index), offset);
        }
        if let Some((index, gap)) = step.gaps.first() {
            let text = format!("process {p} closes {gap:?}: {}", self.describe(p, *index, gap.early.1));
            self.report_violation("G6 gaps", text, Some(*index), gap.early.1);
        }
        for rows in &step.dispatched {
            self.check_dispatched(p, rows, &plan);
        }
        for (index, key) in step.quiet {
            self.check_quiet(p, core, index, key);
        }
        self.check_counters(p, core, plan.stops_at_gaps() && !stopped.is_empty());
    }

    /// A commit covers events that were released in this step: they have their outcomes before it.
    pub(crate) fn explain_before_commit(&mut self, p: usize, index: usize, covered: &Coverage) {
        let Some(plan) = self.plan.gates else { return };
        let mut step = std::mem::take(&mut self.processes[p].gates.step);
        let all = std::mem::take(&mut step.released);
        let (covered, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|&(of, offset)| {
            of == index && covered.covers(offset) && !self.processes[p].parts[index].claimed.covers(offset)
        });
        step.released = covered;
        self.explain(p, &mut step, &plan);
        step.released.extend(others);
        self.processes[p].gates.step = step;
    }

    /// Explains what can be explained, and removes it.
    pub(super) fn explain(&mut self, p: usize, step: &mut Step, plan: &GatesPlan) {
        loop {
            let before = step.unexplained();
            let gaps = std::mem::take(&mut step.gaps);
            step.gaps =
                gaps.into_iter().filter(|(index, gap)| !self.explain_gap(p, *index, gap, plan)).collect();
            // A gap is closed before its events are rejected.
            let waits = |index: usize, offset: i64| {
                let key = |offset| self.logs[index].record(offset).map(|record| record.order.key);
                step.gaps.iter().any(|(of, gap)| *of == index && key(gap.early.1) == key(offset))
            };
            let (later, now): (Vec<_>, Vec<_>) =
                step.rejected.drain(..).partition(|&(index, offset, _)| waits(index, offset));
            let explained = |&(index, offset, reason): &(usize, i64, Reason)| {
                !self.explain_rejection(p, index, offset, reason, plan)
            };
            step.rejected = now.into_iter().filter(explained).chain(later).collect();
            let mut released = std::mem::take(&mut step.released);
            self.sort_by_gate_order(p, &mut released, plan);
            released.retain(|&(index, offset)| {
                step.is_rejected(index, offset) || !self.explain_without_call(p, index, offset, plan)
            });
            step.released = released;
            if step.unexplained() == before || step.unexplained() == 0 {
                return;
            }
        }
    }

    /// Events of one key settle by their values; those after a record that ends the key after it.
    pub(super) fn sort_by_gate_order(&self, p: usize, released: &mut [(usize, i64)], plan: &GatesPlan) {
        let event = |&(index, offset): &(usize, i64)| {
            let part = self.processes[p].gates.parts.get(&index)?;
            part.model.events.get(&offset).map(|event| (index, event))
        };
        let ends: Vec<(usize, KeyName, i64)> = released
            .iter()
            .filter_map(event)
            .filter(|(_, event)| event.ends_key(plan))
            .map(|(index, event)| (index, event.order.key, event.offset))
            .collect();
        released.sort_by_key(|at| {
            let (index, event) = event(at)?;
            let (key, offset) = (event.order.key, event.offset);
            let before = ends.iter().filter(|&&(of, other, at)| (of, other) == (index, key) && at < offset);
            Some((index, key, before.count(), event.ends_key(plan), event.order.value, offset))
        });
    }

    /// Slots are also released because rows are not admitted, or because their ownership ends.
    pub(super) fn drop_released(&mut self, p: usize, core: &Core, step: &mut Step, stopped: &[usize]) {
        if step.released.is_empty() {
            return;
        }
        let view = core.view();
        step.released.retain(|&(index, offset)| {
            let was_claimed = self.processes[p].parts[index].claimed.covers(offset);
            if stopped.contains(&index) && !was_claimed {
                return true;
            }
            let partition = self.logs[index].partition;
            let ownership = self.processes[p].gates.parts.get(&index).and_then(|part| part.ownership);
            let of_partition = view.partitions.iter().find(|view| view.partition == partition);
            let active = of_partition.filter(|view| view.state == OwnershipState::Active);
            let is_current = active.is_some_and(|view| Some(view.ownership.0) == ownership);
            let is_admitted = active.is_some_and(|view| offset < view.next_offset);
            if !is_admitted || !is_current {
                self.gate_part(p, index).model.events.remove(&offset);
            }
            // Or by an owner of a log that does not exist any more.
            let was_claimed = was_claimed || !self.reads_current_topic(p, index);
            if was_claimed && let Some(event) = self.gate_part(p, index).model.events.remove(&offset) {
                // Claimed rows are released when they are read, if the core knows of their claims.
                let is_read = event.admitted_ms == (self.now / MS) as i64;
                let is_unclaimed = !is_read || core.counters().inherited_claims == 0;
                self.processes[p].gates.counted.is_unknown |= is_admitted && is_unclaimed;
            }
            is_current && is_admitted && !was_claimed
        });
    }

    /// Whether stream time may advance because a partition is full, or held until its first unsettled event settles.
    pub(super) fn has_clock_of_full_partitions(&self) -> bool {
        let sets_may_not_fit = [Class::TinyMetadata, Class::TooLarge, Class::TopicsBlocked];
        let may_be_held =
            self.is_transactional() && sets_may_not_fit.iter().any(|it| self.classes.contains(it));
        may_be_held || self.classes.contains(&Class::SmallLimits)
    }

    pub(super) fn describe(&self, p: usize, index: usize, offset: i64) -> String {
        let part = self.processes[p].gates.parts.get(&index);
        let event = part.and_then(|part| part.model.events.get(&offset));
        let key = event.and_then(|event| part.and_then(|part| part.model.keys.get(&event.order.key)));
        format!("{event:?}, {key:?}, {:?}", self.plan.gates)
    }

    pub(super) fn event_and_key(
        &mut self,
        p: usize,
        index: usize,
        offset: i64,
    ) -> Option<(EventModel, KeyModel)> {
        let model = &mut self.gate_part(p, index).model;
        let event = model.events.get(&offset).copied()?;
        let key = model.keys.entry(event.order.key).or_default().clone();
        Some((event, key))
    }
}
