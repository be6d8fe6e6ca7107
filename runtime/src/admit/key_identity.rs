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
/// No key.
const NONE: KeyIndex = KeyIndex(u32::MAX);

/// The keys that have events.
#[derive(Debug, Default)]
pub struct KeyIdentities {
    /// Indexes of the keys, by partition and number.
    by_number: HashMap<(Partition, u64), KeyIndex, RandomState>,
    keys: Vec<Key>,
    /// Unused indexes of `keys`.
    free: Vec<KeyIndex>,
    /// The numbers of keys whose hash was taken by another key.
    others: HashMap<(Partition, KeyBytes), u64, RandomState>,
    /// The keys of each event, by its slot.
    events: Vec<EventKeys>,
    /// Number of keys so far whose number is not a hash.
    numbered: u64,
}

/// The index of a key with events. It is used again for another key after the last event of this one was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyIndex(pub u32);

#[derive(Debug)]
struct Key {
    partition: Partition,
    number: u64,
    key: KeyBytes,
    events: u32,
}

#[derive(Clone, Copy, Debug)]
struct EventKeys {
    lane: KeyIndex,
    /// [`NONE`]: it is the key of the lane.
    gate: KeyIndex,
}

/// A key of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnteredKey {
    /// Its number.
    pub number: u64,
    /// Its index.
    pub index: KeyIndex,
    /// Whether it had no event before.
    pub is_new: bool,
}

impl KeyIdentities {
    /// Adds an event whose lane key has this hash and this record key. Returns its lane.
    pub fn enter(&mut self, partition: Partition, hash: u64, key: &[u8], slot: ArenaSlot) -> EnteredKey {
        let entered = self.add(partition, hash, key);
        let at = index_of(slot);
        self.events.resize(self.events.len().max(at + 1), EventKeys { lane: NONE, gate: NONE });
        if let Some(event) = self.events.get_mut(at) {
            *event = EventKeys { lane: entered.index, gate: NONE };
        }
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
        if let Some(event) = self.events.get_mut(index_of(slot)) {
            event.gate = entered.index;
        }
        entered
    }

    fn add(&mut self, partition: Partition, hash: u64, key: &[u8]) -> EnteredKey {
        let hash = hash & !NOT_A_HASH;
        let KeyIdentities { by_number, keys, free, others, .. } = self;
        let index = match by_number.entry((partition, hash)) {
            Entry::Occupied(found) if key_at(keys, *found.get()).is_some_and(|known| *known.key == *key) => {
                *found.get()
            }
            Entry::Occupied(_) => self.other_key(partition, key),
            // It may have another number, from a time when this one was taken.
            Entry::Vacant(_) if !others.is_empty() && others.contains_key(&(partition, key.into())) => {
                self.other_key(partition, key)
            }
            Entry::Vacant(vacant) => *vacant.insert(store(keys, free, (partition, hash), key.into())),
        };
        let known = self.keys.get_mut(index.0 as usize).expect("the key was just found");
        known.events += 1;
        EnteredKey { number: known.number, index, is_new: known.events == 1 }
    }

    /// Returns the key whose number is not its hash.
    fn other_key(&mut self, partition: Partition, key: &[u8]) -> KeyIndex {
        let KeyIdentities { by_number, keys, free, others, numbered, .. } = self;
        let key: KeyBytes = key.into();
        let number = *others.entry((partition, key.clone())).or_insert_with(|| {
            *numbered += 1;
            NOT_A_HASH | *numbered
        });
        *by_number.entry((partition, number)).or_insert_with(|| store(keys, free, (partition, number), key))
    }

    /// Removes an event that is settled, or no longer owned. Passes the keys that have no event any more to `ended`.
    pub fn leave(&mut self, slot: ArenaSlot, mut ended: impl FnMut(KeyIndex)) {
        let Some(event) = self.events.get_mut(index_of(slot)) else { return };
        let EventKeys { lane, gate } = std::mem::replace(event, EventKeys { lane: NONE, gate: NONE });
        for index in [lane, gate] {
            let Some(key) = self.keys.get_mut(index.0 as usize) else { continue };
            key.events -= 1;
            if key.events == 0 {
                let key = std::mem::replace(&mut key.key, [].as_slice().into());
                self.forget(index, key);
                ended(index);
            }
        }
    }

