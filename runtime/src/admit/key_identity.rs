//! The keys of lanes and gates, by number: no two keys share a number, even if their hashes are equal, because the state of a
//! lane and the marks of a gate are those of their key.
//!
//! The keys with events are kept. The first key with a hash has the hash as its number. Another one with the same hash gets
//! a number that no hash has.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;
use keylane_core::{ArenaSlot, Partition};
use keylane_state::KeyBytes;

/// Set in numbers that are not hashes.
const NOT_A_HASH: u64 = 1 << 63;

/// The keys that have events.
#[derive(Debug, Default)]
pub struct KeyIdentities {
    keys: HashMap<(Partition, u64), Key, RandomState>,
    /// The numbers of keys whose hash was taken by another key.
    others: HashMap<(Partition, KeyBytes), u64, RandomState>,
    /// The keys of each event.
    events: HashMap<ArenaSlot, EventKeys, RandomState>,
    /// Number of keys so far whose number is not a hash.
    numbered: u64,
}

#[derive(Debug)]
struct Key {
    key: KeyBytes,
    events: u32,
}

#[derive(Clone, Copy, Debug)]
struct EventKeys {
    partition: Partition,
    lane: u64,
    /// The gate key, if it is not the key of the lane.
    gate: Option<u64>,
}

/// A key of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnteredKey {
    /// Its number.
    pub number: u64,
    /// Whether it had no event before.
    pub is_new: bool,
}

impl KeyIdentities {
    /// Adds an event whose lane key has this hash and this record key. Returns its lane.
    pub fn enter(&mut self, partition: Partition, hash: u64, key: &[u8], slot: ArenaSlot) -> EnteredKey {
        let entered = self.add(partition, hash, key);
        self.events.insert(slot, EventKeys { partition, lane: entered.number, gate: None });
        entered
    }

    /// Sets the gate key of an event that was entered. `key`: never a record key, so that the gate key is no lane key.
    pub fn enter_gate_key(
        &mut self,
        partition: Partition,
        hash: u64,
        key: &[u8],
        slot: ArenaSlot,
    ) -> EnteredKey {
        let entered = self.add(partition, hash, key);
        if let Some(keys) = self.events.get_mut(&slot) {
            keys.gate = Some(entered.number);
        }
        entered
    }

    fn add(&mut self, partition: Partition, hash: u64, key: &[u8]) -> EnteredKey {
        let hash = hash & !NOT_A_HASH;
        let number = match self.keys.entry((partition, hash)) {
            Entry::Occupied(found) if *found.get().key == *key => hash,
            Entry::Occupied(_) => self.other_number(partition, key),
            // It may have another number, from a time when this one was taken.
            Entry::Vacant(vacant) => {
                let known = || self.others.get(&(partition, KeyBytes::from(key))).copied();
                let other = (!self.others.is_empty()).then(known).flatten();
                other.unwrap_or_else(|| {
                    vacant.insert(Key { key: key.into(), events: 0 });
                    hash
                })
            }
        };
        let mut is_new = false;
        if let Some(key) = self.keys.get_mut(&(partition, number)) {
            is_new = key.events == 0;
            key.events += 1;
        }
        EnteredKey { number, is_new }
    }

    fn other_number(&mut self, partition: Partition, key: &[u8]) -> u64 {
        let key: KeyBytes = key.into();
        *self.others.entry((partition, key.clone())).or_insert_with(|| {
            self.numbered += 1;
            let number = NOT_A_HASH | self.numbered;
            self.keys.insert((partition, number), Key { key, events: 0 });
            number
        })
    }

    /// Removes an event that is settled, or no longer owned. Passes the keys that have no event any more to `ended`.
    pub fn leave(&mut self, slot: ArenaSlot, mut ended: impl FnMut(Partition, u64)) {
        let Some(EventKeys { partition, lane, gate }) = self.events.remove(&slot) else { return };
        for number in [Some(lane), gate].into_iter().flatten() {
            let Entry::Occupied(mut entry) = self.keys.entry((partition, number)) else { continue };
            entry.get_mut().events -= 1;
            if entry.get().events == 0 {
                let Key { key, .. } = entry.remove();
                if number & NOT_A_HASH != 0 {
                    self.others.remove(&(partition, key));
                }
                ended(partition, number);
            }
        }
    }

