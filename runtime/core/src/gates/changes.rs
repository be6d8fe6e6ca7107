//! What the settling of an event changes in the memory of its key.

use super::keys::{Order, Role};
use super::{Gates, WithoutCall};
use crate::{Change, EventId, GateKey, GateRule, RememberedId};

/// What the settling of an event was for the counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct OrderSettled {
    /// Ranges of holes that were forgotten.
    pub(crate) holes_forgotten: u64,
    /// It was done, and came too late for its place.
    pub(crate) late: bool,
}

/// How an event has settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SettledAs {
    Done,
    /// Dead-lettered or skipped.
    Failed,
    WithoutCall(WithoutCall),
}

impl Gates {
    /// Applies what the settling of an event changes, and frees its order. `emit` gets each change.
    pub(crate) fn settle(
        &mut self,
        order: u32,
        how: SettledAs,
        wall_ms: i64,
        mut emit: impl FnMut(GateKey, Change),
    ) -> OrderSettled {
        let Order { key, id_key, value, role, .. } = self.keys.order(order);
        let id = self.keys.event_id(order);
        let keep_ids = self.duplicates.map_or(0, |duplicates| duplicates.keep as usize);
        let mut changes = [None; 3];
        match (how, role) {
            (SettledAs::Failed | SettledAs::WithoutCall(_), Role::BreaksKey) => {
                // The missing value may have come before its dead letter was stored: then the key is whole again.
                let is_broken = self.keys.key(key).memory.broken;
                changes[0] = is_broken.then_some(Change::Broken(true));
            }
            (SettledAs::WithoutCall(WithoutCall { ends_key: true, .. }), _) => {
                changes[0] = Some(Change::Ended);
            }
            (SettledAs::WithoutCall(WithoutCall { moves_mark, .. }), _) => {
                let is_mended = moves_mark && self.keys.key(key).memory.broken;
                changes[0] = value.filter(|_| moves_mark).map(Change::Mark);
                changes[1] = is_mended.then_some(Change::Broken(false));
            }
            (SettledAs::Done | SettledAs::Failed, Role::InOrder) => {
                if let Some(value) = value {
                    changes = self.in_order(key, value, how == SettledAs::Done);
                }
            }
            (SettledAs::Done, Role::FillsHole) => changes[0] = value.map(Change::Filled),
            (SettledAs::Done | SettledAs::Failed, Role::EndsKey) => changes[0] = Some(Change::Ended),
            (SettledAs::Done, Role::Late | Role::Beside | Role::BreaksKey)
            | (SettledAs::Failed, Role::Late | Role::Beside | Role::FillsHole) => {}
        }
        let known = self.keys.key_mut(key);
        let mut holes_forgotten = 0;
        if changes[0].is_some() {
            // What a passed gap has changed is in the memory already.
            let gate_key = known.id;
            known.pending.drain(..).for_each(|change| emit(gate_key, change));
        }
        for change in changes.into_iter().flatten() {
            let lost = known.memory.apply(change, keep_ids);
            holes_forgotten +=
                if matches!(change, Change::Holes(..) | Change::Filled(_)) { lost as u64 } else { 0 };
            emit(known.id, change);
        }
        if changes[0].is_some() && known.parked.len > 0 {
            let lane = known.lane;
            self.parked.may_be_due(lane, key);
        }
        if how == SettledAs::Done && id != EventId::NONE && keep_ids > 0 {
            let change = Change::Id(RememberedId { id, settled_ms: wall_ms });
            let known = self.keys.key_mut(id_key);
            known.memory.apply(change, keep_ids);
            emit(known.id, change);
        }
        self.keys.leave(order);
        let late = how == SettledAs::Done && matches!(role, Role::FillsHole | Role::Late);
        OrderSettled { holes_forgotten, late }
    }

    /// Returns the changes of an event in its place: the mark moves.
    fn in_order(&self, key: u32, value: i64, done: bool) -> [Option<Change>; 3] {
        let memory = &self.keys.key(key).memory;
        let is_above = memory.mark.is_none_or(|mark| value > mark);
        let mark = Some(Change::Mark(value));
        match self.config.as_ref().map(|gate| &gate.rule) {
            Some(GateRule::Consecutive(_)) => {
                let hole = (!done).then_some(Change::Holes(value, value));
                [mark, hole, memory.broken.then_some(Change::Broken(false))]
            }
            Some(GateRule::Newest(rule)) if done => {
                let delivered = (rule.tolerance > 0).then_some(Change::Delivered(value));
                let mut changes = [mark.filter(|_| is_above), delivered, None];
                changes.sort_by_key(Option::is_none);
                changes
            }
            Some(GateRule::Window(_)) if done => [mark.filter(|_| is_above), None, None],
            Some(GateRule::Newest(_) | GateRule::Window(_)) | None => [None; 3],
        }
    }
}
