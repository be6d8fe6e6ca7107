//! Lanes of handlers with keyed state: no two keys share a lane, even if their hashes are equal, because the state of a
//! lane is that of its key.
//!
//! The keys of lanes with events are kept. The first key with a hash has the lane of the hash. Another one with the same
//! hash gets a number that no hash has.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;
use keylane_core::{ArenaSlot, Partition};
use keylane_state::KeyBytes;

/// Set in the numbers of lanes that are not hashes.
const NOT_A_HASH: u64 = 1 << 63;

/// The keys of the lanes that have events.
#[derive(Debug, Default)]
pub struct LaneIdentities {
    lanes: HashMap<(Partition, u64), Lane, RandomState>,
    /// The lanes whose hash was taken by another key.
    others: HashMap<(Partition, KeyBytes), u64, RandomState>,
    /// The lane of each event.
    events: HashMap<ArenaSlot, (Partition, u64), RandomState>,
    /// Number of lanes so far that are not hashes.
    numbered: u64,
}

#[derive(Debug)]
struct Lane {
    key: KeyBytes,
    events: u32,
}

impl LaneIdentities {
    /// Adds an event whose lane key has this hash and this record key. Returns its lane.
    pub fn enter(&mut self, partition: Partition, hash: u64, key: &[u8], slot: ArenaSlot) -> u64 {
        let hash = hash & !NOT_A_HASH;
        let lane = match self.lanes.entry((partition, hash)) {
            Entry::Occupied(lane) if *lane.get().key == *key => hash,
            Entry::Occupied(_) => self.other_lane(partition, key),
            // Its key may have another lane, from a time when this one was taken.
            Entry::Vacant(vacant) => {
                let known = || self.others.get(&(partition, KeyBytes::from(key))).copied();
                let other = (!self.others.is_empty()).then(known).flatten();
                other.unwrap_or_else(|| {
                    vacant.insert(Lane { key: key.into(), events: 0 });
                    hash
                })
            }
        };
        if let Some(lane) = self.lanes.get_mut(&(partition, lane)) {
            lane.events += 1;
        }
        self.events.insert(slot, (partition, lane));
        lane
    }

    fn other_lane(&mut self, partition: Partition, key: &[u8]) -> u64 {
        let key: KeyBytes = key.into();
        *self.others.entry((partition, key.clone())).or_insert_with(|| {
            self.numbered += 1;
            let lane = NOT_A_HASH | self.numbered;
            self.lanes.insert((partition, lane), Lane { key, events: 0 });
            lane
        })
    }

    /// Removes an event that is settled, or no longer owned.
    pub fn leave(&mut self, slot: ArenaSlot) {
        let Some((partition, lane)) = self.events.remove(&slot) else { return };
        let Entry::Occupied(mut entry) = self.lanes.entry((partition, lane)) else { return };
        entry.get_mut().events -= 1;
        if entry.get().events == 0 {
            let Lane { key, .. } = entry.remove();
            if lane & NOT_A_HASH != 0 {
                self.others.remove(&(partition, key));
            }
        }
    }

    /// Returns those of these record keys that have no event. All lanes are visited: a record key has no hash.
    pub fn without_events(&self, partition: Partition, mut keys: Vec<KeyBytes>) -> Vec<KeyBytes> {
        let mut busy: HashSet<KeyBytes, RandomState> = HashSet::default();
        {
            let wanted: HashSet<&[u8], RandomState> = keys.iter().map(|key| &**key).collect();
            let of_partition = self.lanes.iter().filter(|((of, _), _)| *of == partition);
            let found = of_partition.filter(|(_, lane)| wanted.contains(&*lane.key));
            busy.extend(found.map(|(_, lane)| lane.key.clone()));
        }
        keys.retain(|key| !busy.contains(key));
        keys
    }

    /// Returns the record key of an event's lane.
    pub fn key(&self, slot: ArenaSlot) -> Option<&KeyBytes> {
        self.lanes.get(self.events.get(&slot)?).map(|lane| &lane.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P0: Partition = Partition { topic: 0, number: 0 };
    const P1: Partition = Partition { topic: 0, number: 1 };

    fn key(identities: &LaneIdentities, slot: u64) -> Option<&[u8]> {
        identities.key(ArenaSlot(slot)).map(|key| &**key)
    }

    #[test]
    fn two_keys_with_one_hash_have_two_lanes() {
        let mut identities = LaneIdentities::default();
        let mut enter = |partition, key: &[u8], slot| identities.enter(partition, 7, key, ArenaSlot(slot));
        let first = enter(P0, b"a", 0);
        let second = enter(P0, b"b", 1);
        let third = enter(P0, b"c", 2);
        assert!(first == 7 && second != first && third != second && third != first);
        assert_eq!((enter(P0, b"a", 3), enter(P0, b"b", 4), enter(P1, b"b", 5)), (first, second, 7));
        assert_eq!((key(&identities, 1), key(&identities, 4)), (Some(&b"b"[..]), Some(&b"b"[..])));
        let keys = [b"a", b"b", b"d"].map(|key| KeyBytes::from(key.as_slice()));
        assert_eq!(identities.without_events(P1, keys.to_vec()), [keys[0].clone(), keys[2].clone()]);
        assert_eq!(identities.without_events(P0, keys.to_vec()), [keys[2].clone()]);
    }

    #[test]
    fn a_key_keeps_its_lane_while_it_has_events() {
        let mut identities = LaneIdentities::default();
        let first = identities.enter(P0, u64::MAX, b"a", ArenaSlot(0));
        let second = identities.enter(P0, u64::MAX, b"b", ArenaSlot(1));
        identities.leave(ArenaSlot(0));
        assert_eq!(identities.enter(P0, u64::MAX, b"b", ArenaSlot(2)), second, "although the hash is free");
        assert_eq!(identities.enter(P0, u64::MAX, b"a", ArenaSlot(0)), first);
        (0..3).for_each(|slot| identities.leave(ArenaSlot(slot)));
        identities.leave(ArenaSlot(9));
        assert!(identities.lanes.is_empty() && identities.others.is_empty() && identities.events.is_empty());
        assert_eq!(identities.enter(P0, u64::MAX, b"b", ArenaSlot(4)), first);
    }
}
