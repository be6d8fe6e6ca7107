//! Lanes: the serial queues of one (partition, lane key) each, and whose turn it is.
//!
//! A lane exists while it has events or a call that has not really ended: memory follows the events in flight,
//! never the number of keys. [`retry_state`] keeps what is known against a lane, [`barriers`] what stops a whole partition.

#![expect(clippy::indexing_slicing, reason = "`Slab` says in one place why its indexes are good")]

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

/// A queued event: what its row in a call will need.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueuedEvent {
    pub(crate) offset: i64,
    pub(crate) timestamp: i64,
    pub(crate) arena_slot: ArenaSlot,
    pub(crate) bytes: u32,
    /// The event after it in its lane.
    behind: u32,
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
    /// There is something against it.
    retrying: bool,
}

/// Where a lane is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LaneState {
    /// It was just made and has no event yet.
    New,
    /// In its topic's line.
    Ready,
    /// With a call, of whatever ownership, that has not really ended or waits for acks.
    Busy,
    /// Its first event is between two attempts.
    Waiting,
    /// Its first event lies beyond a barrier.
    Barred,
}

/// Lanes of one topic that have events and no call, in turn.
#[derive(Debug, Default)]
struct ReadyLanes {
    healthy: VecDeque<u32>,
    /// Those that get calls of their own.
    retrying: VecDeque<u32>,
    /// Both have their turn, one after the other.
    retrying_was_last: bool,
}

/// What finds a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LaneId {
    /// The hash of its lane key.
    Hash(u64),
    /// Nothing: the lane of the single event at this offset.
    Unkeyed(i64),
    /// Its offset: the single event's ownership ended while its call was out, and the event may come again.
    Orphaned(i64),
}

