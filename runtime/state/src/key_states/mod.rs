//! The states of the keys of one partition, as the handler sees them: what the last settled event of each key has left,
//! whether a transaction has committed it or not.
//!
//! A state that an event changed is *uncommitted* until a committed transaction claims the event. Then it becomes an
//! entry of the store, and may be dropped here. The store never contains more than the changelog, so it can be used after a
//! crash.

mod changes;
mod forgetting;
mod recent;

use std::sync::Arc;

use crate::{KeyBytes, store};
use changes::{Change, ChangeId, Changes};
use forgetting::CommittedSince;
use recent::RecentStates;

/// The value of a key record; `None`: the key has no state.
pub type StateValue = Option<Arc<[u8]>>;

/// The states of the keys of one partition, during one ownership.
#[derive(Debug)]
pub struct KeyStates {
    /// The last state of each key that was used recently, or has an uncommitted state.
    recent: RecentStates,
    changes: Changes,
    /// The keys whose states were committed while the store searches for old ones.
    committed_since: Option<CommittedSince>,
}

impl KeyStates {
    /// Creates the states of a partition whose store is restored. `cache_bytes`: memory for states that were used
    /// recently.
    pub fn new(cache_bytes: usize) -> KeyStates {
        let recent = RecentStates::new(cache_bytes);
        KeyStates { recent, changes: Changes::default(), committed_since: None }
    }

    /// Changes the memory for states that were used recently.
    pub fn limit_cache(&mut self, bytes: usize) {
        self.recent.set_limit(bytes, &self.changes);
    }

    /// Returns the state of a key for its next event; `None`: only the store knows it.
    pub fn get(&mut self, key: &[u8]) -> Option<StateValue> {
        self.recent.get(key)
    }

    /// Adds a state that was read from the store, unless it is known: the store is never ahead of what is known here.
    pub fn loaded(&mut self, key: &KeyBytes, value: StateValue) {
        if self.recent.last_change(key).is_none() {
            self.recent.set(key, value, ChangeId::NONE);
            self.recent.age(&self.changes);
        }
    }

    /// Records the state that the event with this number has left.
    ///
    /// # Panics
    /// If the number is not above those before it.
    pub fn changed(&mut self, number: u64, key: &KeyBytes, value: StateValue) {
        self.require_above(number);
        self.push(number, key, value);
    }

    /// As [`KeyStates::changed`], for an event that changes several states, or one of them several times.
    ///
    /// # Panics
    /// If the number is below those before it.
    pub fn changed_again(&mut self, number: u64, key: &KeyBytes, value: StateValue) {
        self.push(number, key, value);
    }

    fn push(&mut self, number: u64, key: &KeyBytes, value: StateValue) {
        let before = self.recent.set(key, value.clone(), self.changes.next_id());
        self.changes.push(number, (key.clone(), value), before);
        self.recent.age(&self.changes);
    }

    fn require_above(&self, number: u64) {
        let last = self.changes.last_number();
        assert!(last.is_none_or(|last| number > last), "settle number {number} after {last:?}");
    }

    fn is_uncommitted(&self, key: &[u8]) -> bool {
        self.recent.last_change(key).is_some_and(|last| self.changes.is_uncommitted(last))
    }

    /// Passes the key records of a transaction that claims the events up to this number to `each`: of each changed key the
    /// last state, in the order of the events.
    pub fn claimed(&self, through: u64, mut each: impl FnMut(&[u8], Option<&[u8]>)) {
        let claimed = self.changes.iter().take_while(|change| change.number <= through);
        for Change { key, value, .. } in claimed.filter(|change| change.is_last_through(through)) {
            each(key, value.as_deref());
        }
    }

    /// Records that a transaction that claims the events up to this number was committed. Returns the entries for the
    /// store, the last of each key.
    ///
    /// `changed_ms`: the time of the change, as the store keeps it, in milliseconds since 1970.
    pub fn committed(&mut self, through: u64, changed_ms: i64) -> Vec<store::Entry> {
        let mut entries = Vec::new();
        while let Some(change) = self.changes.commit_through(through) {
            // Otherwise, a later state of the key is committed, too.
            if change.is_last_through(through) {
                self.note_committed(&change.key);
                let Change { key, value, .. } = change;
                entries.push(store::Entry { key, value, changed_ms: Some(changed_ms) });
            }
        }
        entries
    }

    /// Returns the number of uncommitted states.
    pub fn uncommitted(&self) -> usize {
        self.changes.len()
    }
}

#[cfg(test)]
mod tests;
