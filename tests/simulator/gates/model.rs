//! The rules of gates, as the simulator understands them, and its own idea of what is remembered of a key.

use std::collections::BTreeMap;
use std::time::Duration;

use keylane_core::{
    Change, Consecutive, First, GateRule, KeyMemory, LookUpId, MaxAhead, Newest, NoValue, Reason,
    RememberedId,
};

use super::super::log::Lane;
use super::draw::MS_NS;
use super::sequence::RecordOrder;
use super::stream_time::StreamTime;
use super::{GatesPlan, KeyName};

/// One ownership, as the simulator sees it.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) keys: BTreeMap<KeyName, KeyModel>,
    /// By offset: what was admitted.
    pub(super) events: BTreeMap<i64, EventModel>,
    pub(super) time: StreamTime,
    /// The lanes whose keys are being looked up, by request.
    pub(super) loading: BTreeMap<LookUpId, Lane>,
    /// The first unsettled event, if its lane was held back without a reason at the end of the last step.
    pub(super) held_first: Option<i64>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct EventModel {
    pub(super) offset: i64,
    pub(super) lane: Lane,
    pub(super) order: RecordOrder,
    pub(super) filtered: bool,
    pub(super) state: EventState,
    /// The stream time at its admission.
    pub(super) admitted: Duration,
    /// The mark of its key at its admission.
    pub(super) admitted_mark: Option<i64>,
    /// The wall clock at its admission.
    pub(super) admitted_ms: i64,
    /// Why the gate has rejected it.
    pub(super) rejected: Option<Reason>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EventState {
    /// It was never called.
    Queued,
    Called,
    /// It has an outcome that does not count before its acknowledgement.
    Failed,
    Settled,
}

/// What an event has changed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    /// The input of the core at which it settled.
    pub(super) input: u64,
    pub(super) offset: i64,
    pub(super) key: KeyName,
    pub(super) change: Change,
}

/// What is remembered of a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct KeyModel {
    pub(super) mark: Option<i64>,
    /// Ascending and not adjacent.
    holes: Vec<(i64, i64)>,
    pub(super) broken: bool,
    delivered: Vec<i64>,
    pub(super) ids: Vec<(u128, i64)>,
    /// In this ownership: changes of a gap that was passed. The next event that settles makes them.
    pub(super) attached: Vec<Change>,
    /// In this ownership: a gap was closed with dead letters.
    pub(super) is_closed: bool,
    /// In this ownership: the offset of the last record that has ended the key.
    pub(super) ended_at: Option<i64>,
    /// In this ownership: the greatest value that was dead-lettered or skipped, and its offset.
    pub(super) failed: Option<i64>,
    /// In this ownership: the greatest mark so far, and whether the key was broken. A rejection may have been decided
    /// then: its dead letter may begin later.
    pub(super) greatest_mark: Option<i64>,
    pub(super) was_broken: bool,
    /// In this ownership, with a window: the greatest value that has waited long enough. Lower ones need not wait.
    pub(super) released: Option<i64>,
}

/// The place of an order value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It may run, but for the wait of a window.
    Due,
    /// It waits for lower values.
    Early,
    /// With `first = "any"`: it waits to be the first.
    PerhapsFirst,
    BelowFirst,
    /// It was passed over, or failed.
    Hole,
    /// With a window: it is not above the mark.
    Late,
    Stale,
}

impl KeyModel {
    pub(super) fn from_memory(memory: &KeyMemory) -> KeyModel {
        let mut key = KeyModel {
            mark: memory.mark,
            broken: memory.broken,
            delivered: memory.delivered.clone(),
            ids: memory.ids.iter().map(|id| (id.id.0, id.settled_ms)).collect(),
            ..KeyModel::default()
        };
        memory.holes.iter().for_each(|&(from, to)| key.add_holes(from, to));
        key
    }

    /// What an ownership begins with.
    pub(super) fn begin(memory: &KeyMemory) -> KeyModel {
        let key = KeyModel::from_memory(memory);
        KeyModel { greatest_mark: key.mark, was_broken: key.broken, ..key }
    }

    /// What outlives an ownership.
    pub(super) fn remembered(&self) -> KeyModel {
        KeyModel {
            mark: self.mark,
            holes: self.holes.clone(),
            broken: self.broken,
            delivered: self.delivered.clone(),
            ids: self.ids.clone(),
            ..KeyModel::default()
        }
    }

    pub(super) fn apply(&mut self, change: Change, keep_ids: usize) {
        match change {
            Change::Mark(mark) => {
                (self.mark, self.is_closed) = (Some(mark), false);
                self.greatest_mark = self.greatest_mark.max(Some(mark));
            }
            Change::Holes(from, to) => self.add_holes(from, to),
            Change::Filled(value) => self.fill(value),
            Change::Broken(broken) => {
                self.broken = broken;
                self.was_broken |= broken;
            }
            Change::Delivered(value) => {
                self.delivered.push(value);
                self.delivered.drain(..self.delivered.len().saturating_sub(16));
            }
            Change::Id(RememberedId { id, settled_ms }) => {
                self.ids.push((id.0, settled_ms));
                self.ids.drain(..self.ids.len().saturating_sub(keep_ids));
            }
            Change::Ended => {
                let KeyModel { greatest_mark, was_broken, .. } = *self;
                let ids = std::mem::take(&mut self.ids);
                *self = KeyModel { ids, greatest_mark, was_broken, ..KeyModel::default() };
            }
        }
    }

