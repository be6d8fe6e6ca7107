//! Lanes: the serial queue of each (partition, lane key), and the order in which lanes are dispatched.
//!
//! A lane exists while it has events or a call that has not terminated: memory follows the events in flight,
//! never the number of keys. [`retry_state`] keeps the attempts of a lane, [`barriers`] limits whole partitions.

#![expect(clippy::indexing_slicing, reason = "every index comes from the same `Slab`")]

mod barriers;
mod retry_state;

use std::collections::VecDeque;
use std::time::Duration;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::slab::{NONE, Slab};
use crate::{Admission, ArenaSlot, FetchedRow};

use barriers::Barriers;
pub(crate) use retry_state::RetryState;
use retry_state::RetryStates;

/// A queued event: the data of its row in a call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueuedEvent {
    pub(crate) offset: i64,
    pub(crate) timestamp: i64,
    pub(crate) arena_slot: ArenaSlot,
    pub(crate) bytes: u32,
    /// The next event of its lane.
    next: u32,
}

/// An event that goes back to its lane.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Returned {
    pub(crate) offset: i64,
    pub(crate) timestamp: i64,
    pub(crate) arena_slot: ArenaSlot,
    pub(crate) bytes: u32,
}

#[derive(Debug)]
pub(crate) struct Lane {
    /// Index of the partition.
    pub(crate) partition: u32,
    topic: u16,
    key: LaneId,
    head: u32,
    tail: u32,
    state: LaneState,
    /// It has a [`RetryState`].
    retrying: bool,
}

/// The scheduling state of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LaneState {
    /// It was just created and has no event yet.
    New,
    /// In the ready queue of its topic.
    Ready,
    /// It has a call, of any ownership, that has not terminated or waits for acks.
    Busy,
    /// Its first event is between two attempts.
    Waiting,
    /// Its first event is beyond a barrier.
    Barred,
}

/// The ready queues of one topic: lanes with events and no call, in the order of dispatch.
#[derive(Debug, Default)]
struct ReadyLanes {
    healthy: VecDeque<u32>,
    /// Lanes with a retry state. Their events are dispatched one per call.
    retrying: VecDeque<u32>,
    /// The two queues take turns.
    retrying_was_last: bool,
}

/// The key by which a lane is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LaneId {
    /// The hash of its lane key.
    Hash(u64),
    /// It can't be found: the lane of the single unkeyed event at this offset.
    Unkeyed(i64),
    /// The offset of the single event. Its ownership ended while its call was out, and it may be read again.
    Orphaned(i64),
}

/// An entry of the lane table. It contains everything that is compared.
#[derive(Clone, Copy, Debug)]
struct LaneEntry {
    key: LaneId,
    partition: u32,
    lane: u32,
}

#[derive(Debug)]
pub(crate) struct Lanes {
    lanes: Slab<Lane>,
    events: Slab<QueuedEvent>,
    by_key: HashTable<LaneEntry>,
    /// Number of lanes in the table whose key is [`LaneId::Orphaned`].
    orphaned: usize,
    /// By topic.
    ready: Vec<ReadyLanes>,
    /// The topic whose turn is next.
    turn: usize,
    ready_count: usize,
    retry_states: RetryStates,
    barriers: Barriers,
}

impl Lanes {
    pub(crate) fn new(topics: u16) -> Self {
        Lanes {
            lanes: Slab::new(),
            events: Slab::new(),
            by_key: HashTable::new(),
            orphaned: 0,
            ready: (0..topics).map(|_| ReadyLanes::default()).collect(),
            turn: 0,
            ready_count: 0,
            retry_states: RetryStates::default(),
            barriers: Barriers::default(),
        }
    }

    /// Appends an event to its lane.
    pub(crate) fn admit(&mut self, partition: u32, topic: u16, row: &FetchedRow) {
        let lane = match row.admission {
            Admission::Lane(hash) => self.find_or_make(partition, topic, LaneId::Hash(hash)),
            Admission::NoLane | Admission::Rejected | Admission::Filtered => self
                .find_orphaned(partition, row.offset)
                .unwrap_or_else(|| make(&mut self.lanes, partition, topic, LaneId::Unkeyed(row.offset))),
        };
        let &FetchedRow { offset, timestamp, arena_slot, bytes, .. } = row;
        let event = || QueuedEvent { offset, timestamp, arena_slot, bytes, next: NONE };
        let index = self.events.acquire(event);
        self.events[index] = event();
        let queue = &mut self.lanes[lane];
        let tail = std::mem::replace(&mut queue.tail, index);
        if tail == NONE {
            queue.head = index;
            if queue.state == LaneState::New {
                self.make_ready(lane);
            }
        } else {
            self.events[tail].next = index;
        }
    }

