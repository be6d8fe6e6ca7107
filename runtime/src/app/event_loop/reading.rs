//! Converts records of the client to rows of the core: applies the filter and the lane key, and stores the bytes in the
//! arena.

use std::collections::VecDeque;
use std::time::Duration;

use keylane_core::{
    Admission, ArenaSlot, CommitEntry, CommitId, EventOrder, FetchedRow, GateKey, Input, KeyMemory, LookUpId,
    MemoryChange, Partition, ReadError, StartAt,
};
use keylane_state::{KeyBytes, StateValue};

use crate::admit::{Arena, Filter, FilterCount, KeyIdentities, LaneRule};
use crate::librdkafka::Record;
use crate::source::Source;

use super::gates::Gates;

/// The slot of filtered events, which are not kept.
const NO_SLOT: ArenaSlot = ArenaSlot(u64::MAX);
/// The size that a filtered event counts as, so that the byte limit also ends a read of only filtered events.
const FILTERED_BYTES: u32 = 64;

/// Reads records and keeps them until their events are settled.
pub(in crate::app) struct Reading {
    arena: Arena,
    filter: Filter,
    lane_rule: LaneRule,
    /// The keys of lanes and gates; `None`: without keyed state and gates, lanes are only hashes.
    identities: Option<KeyIdentities>,
    /// `None`: the handler has neither a gate nor a detection of duplicates.
    gates: Option<Box<Gates>>,
    /// Reused: the record key of an event.
    record_key: Vec<u8>,
    /// The core's permissions to read, in the order in which they are used.
    permissions: VecDeque<Permission>,
    /// Rows of the current read.
    rows: Vec<FetchedRow>,
    /// The partitions of all answered assignments that were not revoked.
    owned: Vec<Partition>,
    /// Whether an assignment was answered.
    was_assigned: bool,
    first_read: Option<Duration>,
    /// Number of records that were read, with those that the filter dropped.
    records: u64,
    missing: Option<MissingLaneKey>,
    missing_reported: u64,
}

/// A permission of the core to read a partition once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Permission {
    pub(super) partition: Partition,
    max_events: u32,
    max_bytes: u64,
}

/// An event without the lane key that the configuration names.
#[derive(Clone, Copy, Debug)]
pub(super) struct MissingLaneKey {
    pub(super) partition: Partition,
    pub(super) offset: i64,
    /// Whether the value seems to have the prefix of a schema registry serializer.
    pub(super) has_registry_prefix: bool,
}

/// The result of one read.
#[derive(Debug)]
pub(super) struct Read<'a> {
    rows: &'a [FetchedRow],
    /// One per row, with gates; otherwise empty.
    orders: &'a [EventOrder],
    /// The lowest offset that the next record can have, if the read reached the end of the partition.
    end: Option<i64>,
    error: Option<ReadError>,
    pub(super) more: bool,
}

impl<'a> Read<'a> {
    pub(super) fn found_anything(&self) -> bool {
        !self.rows.is_empty() || self.end.is_some() || self.error.is_some()
    }

    /// Returns the first event.
    pub(super) fn first(&self) -> Option<&FetchedRow> {
        self.rows.first()
    }

    pub(super) fn input(&self, partition: Partition) -> Input<'a> {
        Input::Fetched { partition, rows: self.rows, orders: self.orders, end: self.end, error: self.error }
    }
}

impl Reading {
    /// `keyed`: whether events have a keyed state.
    pub(in crate::app) fn new(
        filter: Filter,
        lane_rule: LaneRule,
        keyed: bool,
        gates: Option<Box<Gates>>,
    ) -> Self {
        Reading {
            arena: Arena::default(),
            filter,
            lane_rule,
            identities: (keyed || gates.is_some()).then(KeyIdentities::default),
            gates,
            record_key: Vec::new(),
            permissions: VecDeque::new(),
            rows: Vec::new(),
            owned: Vec::new(),
            was_assigned: false,
            first_read: None,
            records: 0,
            missing: None,
            missing_reported: 0,
        }
    }

    pub(super) fn arena(&self) -> &Arena {
        &self.arena
    }

    pub(super) fn lane_rule(&self) -> &LaneRule {
        &self.lane_rule
    }

    /// Returns the record key of the lane of an event, with keyed state or gates.
    pub(super) fn key_of(&self, slot: ArenaSlot) -> Option<&KeyBytes> {
        self.identities.as_ref()?.lane_key(slot)
    }

