//! Lanes: the serial queues of one (partition, lane key) each, and whose turn it is.
//!
//! A lane exists while it has events or a call that has not really ended: memory follows the events in flight,
//! never the number of keys. [`trouble`] keeps what is known against a lane, [`gates`] what stops a whole partition.

#![expect(clippy::indexing_slicing, reason = "`Slab` says in one place why its indexes are good")]

mod gates;
mod trouble;

use std::collections::VecDeque;
use std::time::Duration;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::slab::{NONE, Slab};
use crate::{Admission, FetchedRow, Place};

use gates::Gates;
pub(crate) use trouble::Trouble;
use trouble::Troubles;

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

/// An event that goes back to its lane.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Returned {
    pub(crate) offset: i64,
    pub(crate) timestamp: i64,
    pub(crate) place: Place,
    pub(crate) bytes: u32,
}

#[derive(Debug)]
pub(crate) struct Lane {
    /// Index of the partition.
    pub(crate) partition: u32,
    topic: u16,
    key: Key,
    head: u32,
    tail: u32,
    stands: Stands,
    /// There is something against it.
    troubled: bool,
}

/// Where a lane is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stands {
    /// It was just made and has no event yet.
    Nowhere,
    /// In its topic's line.
    InLine,
    /// With a call, of whatever session, that has not really ended or waits for acks.
    Busy,
    /// Its first event is between two attempts.
    Waiting,
    /// Its first event lies beyond a gate.
    Held,
}

/// Lanes of one topic that have events and no call, in turn.
#[derive(Debug, Default)]
struct Line {
    sound: VecDeque<u32>,
    /// Those that get calls of their own.
    troubled: VecDeque<u32>,
    /// Both have their turn, one after the other.
    troubled_was_last: bool,
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
    /// By topic.
    lines: Vec<Line>,
    /// The topic whose turn is next.
    turn: usize,
    ready_lanes: usize,
    troubles: Troubles,
    gates: Gates,
}

impl Lanes {
    pub(crate) fn new(topics: u16) -> Self {
        Lanes {
            lanes: Slab::new(),
            events: Slab::new(),
            by_key: HashTable::new(),
            strays: 0,
            lines: (0..topics).map(|_| Line::default()).collect(),
            turn: 0,
            ready_lanes: 0,
            troubles: Troubles::default(),
            gates: Gates::default(),
        }
    }

    /// Puts an event at the end of its lane.
    pub(crate) fn admit(&mut self, partition: u32, topic: u16, row: &FetchedRow) {
        let lane = match row.admission {
            Admission::Lane(hash) => self.find_or_make(partition, topic, Key::Hash(hash)),
            Admission::NoLane | Admission::Rejected | Admission::Filtered => self
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
            if state.stands == Stands::Nowhere {
                self.make_ready(lane);
            }
        } else {
            self.events[tail].behind = index;
        }
    }

    /// A busy lane for one event that is not queued.
    pub(crate) fn occupy_alone(&mut self, partition: u32, topic: u16, offset: i64) -> u32 {
        let lane = make(&mut self.lanes, partition, topic, Key::Alone(offset));
        self.lanes[lane].stands = Stands::Busy;
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
        let lane = *self.lines.get(usize::from(topic))?.sound.front()?;
        Some(self.events[self.lanes[lane].head].bytes)
    }

    /// Takes the lane whose turn it is in this topic; it is busy from here on.
    pub(crate) fn take_ready(&mut self, topic: u16) -> Option<u32> {
        let lane = self.lines.get_mut(usize::from(topic))?.sound.pop_front()?;
        self.occupy(lane);
        Some(lane)
    }

    /// Takes a troubled lane if it is their turn in this topic; it is busy from here on. Its first event is to be
    /// dispatched alone: in this attempt, on a fresh instance or not.
    pub(crate) fn take_troubled(&mut self, topic: u16) -> Option<(u32, u32, bool)> {
        let line = self.lines.get_mut(usize::from(topic))?;
        let theirs = !line.troubled.is_empty() && (!line.troubled_was_last || line.sound.is_empty());
        line.troubled_was_last = theirs;
        if !theirs {
            return None;
        }
        let lane = line.troubled.pop_front()?;
        self.occupy(lane);
        let first = self.events[self.lanes[lane].head].offset;
        let (attempt, fresh) = self.troubles.dispatched(lane, first);
        Some((lane, attempt, fresh))
    }

    fn occupy(&mut self, lane: u32) {
        self.ready_lanes -= 1;
        let state = &mut self.lanes[lane];
        let in_line = state.stands == Stands::InLine && state.head != NONE;
        assert!(in_line, "lane {lane} was not ready: {state:?}");
        state.stands = Stands::Busy;
    }

