//! The key table: finds the lane of a (partition, lane id). The id is that of a lane key, or of a single event.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

/// Identifies a lane of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LaneId {
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
    id: LaneId,
    partition: u32,
    lane: u32,
}

#[derive(Debug)]
pub(super) struct KeyTable {
    entries: HashTable<LaneEntry>,
    /// Number of entries whose id is [`LaneId::Orphaned`].
    orphaned: usize,
}

impl KeyTable {
    pub(super) fn new() -> Self {
        KeyTable { entries: HashTable::new(), orphaned: 0 }
    }

    /// Returns the lane with this id. If there is none, `make` creates it.
    pub(super) fn find_or_insert(&mut self, id: LaneId, partition: u32, make: impl FnOnce() -> u32) -> u32 {
        let is_it = |entry: &LaneEntry| entry.is(id, partition);
        match self.entries.entry(id.mix(partition), is_it, LaneEntry::hash) {
            Entry::Occupied(entry) => entry.get().lane,
            Entry::Vacant(vacant) => {
                let lane = make();
                vacant.insert(LaneEntry { id, partition, lane });
                lane
            }
        }
    }

    /// Adds the lane of the single event at this offset. Returns its new id.
    pub(super) fn insert_orphaned(&mut self, offset: i64, partition: u32, lane: u32) -> LaneId {
        let entry = LaneEntry { id: LaneId::Orphaned(offset), partition, lane };
        self.orphaned += 1;
        self.entries.insert_unique(entry.hash(), entry, LaneEntry::hash);
        entry.id
    }

    /// Returns the lane of an unkeyed event whose call of an older ownership has not terminated.
    pub(super) fn find_orphaned(&self, partition: u32, offset: i64) -> Option<u32> {
        if self.orphaned == 0 {
            return None;
        }
        let id = LaneId::Orphaned(offset);
        let found = self.entries.find(id.mix(partition), |entry| entry.is(id, partition));
        found.map(|entry| entry.lane)
    }

    /// Removes a lane from the table. Unkeyed lanes are not in it.
    pub(super) fn remove(&mut self, id: LaneId, partition: u32, lane: u32) {
        if matches!(id, LaneId::Unkeyed(_)) {
            return;
        }
        let entry = self.entries.find_entry(id.mix(partition), |entry| entry.lane == lane);
        entry.expect("a lane that is not unkeyed is in the table until it is removed").remove();
        self.orphaned -= usize::from(matches!(id, LaneId::Orphaned(_)));
    }
}

impl LaneEntry {
    fn is(&self, id: LaneId, partition: u32) -> bool {
        self.id == id && self.partition == partition
    }

    fn hash(&self) -> u64 {
        self.id.mix(self.partition)
    }
}

impl LaneId {
    /// Mixes the partition into the id, to spread partitions over the table. A lane key is a seeded hash already.
    fn mix(self, partition: u32) -> u64 {
        let id = match self {
            LaneId::Hash(hash) => hash,
            LaneId::Unkeyed(offset) | LaneId::Orphaned(offset) => {
                offset.cast_unsigned().wrapping_mul(0xd6e8_feb8_6659_fd93)
            }
        };
        id ^ u64::from(partition).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}
