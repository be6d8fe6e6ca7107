//! What the core's gates need of the shell: order values, gate keys and ids of events ([`Gates::read`]), what is remembered of
//! keys ([`memory`]), and whether that is still true when a partition is assigned again ([`last_commits`]).

mod by_use;
mod durable;
mod last_commits;
mod memory;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use keylane_core::{
    Change, CommitEntry, CommitId, EventId, EventOrder, GateKey, GateRule, KeyMemory, Known, LookUpId,
    MemoryChange, Partition,
};
use keylane_state::{KeyBytes, RecordError, StateValue};
use sha2::{Digest as _, Sha256};

use crate::admit::{ArenaRecord, EnteredKey, FieldReader, KeyIdentities, KeyIndex, OrderValueRule};
use crate::config::{DuplicatesConfig, GateConfig, OrderConfig};

use super::publishing::was_redriven;
use durable::DurableMemory;
use last_commits::LastCommits;
use memory::{MemoryUsage, SessionMemory};

/// The first byte of a gate key that is not the key of its lane. Record keys do not begin with it.
const GATE_KEY: u8 = 0x80;

/// The gate of a handler, or its detection of duplicates.
pub(in crate::app) struct Gates {
    values: Option<OrderValueRule>,
    /// The field that is the gate key, together with the lane key; `None`: the gate key is the lane key.
    key: Option<FieldReader>,
    ids: Option<FieldReader>,
    /// The key of the hashes of ids, so that nobody can make two ids with one hash.
    id_secret: [u8; 16],
    /// The seed of the hashes of gate keys.
    seed: foldhash::quality::RandomState,
    takes_filtered: bool,
    /// The value with which a key begins, if it is configured.
    first: Option<i64>,
    memory: SessionMemory,
    /// `None`: what is remembered is kept in `memory`.
    durable: Option<DurableMemory>,
    /// Answers of the changelog that the core has not got.
    answers: VecDeque<(LookUpId, KeyMemory)>,
    /// The answer that the core gets.
    answer: KeyMemory,
    last_commits: LastCommits,
    /// Requests of the core that are not answered.
    look_ups: VecDeque<LookUp>,
    /// The orders of the current read, one per row.
    orders: Vec<EventOrder>,
    /// Durable memory: the rows of the current read whose gate key had no event before.
    new_keys: Vec<(usize, KeyIndex)>,
    /// Reused: the gate key, or the id, of an event.
    bytes: Vec<u8>,
    without_id: u64,
}

/// A snapshot of what is remembered.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::app) struct GatesView {
    pub(in crate::app) memory: MemoryUsage,
    /// Number of events without an id.
    pub(in crate::app) without_id: u64,
}

/// A request for what is remembered of a key.
struct LookUp {
    request: LookUpId,
    partition: Partition,
    key: GateKey,
}

/// What was read from an event.
#[derive(Clone, Copy)]
pub(super) struct OrderOfEvent {
    value: Option<i64>,
    id: EventId,
    tombstone: bool,
    redriven: bool,
    has_gate_key: bool,
}

impl Gates {
    /// Returns the gates of a handler; `None`: it has neither a gate nor a detection of duplicates. `transactional`: whether
    /// effects of settled events may be dropped.
    pub(in crate::app) fn new(config: &OrderConfig, transactional: bool) -> Option<Box<Gates>> {
        let gate: Option<&GateConfig> = config.gate.as_ref();
        let duplicates: Option<&DuplicatesConfig> = config.duplicates.as_ref();
        let keep_ids = duplicates.map_or(0, |duplicates| duplicates.limits.keep);
        let id_window = duplicates.map_or(Duration::ZERO, |duplicates| duplicates.limits.window);
        let limit = usize::try_from(config.marks_memory).unwrap_or(usize::MAX);
        let random = RandomState::new();
        let secret = [random.hash_one(0), random.hash_one(1)].map(u64::to_be_bytes);
        config.is_used().then(|| {
            Box::new(Gates {
                values: gate.map(|gate| OrderValueRule::new(&gate.by)),
                key: gate.and_then(|gate| gate.key.as_ref()).map(FieldReader::new),
                ids: duplicates.map(|duplicates| FieldReader::new(&duplicates.id)),
                id_secret: *secret.as_flattened().first_chunk().expect("16 bytes"),
                seed: foldhash::quality::RandomState::default(),
                takes_filtered: gate.is_some_and(|gate| matches!(gate.rule.rule, GateRule::Consecutive(_))),
                first: gate.and_then(GateConfig::first),
                memory: SessionMemory::new(
                    limit,
                    usize::try_from(keep_ids).unwrap_or(usize::MAX),
                    i64::try_from(id_window.as_millis()).unwrap_or(i64::MAX),
                ),
                durable: config.is_durable().then(DurableMemory::default),
                answers: VecDeque::new(),
                answer: KeyMemory::default(),
                last_commits: LastCommits::new(!transactional),
                look_ups: VecDeque::new(),
                orders: Vec::new(),
                new_keys: Vec::new(),
                bytes: Vec::new(),
                without_id: 0,
            })
        })
    }

