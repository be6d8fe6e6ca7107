//! Outcomes without a call: for each, an event says why.

use keylane_core::{Change, GateRule, Late, Newest};

use super::super::plan::MS;
use super::super::trace::Seen;
use super::super::world::World;
use super::GatesPlan;
use super::checks::moves_mark;
use super::model::{EventModel, EventState, KeyModel, Place};

impl World {
    /// Whether an event may settle without a call now. If so, it does.
    pub(super) fn explain_without_call(
        &mut self,
        p: usize,
        index: usize,
        offset: i64,
        plan: &GatesPlan,
    ) -> bool {
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
        let is_either = self.has_either_outcome(p, index, &event, &key, plan);
        let counted = &mut self.processes[p].gates.counted;
        counted.outcome(seen, is_either);
        counted.at_admission |= event.admitted_ms == (self.now / MS) as i64;
        self.note(p, "without call", Some(index), offset, seen as i64);
        self.settle_gated(p, index, offset, &changes);
        self.count_without_call(p, index, offset);
        true
    }

    /// Whether another outcome fits an event, too, if it waited, or if a record that ends its key came before.
    fn has_either_outcome(
        &mut self,
        p: usize,
        index: usize,
        event: &EventModel,
        key: &KeyModel,
        plan: &GatesPlan,
    ) -> bool {
        let Some(gate) = plan.gate else { return false };
        let is_stale = event.order.value.is_some_and(|value| key.place(gate.rule, value) == Place::Stale);
        let is_duplicate = self.is_duplicate(p, index, event, plan);
        (is_duplicate && (is_stale || gate.ends_at_tombstone)) || (event.filtered && gate.ends_at_tombstone)
    }

    pub(super) fn reason_without_call(
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
                Some((_, Place::Stale)) if event.filtered => Some((passed, Vec::new())),
                Some((_, Place::Stale)) => Some((Seen::GateStale, Vec::new())),
                Some((_, Place::Hole | Place::BelowFirst)) if event.filtered => Some((passed, Vec::new())),
                Some((_, Place::Hole)) if is_duplicate => Some((passed, Vec::new())),
                Some((_, Place::Hole)) if self.late(plan) == Some(Late::Drop) => {
                    Some((Seen::GateLate, Vec::new()))
                }
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
                let is_superseded = latest_first && event.state == EventState::Queued;
                let seen = if is_superseded { Seen::GateSuperseded } else { Seen::GateStale };
                (place == Place::Stale || fell_short).then_some((seen, Vec::new()))
            }
            (GateRule::Window(rule), Place::Late) if rule.late == Late::Drop => {
                Some((Seen::GateLate, Vec::new()))
            }
            _ => None,
        }
    }

    pub(super) fn late(&self, plan: &GatesPlan) -> Option<Late> {
        match plan.gate?.rule {
            GateRule::Consecutive(rule) => Some(rule.late),
            GateRule::Window(rule) => Some(rule.late),
            GateRule::Newest(_) => None,
        }
    }

    pub(super) fn is_duplicate(
        &mut self,
        p: usize,
        index: usize,
        event: &EventModel,
        plan: &GatesPlan,
    ) -> bool {
        let wall_ms = (self.now / MS) as i64;
        let keys = &mut self.gate_part(p, index).model.keys;
        let key = keys.get(&event.order.id_key);
        plan.duplicates.is_some()
            && key.is_some_and(|key| key.knows_id(event.order.id, wall_ms.saturating_sub(2), plan))
    }

    /// An event has settled without a call: it is an outcome.
    pub(super) fn count_without_call(&mut self, p: usize, index: usize, offset: i64) {
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
}
