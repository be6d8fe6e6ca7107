//! Calls: each row may run if those before it are done.

use keylane_core::{GateRule, Late};

use super::super::plan::MS;
use super::super::process::CallRow;
use super::super::trace::Seen;
use super::super::world::World;
use super::checks::{ROUNDING, changes_of_done};
use super::model::{EventModel, EventState, KeyModel, Place};
use super::{GatesPlan, KeyName};

impl World {
    /// The rows of a lane may run, each if those before it are done.
    pub(super) fn check_dispatched(&mut self, p: usize, rows: &[CallRow], plan: &GatesPlan) {
        let mut keys: std::collections::BTreeMap<KeyName, KeyModel> = std::collections::BTreeMap::new();
        for (at, row) in rows.iter().enumerate() {
            let (index, offset) = (row.partition, row.offset);
            let is_current = self.reads_current_topic(p, index);
            if self.gate_part(p, index).ownership != Some(row.ownership) || !is_current {
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

    pub(super) fn late_place(&self, event: &EventModel, key: &KeyModel, plan: &GatesPlan) -> Place {
        let place = event.order.value.zip(plan.gate).map(|(value, gate)| key.place(gate.rule, value));
        place.unwrap_or(Place::Due)
    }

    /// The invariant that the call of an event violates.
    pub(super) fn is_wrong(
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
                let may_run = rule.late == Late::Deliver || event.may_have_waited(key);
                (!may_run).then_some("G5 window")
            }
            (GateRule::Window(_), _) => {
                self.is_released_wrongly(p, index, event, key, plan).then_some("G5 window")
            }
        }
    }

    /// The offset of the first queued event of a lane that runs by its arrival, or has a key that must perhaps be looked up:
    /// those behind it are not looked at before.
    pub(super) fn visible_to(&mut self, p: usize, index: usize, event: &EventModel, plan: &GatesPlan) -> i64 {
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
    pub(super) fn is_greater_queued(
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
        let is_latest_first = self.plan.gates.is_some_and(|plan| plan.runs_latest_first());
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
    pub(super) fn is_released_wrongly(
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
        let has_limits = self.has_clock_of_full_partitions() || plan.has_small_window();
        let visible_to = self.visible_to(p, index, event, plan);
        let model = &self.gate_part(p, index).model;
        let now = model.time.now();
        let of_key = model.events.values().filter(|other| {
            other.order.key == event.order.key && other.state == EventState::Queued && !other.ends_key(plan)
        });
        let is_lower = |other: &&EventModel| {
            other.order.value.is_some_and(|other| other < value && key.mark.is_none_or(|mark| other > mark))
        };
        let visible = of_key.clone().filter(|other| other.offset < visible_to);
        let lower: Vec<EventModel> = visible.filter(is_lower).copied().collect();
        let waited = of_key.filter(|other| now.saturating_sub(other.admitted) + ROUNDING >= rule.window);
        let released = waited.filter_map(|other| other.order.value).max();
        // What was released stays so, although the event that has waited may have run.
        let of_key = self.gate_part(p, index).model.keys.entry(event.order.key).or_default();
        of_key.released = of_key.released.max(released);
        let is_old = of_key.released >= Some(value);
        // A duplicate settles in the same step.
        let is_passed = lower.iter().any(|other| !self.is_duplicate(p, index, other, plan));
        is_passed || !(is_old || is_next || has_limits || self.plan.until_end)
    }

    /// Without early or waiting events, a lane runs in the order of arrival.
    pub(super) fn check_arrival(&mut self, p: usize, rows: &[CallRow], plan: &GatesPlan) {
        let reorders = match plan.gate.map(|gate| gate.rule) {
            Some(GateRule::Newest(rule)) => rule.latest_first,
            Some(GateRule::Consecutive(_) | GateRule::Window(_)) => true,
            None => false,
        };
        let Some(last) = rows.last().filter(|_| !reorders).copied() else { return };
        let model = &self.gate_part(p, last.partition).model;
        let is_before = |event: &&EventModel| {
            let key = model.keys.get(&event.order.key).cloned().unwrap_or_default();
            // A rejected event waits for the beginning of its dead letter.
            let is_rejected = event.lacks_value(plan) || event.is_ahead(&key, event.admitted_ms, plan);
            let is_before = event.lane == last.lane && event.offset < last.offset;
            is_before && event.state == EventState::Queued && !is_rejected
        };
        let skipped = model.events.values().find(is_before).map(|event| event.offset);
        let ascending = rows.is_sorted_by(|a, b| a.offset < b.offset);
        self.require(ascending && skipped.is_none(), "I4 lane order", last.partition, last.offset, || {
            format!("process {p} dispatches {rows:?} before {skipped:?}")
        });
    }
}
