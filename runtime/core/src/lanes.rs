//! Lanes: the serial queues of one (partition, lane key) each, and whose turn it is.
//!
//! A lane exists while it has events or a call that has not really ended: memory follows the events in flight,
//! never the number of keys.

#![expect(clippy::indexing_slicing, reason = "`Slab` says in one place why its indexes are good")]

use std::collections::VecDeque;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::slab::{NONE, Slab};
use crate::{Admission, FetchedRow, Place};

/// A queued event: what its row in a call will need.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    pub(crate) offset: i64,
    pub(crate) timestamp: i64,
    pub(crate) place: Place,
    pub(crate) bytes: u32,
    /// The event after it in its lane.
    behind: u32,
}

#[derive(Debug)]
pub(crate) struct Lane {
    /// Index of the partition.
    pub(crate) partition: u32,
    topic: u16,
    key: Key,
    head: u32,
    tail: u32,
    /// Whether it stands in its topic's line.
    ready: bool,
    /// A call of it, of whatever session, that has not really ended or waits for acks.
    pub(crate) busy: bool,
}

/// What finds a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    /// The hash of its lane key.
    Hash(u64),
    /// Nothing: the lane of the single event at this offset.
    Alone(i64),
    /// Its offset: the single event's session ended while its call was out, and the event may come again.
    Stray(i64),
}

/// A lane that is found by its key. All that is compared lies in the table itself.
#[derive(Clone, Copy, Debug)]
struct Keyed {
    key: Key,
    partition: u32,
    lane: u32,
}

#[derive(Debug)]
pub(crate) struct Lanes {
    lanes: Slab<Lane>,
    events: Slab<Event>,
    by_key: HashTable<Keyed>,
    /// Lanes in the table whose key is [`Key::Stray`].
    strays: usize,
    /// Per topic: lanes that have events and no call, in turn.
    ready: Vec<VecDeque<u32>>,
    /// The topic whose turn is next.
    turn: usize,
    ready_lanes: usize,
}

impl Lanes {
    pub(crate) fn new(topics: u16) -> Self {
        Lanes {
            lanes: Slab::new(),
            events: Slab::new(),
            by_key: HashTable::new(),
            strays: 0,
            ready: (0..topics).map(|_| VecDeque::new()).collect(),
            turn: 0,
            ready_lanes: 0,
        }
    }

    /// Puts an event at the end of its lane.
    pub(crate) fn admit(&mut self, partition: u32, topic: u16, row: &FetchedRow) {
        let lane = match row.admission {
            Admission::Lane(hash) => self.find_or_make(partition, topic, Key::Hash(hash)),
            Admission::NoLane => self
                .find_stray(partition, row.offset)
                .unwrap_or_else(|| make(&mut self.lanes, partition, topic, Key::Alone(row.offset))),
        };
        let &FetchedRow { offset, timestamp, place, bytes, .. } = row;
        let event = || Event { offset, timestamp, place, bytes, behind: NONE };
        let index = self.events.claim(event);
        self.events[index] = event();
        let state = &mut self.lanes[lane];
        let tail = std::mem::replace(&mut state.tail, index);
        if tail == NONE {
            state.head = index;
            if !state.busy {
                self.make_ready(lane);
            }
        } else {
            self.events[tail].behind = index;
        }
    }

    /// Any lane whose turn it could be?
    pub(crate) fn any_ready(&self) -> bool {
        self.ready_lanes > 0
    }

    /// Lanes that a call could take now.
    pub(crate) fn ready(&self) -> usize {
        self.ready_lanes
    }

    /// The topic whose turn it is, among those with a ready lane.
    pub(crate) fn next_topic(&mut self) -> Option<u16> {
        for _ in 0..self.ready.len() {
            let topic = self.turn;
            self.turn = (self.turn + 1) % self.ready.len();
            if self.ready.get(topic).is_some_and(|line| !line.is_empty()) {
                return u16::try_from(topic).ok();
            }
        }
        None
    }

    /// Bytes of the event that the next [`Lanes::take_ready`] of this topic begins with.
    pub(crate) fn peek_ready(&self, topic: u16) -> Option<u32> {
        let lane = *self.ready.get(usize::from(topic))?.front()?;
        Some(self.events[self.lanes[lane].head].bytes)
    }

    /// Takes the lane whose turn it is in this topic; it is busy from here on.
    pub(crate) fn take_ready(&mut self, topic: u16) -> Option<u32> {
        let lane = self.ready.get_mut(usize::from(topic))?.pop_front()?;
        self.ready_lanes -= 1;
        let state = &mut self.lanes[lane];
        assert!(state.ready && !state.busy && state.head != NONE, "lane {lane} was not ready: {state:?}");
        state.ready = false;
        state.busy = true;
        Some(lane)
    }

    /// Takes the first event of a lane, if its bytes fit.
    pub(crate) fn pop_if(&mut self, lane: u32, fits: impl FnOnce(u32) -> bool) -> Option<Event> {
        let state = &mut self.lanes[lane];
        let index = state.head;
        if index == NONE {
            return None;
        }
        let event = self.events[index];
        if !fits(event.bytes) {
            return None;
        }
        state.head = event.behind;
        if event.behind == NONE {
            state.tail = NONE;
        }
        self.events.free(index);
        Some(event)
    }

