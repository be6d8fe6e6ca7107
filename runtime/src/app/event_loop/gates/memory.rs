//! What is remembered of keys in the memory of the process (`memory = "session"`).
//!
//! A key with events is never forgotten. Of the others, those that were used least recently are forgotten first when the limit
//! is reached.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use keylane_core::{Change, KeyMemory, Known, Partition, RememberedId};
use keylane_state::KeyBytes;
use sha2::{Digest as _, Sha256};

use crate::admit::KeyIndex;

use super::by_use::ByUse;

/// Longer keys are replaced by a digest.
const KEY_MAX: usize = 256;
/// The first byte of a digest; no key begins with it.
const DIGEST: u8 = 0xff;
/// Approximate bytes of a key in all tables, without what is stored elsewhere.
const ENTRY_BYTES: usize = 256;
/// The longest key that is stored in place.
const SHORT_KEY_MAX: usize = 22;

/// The memory of all owned partitions, and of those that may be assigned again.
#[derive(Debug)]
pub(super) struct SessionMemory {
    entries: Vec<Entry>,
    /// Indexes of unused entries.
    free: Vec<usize>,
    by_key: HashMap<Partition, KeysOfPartition, RandomState>,
    /// The entries of keys with events, by the indexes of the keys.
    live: Vec<Option<usize>>,
    /// The entries of the other keys, in the order in which they were used.
    idle: ByUse,
    bytes: usize,
    limit: usize,
    /// Number of ids that are remembered for each key.
    keep_ids: usize,
    /// How long an id is wanted, in milliseconds.
    id_window_ms: i64,
    /// Number of keys that were forgotten because of the limit.
    evicted: u64,
    /// Number of ids that were forgotten although they were wanted, because their key had too many.
    ids_evicted: u64,
}

/// How many keys and ids are remembered, and were forgotten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::app) struct MemoryUsage {
    /// Number of keys.
    pub(in crate::app) keys: usize,
    /// The bytes that they count as.
    pub(in crate::app) bytes: usize,
    /// Number of keys that were forgotten because of the limit.
    pub(in crate::app) evicted: u64,
    /// Number of ids that were forgotten although they were wanted, because their key had too many.
    pub(in crate::app) ids_evicted: u64,
}

/// The entry of each key. The keys of a partition have a table of their own, so that they are found without a copy.
type KeysOfPartition = HashMap<KeyBytes, usize, RandomState>;

#[derive(Debug)]
struct Entry {
    partition: Partition,
    key: KeyBytes,
    memory: KeyMemory,
    bytes: usize,
}

impl SessionMemory {
    /// `limit`: in bytes. `keep_ids`: number of ids that are remembered for each key, for this many milliseconds.
    pub(super) fn new(limit: usize, keep_ids: usize, id_window_ms: i64) -> SessionMemory {
        SessionMemory {
            entries: Vec::new(),
            free: Vec::new(),
            by_key: HashMap::default(),
            live: Vec::new(),
            idle: ByUse::default(),
            bytes: 0,
            limit,
            keep_ids,
            id_window_ms,
            evicted: 0,
            ids_evicted: 0,
        }
    }

    /// The first event of a key was read: the key is not forgotten until [`SessionMemory::idle`].
    pub(super) fn used(&mut self, partition: Partition, index: KeyIndex, key: &[u8]) {
        let entry = self.find(partition, key);
        entry.into_iter().for_each(|entry| self.idle.remove(entry));
        self.set_live(index, entry);
    }

    fn set_live(&mut self, index: KeyIndex, entry: Option<usize>) {
        let at = index.0 as usize;
        self.live.resize(self.live.len().max(at + 1), None);
        if let Some(live) = self.live.get_mut(at) {
            *live = entry;
        }
    }

    fn entry_of(&self, index: KeyIndex) -> Option<usize> {
        self.live.get(index.0 as usize).copied().flatten()
    }

    fn find(&self, partition: Partition, key: &[u8]) -> Option<usize> {
        let keys = self.by_key.get(&partition)?;
        let found = if key.len() > KEY_MAX { keys.get(&digest(key)) } else { keys.get(key) };
        found.copied()
    }

    /// Returns what is remembered of a key with events, if that is short.
    pub(super) fn known(&self, index: KeyIndex) -> Known {
        match self.get(index) {
            None => Known::Mark(None),
            Some(memory) if memory.is_only_mark() => Known::Mark(memory.mark),
            Some(_) => Known::No,
        }
    }

    /// Returns what is remembered of a key with events.
    pub(super) fn get(&self, index: KeyIndex) -> Option<&KeyMemory> {
        self.entries.get(self.entry_of(index)?).map(|entry| &entry.memory)
    }