    /// Creates a busy lane for one event that is not queued.
    pub(crate) fn occupy_unkeyed(&mut self, partition: u32, topic: u16, offset: i64) -> u32 {
        let lane = make(&mut self.lanes, partition, topic, LaneId::Unkeyed(offset));
        self.lanes[lane].state = LaneState::Busy;
        lane
    }

    /// Whether any lane is ready.
    pub(crate) fn any_ready(&self) -> bool {
        self.ready_count > 0
    }

    /// Number of lanes that a call could take now.
    pub(crate) fn ready(&self) -> usize {
        self.ready_count
    }

    /// The next topic in turn that has a ready lane.
    pub(crate) fn next_topic(&mut self) -> Option<u16> {
        for _ in 0..self.ready.len() {
            let topic = self.turn;
            self.turn = (self.turn + 1) % self.ready.len();
            if self.ready.get(topic).is_some_and(|ready| !ready.is_empty()) {
                return u16::try_from(topic).ok();
            }
        }
        None
    }

    /// Bytes of the first event of the lane that [`Lanes::take_ready`] would return.
    pub(crate) fn peek_ready(&self, topic: u16) -> Option<u32> {
        let lane = *self.ready.get(usize::from(topic))?.healthy.front()?;
        Some(self.events[self.lanes[lane].head].bytes)
    }

    /// Takes the next ready lane of this topic and marks it busy.
    pub(crate) fn take_ready(&mut self, topic: u16) -> Option<u32> {
        let lane = self.ready.get_mut(usize::from(topic))?.healthy.pop_front()?;
        self.occupy(lane);
        Some(lane)
    }

    /// Takes the next retrying lane of this topic, if it is their turn, and marks it busy. Returns the lane, the attempt
    /// of its first event, and whether that needs a fresh instance. The event is to be dispatched in a call of its own.
    pub(crate) fn take_retrying(&mut self, topic: u16) -> Option<(u32, u32, bool)> {
        let ready = self.ready.get_mut(usize::from(topic))?;
        let retrying_turn =
            !ready.retrying.is_empty() && (!ready.retrying_was_last || ready.healthy.is_empty());
        ready.retrying_was_last = retrying_turn;
        if !retrying_turn {
            return None;
        }
        let lane = ready.retrying.pop_front()?;
        self.occupy(lane);
        let first = self.events[self.lanes[lane].head].offset;
        let (attempt, fresh) = self.retry_states.dispatched(lane, first);
        Some((lane, attempt, fresh))
    }

    fn occupy(&mut self, lane: u32) {
        self.ready_count -= 1;
        let queue = &mut self.lanes[lane];
        let was_ready = queue.state == LaneState::Ready && queue.head != NONE;
        assert!(was_ready, "lane {lane} was not ready: {queue:?}");
        queue.state = LaneState::Busy;
    }

    /// Takes the first event of a lane, if its bytes fit and no barrier holds it.
    pub(crate) fn pop_if(&mut self, lane: u32, fits: impl FnOnce(u32) -> bool) -> Option<QueuedEvent> {
        let queue = &mut self.lanes[lane];
        let index = queue.head;
        if index == NONE {
            return None;
        }
        let event = self.events[index];
        if !fits(event.bytes) || self.barriers.holds(queue.partition, event.offset) {
            return None;
        }
        queue.head = event.next;
        if event.next == NONE {
            queue.tail = NONE;
        }
        self.events.free(index);
        Some(event)
    }

    /// Index of the lane's partition.
    pub(crate) fn partition_of(&self, lane: u32) -> u32 {
        self.lanes[lane].partition
    }

    /// Puts a dispatched event back to the front of its busy lane.
    pub(crate) fn put_back(&mut self, lane: u32, event: Returned) {
        let Returned { offset, timestamp, arena_slot, bytes } = event;
        let queue = &self.lanes[lane];
        assert!(queue.state == LaneState::Busy, "lane {lane} has no dispatched event: {queue:?}");
        let new = || QueuedEvent { offset, timestamp, arena_slot, bytes, next: queue.head };
        let index = self.events.acquire(new);
        self.events[index] = new();
        let queue = &mut self.lanes[lane];
        queue.head = index;
        if queue.tail == NONE {
            queue.tail = index;
        }
    }

