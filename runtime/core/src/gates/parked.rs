//! Parked events: those that wait for others of their gate key, or for stream time. By value within their key, and by
//! arrival. The events themselves stay in the event store.

use std::collections::BTreeMap;

/// A parked event: its index in the event store.
pub(crate) type Node = u32;

#[derive(Debug, Default)]
pub(crate) struct Parked {
    /// Key, order value and offset of each event.
    by_value: BTreeMap<(u32, i64, i64), Node>,
    /// Key and offset of the events that were not released.
    by_arrival: BTreeMap<(u32, i64), Node>,
    /// Keys whose oldest event waits for stream time: partition and offset of that event.
    waiting: BTreeMap<(u32, i64), u32>,
    /// Lanes and keys that may have a parked event that may run.
    maybe_due: std::collections::BTreeSet<(u32, u32)>,
}

impl Parked {
    pub(crate) fn insert(&mut self, key: u32, (value, offset): (i64, i64), node: Node, waits: bool) {
        self.by_value.insert((key, value, offset), node);
        if waits {
            self.by_arrival.insert((key, offset), node);
        }
    }

    pub(crate) fn remove(&mut self, key: u32, (value, offset): (i64, i64)) {
        self.by_value.remove(&(key, value, offset));
        self.by_arrival.remove(&(key, offset));
    }

    /// Returns the event of a key with the lowest value, and that value.
    pub(crate) fn lowest(&self, key: u32) -> Option<(i64, Node)> {
        let mut of_key = self.by_value.range((key, i64::MIN, i64::MIN)..=(key, i64::MAX, i64::MAX));
        of_key.next().map(|(&(_, value, _), &node)| (value, node))
    }

    /// Returns the event of a key with the greatest value, the first of them by arrival, and that value.
    pub(crate) fn greatest(&self, key: u32) -> Option<(i64, Node)> {
        let mut of_key = self.by_value.range((key, i64::MIN, i64::MIN)..=(key, i64::MAX, i64::MAX));
        let &(_, value, _) = of_key.next_back()?.0;
        let mut equal = self.by_value.range((key, value, i64::MIN)..=(key, value, i64::MAX));
        equal.next().map(|(_, &node)| (value, node))
    }

    /// Returns the events of a key, by value.
    pub(crate) fn of_key(&self, key: u32) -> impl DoubleEndedIterator<Item = (i64, Node)> + '_ {
        let of_key = self.by_value.range((key, i64::MIN, i64::MIN)..=(key, i64::MAX, i64::MAX));
        of_key.map(|(&(_, value, _), &node)| (value, node))
    }

    /// Returns all events, with their keys.
    pub(crate) fn all(&self) -> impl Iterator<Item = (u32, i64, Node)> + '_ {
        self.by_value.iter().map(|(&(key, _, offset), &node)| (key, offset, node))
    }

    /// Returns the event of a key that has waited longest, and its offset, without released events.
    pub(crate) fn oldest(&self, key: u32) -> Option<(i64, Node)> {
        let mut of_key = self.by_arrival.range((key, i64::MIN)..=(key, i64::MAX));
        of_key.next().map(|(&(_, offset), &node)| (offset, node))
    }

    /// Notes that an event does not wait for stream time any more.
    pub(crate) fn released(&mut self, key: u32, offset: i64) -> bool {
        self.by_arrival.remove(&(key, offset)).is_some()
    }

    // -- keys that wait for stream time -------------------------------------------------------------

    /// Replaces the offset under which a key waits.
    pub(crate) fn wait(&mut self, partition: u32, key: u32, before: Option<i64>, now: Option<i64>) {
        if before == now {
            return;
        }
        before.and_then(|offset| self.waiting.remove(&(partition, offset)));
        now.and_then(|offset| self.waiting.insert((partition, offset), key));
    }

    /// Returns the key of a partition that has waited longest.
    pub(crate) fn first_waiting(&self, partition: u32) -> Option<u32> {
        let mut of_partition = self.waiting.range((partition, i64::MIN)..=(partition, i64::MAX));
        of_partition.next().map(|(_, &key)| key)
    }

    /// Returns the keys of a partition that wait.
    pub(crate) fn waiting(&self, partition: u32) -> impl Iterator<Item = u32> + '_ {
        let of_partition = self.waiting.range((partition, i64::MIN)..=(partition, i64::MAX));
        of_partition.map(|(_, &key)| key)
    }

    pub(crate) fn any_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    // -- keys with events that may run --------------------------------------------------------------

    pub(crate) fn may_be_due(&mut self, lane: u32, key: u32) {
        self.maybe_due.insert((lane, key));
    }

    pub(crate) fn not_due(&mut self, lane: u32, key: u32) {
        self.maybe_due.remove(&(lane, key));
    }

    /// Returns the next key of a lane after this one that may have an event that may run.
    pub(crate) fn next_maybe_due(&self, lane: u32, after: Option<u32>) -> Option<u32> {
        let from = after.map_or(0, |key| key.saturating_add(1));
        self.maybe_due.range((lane, from)..=(lane, u32::MAX)).next().map(|&(_, key)| key)
    }
}