    /// Index of the lane's partition.
    pub(crate) fn partition_of(&self, lane: u32) -> u32 {
        self.lanes[lane].partition
    }

    /// The lane's call has really ended and nothing of it waits for acks.
    pub(crate) fn release(&mut self, lane: u32) {
        let state = &mut self.lanes[lane];
        assert!(state.busy, "lane {lane} has no call");
        state.busy = false;
        if state.head == NONE {
            self.forget(lane);
        } else {
            self.make_ready(lane);
        }
    }

    /// Drops the queued events of all partitions but these; lanes with a call stay until it has really ended.
    pub(crate) fn keep(&mut self, kept: impl Fn(u32) -> bool, mut dropped: impl FnMut(Event)) {
        for line in &mut self.ready {
            let lanes = &self.lanes;
            line.retain(|&lane| kept(lanes[lane].partition));
        }
        self.ready_lanes = self.ready.iter().map(VecDeque::len).sum();
        for lane in self.lanes.indexes() {
            if !self.is_used(lane) || kept(self.lanes[lane].partition) {
                continue;
            }
            self.lanes[lane].ready = false;
            while let Some(event) = self.pop_if(lane, |_| true) {
                dropped(event);
            }
            if self.lanes[lane].busy {
                self.remember_alone(lane);
            } else {
                self.forget(lane);
            }
        }
    }

    /// The lane of a single event can be found from here on: if the event comes again, it waits for this call.
    fn remember_alone(&mut self, lane: u32) {
        let Lane { key, partition, .. } = self.lanes[lane];
        if let Key::Alone(offset) = key {
            let keyed = Keyed { key: Key::Stray(offset), partition, lane };
            self.lanes[lane].key = keyed.key;
            self.strays += 1;
            self.by_key.insert_unique(keyed.hash(), keyed, Keyed::hash);
        }
    }

    /// The lane of an event without a key whose call of an older session has not really ended.
    fn find_stray(&self, partition: u32, offset: i64) -> Option<u32> {
        if self.strays == 0 {
            return None;
        }
        let key = Key::Stray(offset);
        let found = self.by_key.find(key.mix(partition), |known| known.is(key, partition));
        found.map(|known| known.lane)
    }

    /// Lanes that exist now.
    pub(crate) fn count(&self) -> usize {
        self.lanes.in_use()
    }

    fn is_used(&self, lane: u32) -> bool {
        self.lanes[lane].head != NONE || self.lanes[lane].busy
    }

    /// A lane that has events and no call: it stands in line.
    fn make_ready(&mut self, lane: u32) {
        let state = &mut self.lanes[lane];
        state.ready = true;
        let line = self.ready.get_mut(usize::from(state.topic)).expect("topics were counted at the start");
        line.push_back(lane);
        self.ready_lanes += 1;
    }

    fn find_or_make(&mut self, partition: u32, topic: u16, key: Key) -> u32 {
        match self.by_key.entry(key.mix(partition), |known| known.is(key, partition), Keyed::hash) {
            Entry::Occupied(known) => known.get().lane,
            Entry::Vacant(place) => {
                let lane = make(&mut self.lanes, partition, topic, key);
                place.insert(Keyed { key, partition, lane });
                lane
            }
        }
    }

    fn forget(&mut self, lane: u32) {
        let state = &self.lanes[lane];
        assert!(!state.ready && !state.busy && state.head == NONE, "lane {lane} is in use: {state:?}");
        let key = state.key;
        if !matches!(key, Key::Alone(_)) {
            let entry = self.by_key.find_entry(key.mix(state.partition), |known| known.lane == lane);
            entry.expect("a lane with a key is in the table until it is forgotten").remove();
        }
        self.strays -= usize::from(matches!(key, Key::Stray(_)));
        self.lanes[lane].partition = NONE;
        self.lanes.free(lane);
    }
}

/// A new lane. It is built in its place: a copy of it from elsewhere is what shows in profiles.
fn make(lanes: &mut Slab<Lane>, partition: u32, topic: u16, key: Key) -> u32 {
    let new = || Lane { partition, topic, key, head: NONE, tail: NONE, ready: false, busy: false };
    let index = lanes.claim(new);
    lanes[index] = new();
    index
}

impl Keyed {
    fn is(&self, key: Key, partition: u32) -> bool {
        self.key == key && self.partition == partition
    }

    fn hash(&self) -> u64 {
        self.key.mix(self.partition)
    }
}

impl Key {
    /// The key is a seeded hash already; partitions are spread over the table.
    fn mix(self, partition: u32) -> u64 {
        let key = match self {
            Key::Hash(hash) => hash,
            Key::Alone(offset) | Key::Stray(offset) => {
                offset.cast_unsigned().wrapping_mul(0xd6e8_feb8_6659_fd93)
            }
        };
        key ^ u64::from(partition).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}
