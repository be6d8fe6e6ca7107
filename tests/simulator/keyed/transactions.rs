//! The key records of a transaction, and what happens to them when it ends.

use std::sync::Arc;

use keylane_state::{BINDING_KEY, Entry as StoreEntry};

use super::super::plan::MS;
use super::super::planted::Planted;
use super::super::transactions::{Attempt, Entry};
use super::super::world::World;
use super::changelog::KeyRecord;
use super::store::Work;

impl World {
    /// The states that an entry of a transaction claims, and the binding of its offset.
    pub(crate) fn key_records(&mut self, p: usize, entry: &Entry, has_effects: bool) -> Vec<KeyRecord> {
        let mut records = Vec::new();
        let (partition, of) = (entry.partition, Some(entry.ownership));
        let session = self.session(p, partition).filter(|session| session.ownership == of);
        let Some(session) = session else { return records };
        if let Some(states) = &session.states {
            states.claimed(entry.through, |key, value| {
                records.push(KeyRecord { partition, key: key.into(), value: value.map(Arc::from) });
            });
        }
        let value = Some(World::binding(&session.identity, entry.offset, &entry.metadata));
        let changes_nothing = records.is_empty() && !has_effects;
        if !(changes_nothing && self.planted == Some(Planted::BindingLeftOut)) {
            records.push(KeyRecord { partition, key: BINDING_KEY.as_slice().into(), value });
        }
        records
    }

    /// A transaction was committed: its states go to the store, if the ownership is still open.
    pub(crate) fn states_committed(&mut self, p: usize, attempt: &Attempt) {
        for entry in &attempt.entries {
            let of = Some(entry.ownership);
            let session = self.session(p, entry.partition).filter(|session| session.ownership == of);
            let Some(session) = session else { continue };
            let binding = World::binding(&session.identity, entry.offset, &entry.metadata);
            let Some(states) = &mut session.states else { continue };
            let changed_ms = (attempt.begun_at / MS) as i64;
            let mut entries = states.committed(entry.through, changed_ms);
            session.forgetting.deleting.take_if(|number| *number <= entry.through);
            entries.push(StoreEntry::new(&BINDING_KEY, Some(&binding), Some(changed_ms)));
            // The changelog ended there some time after the transaction was begun.
            let through = attempt.changelog_ends.get(&entry.partition).map(|&end| (end, attempt.begun_at));
            self.queue_task(p, entry.partition, Work::Apply { entries, through });
        }
    }

    /// A planted bug: the states of a transaction that was aborted are not part of the next one.
    pub(crate) fn planted_drop_states(&mut self, p: usize, entries: &[Entry]) {
        if self.planted != Some(Planted::StatesDroppedOnAbort) {
            return;
        }
        for entry in entries {
            let of = Some(entry.ownership);
            let session = self.session(p, entry.partition).filter(|session| session.ownership == of);
            if let Some(states) = session.and_then(|session| session.states.as_mut()) {
                states.committed(entry.through, 0);
            }
        }
    }
}
