//! What gates remember of keys with durable memory: mark records, in the same changelogs and stores as states. A gate asks for
//! the mark record of a key with events; the changes of settled events are uncommitted like states.

use std::collections::BTreeMap;
use std::sync::Arc;

use keylane_core::{LookUpId, OwnershipId, Partition, SettleNumber};
use keylane_state::{KeyBytes, SessionId, StateValue};

use super::Keyed;
use super::calls::QUEUED_MAX;
use super::partitions::Step;

/// The loads of mark records.
#[derive(Default)]
pub(super) struct MarkLoads {
    by_token: BTreeMap<u64, MarkLoad>,
    /// The loads of this turn by partition. They are sent together.
    unsent: BTreeMap<Partition, Vec<(LookUpId, KeyBytes)>>,
}

struct MarkLoad {
    partition: Partition,
    records: Vec<(LookUpId, KeyBytes)>,
}

/// A mark record that was looked up.
pub(in crate::app::event_loop) struct FoundMark {
    pub(in crate::app::event_loop) request: LookUpId,
    /// The key of the record.
    pub(in crate::app::event_loop) key: KeyBytes,
    pub(in crate::app::event_loop) value: StateValue,
}

impl Keyed {
    /// Returns the value of the mark record of a key that was read, if it is in memory.
    pub(in crate::app::event_loop) fn cached_mark(
        &mut self,
        partition: Partition,
        key: &KeyBytes,
    ) -> Option<StateValue> {
        // While the store does not keep up, gates wait for it, as calls do.
        let store = self.topics.get(usize::from(partition.topic)).map(|(_, states)| &states.store);
        let keeps_up = store.is_some_and(|store| store.queued() < QUEUED_MAX);
        let owned = self.owned.get_mut(&partition).filter(|owned| owned.step == Step::Ready && keeps_up)?;
        owned.marks.get(key)
    }

    /// Looks up the mark record of a key; `None`: the store answers later, or the ownership has ended.
    pub(in crate::app::event_loop) fn look_up_mark(
        &mut self,
        request: LookUpId,
        (partition, ownership): (Partition, OwnershipId),
        key: KeyBytes,
    ) -> Option<FoundMark> {
        self.owned.get(&partition).filter(|owned| owned.ownership == Some(ownership))?;
        if let Some(value) = self.cached_mark(partition, &key) {
            return Some(FoundMark { request, key, value });
        }
        self.mark_loads.unsent.entry(partition).or_default().push((request, key));
        None
    }

    /// Sends the loads that were requested since the last call.
    pub(in crate::app::event_loop) fn send_mark_loads(&mut self) {
        while let Some((partition, records)) = self.mark_loads.unsent.pop_first() {
            let token = self.calls.next_token();
            self.mark_loads.by_token.insert(token, MarkLoad { partition, records });
            self.send_mark_load(token);
        }
    }

    fn send_mark_load(&self, token: u64) {
        let Some(MarkLoad { partition, records }) = self.mark_loads.by_token.get(&token) else { return };
        let Some(owned) = self.owned.get(partition).filter(|owned| owned.step == Step::Ready) else { return };
        if let Some(states) = self.states_of(*partition) {
            let keys = records.iter().map(|(_, key)| key.clone()).collect();
            states.store.load(partition.number, owned.session, token, keys);
        }
    }

    /// Sends the loads of a partition whose store was restored.
    pub(super) fn load_marks_again(&self, partition: Partition) {
        let loads = self.mark_loads.by_token.iter().filter(|(_, load)| load.partition == partition);
        loads.for_each(|(&token, _)| self.send_mark_load(token));
    }

    /// Ends the loads of a partition that is not owned any more.
    pub(super) fn end_mark_loads(&mut self, partition: Partition) {
        self.mark_loads.by_token.retain(|_, load| load.partition != partition);
        self.mark_loads.unsent.remove(&partition);
    }

    /// Returns whether a load is that of mark records.
    pub(in crate::app::event_loop) fn is_mark_load(&self, token: u64) -> bool {
        self.mark_loads.by_token.contains_key(&token)
    }

    /// Takes the answer to the load of mark records.
    pub(in crate::app::event_loop) fn mark_loaded(
        &mut self,
        partition: Partition,
        session: SessionId,
        token: u64,
        values: Vec<StateValue>,
    ) -> Vec<FoundMark> {
        let owned = self.owned.get_mut(&partition).filter(|owned| owned.session == session);
        let Some(marks) = owned.map(|owned| &mut owned.marks) else { return Vec::new() };
        let load = self.mark_loads.by_token.remove(&token);
        let records = load.into_iter().flat_map(|load| load.records);
        let found = records.zip(values).map(|((request, key), value)| {
            // What is known here is newer than what the store has.
            marks.loaded(&key, value.clone());
            let value = marks.get(&key).unwrap_or(value);
            FoundMark { request, key, value }
        });
        found.collect()
    }

    /// Keeps the mark record that a settled event has left.
    pub(in crate::app::event_loop) fn remember(
        &mut self,
        (partition, ownership): (Partition, OwnershipId),
        number: SettleNumber,
        key: &KeyBytes,
        value: Option<&[u8]>,
    ) {
        let owned = self.owned.get_mut(&partition).filter(|owned| owned.ownership == Some(ownership));
        if let Some(owned) = owned {
            owned.marks.changed_again(number.0, key, value.map(Arc::from));
        }
    }
}