/// A lane that is found by its key. All that is compared lies in the table itself.
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
    /// Lanes in the table whose key is [`LaneId::Orphaned`].
    orphaned: usize,
    /// By topic.
    lines: Vec<ReadyLanes>,
    /// The topic whose turn is next.
    turn: usize,
    ready_lanes: usize,
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
            lines: (0..topics).map(|_| ReadyLanes::default()).collect(),
            turn: 0,
            ready_lanes: 0,
            retry_states: RetryStates::default(),
            barriers: Barriers::default(),
        }
    }

    /// Puts an event at the end of its lane.
    pub(crate) fn admit(&mut self, partition: u32, topic: u16, row: &FetchedRow) {
        let lane = match row.admission {
            Admission::Lane(hash) => self.find_or_make(partition, topic, LaneId::Hash(hash)),
            Admission::NoLane | Admission::Rejected | Admission::Filtered => self
                .find_orphaned(partition, row.offset)
                .unwrap_or_else(|| make(&mut self.lanes, partition, topic, LaneId::Unkeyed(row.offset))),
        };
        let &FetchedRow { offset, timestamp, arena_slot, bytes, .. } = row;
        let event = || QueuedEvent { offset, timestamp, arena_slot, bytes, behind: NONE };
        let index = self.events.claim(event);
        self.events[index] = event();
        let queue = &mut self.lanes[lane];
        let tail = std::mem::replace(&mut queue.tail, index);
        if tail == NONE {
            queue.head = index;
            if queue.state == LaneState::New {
                self.make_ready(lane);
            }
        } else {
            self.events[tail].behind = index;
        }
    }

    /// A busy lane for one event that is not queued.
    pub(crate) fn occupy_unkeyed(&mut self, partition: u32, topic: u16, offset: i64) -> u32 {
        let lane = make(&mut self.lanes, partition, topic, LaneId::Unkeyed(offset));
        self.lanes[lane].state = LaneState::Busy;
        lane
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
        for _ in 0..self.lines.len() {
            let topic = self.turn;
            self.turn = (self.turn + 1) % self.lines.len();
            if self.lines.get(topic).is_some_and(|line| !line.is_empty()) {
                return u16::try_from(topic).ok();
            }
        }
        None
    }

    /// Bytes of the event that the next [`Lanes::take_ready`] of this topic begins with.
    pub(crate) fn peek_ready(&self, topic: u16) -> Option<u32> {
        let lane = *self.lines.get(usize::from(topic))?.healthy.front()?;
        Some(self.events[self.lanes[lane].head].bytes)
    }

    /// Takes the lane whose turn it is in this topic; it is busy from here on.
    pub(crate) fn take_ready(&mut self, topic: u16) -> Option<u32> {
        let lane = self.lines.get_mut(usize::from(topic))?.healthy.pop_front()?;
        self.occupy(lane);
        Some(lane)
    }

    /// Takes a retrying lane if it is their turn in this topic; it is busy from here on. Its first event is to be
    /// dispatched alone: in this attempt, on a fresh instance or not.
    pub(crate) fn take_retrying(&mut self, topic: u16) -> Option<(u32, u32, bool)> {
        let line = self.lines.get_mut(usize::from(topic))?;
        let theirs = !line.retrying.is_empty() && (!line.retrying_was_last || line.healthy.is_empty());
        line.retrying_was_last = theirs;
        if !theirs {
            return None;
        }
        let lane = line.retrying.pop_front()?;
        self.occupy(lane);
        let first = self.events[self.lanes[lane].head].offset;
        let (attempt, fresh) = self.retry_states.dispatched(lane, first);
        Some((lane, attempt, fresh))
    }

    fn occupy(&mut self, lane: u32) {
        self.ready_lanes -= 1;
        let queue = &mut self.lanes[lane];
        let in_line = queue.state == LaneState::Ready && queue.head != NONE;
        assert!(in_line, "lane {lane} was not ready: {queue:?}");
        queue.state = LaneState::Busy;
    }

    /// Takes the first event of a lane, if its bytes fit.
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
        queue.head = event.behind;
        if event.behind == NONE {
            queue.tail = NONE;
        }
        self.events.free(index);
        Some(event)
    }

    /// Index of the lane's partition.
    pub(crate) fn partition_of(&self, lane: u32) -> u32 {
        self.lanes[lane].partition
    }

    /// Puts an event that was dispatched back before all others of its busy lane.
    pub(crate) fn put_back(&mut self, lane: u32, event: Returned) {
        let Returned { offset, timestamp, arena_slot, bytes } = event;
        let queue = &self.lanes[lane];
        assert!(queue.state == LaneState::Busy, "lane {lane} gave no event away: {queue:?}");
        let new = || QueuedEvent { offset, timestamp, arena_slot, bytes, behind: queue.head };
        let index = self.events.claim(new);
        self.events[index] = new();
        let queue = &mut self.lanes[lane];
        queue.head = index;
        if queue.tail == NONE {
            queue.tail = index;
        }
    }

    /// The first event of a busy lane is in this attempt, which may not begin before that uptime.
    pub(crate) fn retry(&mut self, lane: u32, attempt: u32, until: Duration) {
        self.attempt(lane, attempt);
        self.retry_states.wait(lane, until);
    }

    /// The first event of a busy lane is in this attempt.
    pub(crate) fn attempt(&mut self, lane: u32, attempt: u32) {
        self.lanes[lane].retrying = true;
        self.retry_states.attempt(lane, attempt);
    }

    /// The events of a busy lane up to this offset were in a call that failed as a whole.
    pub(crate) fn quarantine(&mut self, lane: u32, last: i64) {
        self.lanes[lane].retrying = true;
        self.retry_states.quarantine(lane, last);
    }

    /// A call of the lane ended without a fault.
    pub(crate) fn clean(&mut self, lane: u32) {
        let queue = &mut self.lanes[lane];
        if queue.retrying {
            queue.retrying = !self.retry_states.clean(lane);
        }
    }

    /// The lane's call has really ended and nothing of it waits for acks.
    pub(crate) fn release(&mut self, lane: u32) {
        let queue = &mut self.lanes[lane];
        assert!(queue.state == LaneState::Busy, "lane {lane} has no call");
        queue.state = LaneState::New;
        if queue.head == NONE {
            self.forget(lane);
        } else if queue.retrying
            && self.retry_states.get(lane).is_some_and(|retry_state| retry_state.until.is_some())
        {
            queue.state = LaneState::Waiting;
        } else {
            self.make_ready(lane);
        }
    }

    /// Lanes whose wait is over stand in line again.
    pub(crate) fn wake(&mut self, now: Duration) {
        while let Some(lane) = self.retry_states.wake(now) {
            assert!(self.lanes[lane].state == LaneState::Waiting, "lane {lane} does not wait");
            self.make_ready(lane);
        }
    }

    /// When the next lane's wait is over.
    pub(crate) fn next_wake(&self) -> Option<Duration> {
        self.retry_states.next_wake()
    }

    /// Nothing of the partition beyond `last` is dispatched; `None`: no limit.
    pub(crate) fn barrier(&mut self, partition: u32, last: Option<i64>) {
        if !self.barriers.set(partition, last) {
            return;
        }
        let mut to_place = Vec::new();
        for line in &mut self.lines {
            for lanes in [&mut line.healthy, &mut line.retrying] {
                let (barriers, states, events) = (&self.barriers, &self.lanes, &self.events);
                lanes.retain(|&lane| {
                    let Lane { partition, head, .. } = states[lane];
                    let held = barriers.holds(partition, events[head].offset);
                    if held {
                        to_place.push(lane);
                    }
                    !held
                });
            }
        }
        self.ready_lanes -= to_place.len();
        to_place.append(&mut self.barriers.held);
        for lane in to_place {
            self.make_ready(lane);
        }
    }

    /// What is known against the lane whose first event is this one.
    pub(crate) fn retry_state_of(&self, partition: u32, offset: i64) -> Option<&RetryState> {
        let of_event = |lane: u32| {
            let Lane { partition: own, head, .. } = self.lanes[lane];
            own == partition && head != NONE && self.events[head].offset == offset
        };
        self.retry_states.lanes().find(|&(lane, _)| of_event(lane)).map(|(_, retry_state)| retry_state)
    }

    /// Drops the queued events of all partitions but these; lanes with a call stay until it has really ended.
    pub(crate) fn keep(&mut self, kept: impl Fn(u32) -> bool, mut dropped: impl FnMut(QueuedEvent)) {
        let lanes = &self.lanes;
        for line in &mut self.lines {
            line.healthy.retain(|&lane| kept(lanes[lane].partition));
            line.retrying.retain(|&lane| kept(lanes[lane].partition));
        }
        self.barriers.held.retain(|&lane| kept(lanes[lane].partition));
        self.ready_lanes = self.lines.iter().map(|line| line.healthy.len() + line.retrying.len()).sum();
        for lane in self.lanes.indexes() {
            if !self.is_used(lane) || kept(self.lanes[lane].partition) {
                continue;
            }
            while let Some(event) = self.pop_if(lane, |_| true) {
                dropped(event);
            }
            if std::mem::take(&mut self.lanes[lane].retrying) {
                self.retry_states.forget(lane);
            }
            if self.lanes[lane].state == LaneState::Busy {
                self.keep_unkeyed(lane);
            } else {
                self.lanes[lane].state = LaneState::New;
                self.forget(lane);
            }
        }
    }

    /// The lane of a single event can be found from here on: if the event comes again, it waits for this call.
    fn keep_unkeyed(&mut self, lane: u32) {
        let Lane { key, partition, .. } = self.lanes[lane];
        if let LaneId::Unkeyed(offset) = key {
            let keyed = LaneEntry { key: LaneId::Orphaned(offset), partition, lane };
            self.lanes[lane].key = keyed.key;
            self.orphaned += 1;
            self.by_key.insert_unique(keyed.hash(), keyed, LaneEntry::hash);
        }
    }

    /// The lane of an event without a key whose call of an older ownership has not really ended.
    fn find_orphaned(&self, partition: u32, offset: i64) -> Option<u32> {
        if self.orphaned == 0 {
            return None;
        }
        let key = LaneId::Orphaned(offset);
        let found = self.by_key.find(key.mix(partition), |known| known.is(key, partition));
        found.map(|known| known.lane)
    }

    /// Lanes that exist now.
    pub(crate) fn count(&self) -> usize {
        self.lanes.in_use()
    }

    fn is_used(&self, lane: u32) -> bool {
        self.lanes[lane].head != NONE || self.lanes[lane].state == LaneState::Busy
    }

    /// A lane that has events, no call, and nothing to wait for: it stands in line, unless a barrier holds it.
    fn make_ready(&mut self, lane: u32) {
        let queue = &mut self.lanes[lane];
        if self.barriers.holds(queue.partition, self.events[queue.head].offset) {
            queue.state = LaneState::Barred;
            self.barriers.held.push(lane);
            return;
        }
        queue.state = LaneState::Ready;
        let line = self.lines.get_mut(usize::from(queue.topic)).expect("topics were counted at the start");
        if queue.retrying {
            line.retrying.push_back(lane);
        } else {
            line.healthy.push_back(lane);
        }
        self.ready_lanes += 1;
    }

    fn find_or_make(&mut self, partition: u32, topic: u16, key: LaneId) -> u32 {
        match self.by_key.entry(key.mix(partition), |known| known.is(key, partition), LaneEntry::hash) {
            Entry::Occupied(known) => known.get().lane,
            Entry::Vacant(vacant) => {
                let lane = make(&mut self.lanes, partition, topic, key);
                vacant.insert(LaneEntry { key, partition, lane });
                lane
            }
        }
    }

    fn forget(&mut self, lane: u32) {
        let queue = &self.lanes[lane];
        let unused = queue.state == LaneState::New && queue.head == NONE;
        assert!(unused, "lane {lane} is in use: {queue:?}");
        if queue.retrying {
            self.retry_states.forget(lane);
        }
        let key = queue.key;
        if !matches!(key, LaneId::Unkeyed(_)) {
            let entry = self.by_key.find_entry(key.mix(queue.partition), |known| known.lane == lane);
            entry.expect("a lane with a key is in the table until it is forgotten").remove();
        }
        self.orphaned -= usize::from(matches!(key, LaneId::Orphaned(_)));
        self.lanes[lane].partition = NONE;
        self.lanes.free(lane);
    }
}

/// A new lane. It is built in its place: a copy of it from elsewhere is what shows in profiles.
fn make(lanes: &mut Slab<Lane>, partition: u32, topic: u16, key: LaneId) -> u32 {
    let new =
        || Lane { partition, topic, key, head: NONE, tail: NONE, state: LaneState::New, retrying: false };
    let index = lanes.claim(new);
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
    /// The key is a seeded hash already; partitions are spread over the table.
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