    /// Sets the next attempt of a busy lane's first event, and the uptime before which it may not begin.
    pub(crate) fn retry(&mut self, lane: u32, attempt: u32, until: Duration) {
        self.attempt(lane, attempt);
        self.retry_states.wait(lane, until);
    }

    /// Sets the next attempt of a busy lane's first event.
    pub(crate) fn attempt(&mut self, lane: u32, attempt: u32) {
        self.lanes[lane].retrying = true;
        self.retry_states.attempt(lane, attempt);
    }

    /// Quarantines the events of a busy lane up to this offset: they were in a call that failed as a whole.
    pub(crate) fn quarantine(&mut self, lane: u32, last: i64) {
        self.lanes[lane].retrying = true;
        self.retry_states.quarantine(lane, last);
    }

    /// Records that a call of the lane ended without a fault.
    pub(crate) fn record_clean_call(&mut self, lane: u32) {
        let queue = &mut self.lanes[lane];
        if queue.retrying {
            queue.retrying = !self.retry_states.record_clean_call(lane);
        }
    }

    /// Frees a lane whose call has terminated and waits for no acks.
    pub(crate) fn release(&mut self, lane: u32) {
        let queue = &mut self.lanes[lane];
        assert!(queue.state == LaneState::Busy, "lane {lane} has no call");
        queue.state = LaneState::New;
        if queue.head == NONE {
            self.remove(lane);
        } else if queue.retrying
            && self.retry_states.get(lane).is_some_and(|retry_state| retry_state.until.is_some())
        {
            queue.state = LaneState::Waiting;
        } else {
            self.make_ready(lane);
        }
    }

    /// Makes the lanes ready whose retry delay has passed.
    pub(crate) fn wake(&mut self, now: Duration) {
        while let Some(lane) = self.retry_states.wake(now) {
            assert!(self.lanes[lane].state == LaneState::Waiting, "lane {lane} is not waiting");
            self.make_ready(lane);
        }
    }

    /// When the next retry delay ends.
    pub(crate) fn next_wake(&self) -> Option<Duration> {
        self.retry_states.next_wake()
    }

    /// Sets the last offset of the partition that may be dispatched; `None`: no barrier.
    pub(crate) fn set_barrier(&mut self, partition: u32, last: Option<i64>) {
        if !self.barriers.set(partition, last) {
            return;
        }
        let mut moved = Vec::new();
        for ready in &mut self.ready {
            for lanes in [&mut ready.healthy, &mut ready.retrying] {
                let (barriers, states, events) = (&self.barriers, &self.lanes, &self.events);
                lanes.retain(|&lane| {
                    let Lane { partition, head, .. } = states[lane];
                    let held = barriers.holds(partition, events[head].offset);
                    if held {
                        moved.push(lane);
                    }
                    !held
                });
            }
        }
        self.ready_count -= moved.len();
        moved.append(&mut self.barriers.held);
        for lane in moved {
            self.make_ready(lane);
        }
    }

    /// The retry state of the lane whose first event is this one.
    pub(crate) fn retry_state_of(&self, partition: u32, offset: i64) -> Option<&RetryState> {
        let of_event = |lane: u32| {
            let Lane { partition: own, head, .. } = self.lanes[lane];
            own == partition && head != NONE && self.events[head].offset == offset
        };
        self.retry_states.lanes().find(|&(lane, _)| of_event(lane)).map(|(_, retry_state)| retry_state)
    }

    /// Drops the queued events of all other partitions. Lanes with a call stay until it has terminated.
    pub(crate) fn retain(&mut self, kept: impl Fn(u32) -> bool, mut dropped: impl FnMut(QueuedEvent)) {
        let lanes = &self.lanes;
        for ready in &mut self.ready {
            ready.healthy.retain(|&lane| kept(lanes[lane].partition));
            ready.retrying.retain(|&lane| kept(lanes[lane].partition));
        }
        self.barriers.held.retain(|&lane| kept(lanes[lane].partition));
        self.ready_count = self.ready.iter().map(|ready| ready.healthy.len() + ready.retrying.len()).sum();
        for lane in self.lanes.indexes() {
            if !self.is_used(lane) || kept(self.lanes[lane].partition) {
                continue;
            }
            while let Some(event) = self.pop_if(lane, |_| true) {
                dropped(event);
            }
            if std::mem::take(&mut self.lanes[lane].retrying) {
                self.retry_states.remove(lane);
            }
            if self.lanes[lane].state == LaneState::Busy {
                self.make_orphaned(lane);
            } else {
                self.lanes[lane].state = LaneState::New;
                self.remove(lane);
            }
        }
    }