    /// Takes the first event of a lane, if its bytes fit.
    pub(crate) fn pop_if(&mut self, lane: u32, fits: impl FnOnce(u32) -> bool) -> Option<Event> {
        let state = &mut self.lanes[lane];
        let index = state.head;
        if index == NONE {
            return None;
        }
        let event = self.events[index];
        if !fits(event.bytes) || self.gates.holds(state.partition, event.offset) {
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

    /// Puts an event that was dispatched back before all others of its busy lane.
    pub(crate) fn put_back(&mut self, lane: u32, event: Returned) {
        let Returned { offset, timestamp, place, bytes } = event;
        let state = &self.lanes[lane];
        assert!(state.stands == Stands::Busy, "lane {lane} gave no event away: {state:?}");
        let new = || Event { offset, timestamp, place, bytes, behind: state.head };
        let index = self.events.claim(new);
        self.events[index] = new();
        let state = &mut self.lanes[lane];
        state.head = index;
        if state.tail == NONE {
            state.tail = index;
        }
    }

    /// The first event of a busy lane is in this attempt, which may not begin before that uptime.
    pub(crate) fn retry(&mut self, lane: u32, attempt: u32, until: Duration) {
        self.attempt(lane, attempt);
        self.troubles.wait(lane, until);
    }

    /// The first event of a busy lane is in this attempt.
    pub(crate) fn attempt(&mut self, lane: u32, attempt: u32) {
        self.lanes[lane].troubled = true;
        self.troubles.attempt(lane, attempt);
    }

    /// The events of a busy lane up to this offset were in a call that failed as a whole.
    pub(crate) fn suspect(&mut self, lane: u32, last: i64) {
        self.lanes[lane].troubled = true;
        self.troubles.suspect(lane, last);
    }

    /// A call of the lane ended without a fault.
    pub(crate) fn clean(&mut self, lane: u32) {
        let state = &mut self.lanes[lane];
        if state.troubled {
            state.troubled = !self.troubles.clean(lane);
        }
    }

    /// The lane's call has really ended and nothing of it waits for acks.
    pub(crate) fn release(&mut self, lane: u32) {
        let state = &mut self.lanes[lane];
        assert!(state.stands == Stands::Busy, "lane {lane} has no call");
        state.stands = Stands::Nowhere;
        if state.head == NONE {
            self.forget(lane);
        } else if state.troubled && self.troubles.get(lane).is_some_and(|trouble| trouble.until.is_some()) {
            state.stands = Stands::Waiting;
        } else {
            self.make_ready(lane);
        }
    }

    /// Lanes whose wait is over stand in line again.
    pub(crate) fn wake(&mut self, now: Duration) {
        while let Some(lane) = self.troubles.wake(now) {
            assert!(self.lanes[lane].stands == Stands::Waiting, "lane {lane} does not wait");
            self.make_ready(lane);
        }
    }

    /// When the next lane's wait is over.
    pub(crate) fn next_wake(&self) -> Option<Duration> {
        self.troubles.next_wake()
    }

    /// Nothing of the partition beyond `last` is dispatched; `None`: no limit.
    pub(crate) fn gate(&mut self, partition: u32, last: Option<i64>) {
        if !self.gates.set(partition, last) {
            return;
        }
        let mut to_place = Vec::new();
        for line in &mut self.lines {
            for lanes in [&mut line.sound, &mut line.troubled] {
                let (gates, states, events) = (&self.gates, &self.lanes, &self.events);
                lanes.retain(|&lane| {
                    let Lane { partition, head, .. } = states[lane];
                    let held = gates.holds(partition, events[head].offset);
                    if held {
                        to_place.push(lane);
                    }
                    !held
                });
            }
        }
        self.ready_lanes -= to_place.len();
        to_place.append(&mut self.gates.held);
        for lane in to_place {
            self.make_ready(lane);
        }
    }

    /// What is known against the lane whose first event is this one.
    pub(crate) fn trouble_of(&self, partition: u32, offset: i64) -> Option<&Trouble> {
        let of_event = |lane: u32| {
            let Lane { partition: own, head, .. } = self.lanes[lane];
            own == partition && head != NONE && self.events[head].offset == offset
        };
        self.troubles.lanes().find(|&(lane, _)| of_event(lane)).map(|(_, trouble)| trouble)
    }

    /// Drops the queued events of all partitions but these; lanes with a call stay until it has really ended.
    pub(crate) fn keep(&mut self, kept: impl Fn(u32) -> bool, mut dropped: impl FnMut(Event)) {
        let lanes = &self.lanes;
        for line in &mut self.lines {
            line.sound.retain(|&lane| kept(lanes[lane].partition));
            line.troubled.retain(|&lane| kept(lanes[lane].partition));
        }
        self.gates.held.retain(|&lane| kept(lanes[lane].partition));
        self.ready_lanes = self.lines.iter().map(|line| line.sound.len() + line.troubled.len()).sum();
        for lane in self.lanes.indexes() {
            if !self.is_used(lane) || kept(self.lanes[lane].partition) {
                continue;
            }
            while let Some(event) = self.pop_if(lane, |_| true) {
                dropped(event);
            }
            if std::mem::take(&mut self.lanes[lane].troubled) {
                self.troubles.forget(lane);
            }
            if self.lanes[lane].stands == Stands::Busy {
                self.remember_alone(lane);
            } else {
                self.lanes[lane].stands = Stands::Nowhere;
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
        self.lanes[lane].head != NONE || self.lanes[lane].stands == Stands::Busy
    }

    /// A lane that has events, no call, and nothing to wait for: it stands in line, unless a gate holds it.
    fn make_ready(&mut self, lane: u32) {
        let state = &mut self.lanes[lane];
        if self.gates.holds(state.partition, self.events[state.head].offset) {
            state.stands = Stands::Held;
            self.gates.held.push(lane);
            return;
        }
        state.stands = Stands::InLine;
        let line = self.lines.get_mut(usize::from(state.topic)).expect("topics were counted at the start");
        if state.troubled {
            line.troubled.push_back(lane);
        } else {
            line.sound.push_back(lane);
        }
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
        let unused = state.stands == Stands::Nowhere && state.head == NONE;
        assert!(unused, "lane {lane} is in use: {state:?}");
        if state.troubled {
            self.troubles.forget(lane);
        }
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
    let new =
        || Lane { partition, topic, key, head: NONE, tail: NONE, stands: Stands::Nowhere, troubled: false };
    let index = lanes.claim(new);
    lanes[index] = new();
    index
}

impl Line {
    fn is_empty(&self) -> bool {
        self.sound.is_empty() && self.troubled.is_empty()
    }
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
