//! States that were used recently, in bounded memory, and all uncommitted ones.
//!
//! Two generations: new entries, and old ones that are used again, are in the young generation. When it is full, it becomes
//! the old one, and the former old one is dropped, except for uncommitted states. So no order has to be kept for each use.

use std::collections::HashMap;
use std::mem;

use foldhash::fast::RandomState;

use super::StateValue;
use super::changes::{ChangeId, Changes};
use crate::KeyBytes;

/// Memory of an entry besides its key and value: its place in the table, which is up to half empty, and the allocation of the
/// value with its counters.
const ENTRY_BYTES: usize = 130;

type Generation = HashMap<KeyBytes, Recent, RandomState>;

#[derive(Debug)]
struct Recent {
    value: StateValue,
    /// The last change of the key.
    change: ChangeId,
}

#[derive(Debug, Default)]
pub(super) struct RecentStates {
    limit: usize,
    young: Generation,
    young_bytes: usize,
    /// The uncommitted part of the young generation when it began.
    kept_bytes: usize,
    old: Generation,
}

impl RecentStates {
    pub(super) fn new(limit: usize) -> RecentStates {
        RecentStates { limit, ..RecentStates::default() }
    }

    pub(super) fn set_limit(&mut self, limit: usize, changes: &Changes) {
        self.limit = limit;
        self.age(changes);
    }

    /// Returns the last state of a key; `None`: it is not known.
    pub(super) fn get(&mut self, key: &[u8]) -> Option<StateValue> {
        if let Some(recent) = self.young.get(key) {
            return Some(recent.value.clone());
        }
        let (key, recent) = self.old.remove_entry(key)?;
        let value = recent.value.clone();
        self.insert(key, recent);
        Some(value)
    }

    /// Returns the last change of a key, if its state is known.
    pub(super) fn last_change(&self, key: &[u8]) -> Option<ChangeId> {
        self.young.get(key).or_else(|| self.old.get(key)).map(|recent| recent.change)
    }

    /// Sets the state of a key. Returns its last change before.
    pub(super) fn set(&mut self, key: &KeyBytes, value: StateValue, change: ChangeId) -> ChangeId {
        if let Some(known) = self.young.get_mut(&**key) {
            self.young_bytes = self.young_bytes + length(&value) - length(&known.value);
            known.value = value;
            return mem::replace(&mut known.change, change);
        }
        // A key is in one generation at most.
        let before = self.old.remove(&**key).map_or(ChangeId::NONE, |known| known.change);
        self.insert(key.clone(), Recent { value, change });
        before
    }

    fn insert(&mut self, key: KeyBytes, recent: Recent) {
        self.young_bytes += ENTRY_BYTES + key.len() + length(&recent.value);
        self.young.insert(key, recent);
    }

    /// Drops the old generation, if the young one is full. Each entry that is kept has at least its own size of new entries
    /// before it is examined again.
    pub(super) fn age(&mut self, changes: &Changes) {
        if self.young_bytes <= self.kept_bytes + self.kept_bytes.max(self.limit / 2) {
            return;
        }
        self.young_bytes = 0;
        let mut dropped = mem::replace(&mut self.old, mem::take(&mut self.young));
        for change in changes.iter() {
            if let Some((key, recent)) = dropped.remove_entry(&*change.key) {
                self.insert(key, recent);
            }
        }
        self.kept_bytes = self.young_bytes;
    }
}

fn length(value: &StateValue) -> usize {
    value.as_ref().map_or(0, |value| value.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(byte: u8) -> StateValue {
        Some([byte; 80].as_slice().into())
    }

    fn key(key: u8) -> KeyBytes {
        [key].as_slice().into()
    }

    /// Sets a state that is committed.
    fn set(states: &mut RecentStates, at: u8) {
        states.set(&key(at), value(at), ChangeId::NONE);
        states.age(&Changes::default());
    }

    #[test]
    fn what_is_used_stays_and_the_rest_is_dropped() {
        let mut states = RecentStates::new(211 * 20);
        for at in 0..100_u8 {
            set(&mut states, at);
            assert_eq!(states.get(&[0]), Some(value(0)), "used after each insert");
        }
        let kept = (0..100).filter(|at| states.get(&[*at]).is_some()).count();
        assert!((10..=20).contains(&kept), "{kept}");
        assert_eq!((states.get(&[99]), states.get(&[1])), (Some(value(99)), None));
    }

    #[test]
    fn a_new_value_replaces_the_old_one_in_every_generation() {
        let mut states = RecentStates::new(211 * 4);
        set(&mut states, 1);
        (10..13).for_each(|at| set(&mut states, at));
        states.set(&key(1), None, ChangeId::NONE);
        assert_eq!(states.get(&[1]), Some(None), "a key without a state is known, too");
        states.set_limit(0, &Changes::default());
        set(&mut states, 2);
        assert!(states.young.is_empty() && states.young_bytes == 0 && states.old.len() == 1);
    }

    #[test]
    fn uncommitted_states_are_kept_until_they_are_committed() {
        let (mut states, mut changes) = (RecentStates::new(0), Changes::default());
        for at in 0..200_u8 {
            let before = states.set(&key(at), value(at), changes.next_id());
            changes.push(at.into(), (key(at), value(at)), before);
            states.age(&changes);
        }
        assert!((0..200).all(|at| states.get(&[at]) == Some(value(at))));
        assert!((0..200).all(|at| changes.commit_through(200).is_some_and(|change| change.number == at)));
        (200..=250).for_each(|at| set(&mut states, at));
        (0..=250).for_each(|_| set(&mut states, 251));
        let kept = (0..=250).filter(|at| states.get(&[*at]).is_some()).count();
        assert!(kept < 250, "{kept}");
    }
}
