//! The states of a call: each lane gets the state that the last done event of its key has left. If only the store knows
//! it, the call waits.

use std::collections::BTreeSet;

use keylane_core::{CallId, KeptEffect, KeptEffects, LaneEnd};
use keylane_state::StateValue;

use super::super::log::Lane;
use super::super::planted::Planted;
use super::super::process::{CallRow, key_of};
use super::super::trace::Seen;
use super::super::world::World;
use super::fold;
use super::store::Work;

/// The states of a call that has not ended.
#[derive(Debug)]
pub(super) struct CallStates {
    id: CallId,
    lanes: Vec<LaneState>,
}

#[derive(Debug)]
struct LaneState {
    partition: usize,
    key: u64,
    session: u64,
    /// `None`: it is being loaded.
    value: Option<StateValue>,
}

/// The state that a call has left.
#[derive(Debug)]
pub(super) struct Change {
    partition: usize,
    session: u64,
    key: u64,
    value: StateValue,
}

impl World {
    /// Collects the states of a call. Returns whether it must wait for the store.
    pub(crate) fn prepare_states(&mut self, p: usize, id: CallId, rows: &[CallRow], lengths: &[u32]) -> bool {
        if !self.is_keyed() {
            return false;
        }
        let new_limit = self.rng.percent(3).then(|| self.rng.pick(&[0, 400, 1 << 20]));
        let (mut lanes, mut loads, mut first) = (Vec::new(), Vec::new(), 0);
        for &length in lengths {
            let Some(row) = rows.get(first as usize).copied() else { continue };
            first += length;
            let Lane::Key(key) = row.lane else {
                let text = format!("process {p} dispatches an event without a key");
                return self.violates_protocol(row.partition, row.offset, text);
            };
            let session = self.session(p, row.partition);
            let Some(session) = session.filter(|session| session.ownership == Some(row.ownership)) else {
                let text =
                    format!("process {p} dispatches an event of {}, which has no states", row.ownership);
                return self.violates_protocol(row.partition, row.offset, text);
            };
            let record_key = fold::record_key(key);
            if let (Some(bytes), Some(states)) = (new_limit, &mut session.states) {
                states.limit_cache(bytes); // the partitions of a process share its memory
            }
            let value = session.states.as_mut().and_then(|states| states.get(&record_key));
            let session = session.id;
            if value.is_none() {
                loads.push((
                    row.partition,
                    Work::Load { call: key_of(id), lane: lanes.len(), key: record_key },
                ));
            }
            lanes.push(LaneState { partition: row.partition, key, session, value });
        }
        self.processes[p].shell.keyed.calls.insert(key_of(id), CallStates { id, lanes });
        let waits = !loads.is_empty();
        for (index, work) in loads {
            self.saw(Seen::StatesLoaded);
            self.queue_task(p, index, work);
        }
        waits
    }

    fn violates_protocol(&mut self, index: usize, offset: i64, text: String) -> bool {
        self.report_violation("I-protocol", text, Some(index), offset);
        false
    }

    /// Whether a call still waits for a state.
    pub(crate) fn waits_for_states(&self, p: usize, id: CallId) -> bool {
        let states = self.processes[p].shell.keyed.calls.get(&key_of(id));
        states.is_some_and(|states| states.lanes.iter().any(|lane| lane.value.is_none()))
    }