    /// Returns the order value that the gate key of an event waits for; `None`: any, or there is no gate.
    pub(super) fn expected_value(&self, slot: ArenaSlot) -> Option<i64> {
        let key = self.identities.as_ref()?.gate_key(slot)?;
        self.gates.as_ref()?.expected(key)
    }

    pub(super) fn gates(&self) -> Option<&Gates> {
        self.gates.as_deref()
    }

    pub(super) fn gates_mut(&mut self) -> Option<&mut Gates> {
        self.gates.as_deref_mut()
    }

    /// Remembers these changes of keys.
    pub(super) fn remember(&mut self, changes: &[MemoryChange]) {
        if let (Some(gates), Some(identities)) = (&mut self.gates, &self.identities) {
            gates.remember(changes, identities);
        }
    }

    /// Applies these changes of keys with durable memory, and passes the mark records that they leave to `keep`.
    pub(super) fn change_marks(
        &mut self,
        changes: &[MemoryChange],
        keep: impl FnMut(&MemoryChange, &KeyBytes, Option<&[u8]>),
    ) {
        if let (Some(gates), Some(identities)) = (&mut self.gates, &self.identities) {
            gates.change(changes, identities, keep);
        }
    }

    /// A commit was sent: see [`Gates::commit_sent`].
    pub(super) fn commit_sent(&mut self, id: CommitId, entries: &[CommitEntry], metadata: &str) {
        self.gates.iter_mut().for_each(|gates| gates.commit_sent(id, entries, metadata));
    }

    /// The durable memory of a gate key is loaded. Returns the key of its mark record.
    pub(super) fn load_mark(&mut self, request: LookUpId, at: (Partition, GateKey)) -> Option<KeyBytes> {
        self.gates.as_mut()?.load(request, at, self.identities.as_ref()?)
    }

    /// Returns the next request for what is remembered of a key that is not answered, and its answer.
    pub(super) fn next_answer(&mut self) -> Option<(LookUpId, &KeyMemory)> {
        self.gates.as_mut()?.next_answer(self.identities.as_ref()?)
    }

    pub(super) fn release(&mut self, slots: &[ArenaSlot]) {
        if let Some(identities) = &mut self.identities {
            let gates = &mut self.gates;
            slots.iter().for_each(|&slot| {
                identities.leave(slot, |key| gates.iter_mut().for_each(|gates| gates.key_ended(key)));
            });
        }
        slots.iter().for_each(|&slot| self.arena.release(slot));
    }

    // -- ownership ----------------------------------------------------------------------------------

    pub(super) fn assigned(&mut self, starts: &[StartAt]) {
        self.owned.extend(starts.iter().map(|start| start.partition));
        self.was_assigned = true;
    }

    pub(super) fn revoked(&mut self, partitions: &[Partition]) {
        self.owned.retain(|owned| !partitions.contains(owned));
    }

    pub(super) fn owned(&self) -> &[Partition] {
        &self.owned
    }

    /// Returns whether an assignment was answered and no partition is owned.
    pub(super) fn has_nothing_assigned(&self) -> bool {
        self.was_assigned && self.owned.is_empty()
    }

    // -- permissions --------------------------------------------------------------------------------

    pub(super) fn permit(&mut self, partition: Partition, max_events: u32, max_bytes: u64) {
        self.withdraw_permission(partition);
        self.permissions.push_back(Permission { partition, max_events, max_bytes });
    }

    pub(super) fn withdraw_permission(&mut self, partition: Partition) {
        self.permissions.retain(|permission| permission.partition != partition);
    }

    pub(super) fn permissions(&self) -> usize {
        self.permissions.len()
    }

    pub(super) fn next_permission(&mut self) -> Option<Permission> {
        self.permissions.pop_front()
    }

    /// Puts an unused permission behind the others.
    pub(super) fn keep_permission(&mut self, permission: Permission) {
        self.permissions.push_back(permission);
    }

    // -- records ------------------------------------------------------------------------------------

    /// Keyed state: returns those of these record keys that have no event.
    pub(super) fn without_events(&self, partition: Partition, keys: Vec<KeyBytes>) -> Vec<KeyBytes> {
        self.identities.iter().fold(keys, |keys, identities| identities.without_events(partition, keys))
    }

