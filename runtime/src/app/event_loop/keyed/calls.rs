//! The states of calls: a call waits until the states of all its lanes are known, and then goes to the workers. Its lanes
//! are busy meanwhile, so nobody else changes these states.

use std::collections::{BTreeMap, HashMap, VecDeque};

use keylane_core::{CallId, Dispatch, Partition};
use keylane_state::{KeyBytes, SessionId, StateValue};

use crate::guest::Call;

use super::super::Reading;
use super::Keyed;
use super::partitions::Step;

/// Bytes in the queue of a store at which calls wait for it: its file fails, or it is slower than the handler.
pub(super) const QUEUED_MAX: usize = 64 << 20;

/// The calls of a handler with keyed state.
#[derive(Default)]
pub(super) struct StatefulCalls {
    /// By slot: the lanes of each call, with their keys.
    lanes: Vec<Vec<CallLane>>,
    waiting: HashMap<CallId, WaitingCall>,
    loads: BTreeMap<u64, Load>,
    /// Calls that have stopped waiting, because the ownership of a partition has ended.
    ready: VecDeque<CallId>,
    last_token: u64,
}

pub(super) struct CallLane {
    pub(super) partition: Partition,
    pub(super) key: KeyBytes,
}

struct WaitingCall {
    call: Box<Call>,
    /// The state of each lane; `None`: it is being loaded.
    states: Vec<Option<StateValue>>,
    missing: usize,
}

/// A load of states, for lanes of one call and one partition.
struct Load {
    call: CallId,
    partition: Partition,
    lanes: Vec<usize>,
}

impl StatefulCalls {
    /// Takes a call that waits for states.
    pub(super) fn take(&mut self, call: CallId) -> Option<Box<Call>> {
        let waiting = self.waiting.remove(&call)?;
        self.loads.retain(|_, load| load.call != call);
        Some(waiting.call)
    }

    /// Returns a token for a load.
    pub(super) fn next_token(&mut self) -> u64 {
        self.last_token += 1;
        self.last_token
    }

    /// Returns the number of calls that wait for states.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Returns whether a call waits for states.
    pub(super) fn is_waiting(&self, call: CallId) -> bool {
        self.waiting.contains_key(&call)
    }

    /// Returns the lanes of a call whose end is handled.
    pub(super) fn lanes_of(&self, call: CallId) -> &[CallLane] {
        self.lanes.get(call.slot as usize).map_or(&[], Vec::as_slice)
    }
}

impl Keyed {
    /// Remembers the keys of the lanes of a call that begins.
    pub(in crate::app::event_loop) fn begin_call(&mut self, dispatch: &Dispatch<'_>, reading: &Reading) {
        let slot = dispatch.call.slot as usize;
        if self.calls.lanes.len() <= slot {
            self.calls.lanes.resize_with(slot + 1, Vec::new);
        }
        let Some(lanes) = self.calls.lanes.get_mut(slot) else { return };
        lanes.clear();
        let mut rows = dispatch.rows;
        for &length in dispatch.lane_lengths {
            let Some((first, _)) = rows.split_first() else { return };
            let key =
                reading.key_of(first.arena_slot).expect("the key of a lane is kept while it has events");
            lanes.push(CallLane { partition: first.partition, key: key.clone() });
            rows = rows.get(length as usize..).unwrap_or_default();
        }
    }

    /// Adds the states of its lanes to a call. Returns the call if all of them are known; otherwise it waits for the store.
    /// The error stops the handler.
    pub(super) fn give_states(&mut self, call: Box<Call>) -> Result<Option<Box<Call>>, String> {
        let id = call.key.call;
        let lanes = self.calls.lanes.get(id.slot as usize).map_or(&[][..], Vec::as_slice);
        let mut states = Vec::with_capacity(lanes.len());
        let mut missing: BTreeMap<Partition, Vec<usize>> = BTreeMap::new();
        for (at, CallLane { partition, key }) in lanes.iter().enumerate() {
            // While the store is restored or does not keep up, calls wait for it, so what is queued for it stays limited: loads
            // are answered after what was queued before them.
            let store = self.topics.get(usize::from(partition.topic)).map(|(_, states)| &states.store);
            let keeps_up = store.is_some_and(|store| store.queued() < QUEUED_MAX);
            let owned = self.owned.get_mut(partition).filter(|owned| keeps_up && owned.step == Step::Ready);
            let state = owned.and_then(|owned| owned.states.get(key));
            if state.is_none() {
                missing.entry(*partition).or_default().push(at);
            }
            states.push(state);
        }
        let waiting = WaitingCall { call, states, missing: missing.values().map(Vec::len).sum() };
        if waiting.missing == 0 {
            return self.complete(waiting).map(Some);
        }
        self.calls.waiting.insert(id, waiting);
        for (partition, lanes) in missing {
            let token = self.calls.next_token();
            self.calls.loads.insert(token, Load { call: id, partition, lanes });
            self.send_load(token);
        }
        Ok(None)
    }