    fn forget(&mut self, index: KeyIndex, key: KeyBytes) {
        let Some(&Key { partition, number, .. }) = key_at(&self.keys, index) else { return };
        self.by_number.remove(&(partition, number));
        if number & NOT_A_HASH != 0 {
            self.others.remove(&(partition, key));
        }
        self.free.push(index);
    }

    /// Returns those of these record keys that have no event. All keys are visited: a record key has no hash.
    pub fn without_events(&self, partition: Partition, mut keys: Vec<KeyBytes>) -> Vec<KeyBytes> {
        let mut busy: HashSet<KeyBytes, RandomState> = HashSet::default();
        {
            let wanted: HashSet<&[u8], RandomState> = keys.iter().map(|key| &**key).collect();
            let of_partition = self.keys.iter().filter(|key| key.events > 0 && key.partition == partition);
            let found = of_partition.filter(|known| wanted.contains(&*known.key));
            busy.extend(found.map(|known| known.key.clone()));
        }
        keys.retain(|key| !busy.contains(key));
        keys
    }

    /// Returns the record key of an event's lane.
    pub fn lane_key(&self, slot: ArenaSlot) -> Option<&KeyBytes> {
        self.key(self.events.get(index_of(slot))?.lane)
    }

    /// Returns the gate key of an event.
    pub fn gate_key(&self, slot: ArenaSlot) -> Option<KeyIndex> {
        let &EventKeys { lane, gate } = self.events.get(index_of(slot))?;
        [gate, lane].into_iter().find(|&key| key != NONE)
    }

    /// Returns the key with this number, if it has events.
    pub fn find(&self, partition: Partition, number: u64) -> Option<KeyIndex> {
        self.by_number.get(&(partition, number)).copied()
    }

    /// Returns the bytes of a key, if it has events.
    pub fn key(&self, index: KeyIndex) -> Option<&KeyBytes> {
        key_at(&self.keys, index).filter(|key| key.events > 0).map(|key| &key.key)
    }
}

fn key_at(keys: &[Key], index: KeyIndex) -> Option<&Key> {
    keys.get(index.0 as usize)
}

fn store(keys: &mut Vec<Key>, free: &mut Vec<KeyIndex>, number: (Partition, u64), key: KeyBytes) -> KeyIndex {
    let (partition, number) = number;
    let new = Key { partition, number, key, events: 0 };
    match free.pop().and_then(|index| Some((index, keys.get_mut(index.0 as usize)?))) {
        Some((index, unused)) => {
            *unused = new;
            index
        }
        None => {
            keys.push(new);
            KeyIndex(u32::try_from(keys.len() - 1).expect("limits keep the keys far below 2^32"))
        }
    }
}

fn index_of(slot: ArenaSlot) -> usize {
    usize::try_from(slot.0).unwrap_or(usize::MAX)
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

    fn lane(identities: &mut KeyIdentities, key: &[u8], slot: u64) -> EnteredKey {
        identities.enter(P0, u64::MAX, key, ArenaSlot(slot))
    }

    #[test]
    fn a_key_keeps_its_lane_while_it_has_events() {
        let mut identities = KeyIdentities::default();
        let mut ended = Vec::new();
        let first = lane(&mut identities, b"a", 0);
        let second = lane(&mut identities, b"b", 1);
        identities.leave(ArenaSlot(0), |key| ended.push(key));
        assert_eq!(lane(&mut identities, b"b", 2).number, second.number, "although the hash is free");
        assert_eq!(lane(&mut identities, b"a", 0).number, first.number);
        (0..3).for_each(|slot| identities.leave(ArenaSlot(slot), |key| ended.push(key)));
        identities.leave(ArenaSlot(9), |_| panic!("an unknown event has no keys"));
        assert_eq!(ended, [first.index, first.index, second.index]);
        assert!(identities.by_number.is_empty() && identities.others.is_empty());
        assert_eq!(identities.free.len(), identities.keys.len());
        assert_eq!(lane(&mut identities, b"b", 4).number, first.number);
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
        assert_eq!(identities.key(gate.index).map(|key| &**key), Some(&b"gate"[..]));
        assert_eq!(key(&identities, 1), Some(&b"a"[..]), "the lane's key, not the gate's");
        let again = identities.enter(P1, 8, b"a", ArenaSlot(3));
        assert!(!again.is_new && again.number == lane.number);
        let mut ended = Vec::new();
        identities.leave(ArenaSlot(1), |key| ended.push(key));
        assert_eq!(ended, [gate.index], "the lane has another event");
    }
}
