//! States that were used recently, in bounded memory.
//!
//! Two generations: new entries, and old ones that are used again, are in the young generation. When it has half of the
//! memory, it becomes the old one, and the former old one is dropped. So no order has to be kept for each use.

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::StateValue;

/// Memory of an entry besides its key and value: two allocations with their counters, and its place in the table.
const ENTRY_BYTES: usize = 120;

type Generation = HashMap<Arc<[u8]>, StateValue, RandomState>;

#[derive(Debug, Default)]
pub(super) struct StateCache {
    limit: usize,
    young: Generation,
    young_bytes: usize,
    old: Generation,
}

impl StateCache {
    pub(super) fn new(limit: usize) -> StateCache {
        StateCache { limit, ..StateCache::default() }
    }

    pub(super) fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
        self.age();
    }

    /// Returns the state of a key; `None`: it is not cached.
    pub(super) fn get(&mut self, key: &[u8]) -> Option<StateValue> {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        let (key, value) = self.old.remove_entry(key)?;
        self.insert(key, value.clone());
        Some(value)
    }

    pub(super) fn insert(&mut self, key: Arc<[u8]>, value: StateValue) {
        self.young_bytes += length(&value);
        // A key is in one generation at most.
        if let Some(known) = self.young.get_mut(&key) {
            self.young_bytes -= length(&mem::replace(known, value));
        } else {
            self.old.remove(&key);
            self.young_bytes += ENTRY_BYTES + key.len();
            self.young.insert(key, value);
        }
        self.age();
    }

    fn age(&mut self) {
        if self.young_bytes > self.limit / 2 {
            self.young_bytes = 0;
            self.old = mem::take(&mut self.young);
        }
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

    #[test]
    fn what_is_used_stays_and_the_rest_is_dropped() {
        let mut cache = StateCache::new(201 * 20);
        for key in 0..100_u8 {
            cache.insert([key].as_slice().into(), value(key));
            assert_eq!(cache.get(&[0]), Some(value(0)), "used after each insert");
        }
        let kept = (0..100).filter(|key| cache.get(&[*key]).is_some()).count();
        assert!((10..=20).contains(&kept), "{kept}");
        assert_eq!((cache.get(&[99]), cache.get(&[1])), (Some(value(99)), None));
    }

    #[test]
    fn a_new_value_replaces_the_old_one_in_every_generation() {
        let mut cache = StateCache::new(201 * 4);
        cache.insert([1].as_slice().into(), value(1));
        (10..13).for_each(|key| cache.insert([key].as_slice().into(), value(key)));
        cache.insert([1].as_slice().into(), None);
        assert_eq!(cache.get(&[1]), Some(None), "a key without a state is known, too");
        cache.set_limit(0);
        cache.insert([2].as_slice().into(), value(2));
        assert!(cache.young.is_empty() && cache.young_bytes == 0 && cache.old.len() == 1);
    }
}
