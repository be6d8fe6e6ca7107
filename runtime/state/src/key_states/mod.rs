//! The states of the keys of one partition, as the handler sees them: what the last settled event of each key has left,
//! whether a transaction has committed it or not.
//!
//! A state that an event changed is *uncommitted* until a committed transaction claims the event. Then it becomes an
//! entry of the store, and of the cache. The store never contains more than the changelog, so it can be used after a
//! crash.

mod cache;
mod forgetting;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::Entry;
use cache::StateCache;
use forgetting::CommittedSince;

/// The value of a key record; `None`: the key has no state.
pub type StateValue = Option<Arc<[u8]>>;

/// The states of the keys of one partition, during one ownership.
#[derive(Debug)]
pub struct KeyStates {
    uncommitted: HashMap<Arc<[u8]>, Versions, RandomState>,
    /// Every uncommitted state, in the order of the settle numbers. One event changes one key; one deletion of old states may
    /// have many.
    changes: VecDeque<Change>,
    cache: StateCache,
    /// The keys whose states were committed while the store searches for old ones.
    committed_since: Option<CommittedSince>,
}

/// The uncommitted states of one key, with the numbers of the events that left them, ascending.
#[derive(Debug, Default)]
struct Versions(VecDeque<(u64, StateValue)>);

#[derive(Debug)]
struct Change {
    number: u64,
    key: Arc<[u8]>,
}

impl Versions {
    /// Returns the last state that an event up to this number has left.
    fn last_through(&self, through: u64) -> Option<(u64, &StateValue)> {
        let count = self.0.partition_point(|&(number, _)| number <= through);
        let last = count.checked_sub(1).and_then(|last| self.0.get(last))?;
        Some((last.0, &last.1))
    }
}

impl KeyStates {
    /// Creates the states of a partition whose store is restored. `cache_bytes`: memory for states that were used
    /// recently.
    pub fn new(cache_bytes: usize) -> KeyStates {
        KeyStates {
            uncommitted: HashMap::default(),
            changes: VecDeque::new(),
            cache: StateCache::new(cache_bytes),
            committed_since: None,
        }
    }

    /// Changes the memory for states that were used recently.
    pub fn limit_cache(&mut self, bytes: usize) {
        self.cache.set_limit(bytes);
    }

    /// Returns the state of a key for its next event; `None`: only the store knows it.
    pub fn get(&mut self, key: &[u8]) -> Option<StateValue> {
        if let Some((_, last)) = self.uncommitted.get(key).and_then(|versions| versions.0.back()) {
            return Some(last.clone());
        }
        self.cache.get(key)
    }

    /// Adds a state that was read from the store, unless it is known: the store is never ahead of what is known here.
    pub fn loaded(&mut self, key: &[u8], value: StateValue) {
        if !self.uncommitted.contains_key(key) && self.cache.get(key).is_none() {
            self.cache.insert(key.into(), value);
        }
    }

    /// Records the state that the event with this number has left.
    ///
    /// # Panics
    /// If the number is not above those before it.
    pub fn changed(&mut self, number: u64, key: &[u8], value: StateValue) {
        self.require_above(number);
        let key = match self.uncommitted.get_key_value(key) {
            Some((key, _)) => Arc::clone(key),
            None => key.into(),
        };
        self.changes.push_back(Change { number, key: Arc::clone(&key) });
        self.uncommitted.entry(key).or_default().0.push_back((number, value));
    }

    fn require_above(&self, number: u64) {
        let last = self.changes.back().map_or(0, |last| last.number);
        assert!(number > last || self.changes.is_empty(), "settle number {number} after {last}");
    }

    /// Passes the key records of a transaction that claims the events up to this number to `each`: of each changed key the
    /// last state, in the order of the events.
    pub fn claimed(&self, through: u64, mut each: impl FnMut(&[u8], Option<&[u8]>)) {
        for Change { number, key } in self.changes.iter().take_while(|change| change.number <= through) {
            let last = self.uncommitted.get(key).and_then(|versions| versions.last_through(through));
            if let Some((last, value)) = last
                && last == *number
            {
                each(key, value.as_deref());
            }
        }
    }

    /// Records that a transaction that claims the events up to this number was committed. Returns the entries for the
    /// store, the last of each key.
    ///
    /// `changed_ms`: the time of the change, as the store keeps it, in milliseconds since 1970.
    pub fn committed(&mut self, through: u64, changed_ms: i64) -> Vec<Entry> {
        let mut entries = Vec::new();
        while let Some(Change { number, key }) = self.changes.pop_front_if(|change| change.number <= through)
        {
            let Some(versions) = self.uncommitted.get_mut(&key) else { continue };
            let value = versions.0.pop_front().and_then(|(_, value)| value);
            let next = versions.0.front().map(|&(number, _)| number);
            if next.is_some_and(|next| next <= through) {
                continue; // a later state of the key is committed, too
            }
            debug_assert!(next.is_none_or(|next| next > number), "versions ascend");
            entries.push(Entry::new(&key, value.as_deref(), Some(changed_ms)));
            self.note_committed(&key);
            if next.is_none() {
                self.uncommitted.remove(&key);
            }
            self.cache.insert(key, value);
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