    /// Changes what is remembered of a key with events. `key`: its bytes.
    pub(super) fn change(&mut self, partition: Partition, index: KeyIndex, key: &KeyBytes, change: Change) {
        let index = self.entry_of(index).unwrap_or_else(|| {
            let entry = self.add(partition, key);
            self.set_live(index, Some(entry));
            entry
        });
        let Some(entry) = self.entries.get_mut(index) else { return };
        let oldest = entry.memory.ids.first().map(|id| id.settled_ms);
        let forgotten = entry.memory.apply(change, self.keep_ids);
        // The core has counted forgotten holes.
        if let (Change::Id(id), Some(oldest)) = (change, oldest) {
            let is_wanted = id.settled_ms.saturating_sub(oldest) < self.id_window_ms;
            self.ids_evicted += u64::from(forgotten > 0 && is_wanted);
        }
        let bytes = size(entry);
        self.bytes = self.bytes - std::mem::replace(&mut entry.bytes, bytes) + bytes;
    }

    fn add(&mut self, partition: Partition, key: &KeyBytes) -> usize {
        let key = if key.len() > KEY_MAX { digest(key) } else { key.clone() };
        let entry = Entry { partition, key: key.clone(), memory: KeyMemory::default(), bytes: 0 };
        let unused = self.free.pop().and_then(|index| Some((index, self.entries.get_mut(index)?)));
        let index = if let Some((index, unused)) = unused {
            *unused = entry;
            index
        } else {
            self.entries.push(entry);
            self.entries.len() - 1
        };
        self.by_key.entry(partition).or_default().insert(key, index);
        index
    }

    /// The last event of a key has settled.
    pub(super) fn idle(&mut self, index: KeyIndex) {
        let Some(index) = self.live.get_mut(index.0 as usize).and_then(Option::take) else { return };
        let Some(entry) = self.entries.get_mut(index) else { return };
        if entry.memory == KeyMemory::default() {
            return self.remove(index); // its key has ended
        }
        self.idle.push(index);
        while self.bytes > self.limit
            && let Some(index) = self.idle.first()
        {
            self.remove(index);
            self.evicted += 1;
        }
    }

    fn remove(&mut self, index: usize) {
        let Some(entry) = self.entries.get_mut(index) else { return };
        let key = std::mem::replace(&mut entry.key, [].as_slice().into());
        entry.memory = KeyMemory::default();
        self.bytes -= std::mem::take(&mut entry.bytes);
        self.idle.remove(index);
        self.by_key.get_mut(&entry.partition).and_then(|keys| keys.remove(&key));
        self.free.push(index);
    }

    /// Forgets all keys of a partition.
    pub(super) fn forget(&mut self, partition: Partition) {
        let indexes: Vec<usize> =
            self.by_key.get(&partition).into_iter().flat_map(HashMap::values).copied().collect();
        let is_forgotten =
            |entry: usize| self.entries.get(entry).is_some_and(|entry| entry.partition == partition);
        self.live.iter_mut().for_each(|live| *live = live.filter(|&entry| !is_forgotten(entry)));
        indexes.into_iter().for_each(|index| self.remove(index));
        self.by_key.remove(&partition);
    }

    pub(super) fn usage(&self) -> MemoryUsage {
        let &SessionMemory { bytes, evicted, ids_evicted, .. } = self;
        MemoryUsage { keys: self.entries.len() - self.free.len(), bytes, evicted, ids_evicted }
    }
}

/// Returns the bytes that a long key is stored as.
fn digest(key: &[u8]) -> KeyBytes {
    let mut digest = vec![DIGEST];
    digest.extend_from_slice(&Sha256::digest(key));
    digest.as_slice().into()
}

/// Returns the bytes that an entry counts as.
fn size(entry: &Entry) -> usize {
    let KeyMemory { holes, delivered, ids, .. } = &entry.memory;
    // Both tables share the bytes of a long key.
    let key = if entry.key.len() > SHORT_KEY_MAX { entry.key.len() } else { 0 };
    ENTRY_BYTES
        + key
        + holes.capacity() * size_of::<(i64, i64)>()
        + delivered.capacity() * size_of::<i64>()
        + ids.capacity() * size_of::<RememberedId>()
}

#[cfg(test)]
mod tests {
    use keylane_core::EventId;

    use super::*;

    const P0: Partition = Partition { topic: 0, number: 0 };
    const P1: Partition = Partition { topic: 0, number: 1 };

    fn usage(memory: &SessionMemory) -> (usize, usize, u64) {
        let MemoryUsage { keys, bytes, evicted, .. } = memory.usage();
        (keys, bytes, evicted)
    }

