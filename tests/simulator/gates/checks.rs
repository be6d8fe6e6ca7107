//! The explanation of a step: everything that the core has done must follow from the rules, in some order.

use std::time::Duration;

use keylane_core::{
    Change, Consecutive, Core, First, GapCause, GateRule, Late, Newest, OnGap, OwnershipState, Reason,
};

use super::super::plan::{Class, MS};
use super::super::process::CallRow;
use super::super::trace::Seen;
use super::super::transactions::{Coverage, Entry};
use super::super::world::World;
use super::model::{EventModel, EventState, KeyModel, Place};
use super::steps::{Step, is_of_gate};
use super::{GatesPlan, KeyName};

/// The core counts whole milliseconds.
const ROUNDING: Duration = Duration::from_millis(1);

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

fn moves_mark(key: &KeyModel, value: i64) -> Vec<Change> {
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
        self.drop_released(p, core, &mut step);
        self.explain(p, &mut step, &plan);
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
    fn explain(&mut self, p: usize, step: &mut Step, plan: &GatesPlan) {
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
    fn sort_by_gate_order(&self, p: usize, released: &mut [(usize, i64)], plan: &GatesPlan) {
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
    fn drop_released(&mut self, p: usize, core: &Core, step: &mut Step) {
        if step.released.is_empty() {
            return;
        }
        let view = core.view();
        step.released.retain(|&(index, offset)| {
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
            let was_claimed =
                self.processes[p].parts[index].claimed.covers(offset) || !self.reads_current_topic(p, index);
            if was_claimed {
                self.gate_part(p, index).model.events.remove(&offset);
            }
            is_current && is_admitted && !was_claimed
        });
    }

    /// Whether stream time may advance because a partition is full, or held until its first unsettled event settles.
    fn has_clock_of_full_partitions(&self) -> bool {
        let sets_may_not_fit = [Class::TinyMetadata, Class::TooLarge, Class::TopicsBlocked];
        let may_be_held =
            self.is_transactional() && sets_may_not_fit.iter().any(|it| self.classes.contains(it));
        may_be_held || self.classes.contains(&Class::SmallLimits)
    }

    fn describe(&self, p: usize, index: usize, offset: i64) -> String {
        let part = self.processes[p].gates.parts.get(&index);
        let event = part.and_then(|part| part.model.events.get(&offset));
        let key = event.and_then(|event| part.and_then(|part| part.model.keys.get(&event.order.key)));
        format!("{event:?}, {key:?}, {:?}", self.plan.gates)
    }

    fn event_and_key(&mut self, p: usize, index: usize, offset: i64) -> Option<(EventModel, KeyModel)> {
        let model = &mut self.gate_part(p, index).model;
        let event = model.events.get(&offset).copied()?;
        let key = model.keys.entry(event.order.key).or_default().clone();
        Some((event, key))
    }

    // -- outcomes without a call --------------------------------------------------------------------

    /// Whether an event may settle without a call now. If so, it does.
    fn explain_without_call(&mut self, p: usize, index: usize, offset: i64, plan: &GatesPlan) -> bool {
        let Some((event, key)) = self.event_and_key(p, index, offset) else { return true };
        if event.state == EventState::Settled {
            return true;
        }
        let mut reason = self.reason_without_call(p, index, &event, &key, plan);
        if reason.is_none() && self.passes_to_first(p, index, &event, plan) {
            let Some((event, key)) = self.event_and_key(p, index, offset) else { return true };
            reason = self.reason_without_call(p, index, &event, &key, plan);
        }
        // Or the key was broken when this was decided.
        let followed = event.filtered && key.was_broken;
        let Some((seen, changes)) = reason.or(followed.then_some((Seen::GateFiltered, Vec::new()))) else {
            return false;
        };
        self.release_lower(p, index, &event, plan);
        self.saw(seen);
        self.note(p, "without call", Some(index), offset, seen as i64);
        self.settle_gated(p, index, offset, &changes);
        self.count_without_call(p, index, offset);
        true
    }

    fn reason_without_call(
        &mut self,
        p: usize,
        index: usize,
        event: &EventModel,
        key: &KeyModel,
        plan: &GatesPlan,
    ) -> Option<(Seen, Vec<Change>)> {
        let is_duplicate = self.is_duplicate(p, index, event, plan);
        if key.ended_at.is_some_and(|ended| event.offset < ended) && event.state == EventState::Queued {
            return Some((Seen::GateStale, Vec::new()));
        }
        let Some(gate) = plan.gate else { return is_duplicate.then_some((Seen::GateDuplicates, Vec::new())) };
        if event.ends_key(plan) {
            let changes = if is_duplicate { Vec::new() } else { vec![Change::Ended] };
            let seen = if is_duplicate { Seen::GateDuplicates } else { Seen::GateFiltered };
            return (is_duplicate || event.filtered).then_some((seen, changes));
        }
        let place = event.order.value.map(|value| (value, key.place(gate.rule, value)));
        if plan.is_consecutive() {
            let passed = if event.filtered { Seen::GateFiltered } else { Seen::GateDuplicates };
            return match place {
                _ if !event.filtered && !is_duplicate && place.is_none() => None,
                None => Some((passed, Vec::new())),
                Some((value, Place::Due)) if event.filtered || is_duplicate => {
                    Some((passed, moves_mark(key, value)))
                }
                Some((_, Place::Stale)) => Some((Seen::GateStale, Vec::new())),
                Some((_, Place::Hole)) if self.late(plan) == Some(Late::Drop) => {
                    Some((Seen::GateLate, Vec::new()))
                }
                Some((_, Place::Hole | Place::BelowFirst)) if event.filtered => Some((passed, Vec::new())),
                Some((_, Place::Hole)) if is_duplicate => Some((passed, Vec::new())),
                Some((_, Place::Early | Place::PerhapsFirst))
                    if event.filtered && (key.broken || key.is_closed) =>
                {
                    let breaks = key.is_closed.then_some(Change::Broken(true));
                    Some((passed, breaks.into_iter().collect()))
                }
                Some(_) if event.filtered && self.is_too_far_ahead(p, index, event, key, plan) => {
                    Some((passed, Vec::new()))
                }
                _ => None,
            };
        }
        if is_duplicate {
            return Some((Seen::GateDuplicates, Vec::new()));
        }
        let (value, place) = place?;
        match (gate.rule, place) {
            (GateRule::Newest(Newest { latest_first, .. }), place) => {
                let fell_short = latest_first && key.failed.is_some_and(|failed| value < failed);
                let seen = if latest_first { Seen::GateSuperseded } else { Seen::GateStale };
                (place == Place::Stale || fell_short).then_some((seen, Vec::new()))
            }
            (GateRule::Window(rule), Place::Late) if rule.late == Late::Drop => {
                Some((Seen::GateLate, Vec::new()))
            }
            _ => None,
        }
    }

    fn late(&self, plan: &GatesPlan) -> Option<Late> {
        match plan.gate?.rule {
            GateRule::Consecutive(rule) => Some(rule.late),
            GateRule::Window(rule) => Some(rule.late),
            GateRule::Newest(_) => None,
        }
    }

    fn is_duplicate(&mut self, p: usize, index: usize, event: &EventModel, plan: &GatesPlan) -> bool {
        let wall_ms = (self.now / MS) as i64;
        let keys = &mut self.gate_part(p, index).model.keys;
        let key = keys.get(&event.order.id_key);
        plan.duplicates.is_some()
            && key.is_some_and(|key| key.knows_id(event.order.id, wall_ms.saturating_sub(2), plan))
    }

    /// An event has settled without a call: it is an outcome.
    fn count_without_call(&mut self, p: usize, index: usize, offset: i64) {
        if self.is_transactional() {
            return self.record_skipped(p, index, offset);
        }
        if !self.reads_current_topic(p, index) {
            return;
        }
        let Some(record) = self.logs[index].record_mut(offset) else { return };
        record.outcomes += 1;
        if record.outcomes > 1 {
            self.saw(Seen::Repeats);
            let may = self.plan.may_repeat;
            self.require(may, "I13 no repeats", index, offset, || {
                "an event had two outcomes although no fault allows a repeat".into()
            });
        }
    }

    // -- rejections and gaps ------------------------------------------------------------------------

    fn explain_rejection(
        &mut self,
        p: usize,
        index: usize,
        offset: i64,
        reason: Reason,
        plan: &GatesPlan,
    ) -> bool {
        let Some((event, key)) = self.event_and_key(p, index, offset) else { return true };
        let fits = match reason {
            Reason::NoOrderValue => event.lacks_value(plan),
            Reason::OrderValueAhead => self.is_too_far_ahead(p, index, &event, &key, plan),
            Reason::BelowFirst => event.is_below_first(plan),
            Reason::Gap => key.was_broken || key.is_closed,
            Reason::Late => {
                let is_late = event.order.value.is_some() && event.order.value <= key.greatest_mark;
                is_late && self.late(plan) == Some(Late::DeadLetter)
            }
            _ => false,
        };
        if fits && !event.filtered {
            self.saw(match reason {
                Reason::NoOrderValue => Seen::RejectedNoValue,
                Reason::OrderValueAhead => Seen::RejectedAhead,
                Reason::BelowFirst => Seen::RejectedBelowFirst,
                Reason::Gap => Seen::RejectedGap,
                _ => Seen::RejectedLate,
            });
            self.release_lower(p, index, &event, plan);
            self.begin_rejection(p, index, &event, &key, reason, plan);
        }
        fits && !event.filtered
    }

    /// An event that has waited long enough leaves without a call: those before it may run.
    fn release_lower(&mut self, p: usize, index: usize, event: &EventModel, plan: &GatesPlan) {
        let wait = match plan.gate.map(|gate| gate.rule) {
            Some(GateRule::Window(rule)) => rule.window,
            Some(GateRule::Consecutive(Consecutive { first: First::Any { wait }, .. })) => wait,
            _ => return,
        };
        let model = &mut self.gate_part(p, index).model;
        if model.time.now().saturating_sub(event.admitted) + ROUNDING >= wait {
            let key = model.keys.entry(event.order.key).or_default();
            key.released = key.released.max(event.order.value);
        }
    }

    /// A rejected event settles when its dead letter is acknowledged, or at once.
    fn begin_rejection(
        &mut self,
        p: usize,
        index: usize,
        event: &EventModel,
        key: &KeyModel,
        reason: Reason,
        plan: &GatesPlan,
    ) {
        let is_published = self.publishes_dead_letters(p) || matches!(reason, Reason::Gap | Reason::Late);
        if self.is_transactional() || !is_published {
            let changes = changes_of_failed(plan, key, event, reason);
            self.settle_gated(p, index, event.offset, &changes);
            if !self.is_transactional() {
                self.count_without_call(p, index, event.offset);
            }
            return;
        }
        if let Some(event) = self.gate_part(p, index).model.events.get_mut(&event.offset) {
            (event.state, event.rejected) = (EventState::Failed, Some(reason));
        }
    }

    /// With `first = "any"`: whether an event may be the first of its key now. If so, all values below it are passed over.
    fn passes_to_first(&mut self, p: usize, index: usize, event: &EventModel, plan: &GatesPlan) -> bool {
        let rule = plan.gate.map(|gate| gate.rule);
        let Some(GateRule::Consecutive(Consecutive { first: First::Any { wait }, max_early, .. })) = rule
        else {
            return false;
        };
        let has_clock = self.has_clock_of_full_partitions();
        let visible_to = self.visible_to(p, index, event, plan);
        let model = &mut self.gate_part(p, index).model;
        let now = model.time.now();
        let of_key = model.events.values().filter(|other| {
            other.order.key == event.order.key && other.state == EventState::Queued && !other.ends_key(plan)
        });
        // Those that came after the wait were perhaps too late.
        let chosen_after = of_key.clone().map(|other| other.admitted + wait).min().unwrap_or_default();
        let lower = !has_clock
            && of_key.clone().any(|other| {
                other.offset < visible_to
                    && other.order.value.is_some()
                    && other.order.value < event.order.value
                    && other.admitted < chosen_after
            });
        let mut waited = of_key.map(|other| now.saturating_sub(other.admitted) + ROUNDING);
        let too_many = waited.clone().count() > max_early as usize;
        let is_old = has_clock || too_many || waited.any(|waited| waited >= wait);
        let key = model.keys.entry(event.order.key).or_default();
        let is_old = is_old || key.released.is_some();
        let Some(value) = event.order.value.filter(|_| key.mark.is_none() && is_old && !lower) else {
            return false;
        };
        let changes = [Change::Holes(i64::MIN + 1, value - 1), Change::Mark(value - 1)];
        changes.iter().for_each(|&change| key.apply(change, 0));
        key.attached.extend(changes);
        self.saw(Seen::FirstsChosen);
        true
    }

    /// Whether a value is, or was when it was admitted, further ahead than the limit.
    fn is_too_far_ahead(
        &mut self,
        p: usize,
        index: usize,
        event: &EventModel,
        key: &KeyModel,
        plan: &GatesPlan,
    ) -> bool {
        let mut at_admission = key.clone();
        at_admission.mark = event.admitted_mark;
        event.is_ahead(key, event.admitted_ms, plan)
            || event.is_ahead(&at_admission, event.admitted_ms, plan)
            || (event.admitted_mark.is_none() && self.is_above_lowest(p, index, event, plan))
    }

    /// Without a mark, a value is ahead of the lowest one.
    fn is_above_lowest(&mut self, p: usize, index: usize, event: &EventModel, plan: &GatesPlan) -> bool {
        let events = self.gate_part(p, index).model.events.values();
        let of_key = events.filter(|other| other.order.key == event.order.key);
        let lowest = of_key.filter_map(|other| other.order.value).min();
        let lowest = match plan.gate.map(|gate| gate.rule) {
            Some(GateRule::Consecutive(Consecutive { first: First::At(first), .. })) => Some(first - 1),
            _ => lowest,
        };
        let mut key = KeyModel::default();
        key.mark = lowest;
        event.is_ahead(&key, event.admitted_ms, plan)
    }

    fn explain_gap(
        &mut self,
        p: usize,
        index: usize,
        gap: &keylane_core::ClosedGap,
        plan: &GatesPlan,
    ) -> bool {
        let (value, offset) = gap.early;
        let Some((event, key)) = self.event_and_key(p, index, offset) else { return true };
        let Some(GateRule::Consecutive(rule)) = plan.gate.map(|gate| gate.rule) else { return false };
        let place = key.place(GateRule::Consecutive(rule), value);
        let waits = matches!(place, Place::Early | Place::PerhapsFirst);
        let agrees = key.next(GateRule::Consecutive(rule)) == gap.expected
            && event.order.value == Some(value)
            && gap.passed == (rule.on_gap == OnGap::Pass || place == Place::PerhapsFirst);
        if !waits || !agrees || event.state != EventState::Queued {
            return false;
        }
        let model = &mut self.gate_part(p, index).model;
        let now = model.time.now();
        let of_key = model.events.values().filter(|other| {
            other.order.key == event.order.key
                && other.state == EventState::Queued
                && other.order.value.is_some()
        });
        let waited = of_key
            .clone()
            .map(|other| now.saturating_sub(other.admitted) + ROUNDING)
            .max()
            .unwrap_or_default();
        let early = of_key.count();
        let limit = match (place, rule.first) {
            (Place::PerhapsFirst, First::Any { wait }) => Some(wait),
            _ => rule.gap_timeout,
        };
        let has_limits = self.has_clock_of_full_partitions();
        let is_old = has_limits || limit.is_some_and(|limit| waited >= limit);
        let fits = match gap.cause {
            GapCause::Timeout => is_old,
            GapCause::TooManyEarly => early > rule.max_early as usize,
            GapCause::PartitionFull => has_limits,
        };
        if !fits {
            return false;
        }
        self.saw(match gap.cause {
            GapCause::Timeout => Seen::GapsTimedOut,
            GapCause::TooManyEarly => Seen::GapsTooManyEarly,
            GapCause::PartitionFull => Seen::GapsInFullPartitions,
        });
        let key = self.gate_part(p, index).model.keys.entry(event.order.key).or_default();
        if gap.passed {
            let from = key.next(GateRule::Consecutive(rule)).unwrap_or(i64::MIN + 1);
            let changes = [Change::Mark(value - 1), Change::Holes(from, value - 1)];
            changes.iter().for_each(|&change| key.apply(change, 0));
            key.attached.extend(changes);
        } else {
            key.is_closed = true;
        }
        true
    }

    // -- calls --------------------------------------------------------------------------------------

    /// The rows of a lane may run, each if those before it are done.
    fn check_dispatched(&mut self, p: usize, rows: &[CallRow], plan: &GatesPlan) {
        let mut keys: std::collections::BTreeMap<KeyName, KeyModel> = std::collections::BTreeMap::new();
        for (at, row) in rows.iter().enumerate() {
            let (index, offset) = (row.partition, row.offset);
            if self.gate_part(p, index).ownership != Some(row.ownership) {
                return;
            }
            let Some((event, key)) = self.event_and_key(p, index, offset) else {
                let text = format!("process {p} dispatches {offset}, which was not admitted");
                return self.report_violation("G4 outcomes", text, Some(index), offset);
            };
            let may_be_first =
                plan.is_consecutive() && key.mark.is_none() && !keys.contains_key(&event.order.key);
            let key = match may_be_first && self.passes_to_first(p, index, &event, plan) {
                true => self.event_and_key(p, index, offset).map_or(key, |(_, key)| key),
                false => key,
            };
            let key = keys.entry(event.order.key).or_insert(key).clone();
            let wrong = self.is_wrong(p, index, &event, &key, plan);
            let is_repeat = rows.iter().take(at).any(|other| {
                let other = self.logs[index].record(other.offset).map(|record| record.order.id);
                plan.duplicates.is_some() && event.order.id != 0 && other == Some(event.order.id)
            });
            let wrong = wrong.or(is_repeat.then_some("G8 duplicates"));
            if let Some(rule) = wrong {
                let text = format!("process {p} dispatches {event:?}; {key:?}, {plan:?}");
                return self.report_violation(rule, text, Some(index), offset);
            }
            if event.state == EventState::Queued
                && matches!(self.late_place(&event, &key, plan), Place::Hole | Place::Late)
            {
                self.saw(Seen::GateLateDelivered);
            }
            for change in changes_of_done(plan, &key, &event) {
                keys.entry(event.order.key).or_default().apply(change, 0);
            }
            let model = &mut self.gate_part(p, index).model;
            if let Some(event) = model.events.get_mut(&offset) {
                event.state = EventState::Called;
            }
        }
        self.check_arrival(p, rows, plan);
    }

    fn late_place(&self, event: &EventModel, key: &KeyModel, plan: &GatesPlan) -> Place {
        let place = event.order.value.zip(plan.gate).map(|(value, gate)| key.place(gate.rule, value));
        place.unwrap_or(Place::Due)
    }

    /// The invariant that the call of an event violates.
    fn is_wrong(
        &mut self,
        p: usize,
        index: usize,
        event: &EventModel,
        key: &KeyModel,
        plan: &GatesPlan,
    ) -> Option<&'static str> {
        let wall_ms = (self.now / MS) as i64;
        if matches!(event.state, EventState::Failed | EventState::Settled) {
            return Some("G4 outcomes");
        }
        let is_known = {
            let keys = &self.gate_part(p, index).model.keys;
            keys.get(&event.order.id_key).is_some_and(|key| key.knows_id(event.order.id, wall_ms + 2, plan))
        };
        if is_known && plan.duplicates.is_some() && event.state == EventState::Queued {
            return Some("G8 duplicates");
        }
        let gate = plan.gate?;
        if event.filtered || event.lacks_value(plan) {
            return Some("G3 without call");
        }
        if event.ends_key(plan) {
            return None;
        }
        if event.state == EventState::Queued && key.ended_at.is_some_and(|ended| event.offset < ended) {
            return Some("G3 without call");
        }
        let value = event.order.value?;
        if event.state == EventState::Queued && event.is_ahead(key, wall_ms, plan) {
            return Some("G3 without call");
        }
        let place = key.place(gate.rule, value);
        match (gate.rule, place) {
            (GateRule::Consecutive(_), Place::Due) => None,
            (GateRule::Consecutive(rule), Place::Hole) if rule.late == Late::Deliver => None,
            (GateRule::Consecutive(_), _) => Some("G1 consecutive"),
            (GateRule::Newest(rule), Place::Due) => {
                let greater = rule.latest_first && self.is_greater_queued(p, index, event, key, plan);
                greater.then_some("G2 newest")
            }
            (GateRule::Newest(_), _) => Some("G2 newest"),
            (GateRule::Window(rule), Place::Late) => {
                let is_equal = key.mark == Some(value);
                (rule.late != Late::Deliver && !is_equal).then_some("G5 window")
            }
            (GateRule::Window(_), _) => {
                self.is_released_wrongly(p, index, event, key, plan).then_some("G5 window")
            }
        }
    }

    /// The offset of the first queued event of a lane that runs by its arrival, or has a key that must perhaps be looked up:
    /// those behind it are not looked at before.
    fn visible_to(&mut self, p: usize, index: usize, event: &EventModel, plan: &GatesPlan) -> i64 {
        let model = &self.gate_part(p, index).model;
        let by_arrival = model.events.values().filter(|other| {
            let place = other.order.value.zip(plan.gate).map(|(value, gate)| {
                let key = model.keys.get(&other.order.key).cloned().unwrap_or_default();
                key.place(gate.rule, value)
            });
            let runs = matches!(place, None | Some(Place::Late)) || other.ends_key(plan);
            let of_other_key = other.order.key != event.order.key;
            other.lane == event.lane && other.state == EventState::Queued && (runs || of_other_key)
        });
        by_arrival.map(|other| other.offset).min().unwrap_or(i64::MAX)
    }

    /// With `latest_first`: whether a greater value of the key is queued that may run.
    fn is_greater_queued(
        &mut self,
        p: usize,
        index: usize,
        event: &EventModel,
        key: &KeyModel,
        plan: &GatesPlan,
    ) -> bool {
        let wall_ms = (self.now / MS) as i64;
        let visible_to = self.visible_to(p, index, event, plan);
        let model = &self.gate_part(p, index).model;
        let ids = model.keys.get(&event.order.id_key);
        let unsettled = model.events.values().filter(|other| {
            other.order.key == event.order.key
                && matches!(other.state, EventState::Queued | EventState::Called)
        });
        // Without a mark, a value may be too far ahead of the lowest one.
        let mut base = key.clone();
        base.mark = base.mark.or_else(|| unsettled.filter_map(|other| other.order.value).min());
        let mut of_key = model.events.values().filter(|other| {
            let is_known = ids.is_some_and(|ids| ids.knows_id(other.order.id, wall_ms - 2, plan));
            other.order.key == event.order.key
                && other.offset < visible_to
                && matches!(other.state, EventState::Queued | EventState::Called)
                && !other.ends_key(plan)
                && !other.is_ahead(&base, wall_ms, plan)
                && !(is_known && plan.duplicates.is_some())
        });
        of_key.any(|other| other.order.value > event.order.value)
    }

    /// With `latest_first`: the events that had calls, and that this one comes before.
    pub(crate) fn gave_way_to(&self, p: usize, row: &CallRow) -> Vec<i64> {
        let is_latest_first = matches!(
            self.plan.gates.and_then(|plan| plan.gate).map(|gate| gate.rule),
            Some(GateRule::Newest(Newest { latest_first: true, .. }))
        );
        let part = self.processes[p].gates.parts.get(&row.partition).filter(|_| is_latest_first);
        let Some(model) = part.map(|part| &part.model) else { return Vec::new() };
        let Some(event) = model.events.get(&row.offset) else { return Vec::new() };
        let gave_way = model.events.values().filter(|other| {
            other.order.key == event.order.key
                && other.state == EventState::Called
                && other.order.value < event.order.value
        });
        gave_way.map(|other| other.offset).collect()
    }

    /// With a window: whether a lower value must run before, or the event must still wait.
    fn is_released_wrongly(
        &mut self,
        p: usize,
        index: usize,
        event: &EventModel,
        key: &KeyModel,
        plan: &GatesPlan,
    ) -> bool {
        let Some(GateRule::Window(rule)) = plan.gate.map(|gate| gate.rule) else { return false };
        let Some(value) = event.order.value.filter(|_| event.state == EventState::Queued) else {
            return false;
        };
        let is_next = rule.consecutive && key.mark.and_then(|mark| mark.checked_add(1)) == Some(value);
        let small = rule.max_waiting < 10_000 || rule.max_waiting_bytes < 16 << 20;
        let has_limits = self.has_clock_of_full_partitions() || small;
        let visible_to = self.visible_to(p, index, event, plan);
        let model = &self.gate_part(p, index).model;
        let now = model.time.now();
        let of_key = model.events.values().filter(|other| {
            other.order.key == event.order.key && other.state == EventState::Queued && !other.ends_key(plan)
        });
        let lower = of_key.clone().filter(|other| other.offset < visible_to).any(|other| {
            other.order.value.is_some_and(|other| other < value && key.mark.is_none_or(|mark| other > mark))
        });
        let waited = of_key.filter(|other| now.saturating_sub(other.admitted) + ROUNDING >= rule.window);
        let released = waited.filter_map(|other| other.order.value).max();
        // What was released stays so, although the event that has waited may have run.
        let of_key = self.gate_part(p, index).model.keys.entry(event.order.key).or_default();
        of_key.released = of_key.released.max(released);
        let is_old = of_key.released >= Some(value);
        lower || !(is_old || is_next || has_limits || self.plan.until_end)
    }

    /// Without early or waiting events, a lane runs in the order of arrival.
    fn check_arrival(&mut self, p: usize, rows: &[CallRow], plan: &GatesPlan) {
        let reorders = match plan.gate.map(|gate| gate.rule) {
            Some(GateRule::Newest(rule)) => rule.latest_first,
            Some(GateRule::Consecutive(_) | GateRule::Window(_)) => true,
            None => false,
        };
        let Some(last) = rows.last().filter(|_| !reorders).copied() else { return };
        let model = &self.gate_part(p, last.partition).model;
        let is_before = |event: &&EventModel| {
            event.lane == last.lane && event.state == EventState::Queued && event.offset < last.offset
        };
        let skipped = model.events.values().find(is_before).map(|event| event.offset);
        let ascending = rows.is_sorted_by(|a, b| a.offset < b.offset);
        self.require(ascending && skipped.is_none(), "I4 lane order", last.partition, last.offset, || {
            format!("process {p} dispatches {rows:?} before {skipped:?}")
        });
    }

    // -- memory -------------------------------------------------------------------------------------

    /// When a key has no events, what is remembered of it is what its events have changed.
    fn check_quiet(&mut self, p: usize, core: &Core, index: usize, key: KeyName) {
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
            if !is_new(item) && !(is_filtered && item.input < last) {
                return true;
            }
            let is_durable = plan.is_some_and(|plan| match item.change {
                Change::Id(_) => plan.durable_ids,
                _ => plan.durable_marks,
            });
            if is_durable {
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
            (is != expected && few).then(|| (*key, is, expected))
        });
        if let Some((key, is, expected)) = different {
            let text = format!("process {p} commits {is:?} of {key}, not {expected:?}: {entry:?}");
            self.report_violation("G7 durable memory", text, Some(index), -1);
        }
    }
}
