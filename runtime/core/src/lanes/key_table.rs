//! The key table: finds the lane of a (partition, lane key).

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

/// The key by which a lane is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LaneKey {
    /// The seeded hash of the lane key.
    Hash(u64),
    /// The offset of the lane's single unkeyed event. Such a lane is not in the table.
    Unkeyed(i64),
    /// The offset of the lane's single event, whose ownership ended during its call. The event may be read again.
    Orphaned(i64),
}

/// An entry of the table, with everything that is compared.
#[derive(Clone, Copy, Debug)]
struct LaneEntry {
    key: LaneKey,
    partition: u32,
    lane: u32,
}

#[derive(Debug)]
pub(super) struct KeyTable {
    entries: HashTable<LaneEntry>,
    /// Number of entries whose key is [`LaneKey::Orphaned`].
    orphaned: usize,
}

impl KeyTable {
    pub(super) fn new() -> Self {
        KeyTable { entries: HashTable::new(), orphaned: 0 }
    }

    /// Returns the lane of this key. If there is none, `make` creates it.
    pub(super) fn find_or_insert(&mut self, key: LaneKey, partition: u32, make: impl FnOnce() -> u32) -> u32 {
        let is_it = |entry: &LaneEntry| entry.is(key, partition);
        match self.entries.entry(key.mix(partition), is_it, LaneEntry::hash) {
            Entry::Occupied(entry) => entry.get().lane,
            Entry::Vacant(vacant) => {
                let lane = make();
                vacant.insert(LaneEntry { key, partition, lane });
                lane
            }
        }
    }

    /// Adds the lane of the single event at this offset. Returns its new key.
    pub(super) fn insert_orphaned(&mut self, offset: i64, partition: u32, lane: u32) -> LaneKey {
        let entry = LaneEntry { key: LaneKey::Orphaned(offset), partition, lane };
        self.orphaned += 1;
        self.entries.insert_unique(entry.hash(), entry, LaneEntry::hash);
        entry.key
    }

    /// Returns the lane of an unkeyed event whose call of an older ownership has not terminated.
    pub(super) fn find_orphaned(&self, partition: u32, offset: i64) -> Option<u32> {
        if self.orphaned == 0 {
            return None;
        }
        let key = LaneKey::Orphaned(offset);
        let found = self.entries.find(key.mix(partition), |entry| entry.is(key, partition));
        found.map(|entry| entry.lane)
    }

    /// Removes a lane from the table. Unkeyed lanes are not in it.
    pub(super) fn remove(&mut self, key: LaneKey, partition: u32, lane: u32) {
        if matches!(key, LaneKey::Unkeyed(_)) {
            return;
        }
        let entry = self.entries.find_entry(key.mix(partition), |entry| entry.lane == lane);
        entry.expect("a lane with a key is in the table until it is removed").remove();
        self.orphaned -= usize::from(matches!(key, LaneKey::Orphaned(_)));
    }
}

impl LaneEntry {
    fn is(&self, key: LaneKey, partition: u32) -> bool {
        self.key == key && self.partition == partition
    }

    fn hash(&self) -> u64 {
        self.key.mix(self.partition)
    }
}

impl LaneKey {
    /// Mixes the partition into the key, to spread partitions over the table. A lane key is a seeded hash already.
    fn mix(self, partition: u32) -> u64 {
        let key = match self {
            LaneKey::Hash(hash) => hash,
            LaneKey::Unkeyed(offset) | LaneKey::Orphaned(offset) => {
                offset.cast_unsigned().wrapping_mul(0xd6e8_feb8_6659_fd93)
            }
        };
        key ^ u64::from(partition).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}
