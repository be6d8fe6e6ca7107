//! The states of the keys of one partition, as the handler sees them: what the last settled event of each key has left,
//! whether a transaction has committed it or not.
//!
//! A state that an event changed is *uncommitted* until a committed transaction claims the event. Then it becomes an
//! entry of the store, and of the cache. The store never contains more than the changelog, so it can be used after a
//! crash.

mod cache;
mod forgetting;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::mem;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::store;
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

/// An uncommitted state, with the number of the event that left it.
type Version = (u64, StateValue);

/// The uncommitted states of one key, ascending. Mostly there is one, so it needs no allocation.
#[derive(Debug)]
struct Versions {
    first: Version,
    later: VecDeque<Version>,
}

#[derive(Debug)]
struct Change {
    number: u64,
    key: Arc<[u8]>,
}

impl Versions {
    fn new(first: Version) -> Versions {
        Versions { first, later: VecDeque::new() }
    }

    fn last(&self) -> &Version {
        self.later.back().unwrap_or(&self.first)
    }

    /// Returns the last state that an event up to this number has left.
    fn last_through(&self, through: u64) -> Option<&Version> {
        let count = self.later.partition_point(|&(number, _)| number <= through);
        let last = count.checked_sub(1).and_then(|last| self.later.get(last));
        last.or_else(|| Some(&self.first).filter(|(number, _)| *number <= through))
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
        if let Some(versions) = self.uncommitted.get(key) {
            return Some(versions.last().1.clone());
        }
        self.cache.get(key)
    }

    /// Adds a state that was read from the store, unless it is known: the store is never ahead of what is known here.
    pub fn loaded(&mut self, key: &Arc<[u8]>, value: StateValue) {
        if !self.uncommitted.contains_key(key) && self.cache.get(key).is_none() {
            self.cache.insert(Arc::clone(key), value);
        }
    }

    /// Records the state that the event with this number has left.
    ///
    /// # Panics
    /// If the number is not above those before it.
    pub fn changed(&mut self, number: u64, key: &Arc<[u8]>, value: StateValue) {
        self.require_above(number);
        self.push(key, (number, value));
    }

    fn push(&mut self, key: &Arc<[u8]>, version: Version) {
        self.changes.push_back(Change { number: version.0, key: Arc::clone(key) });
        match self.uncommitted.entry(Arc::clone(key)) {
            Entry::Vacant(vacant) => drop(vacant.insert(Versions::new(version))),
            Entry::Occupied(mut known) => known.get_mut().later.push_back(version),
        }
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
                && last == number
            {
                each(key, value.as_deref());
            }
        }
    }

    /// Records that a transaction that claims the events up to this number was committed. Returns the entries for the
    /// store, the last of each key.
    ///
    /// `changed_ms`: the time of the change, as the store keeps it, in milliseconds since 1970.
    pub fn committed(&mut self, through: u64, changed_ms: i64) -> Vec<store::Entry> {
        let mut entries = Vec::new();
        while let Some(Change { number, key }) = self.changes.pop_front_if(|change| change.number <= through)
        {
            let Some(versions) = self.uncommitted.get_mut(&key) else { continue };
            let value = match versions.later.pop_front() {
                None => self.uncommitted.remove(&key).and_then(|versions| versions.first.1),
                Some(next) => {
                    debug_assert!(next.0 > number, "versions ascend");
                    let is_last = next.0 > through;
                    let (_, value) = mem::replace(&mut versions.first, next);
                    if !is_last {
                        continue; // a later state of the key is committed, too
                    }
                    value
                }
            };
            entries.push(store::Entry {
                key: Arc::clone(&key),
                value: value.clone(),
                changed_ms: Some(changed_ms),
            });
            self.note_committed(&key);
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