    /// The store has answered. `found` is `None` if the session is over: then the results of the lane do not count, but
    /// the call may have other lanes.
    pub(super) fn state_loaded(
        &mut self,
        p: usize,
        call: (u32, u32),
        lane: usize,
        key: &[u8],
        found: Option<StateValue>,
    ) {
        let is_current = found.is_some();
        let value = found.flatten();
        let keyed = &mut self.processes[p].shell.keyed;
        let Some(states) = keyed.calls.get_mut(&call) else { return };
        let Some(to) = states.lanes.get_mut(lane) else { return };
        let mut seen = value.clone();
        if is_current
            && let Some(session) = keyed.sessions.get_mut(&to.partition)
            && let Some(known) = &mut session.states
        {
            known.loaded(&key.into(), value.clone());
            seen = known.get(key).unwrap_or(value);
        }
        let (mut call, mut lane) = (call, lane);
        if self.planted == Some(Planted::LoadToOtherLane) {
            // The answer goes to whoever waits first.
            let keyed = &self.processes[p].shell.keyed;
            let waiting = keyed.calls.iter().find_map(|(&call, states)| {
                let lane = states.lanes.iter().position(|lane| lane.value.is_none())?;
                Some((call, lane))
            });
            let Some(first) = waiting else { return };
            (call, lane) = first;
        }
        let Some(states) = self.processes[p].shell.keyed.calls.get_mut(&call) else { return };
        let Some(to) = states.lanes.get_mut(lane) else { return };
        let waited = to.value.replace(seen).is_none();
        let id = states.id;
        if waited && !self.waits_for_states(p, id) && !self.processes[p].calls[&call].ended {
            self.run_call(p, id);
        }
    }

    /// The guest has ended, or was dropped.
    pub(crate) fn forget_call_states(&mut self, p: usize, id: CallId) {
        self.processes[p].shell.keyed.calls.remove(&key_of(id));
    }

    /// The handler changes the states of a call: those of events that are not done are dropped. Returns the rows whose
    /// effects contain a state: the last done rows of the lanes whose states changed.
    pub(crate) fn fold_lanes(
        &mut self,
        p: usize,
        id: CallId,
        lanes: &[LaneEnd],
        lengths: &[u32],
    ) -> BTreeSet<u32> {
        let mut changed = BTreeSet::new();
        let Some(states) = self.processes[p].shell.keyed.calls.remove(&key_of(id)) else { return changed };
        let rows = self.processes[p].calls[&key_of(id)].rows.clone();
        let mut first = 0;
        for ((lane, &length), state) in lanes.iter().zip(lengths).zip(states.lanes) {
            let LaneState { partition, key, session, value } = state;
            let before = value.unwrap_or_default();
            let keeps_failed = self.planted == Some(Planted::FailedStateKept) && lane.done > 0;
            let folded = if keeps_failed { (lane.done + 1).min(length) } else { lane.done };
            let of_lane = rows.iter().skip(first as usize).take(folded as usize);
            let value = of_lane.fold(before.clone(), |state, row| fold::after(&state, key, row.offset));
            if lane.done > 0 && value != before {
                let row = first + lane.done - 1;
                changed.insert(row);
                let change = Change { partition, session, key, value };
                self.processes[p].shell.keyed.changes.insert((key_of(id), row), change);
            }
            first += length;
        }
        changed
    }

    /// The core keeps the effects of a row, perhaps with the state of its lane.
    pub(crate) fn keep_state(&mut self, p: usize, kept: &KeptEffects) {
        let change = self.processes[p].shell.keyed.changes.remove(&(key_of(kept.call), kept.row));
        let Some(change) = change.filter(|_| kept.effect == KeptEffect::Outputs) else { return };
        let Change { partition, session: id, key, value } = change;
        self.saw(if value.is_none() { Seen::StatesDeleted } else { Seen::StatesChanged });
        if self.is_gated() {
            self.saw(Seen::StatesOfGatedEvents);
        }
        let record_key = fold::record_key(key);
        let session = self.session(p, partition).filter(|session| session.id == id);
        let Some(states) = session.and_then(|session| session.states.as_mut()) else {
            let text = format!("process {p} keeps a state of a session that is over: {kept:?}");
            return self.report_violation(
                "I6 quiet after ownership",
                text,
                Some(partition),
                kept.event.offset,
            );
        };
        states.changed(kept.number.0, &record_key, value.clone());
        self.note(p, "keeps state", Some(partition), kept.event.offset, kept.number.0 as i64);
        if self.planted == Some(Planted::OverlayStored) {
            let entries = vec![keylane_state::Entry::new(&record_key, value.as_deref(), None)];
            self.queue_task(p, partition, Work::Apply { entries, through: None });
        }
    }
}
