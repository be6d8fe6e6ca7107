//! Rejections, and gaps that are not waited for any longer.

use keylane_core::{Change, ClosedGap, Consecutive, First, GapCause, GateRule, Late, OnGap, Reason};

use super::super::trace::Seen;
use super::super::world::World;
use super::GatesPlan;
use super::checks::{ROUNDING, changes_of_failed};
use super::model::{EventModel, EventState, KeyModel, Place};

impl World {
    pub(super) fn explain_rejection(
        &mut self,
        p: usize,
        index: usize,
        offset: i64,
        reason: Reason,
        plan: &GatesPlan,
    ) -> bool {
        let Some((event, key)) = self.event_and_key(p, index, offset) else { return true };
        let (fits, seen) = match reason {
            Reason::NoOrderValue => (event.lacks_value(plan), Seen::RejectedNoValue),
            Reason::OrderValueAhead => {
                (self.is_too_far_ahead(p, index, &event, &key, plan), Seen::RejectedAhead)
            }
            Reason::BelowFirst => (event.is_below_first(plan), Seen::RejectedBelowFirst),
            Reason::Gap => (key.was_broken || key.is_closed, Seen::RejectedGap),
            Reason::Late => {
                let is_late = event.order.value.is_some() && event.order.value <= key.greatest_mark;
                (is_late && self.late(plan) == Some(Late::DeadLetter), Seen::RejectedLate)
            }
            Reason::RetriesExhausted
            | Reason::Rejected
            | Reason::Fault(_)
            | Reason::TooOld
            | Reason::OutputRejected
            | Reason::NoLaneKey => return false,
        };
        if fits && !event.filtered {
            self.saw(seen);
            self.release_lower(p, index, &event, plan);
            self.begin_rejection(p, index, &event, &key, reason, plan);
        }
        fits && !event.filtered
    }

    /// An event that has waited long enough leaves without a call: those before it may run.
    pub(super) fn release_lower(&mut self, p: usize, index: usize, event: &EventModel, plan: &GatesPlan) {
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
    pub(super) fn begin_rejection(
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
    pub(super) fn passes_to_first(
        &mut self,
        p: usize,
        index: usize,
        event: &EventModel,
        plan: &GatesPlan,
    ) -> bool {
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
    pub(super) fn is_too_far_ahead(
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
            // A tombstone may have ended the key since then.
            || ((event.admitted_mark.is_none() || key.mark.is_none())
                && self.is_above_lowest(p, index, event, plan))
    }

    /// Without a mark, a value is ahead of the lowest one.
    pub(super) fn is_above_lowest(
        &mut self,
        p: usize,
        index: usize,
        event: &EventModel,
        plan: &GatesPlan,
    ) -> bool {
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

    pub(super) fn explain_gap(&mut self, p: usize, index: usize, gap: &ClosedGap, plan: &GatesPlan) -> bool {
        let (value, offset) = gap.early;
        let Some((event, key)) = self.event_and_key(p, index, offset) else { return true };
        let Some(GateRule::Consecutive(rule)) = plan.gate.map(|gate| gate.rule) else { return false };
        let place = key.place(GateRule::Consecutive(rule), value);
        let waits = matches!(place, Place::Early | Place::PerhapsFirst);
        let agrees = key.next(GateRule::Consecutive(rule)) == gap.expected
            && event.order.value == Some(value)
            // Once nothing fails any more, a gap does not stop the handler, but is dead-lettered.
            && (gap.on_gap == OnGap::Pass) == (rule.on_gap == OnGap::Pass);
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
        self.processes[p].gates.counted.gap(gap.on_gap);
        self.saw(match gap.cause {
            GapCause::Timeout => Seen::GapsTimedOut,
            GapCause::TooManyEarly => Seen::GapsTooManyEarly,
            GapCause::PartitionFull => Seen::GapsInFullPartitions,
        });
        let key = self.gate_part(p, index).model.keys.entry(event.order.key).or_default();
        if gap.on_gap == OnGap::Pass {
            let from = key.next(GateRule::Consecutive(rule)).unwrap_or(i64::MIN + 1);
            let changes = [Change::Mark(value - 1), Change::Holes(from, value - 1)];
            changes.iter().for_each(|&change| key.apply(change, 0));
            key.attached.extend(changes);
        } else {
            key.is_closed = true;
        }
        true
    }
}