    /// Returns those of these record keys that have no event. All keys are visited: a record key has no hash.
    pub fn without_events(&self, partition: Partition, mut keys: Vec<KeyBytes>) -> Vec<KeyBytes> {
        let mut busy: HashSet<KeyBytes, RandomState> = HashSet::default();
        {
            let wanted: HashSet<&[u8], RandomState> = keys.iter().map(|key| &**key).collect();
            let of_partition = self.keys.iter().filter(|((of, _), _)| *of == partition);
            let found = of_partition.filter(|(_, known)| wanted.contains(&*known.key));
            busy.extend(found.map(|(_, known)| known.key.clone()));
        }
        keys.retain(|key| !busy.contains(key));
        keys
    }

    /// Returns the record key of an event's lane.
    pub fn lane_key(&self, slot: ArenaSlot) -> Option<&KeyBytes> {
        let EventKeys { partition, lane, .. } = *self.events.get(&slot)?;
        self.key(partition, lane)
    }

    /// Returns the partition of an event, and the number of its gate key.
    pub fn gate_key(&self, slot: ArenaSlot) -> Option<(Partition, u64)> {
        let EventKeys { partition, lane, gate } = *self.events.get(&slot)?;
        Some((partition, gate.unwrap_or(lane)))
    }

    /// Returns the key with this number, if it has events.
    pub fn key(&self, partition: Partition, number: u64) -> Option<&KeyBytes> {
        self.keys.get(&(partition, number)).map(|known| &known.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P0: Partition = Partition { topic: 0, number: 0 };
    const P1: Partition = Partition { topic: 0, number: 1 };

    fn key(identities: &KeyIdentities, slot: u64) -> Option<&[u8]> {
        identities.lane_key(ArenaSlot(slot)).map(|key| &**key)
    }

    #[test]
    fn two_keys_with_one_hash_have_two_lanes() {
        let mut identities = KeyIdentities::default();
        let mut enter =
            |partition, key: &[u8], slot| identities.enter(partition, 7, key, ArenaSlot(slot)).number;
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

    fn number(identities: &mut KeyIdentities, key: &[u8], slot: u64) -> u64 {
        identities.enter(P0, u64::MAX, key, ArenaSlot(slot)).number
    }

    #[test]
    fn a_key_keeps_its_lane_while_it_has_events() {
        let mut identities = KeyIdentities::default();
        let mut ended = Vec::new();
        let first = number(&mut identities, b"a", 0);
        let second = number(&mut identities, b"b", 1);
        identities.leave(ArenaSlot(0), |_, number| ended.push(number));
        assert_eq!(number(&mut identities, b"b", 2), second, "although the hash is free");
        assert_eq!(number(&mut identities, b"a", 0), first);
        (0..3).for_each(|slot| identities.leave(ArenaSlot(slot), |_, number| ended.push(number)));
        identities.leave(ArenaSlot(9), |_, _| panic!("an unknown event has no keys"));
        assert_eq!(ended, [first, first, second]);
        assert!(identities.keys.is_empty() && identities.others.is_empty() && identities.events.is_empty());
        assert_eq!(number(&mut identities, b"b", 4), first);
    }

    #[test]
    fn a_gate_key_never_has_the_number_of_a_lane() {
        let mut identities = KeyIdentities::default();
        let lane = identities.enter(P0, 7, b"a", ArenaSlot(0));
        let gate = identities.enter_gate_key(P0, 7, b"gate", ArenaSlot(0));
        assert!(lane.is_new && gate.is_new && lane.number == 7 && gate.number != 7, "{lane:?} {gate:?}");
        // The gate key has the hash first, and then a lane of another event has it.
        let (lane, gate) = (
            identities.enter(P1, 8, b"a", ArenaSlot(1)),
            identities.enter_gate_key(P1, 9, b"gate", ArenaSlot(1)),
        );
        let other = identities.enter(P1, 9, b"b", ArenaSlot(2));
        assert!(other.number != gate.number && other.number != lane.number, "{lane:?} {gate:?} {other:?}");
        assert_eq!(identities.key(P1, gate.number).map(|key| &**key), Some(&b"gate"[..]));
        assert_eq!(key(&identities, 1), Some(&b"a"[..]), "the lane's key, not the gate's");
        let again = identities.enter(P1, 8, b"a", ArenaSlot(3));
        assert!(!again.is_new && again.number == lane.number);
        let mut ended = Vec::new();
        identities.leave(ArenaSlot(1), |_, number| ended.push(number));
        assert_eq!(ended, [gate.number], "the lane has another event");
    }
}
