//! The gate keys that have events: what is remembered of each, and the order of each event.

#![expect(clippy::indexing_slicing, reason = "every index comes from the same `Slab`")]

use std::collections::BTreeMap;

use hashbrown::HashTable;

use super::parked::ParkedOfKey;
use crate::slab::Slab;
use crate::{Change, EventId, EventOrder, GateKey, KeyMemory, Known, LookUpId};

/// A gate key with events, from the admission of the first of them until the last one has settled.
#[derive(Debug)]
pub(crate) struct Key {
    /// Index of the partition.
    pub(crate) partition: u32,
    /// The lane of its events.
    pub(crate) lane: u32,
    pub(crate) id: GateKey,
    /// Number of orders that refer to it.
    references: u32,
    /// Whether it had no events at some time of this step.
    is_unreferenced: bool,
    pub(crate) lookup: KeyLookup,
    /// What is remembered, with the changes of all events that have settled.
    pub(crate) memory: KeyMemory,
    /// Its parked events.
    pub(crate) parked: ParkedOfKey,
    /// With a window: parked events up to this value may run; `None`: none.
    pub(crate) released_to: Option<i64>,
    /// What its memory is once the events of the call that is being formed are done.
    pub(crate) taken: Option<Taken>,
    /// Changes that its next event to settle makes, too.
    pub(crate) pending: Vec<Change>,
    /// The offset under which it waits for stream time.
    pub(crate) waits_as: Option<i64>,
}

/// Whether it is known what is remembered of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyLookup {
    /// Not known, and not requested.
    Unknown,
    Requested(LookUpId),
    Known,
}

/// The expected memory of a key, while a call is being formed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Taken {
    pub(crate) mark: Option<i64>,
    pub(crate) ids: Vec<EventId>,
}

/// The order of an event.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Order {
    /// Index of its gate key.
    pub(crate) key: u32,
    /// Index of the key of its ids: that of its lane.
    pub(crate) id_key: u32,
    pub(crate) value: Option<i64>,
    /// The stream time at its admission, in milliseconds.
    pub(crate) waits_since: i64,
    pub(crate) role: Role,
    pub(crate) tombstone: bool,
    pub(crate) filtered: bool,
    pub(crate) redriven: bool,
    /// Whether the slot is used.
    is_used: bool,
}

/// What the settling of an event changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// It has its place in the order.
    InOrder,
    /// It fills a hole.
    FillsHole,
    /// Nothing: it runs late.
    Late,
    /// Nothing: it has no order value, or is rejected.
    Beside,
    /// It is dead-lettered because of a gap, and breaks its key.
    BreaksKey,
    /// It ends its key.
    EndsKey,
}

/// All gate keys with events, and the orders of these events.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    keys: Slab<Key>,
    orders: Slab<Order>,
    /// The ids of events, by order. Empty unless duplicates are detected.
    ids: Vec<EventId>,
    by_id: HashTable<u32>,
    requests: BTreeMap<LookUpId, u32>,
    /// Keys whose last event has settled in this step. What the shell has said of the keys of a read is older than the
    /// events of that read, so they are kept until all of them are admitted.
    unreferenced: Vec<u32>,
}

impl Keys {
    pub(crate) fn key(&self, key: u32) -> &Key {
        &self.keys[key]
    }

    pub(crate) fn key_mut(&mut self, key: u32) -> &mut Key {
        &mut self.keys[key]
    }

    pub(crate) fn order(&self, order: u32) -> Order {
        self.orders[order]
    }

    pub(crate) fn set_role(&mut self, order: u32, role: Role) {
        self.orders[order].role = role;
    }

    /// Returns the id of an event, or [`EventId::NONE`].
    pub(crate) fn event_id(&self, order: u32) -> EventId {
        self.ids.get(order as usize).copied().unwrap_or(EventId::NONE)
    }

    /// Adds the order of an event that is admitted to a lane.
    pub(crate) fn enter(
        &mut self,
        (partition, lane): (u32, u32),
        event: &EventOrder,
        waits_since: i64,
        with_ids: bool,
    ) -> u32 {
        let key = self.reference((partition, lane), event.key, event.known);
        let id_key = if with_ids && event.id_key != event.key {
            self.reference((partition, lane), event.id_key, Known::No)
        } else {
            key
        };
        let &EventOrder { value, tombstone, filtered, redriven, .. } = event;
        let role = Role::InOrder;
        let order =
            Order { key, id_key, value, waits_since, role, tombstone, filtered, redriven, is_used: true };
        let index = self.orders.acquire(|| order);
        self.orders[index] = order;
        if with_ids {
            let at = index as usize;
            self.ids.resize(self.ids.len().max(at + 1), EventId::NONE);
            self.ids[at] = event.id;
        }
        index
    }