    /// An event of a key passes with this mark.
    fn pass(memory: &mut SessionMemory, partition: Partition, key: &[u8], mark: i64) {
        memory.used(partition, KeyIndex(1), key);
        memory.change(partition, KeyIndex(1), &key.into(), Change::Mark(mark));
        memory.idle(KeyIndex(1));
    }

    fn mark(memory: &mut SessionMemory, partition: Partition, key: &[u8]) -> Known {
        memory.used(partition, KeyIndex(1), key);
        let known = memory.known(KeyIndex(1));
        memory.idle(KeyIndex(1));
        known
    }

    #[test]
    fn marks_are_those_of_partition_and_key() {
        let mut memory = SessionMemory::new(1 << 20, 0, 1_000);
        pass(&mut memory, P0, b"a", 5);
        pass(&mut memory, P1, b"a", 6);
        assert_eq!(mark(&mut memory, P0, b"a"), Known::Mark(Some(5)));
        assert_eq!(mark(&mut memory, P1, b"a"), Known::Mark(Some(6)));
        assert_eq!(mark(&mut memory, P0, b"b"), Known::Mark(None));
        memory.forget(P0);
        assert_eq!(mark(&mut memory, P0, b"a"), Known::Mark(None));
        assert_eq!(usage(&memory), (1, ENTRY_BYTES, 0));
    }

    #[test]
    fn more_than_a_mark_is_looked_up() {
        let mut memory = SessionMemory::new(1 << 20, 2, 1_000);
        memory.used(P0, KeyIndex(7), b"a");
        for (id, settled_ms) in [(1, 0), (2, 0), (3, 999), (4, 1_000)] {
            let id = RememberedId { id: EventId(id), settled_ms };
            memory.change(P0, KeyIndex(7), &b"a".as_slice().into(), Change::Id(id));
        }
        assert_eq!(memory.known(KeyIndex(7)), Known::No);
        let ids: Vec<u128> =
            memory.get(KeyIndex(7)).into_iter().flat_map(|memory| &memory.ids).map(|id| id.id.0).collect();
        assert_eq!(ids, [3, 4]);
        assert_eq!(memory.usage().ids_evicted, 1, "id 2 was old enough");
    }

    #[test]
    fn the_key_that_was_used_least_recently_is_forgotten_first() {
        let mut memory = SessionMemory::new(3 * ENTRY_BYTES, 0, 1_000);
        for (key, at) in [(b"a", 1), (b"b", 2), (b"c", 3)] {
            pass(&mut memory, P0, key, at);
        }
        assert_eq!(mark(&mut memory, P0, b"a"), Known::Mark(Some(1)));
        memory.used(P0, KeyIndex(2), b"b");
        pass(&mut memory, P0, b"d", 4); // forgets `c`: `b` has an event, and `a` was used
        assert_eq!(mark(&mut memory, P0, b"c"), Known::Mark(None));
        assert_eq!(mark(&mut memory, P0, b"a"), Known::Mark(Some(1)));
        assert_eq!(memory.known(KeyIndex(2)), Known::Mark(Some(2)));
        assert_eq!(usage(&memory), (3, 3 * ENTRY_BYTES, 1));
    }

    #[test]
    fn keys_with_events_may_exceed_the_limit() {
        let mut memory = SessionMemory::new(ENTRY_BYTES, 0, 1_000);
        for number in 0..4_u32 {
            let key = number.to_be_bytes();
            memory.used(P0, KeyIndex(number), &key);
            memory.change(P0, KeyIndex(number), &key.as_slice().into(), Change::Mark(1));
        }
        assert_eq!(usage(&memory), (4, 4 * ENTRY_BYTES, 0));
        (0..4).for_each(|number| memory.idle(KeyIndex(number)));
        assert_eq!(usage(&memory), (1, ENTRY_BYTES, 3));
    }

    #[test]
    fn a_long_key_counts_as_its_digest() {
        let mut memory = SessionMemory::new(1 << 20, 0, 1_000);
        let (one, two) = ([1; 100_000], [[1; 99_999].as_slice(), &[2]].concat());
        pass(&mut memory, P0, &one, 5);
        assert_eq!(mark(&mut memory, P0, &one), Known::Mark(Some(5)));
        assert_eq!(mark(&mut memory, P0, &two), Known::Mark(None));
        assert_eq!(usage(&memory), (1, ENTRY_BYTES + 33, 0));
    }

    #[test]
    fn a_key_that_has_ended_is_forgotten() {
        let mut memory = SessionMemory::new(1 << 20, 0, 1_000);
        pass(&mut memory, P0, b"a", 5);
        memory.used(P0, KeyIndex(1), b"a");
        memory.change(P0, KeyIndex(1), &b"a".as_slice().into(), Change::Ended);
        memory.idle(KeyIndex(1));
        assert_eq!(usage(&memory), (0, 0, 0));
    }
}