    // -- reading ------------------------------------------------------------------------------------

    /// Returns whether events that the filter drops take their place in the order.
    pub(super) fn takes_filtered(&self) -> bool {
        self.takes_filtered
    }

    /// Begins a read.
    pub(super) fn begin_read(&mut self) {
        self.orders.clear();
        self.new_keys.clear();
    }

    /// Returns the orders of the current read, one per row.
    pub(super) fn orders(&self) -> &[EventOrder] {
        &self.orders
    }

    /// Reads the order of an event with this lane key. Its gate key is used by the next [`Gates::enter`].
    pub(super) fn read(
        &mut self,
        record: &ArenaRecord<'_>,
        lane_key: &[u8],
        timestamp_ms: i64,
    ) -> OrderOfEvent {
        let id = self.ids.as_ref().map_or(EventId::NONE, |field| {
            self.bytes.clear();
            self.bytes.extend_from_slice(&self.id_secret);
            if field.append(record, &mut self.bytes) { id_of(&self.bytes) } else { EventId::NONE }
        });
        self.without_id += u64::from(self.ids.is_some() && id == EventId::NONE);
        let has_gate_key = self.key.as_ref().is_none_or(|field| {
            self.bytes.clear();
            self.bytes.push(GATE_KEY);
            self.bytes.extend_from_slice(&u32::try_from(lane_key.len()).unwrap_or(u32::MAX).to_be_bytes());
            self.bytes.extend_from_slice(lane_key);
            field.append(record, &mut self.bytes)
        });
        // Without its gate key, an event has no place in the order.
        let values = self.values.as_ref().filter(|_| has_gate_key);
        OrderOfEvent {
            value: values.and_then(|values| values.value(record, timestamp_ms)),
            id,
            tombstone: record.value.is_none(),
            redriven: was_redriven(record),
            has_gate_key,
        }
    }

    /// Adds the order of an event that was entered with this lane key.
    pub(super) fn enter(
        &mut self,
        (partition, slot): (Partition, keylane_core::ArenaSlot),
        event: OrderOfEvent,
        (lane, lane_key): (EnteredKey, &[u8]),
        identities: &mut KeyIdentities,
        filtered: bool,
    ) {
        if lane.is_new {
            self.memory.used(partition, lane.index, lane_key);
        }
        let mut gate = lane;
        if self.key.is_some() && event.has_gate_key {
            let hash = self.seed.hash_one(self.bytes.as_slice());
            let key = identities.enter_gate_key(partition, hash, &self.bytes, slot);
            if key.is_new {
                self.memory.used(partition, key.index, &self.bytes);
            }
            gate = key;
        }
        let OrderOfEvent { value, id, tombstone, redriven, .. } = event;
        let (key, id_key) = (GateKey(gate.number), GateKey(lane.number));
        let known = match &self.durable {
            None => self.memory.known(gate.index),
            Some(_) => {
                // Ids are in another memory. A key that has an event may have it from an ownership that has ended, whose memory
                // is not that of this one.
                if gate.is_new && self.ids.is_none() {
                    self.new_keys.push((self.orders.len(), gate.index));
                }
                Known::No
            }
        };
        self.orders.push(EventOrder { key, value, id, id_key, tombstone, filtered, redriven, known });
    }

    /// Durable memory: completes the orders of the read with what is remembered of keys without a request. `cached` returns
    /// the value of a mark record, if it is in memory.
    pub(super) fn complete(
        &mut self,
        identities: &KeyIdentities,
        mut cached: impl FnMut(&KeyBytes) -> Option<StateValue>,
    ) {
        let Gates { durable: Some(durable), new_keys, orders, .. } = self else { return };
        for (row, index) in new_keys.drain(..) {
            let Some((key, order)) = identities.key(index).zip(orders.get_mut(row)) else { continue };
            order.known = durable.remembered(index, key, &mut cached);
        }
    }

    /// Adds the order of an event that never reaches a lane.
    pub(super) fn enter_without_lane(&mut self) {
        self.orders.push(EventOrder::without_value(GateKey(0)));
    }

    /// Takes the end of a key's last event.
    pub(super) fn key_ended(&mut self, key: KeyIndex) {
        self.durable.iter_mut().for_each(|durable| durable.idle(key));
        self.memory.idle(key);
    }

    // -- memory -------------------------------------------------------------------------------------