    /// Sends a load to the store, unless the store is being restored: then it is sent when that is done.
    fn send_load(&self, token: u64) {
        let Some(Load { call, partition, lanes }) = self.calls.loads.get(&token) else { return };
        let Some(owned) = self.owned.get(partition).filter(|owned| owned.step == Step::Ready) else { return };
        let keys = self.calls.lanes_of(*call);
        let keys = lanes.iter().filter_map(|&at| keys.get(at)).map(|lane| lane.key.clone()).collect();
        if let Some(states) = self.states_of(*partition) {
            states.store.load(partition.number, owned.session, token, keys);
        }
    }

    /// Sends the loads of a partition whose store was restored.
    pub(super) fn load_again(&mut self, partition: Partition) {
        let loads = self.calls.loads.iter().filter(|(_, load)| load.partition == partition);
        let tokens: Vec<u64> = loads.map(|(token, _)| *token).collect();
        tokens.into_iter().for_each(|token| self.send_load(token));
        self.load_marks_again(partition);
    }

    /// Ends the loads of a partition that is not owned any more. A call with lanes of other partitions runs without these
    /// states: the results of these lanes do not count. See [`Keyed::next_ready`].
    pub(super) fn end_loads(&mut self, partition: Partition) {
        for (_, load) in self.calls.loads.extract_if(.., |_, load| load.partition == partition) {
            let Some(waiting) = self.calls.waiting.get_mut(&load.call) else { continue };
            for at in load.lanes {
                if let Some(state @ None) = waiting.states.get_mut(at) {
                    *state = Some(None);
                    waiting.missing -= 1;
                }
            }
            if waiting.missing == 0 {
                self.calls.ready.push_back(load.call);
            }
        }
    }

    /// Returns the next call that has stopped waiting because an ownership has ended. The error stops the handler.
    pub(in crate::app::event_loop) fn next_ready(&mut self) -> Result<Option<Box<Call>>, String> {
        while let Some(call) = self.calls.ready.pop_front() {
            // It may have been cancelled meanwhile.
            let Some(waiting) = self.calls.waiting.remove(&call) else { continue };
            return self.complete(waiting).map(Some);
        }
        Ok(None)
    }

    /// Takes the answer to a load. Returns the call if it has all of its states now. The error stops the handler.
    pub(super) fn loaded(
        &mut self,
        partition: Partition,
        session: SessionId,
        token: u64,
        values: Vec<StateValue>,
    ) -> Result<Option<Box<Call>>, String> {
        let is_open = self.owned.get(&partition).is_some_and(|owned| owned.session == session);
        let Some(Load { call, lanes, .. }) = self.calls.loads.remove(&token).filter(|_| is_open) else {
            return Ok(None); // its call was cancelled, or the ownership has ended
        };
        let keys = self.calls.lanes.get(call.slot as usize).map_or(&[][..], Vec::as_slice);
        let (Some(waiting), Some(owned)) =
            (self.calls.waiting.get_mut(&call), self.owned.get_mut(&partition))
        else {
            return Ok(None);
        };
        for (at, value) in lanes.into_iter().zip(values) {
            if let (Some(lane), Some(state)) = (keys.get(at), waiting.states.get_mut(at)) {
                // What is known here is newer than what the store has.
                owned.states.loaded(&lane.key, value.clone());
                *state = Some(owned.states.get(&lane.key).unwrap_or(value));
                waiting.missing -= 1;
            }
        }
        if waiting.missing > 0 {
            return Ok(None);
        }
        self.calls.waiting.remove(&call).map(|waiting| self.complete(waiting)).transpose()
    }

    /// Adds its states to a call that does not wait any more. After an error, which stops the handler, the call waits
    /// until the drain cancels it: to the core, a call that is dropped is a guest that never returns.
    fn complete(&mut self, mut waiting: WaitingCall) -> Result<Box<Call>, String> {
        match self.push_states(&mut waiting) {
            Ok(()) => Ok(waiting.call),
            Err(reason) => {
                self.calls.waiting.insert(waiting.call.key.call, waiting);
                Err(reason)
            }
        }
    }

    fn push_states(&self, waiting: &mut WaitingCall) -> Result<(), String> {
        let id = waiting.call.key.call;
        for (lane, state) in self.calls.lanes_of(id).iter().zip(&waiting.states) {
            let value = state.as_ref().and_then(Option::as_deref);
            let state = value.map(|value| self.decode(&lane.key, value)).transpose()?;
            waiting.call.batch.push_state(state);
        }
        Ok(())
    }
}