    /// Adds the lane of a single event to the table: if the event is read again, it waits for this call.
    fn make_orphaned(&mut self, lane: u32) {
        let Lane { key, partition, .. } = self.lanes[lane];
        if let LaneId::Unkeyed(offset) = key {
            let keyed = LaneEntry { key: LaneId::Orphaned(offset), partition, lane };
            self.lanes[lane].key = keyed.key;
            self.orphaned += 1;
            self.by_key.insert_unique(keyed.hash(), keyed, LaneEntry::hash);
        }
    }

    /// The lane of an unkeyed event whose call of an older ownership has not terminated.
    fn find_orphaned(&self, partition: u32, offset: i64) -> Option<u32> {
        if self.orphaned == 0 {
            return None;
        }
        let key = LaneId::Orphaned(offset);
        let found = self.by_key.find(key.mix(partition), |entry| entry.is(key, partition));
        found.map(|entry| entry.lane)
    }

    /// Number of lanes with a retry state.
    pub(crate) fn retrying(&self) -> usize {
        self.retry_states.lanes().count()
    }

    /// Number of lanes.
    pub(crate) fn count(&self) -> usize {
        self.lanes.in_use()
    }

    fn is_used(&self, lane: u32) -> bool {
        self.lanes[lane].head != NONE || self.lanes[lane].state == LaneState::Busy
    }

    /// Queues a lane that has events, no call and no retry delay, unless a barrier holds it.
    fn make_ready(&mut self, lane: u32) {
        let queue = &mut self.lanes[lane];
        if self.barriers.holds(queue.partition, self.events[queue.head].offset) {
            queue.state = LaneState::Barred;
            self.barriers.held.push(lane);
            return;
        }
        queue.state = LaneState::Ready;
        let ready =
            self.ready.get_mut(usize::from(queue.topic)).expect("topics are below the configured number");
        if queue.retrying {
            ready.retrying.push_back(lane);
        } else {
            ready.healthy.push_back(lane);
        }
        self.ready_count += 1;
    }

    fn find_or_make(&mut self, partition: u32, topic: u16, key: LaneId) -> u32 {
        match self.by_key.entry(key.mix(partition), |entry| entry.is(key, partition), LaneEntry::hash) {
            Entry::Occupied(entry) => entry.get().lane,
            Entry::Vacant(vacant) => {
                let lane = make(&mut self.lanes, partition, topic, key);
                vacant.insert(LaneEntry { key, partition, lane });
                lane
            }
        }
    }

    fn remove(&mut self, lane: u32) {
        let queue = &self.lanes[lane];
        let unused = queue.state == LaneState::New && queue.head == NONE;
        assert!(unused, "lane {lane} is in use: {queue:?}");
        if queue.retrying {
            self.retry_states.remove(lane);
        }
        let key = queue.key;
        if !matches!(key, LaneId::Unkeyed(_)) {
            let entry = self.by_key.find_entry(key.mix(queue.partition), |entry| entry.lane == lane);
            entry.expect("a lane with a key is in the table until it is removed").remove();
        }
        self.orphaned -= usize::from(matches!(key, LaneId::Orphaned(_)));
        self.lanes[lane].partition = NONE;
        self.lanes.free(lane);
    }
}

/// Creates a lane. It is built in its slot, because copying it there is visible in profiles.
fn make(lanes: &mut Slab<Lane>, partition: u32, topic: u16, key: LaneId) -> u32 {
    let new =
        || Lane { partition, topic, key, head: NONE, tail: NONE, state: LaneState::New, retrying: false };
    let index = lanes.acquire(new);
    lanes[index] = new();
    index
}

impl ReadyLanes {
    fn is_empty(&self) -> bool {
        self.healthy.is_empty() && self.retrying.is_empty()
    }
}

impl LaneEntry {
    fn is(&self, key: LaneId, partition: u32) -> bool {
        self.key == key && self.partition == partition
    }

    fn hash(&self) -> u64 {
        self.key.mix(self.partition)
    }
}

impl LaneId {
    /// The key is already a seeded hash; the partition is mixed in to spread partitions over the table.
    fn mix(self, partition: u32) -> u64 {
        let key = match self {
            LaneId::Hash(hash) => hash,
            LaneId::Unkeyed(offset) | LaneId::Orphaned(offset) => {
                offset.cast_unsigned().wrapping_mul(0xd6e8_feb8_6659_fd93)
            }
        };
        key ^ u64::from(partition).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}