    fn add_holes(&mut self, from: i64, to: i64) {
        self.holes.push((from, to));
        self.holes.sort_unstable();
        let mut merged: Vec<(i64, i64)> = Vec::new();
        for &(from, to) in &self.holes {
            match merged.last_mut() {
                Some((_, last)) if last.saturating_add(1) >= from => *last = to.max(*last),
                _ => merged.push((from, to)),
            }
        }
        self.holes = merged;
    }

    fn fill(&mut self, value: i64) {
        let parts = self.holes.iter().flat_map(|&(from, to)| {
            if from <= value && value <= to {
                [(from, value - 1), (value + 1, to)]
            } else {
                [(from, to), (1, 0)]
            }
        });
        self.holes = parts.filter(|(from, to)| from <= to).collect();
    }

    fn is_hole(&self, value: i64) -> bool {
        self.holes.iter().any(|&(from, to)| from <= value && value <= to)
    }

    /// The number of ranges of holes. Beyond a limit, the lowest are forgotten.
    pub(super) fn ranges(&self) -> usize {
        self.holes.len()
    }

    /// The place of a value with this rule.
    pub(super) fn place(&self, rule: GateRule, value: i64) -> Place {
        match rule {
            GateRule::Consecutive(Consecutive { first, .. }) => match (self.mark, first) {
                (Some(mark), _) if value <= mark && self.is_hole(value) => Place::Hole,
                (Some(mark), _) if value <= mark => Place::Stale,
                (Some(mark), _) if value == mark + 1 => Place::Due,
                (Some(_), _) => Place::Early,
                (None, First::At(first)) if value < first => Place::BelowFirst,
                (None, First::At(first)) if value == first => Place::Due,
                (None, First::At(_)) => Place::Early,
                (None, First::Any { .. }) => Place::PerhapsFirst,
            },
            GateRule::Newest(Newest { equal_runs, tolerance, .. }) => match self.mark {
                Some(mark) if value < mark || (value == mark && !equal_runs) => {
                    let near = tolerance > 0 && mark.abs_diff(value) <= tolerance;
                    if near && !self.delivered.contains(&value) { Place::Due } else { Place::Stale }
                }
                Some(_) | None => Place::Due,
            },
            GateRule::Window(_) if self.mark.is_some_and(|mark| value <= mark) => Place::Late,
            GateRule::Window(_) => Place::Due,
        }
    }

    /// Whether an id is remembered at this time.
    pub(super) fn knows_id(&self, id: u128, wall_ms: i64, plan: &GatesPlan) -> bool {
        let window = plan.duplicates.map_or(0, |duplicates| duplicates.window.as_millis() as i64);
        id != 0 && self.ids.iter().any(|&(known, settled_ms)| known == id && wall_ms - settled_ms < window)
    }

    /// The next value of a consecutive gate.
    pub(super) fn next(&self, rule: GateRule) -> Option<i64> {
        let GateRule::Consecutive(Consecutive { first, .. }) = rule else { return None };
        match (self.mark, first) {
            (Some(mark), _) => mark.checked_add(1),
            (None, First::At(first)) => Some(first),
            (None, First::Any { .. }) => None,
        }
    }
}

impl EventModel {
    /// Whether the event ends its key.
    pub(super) fn ends_key(&self, plan: &GatesPlan) -> bool {
        self.order.tombstone && plan.gate.is_some_and(|gate| gate.ends_at_tombstone)
    }

    /// Whether the event must be rejected because it has no order value.
    pub(super) fn lacks_value(&self, plan: &GatesPlan) -> bool {
        let rejects = plan.gate.is_some_and(|gate| gate.no_value == NoValue::Reject);
        rejects && self.order.value.is_none() && !self.ends_key(plan)
    }

    /// Whether the order value is below the one that keys begin with.
    pub(super) fn is_below_first(&self, plan: &GatesPlan) -> bool {
        match plan.gate.map(|gate| gate.rule) {
            Some(GateRule::Consecutive(Consecutive { first: First::At(first), .. })) => {
                self.order.value.is_some_and(|value| value < first)
            }
            Some(_) | None => false,
        }
    }

    /// With a window: whether the event may have waited in the gate when another one with its value ran.
    pub(super) fn may_have_waited(&self, key: &KeyModel) -> bool {
        let was_above = self.admitted_mark < self.order.value || key.ended_at.is_some();
        key.mark == self.order.value && was_above
    }

    /// Whether the order value is further ahead than the limit, at this time.
    pub(super) fn is_ahead(&self, key: &KeyModel, wall_ms: i64, plan: &GatesPlan) -> bool {
        let Some(value) = self.order.value.filter(|_| !self.ends_key(plan)) else { return false };
        match plan.gate.and_then(|gate| gate.max_ahead) {
            Some(MaxAhead::OfMark(limit)) => {
                key.mark.is_some_and(|mark| value > mark.saturating_add_unsigned(limit))
            }
            Some(MaxAhead::OfClock(limit)) => {
                i128::from(value) > i128::from(wall_ms) * i128::from(MS_NS) + limit.as_nanos() as i128
            }
            None => false,
        }
    }
}