    fn reference(&mut self, (partition, lane): (u32, u32), id: GateKey, known: Known) -> u32 {
        let Keys { keys, by_id, .. } = self;
        let found = by_id.find(mix(partition, id), |&key| keys[key].is(partition, id));
        let key = found.copied().unwrap_or_else(|| {
            let key = keys.acquire(Key::unused);
            keys[key].begin(partition, id, known);
            by_id.insert_unique(mix(partition, id), key, |&key| keys[key].hash());
            key
        });
        let Key { references, lane: of_key, .. } = &mut self.keys[key];
        *references += 1;
        *of_key = lane;
        key
    }

    /// Frees the order of an event that has settled. A key without events is forgotten.
    pub(crate) fn leave(&mut self, order: u32) {
        let Order { key, id_key, .. } = self.orders[order];
        self.orders[order].is_used = false;
        self.orders.free(order);
        self.dereference(key);
        if id_key != key {
            self.dereference(id_key);
        }
    }

    fn dereference(&mut self, key: u32) {
        let Key { references, is_unreferenced, .. } = &mut self.keys[key];
        *references -= 1;
        if *references == 0 && !std::mem::replace(is_unreferenced, true) {
            self.unreferenced.push(key);
        }
    }

    /// Forgets the keys that have no events at the end of a step.
    pub(crate) fn free_unreferenced(&mut self) {
        let Keys { keys, by_id, requests, unreferenced, .. } = self;
        for key in unreferenced.drain(..) {
            keys[key].is_unreferenced = false;
            if keys[key].references > 0 {
                continue;
            }
            assert!(keys[key].parked.len == 0, "a gate key without events has parked ones");
            if let KeyLookup::Requested(request) = keys[key].lookup {
                requests.remove(&request);
            }
            let entry = by_id.find_entry(keys[key].hash(), |&found| found == key);
            entry.expect("a key of this step is in the table").remove();
            keys.free(key);
        }
    }

    /// Notes that the memory of a key is requested.
    pub(crate) fn requested(&mut self, key: u32, request: LookUpId) {
        self.keys[key].lookup = KeyLookup::Requested(request);
        self.requests.insert(request, key);
    }

    /// Sets the memory of the key that this request was for. Returns the key; `None`: it has no events any more.
    pub(crate) fn known(&mut self, request: LookUpId, memory: &KeyMemory) -> Option<u32> {
        let key = self.requests.remove(&request)?;
        let known = &mut self.keys[key];
        known.memory.clone_from(memory);
        known.lookup = KeyLookup::Known;
        Some(key)
    }

    /// Forgets all keys and orders of a partition.
    pub(crate) fn clear(&mut self, partition: u32) {
        let Keys { keys, orders, by_id, requests, .. } = self;
        let mut cleared: Vec<bool> = vec![false; keys.end() as usize];
        by_id.retain(|&mut key| {
            let is_kept = keys[key].partition != partition;
            if !is_kept {
                cleared[key as usize] = true;
            }
            is_kept
        });
        requests.retain(|_, key| !cleared[*key as usize]);
        self.unreferenced.retain(|&key| !cleared[key as usize]);
        for order in orders.indexes() {
            let Order { key, is_used, .. } = &mut orders[order];
            if *is_used && cleared[*key as usize] {
                *is_used = false;
                orders.free(order);
            }
        }
        for (key, _) in (0..).zip(&cleared).filter(|(_, cleared)| **cleared) {
            keys[key].parked = ParkedOfKey::NONE;
            keys.free(key);
        }
    }
}

impl Key {
    fn unused() -> Key {
        Key {
            partition: 0,
            lane: 0,
            id: GateKey(0),
            references: 0,
            is_unreferenced: false,
            lookup: KeyLookup::Unknown,
            memory: KeyMemory::default(),
            parked: ParkedOfKey::NONE,
            released_to: None,
            taken: None,
            pending: Vec::new(),
            waits_as: None,
        }
    }

    fn begin(&mut self, partition: u32, id: GateKey, known: Known) {
        (self.partition, self.id, self.references) = (partition, id, 0);
        (self.parked, self.released_to, self.taken, self.waits_as) = (ParkedOfKey::NONE, None, None, None);
        self.is_unreferenced = false;
        self.pending.clear();
        let KeyMemory { mark, holes, broken, delivered, ids } = &mut self.memory;
        (*mark, *broken) = (None, false);
        holes.clear();
        delivered.clear();
        ids.clear();
        self.lookup = match known {
            Known::No => KeyLookup::Unknown,
            Known::Mark(known) => {
                *mark = known;
                KeyLookup::Known
            }
        };
    }

    fn is(&self, partition: u32, id: GateKey) -> bool {
        (self.partition, self.id) == (partition, id)
    }

    fn hash(&self) -> u64 {
        mix(self.partition, self.id)
    }

    /// Returns the mark, as it is once the events of the call that is being formed are done.
    pub(crate) fn expected_mark(&self) -> Option<i64> {
        self.taken.as_ref().map_or(self.memory.mark, |taken| taken.mark)
    }
}

/// Numbers of gate keys are hashes already.
fn mix(partition: u32, id: GateKey) -> u64 {
    id.0 ^ u64::from(partition).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