    pub(super) fn remember(&mut self, changes: &[MemoryChange], identities: &KeyIdentities) {
        for &MemoryChange { partition, key, change, .. } in changes {
            let index = identities.find(partition, key.0).expect("a key that changes has an event");
            let bytes = identities.key(index).expect("a key that changes has an event");
            self.memory.change(partition, index, bytes, change);
        }
    }

    pub(super) fn look_up(&mut self, request: LookUpId, partition: Partition, key: GateKey) {
        self.look_ups.push_back(LookUp { request, partition, key });
    }

    /// Returns the next request that is not answered, and its answer.
    pub(super) fn next_answer(&mut self, identities: &KeyIdentities) -> Option<(LookUpId, &KeyMemory)> {
        static NOTHING: KeyMemory = KeyMemory {
            mark: None,
            holes: Vec::new(),
            broken: false,
            delivered: Vec::new(),
            ids: Vec::new(),
        };
        if let Some((request, memory)) = self.answers.pop_front() {
            self.answer = memory;
            return Some((request, &self.answer));
        }
        let LookUp { request, partition, key } = self.look_ups.pop_front()?;
        let index = identities.find(partition, key.0);
        Some((request, index.and_then(|index| self.memory.get(index)).unwrap_or(&NOTHING)))
    }

    /// Returns the order value that a key with events waits for; `None`: any.
    pub(super) fn expected(&self, key: KeyIndex) -> Option<i64> {
        let memory = match &self.durable {
            Some(durable) => durable.get(key),
            None => self.memory.get(key),
        };
        memory.and_then(|memory| memory.mark?.checked_add(1)).or(self.first)
    }

    // -- durable memory -----------------------------------------------------------------------------

    /// Returns whether what is remembered is kept in the changelog.
    pub(super) fn is_durable(&self) -> bool {
        self.durable.is_some()
    }

    /// The memory of a key is loaded from the changelog. Returns the key of its mark record.
    pub(super) fn load(
        &mut self,
        request: LookUpId,
        (partition, key): (Partition, GateKey),
        identities: &KeyIdentities,
    ) -> Option<KeyBytes> {
        let index = identities.find(partition, key.0)?;
        Some(self.durable.as_mut()?.look_up(request, index, identities.key(index)?))
    }

    /// The memory of a key was loaded. The ids of its events are in the memory of the process.
    pub(super) fn loaded(&mut self, request: LookUpId, value: Option<&[u8]>) -> Result<(), RecordError> {
        let mut known = durable::decoded(value)?;
        let key = self.durable.as_mut().and_then(|durable| durable.loaded(request, known.clone()));
        let Some(key) = key else { return Ok(()) };
        known.ids = self.memory.get(key).map_or(Vec::new(), |memory| memory.ids.clone());
        self.answers.push_back((request, known));
        Ok(())
    }

    /// Applies these changes, and passes the mark records that they leave to `keep`. Ids are kept in the memory of the process.
    pub(super) fn change(
        &mut self,
        changes: &[MemoryChange],
        identities: &KeyIdentities,
        mut keep: impl FnMut(&MemoryChange, &KeyBytes, Option<&[u8]>),
    ) {
        for change in changes {
            if let Change::Id(_) = change.change {
                self.remember(std::slice::from_ref(change), identities);
                continue;
            }
            let Some(durable) = &mut self.durable else { return };
            let index = identities.find(change.partition, change.key.0);
            let changed = index.and_then(|index| durable.change(index, change.change));
            let (key, value) = changed.expect("a key that changes has an event");
            keep(change, key, value);
        }
    }

    // -- ownership ----------------------------------------------------------------------------------

    /// A partition starts at this commit. What is remembered is forgotten, unless it is our own last one.
    pub(super) fn starts(&mut self, partition: Partition, committed: Option<(i64, &[u8])>) {
        if !self.last_commits.is_last(partition, committed) {
            self.memory.forget(partition);
        }
    }

    /// The topic was created again: its keys have nothing to do with those before.
    pub(super) fn topic_recreated(&mut self, partition: Partition) {
        self.memory.forget(partition);
    }

    pub(super) fn commit_sent(&mut self, id: CommitId, entries: &[CommitEntry], metadata: &str) {
        self.last_commits.sent(id, entries, metadata);
    }

    pub(super) fn commit_answered(&mut self, id: CommitId, partition: Partition, stored: bool) {
        self.last_commits.answered(id, partition, stored);
    }

    // -- reports ------------------------------------------------------------------------------------

    pub(super) fn view(&self) -> GatesView {
        GatesView { memory: self.memory.usage(), without_id: self.without_id }
    }
}

/// Returns the hash of an id, given behind the secret.
fn id_of(bytes: &[u8]) -> EventId {
    let digest = Sha256::digest(bytes);
    let hash = digest.first_chunk().copied().map_or(0, u128::from_be_bytes);
    EventId(hash.max(1)) // 0 is no id
}