    /// Reads once, within the permission. The rows are borrowed until the next read.
    /// `cached_mark`: returns the value of a mark record, if it is in memory.
    pub(super) fn read(
        &mut self,
        source: &mut Source,
        permission: Permission,
        now: Duration,
        cached_mark: impl FnMut(&KeyBytes) -> Option<StateValue>,
    ) -> Read<'_> {
        self.rows.clear();
        self.gates.iter_mut().for_each(|gates| gates.begin_read());
        let Permission { partition, max_events, max_bytes } = permission;
        let read =
            source.read(partition, max_events, max_bytes, &mut |record| self.admit(partition, &record));
        if let (Some(gates), Some(identities)) = (&mut self.gates, &self.identities) {
            gates.complete(identities, cached_mark);
        }
        self.records += self.rows.len() as u64;
        if !self.rows.is_empty() {
            self.first_read.get_or_insert(now);
        }
        let orders = self.gates.as_ref().map_or(&[][..], |gates| gates.orders());
        let (end, error) = (read.end_of_partition, read.error);
        Read { rows: &self.rows, orders, end, error, more: read.more }
    }

    /// Adds the row of a record. Returns the bytes that it counts as.
    fn admit(&mut self, partition: Partition, record: &Record<'_>) -> u32 {
        let (key, value) = (record.key(), record.value());
        let (timestamp, log_append_time) = record.timestamp();
        let is_kept = self.filter.keeps(key, value, || record.headers());
        // A filtered record is not copied, unless it takes its place in an order.
        let takes_place = is_kept || self.gates.as_ref().is_some_and(|gates| gates.takes_filtered());
        let offset = record.offset();
        let mut row = FetchedRow {
            offset,
            timestamp,
            bytes: FILTERED_BYTES,
            arena_slot: NO_SLOT,
            admission: Admission::Filtered,
        };
        if takes_place {
            (row.arena_slot, row.bytes) = self.arena.store(key, value, record.headers(), log_append_time);
            let without_lane_key = self.lane_rule.without_lane_key();
            row.admission = self.lane_rule.admission(key, value, || record.headers());
            if self.lane_rule.without_lane_key() != without_lane_key && self.missing.is_none() {
                let has_registry_prefix = self.lane_rule.overlooks_registry(value);
                self.missing = Some(MissingLaneKey { partition, offset, has_registry_prefix });
            }
        }
        if self.identities.is_some() {
            self.enter(partition, &mut row, is_kept);
        }
        self.rows.push(row);
        row.bytes
    }

    /// Enters the keys of a row.
    fn enter(&mut self, partition: Partition, row: &mut FetchedRow, is_kept: bool) {
        let Reading { arena, lane_rule, identities, record_key, gates, .. } = self;
        let (Some(identities), Admission::Lane(hash)) = (identities, row.admission) else {
            if !is_kept && row.arena_slot != NO_SLOT {
                arena.release(row.arena_slot);
                (row.arena_slot, row.bytes, row.admission) = (NO_SLOT, FILTERED_BYTES, Admission::Filtered);
            }
            gates.iter_mut().for_each(|gates| gates.enter_without_lane());
            return;
        };
        record_key.clear();
        let record = arena.get(row.arena_slot);
        lane_rule.record_key(&record, record_key);
        let order = gates.as_mut().map(|gates| gates.read(&record, record_key, row.timestamp));
        if !is_kept {
            // Only its place is kept.
            arena.release(row.arena_slot);
            (row.arena_slot, row.bytes) = arena.store(None, None, std::iter::empty(), false);
        }
        let lane = identities.enter(partition, hash, record_key, row.arena_slot);
        row.admission = Admission::Lane(lane.number);
        if let (Some(gates), Some(order)) = (gates, order) {
            gates.enter((partition, row.arena_slot), order, (lane, record_key), identities, !is_kept);
        }
    }

    /// Returns the first event without a lane key since the last report. Returns `None` if such events share a lane or
    /// are rejected, because then they do not lose their order.
    pub(super) fn missing_lane_key(&mut self) -> Option<MissingLaneKey> {
        if !self.lane_rule.loses_order_silently() {
            self.missing = None;
        }
        self.missing
    }

    /// Returns the number of events without a lane key since the last report. They are reported now.
    pub(super) fn take_missing_count(&mut self) -> u64 {
        self.missing = None;
        self.lane_rule.without_lane_key()
            - std::mem::replace(&mut self.missing_reported, self.lane_rule.without_lane_key())
    }

    // -- totals -------------------------------------------------------------------------------------

    /// Returns the time since the first read of an event.
    pub(super) fn active(&self, now: Duration) -> Duration {
        self.first_read.map_or(Duration::ZERO, |first| now.saturating_sub(first))
    }

    /// Returns the number of records that were read, with those that the filter dropped.
    pub(super) fn records(&self) -> u64 {
        self.records
    }

    /// The number of events by the filter rule that matched them; empty without a filter.
    pub(super) fn filter_counts(&self) -> Vec<FilterCount> {
        self.filter.counts()
    }
}
