//! Lanes: the serial queue of each (partition, lane key), and the order in which lanes are dispatched.
//!
//! A lane exists while it has queued events or a call that has not released it: memory depends on the events in flight,
//! never on the number of keys. [`events`] stores the queued events and [`key_table`] finds the lane of a key.
//! [`schedule`] is the order of dispatch; [`retrying_lanes`] and [`timers`] delay a lane, and [`barriers`] holds a
//! whole partition back. With a gate, [`gated`] brings the events of a lane in the order of the gate.

#![expect(clippy::indexing_slicing, reason = "every index comes from the same `Slab`")]

mod barriers;
mod events;
mod gated;
mod key_table;
mod retrying_lanes;
mod schedule;
mod timers;

use std::time::Duration;

use crate::event::Event;
use crate::gates::Gates;
use crate::slab::{NONE, Slab};
use crate::{Admission, EventOrder, FetchedRow};

use barriers::Barriers;
use events::{EventStore, Queue};
use gated::Asked;
use key_table::{KeyTable, LaneId};
use retrying_lanes::RetryingLanes;
use schedule::Schedule;
use timers::Timers;

#[derive(Debug)]
struct Lane {
    /// Index of the partition.
    partition: u32,
    topic: u16,
    id: LaneId,
    queue: Queue,
    state: LaneState,
    /// Whether the lane has a retry state.
    retrying: bool,
    /// Number of its parked events, which are not in its queue.
    parked: u32,
}

/// The scheduling state of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LaneState {
    /// Neither scheduled nor held by a call: it is being created, released or removed.
    Detached,
    /// In the schedule.
    Ready,
    /// It has a call, of any ownership, that has not terminated or waits for acks.
    Busy,
    /// Its first event is between two attempts.
    Delayed,
    /// Its first event is beyond a barrier.
    Barred,
    /// None of its events may run now: its gate has parked them.
    Waiting,
    /// What its gate remembers of a key is being looked up.
    Loading,
}

/// A lane with events and without a call.
pub(crate) struct LaneWithoutCall<'l> {
    /// Index of the partition.
    pub(crate) partition: u32,
    pub(crate) first: &'l Event,
    pub(crate) events: u32,
    pub(crate) state: LaneWithoutCallState,
}

/// What the first event of a lane waits for.
pub(crate) enum LaneWithoutCallState {
    /// A call.
    Ready,
    /// The end of its retry delay.
    Delayed(Duration),
    /// Events of other lanes.
    Barred,
    /// What its gate remembers.
    Loading,
}

#[derive(Debug)]
pub(crate) struct Lanes {
    lanes: Slab<Lane>,
    events: EventStore,
    keys: KeyTable,
    schedule: Schedule,
    retrying_lanes: RetryingLanes,
    timers: Timers,
    barriers: Barriers,
    /// `None`: the events of a lane run in the order of their offsets.
    pub(crate) gates: Option<Box<Gates>>,
    /// The wall clock, for gates: milliseconds since 1970.
    pub(crate) wall_ms: i64,
}

impl Lanes {
    pub(crate) fn new(topics: u16, gates: Option<Box<Gates>>) -> Self {
        Lanes {
            lanes: Slab::new(),
            events: EventStore::new(),
            keys: KeyTable::new(),
            schedule: Schedule::new(topics),
            retrying_lanes: RetryingLanes::default(),
            timers: Timers::default(),
            barriers: Barriers::default(),
            gates,
            wall_ms: 0,
        }
    }

    // -- reading ------------------------------------------------------------------------------------

    /// Appends an event to its lane.
    pub(crate) fn admit(
        &mut self,
        partition: u32,
        topic: u16,
        (row, order): (&FetchedRow, Option<&EventOrder>),
        admitted_ms: u32,
    ) {
        let lanes = &mut self.lanes;
        let lane = match row.admission {
            Admission::Lane(hash) => {
                let id = LaneId::Hash(hash);
                self.keys.find_or_insert(id, partition, || make(lanes, partition, topic, id))
            }
            Admission::Unkeyed => self
                .keys
                .find_orphaned(partition, row.offset)
                .unwrap_or_else(|| make(lanes, partition, topic, LaneId::Unkeyed(row.offset))),
            Admission::NoLaneKey | Admission::Filtered => {
                unreachable!("such an event has its outcome when it is read, and is not queued: {row:?}")
            }
        };
        let mut event = Event::new(row, admitted_ms);
        if let Some(order) = order {
            event.order = self.enter_order(partition, lane, order);
        }
        let Lane { queue, state, .. } = &mut self.lanes[lane];
        self.events.push_back(queue, event);
        if *state == LaneState::Detached {
            self.make_ready(lane);
        } else if order.is_some() {
            self.appended(lane);
        }
    }

    /// Creates a busy lane for one event that is not queued.
    pub(crate) fn occupy_unkeyed(&mut self, partition: u32, topic: u16, offset: i64) -> u32 {
        let lane = make(&mut self.lanes, partition, topic, LaneId::Unkeyed(offset));
        self.lanes[lane].state = LaneState::Busy;
        lane
    }

    // -- dispatching --------------------------------------------------------------------------------

    /// Returns the number of lanes that a call could take now.
    pub(crate) fn ready(&self) -> usize {
        self.schedule.count()
    }

    /// Returns the next topic in turn that has a ready lane.
    pub(crate) fn next_topic(&mut self) -> Option<u16> {
        self.schedule.next_topic()
    }

    /// Returns the size in bytes of the first event of the lane that [`Lanes::take_healthy`] would return.
    pub(crate) fn next_healthy_bytes(&self, topic: u16) -> Option<u32> {
        self.first(self.schedule.peek_healthy(topic)?).map(|event| event.bytes)
    }

    /// Takes the next ready lane of this topic and marks it busy.
    pub(crate) fn take_healthy(&mut self, topic: u16) -> Option<u32> {
        let lane = self.schedule.pop_healthy(topic)?;
        self.occupy(lane);
        Some(lane)
    }

    /// Takes the next retrying lane of this topic, if it is the turn of such lanes, and marks it busy. Its first event
    /// is to be dispatched in a call of its own.
    pub(crate) fn take_retrying(&mut self, topic: u16) -> Option<u32> {
        let lane = self.schedule.pop_retrying(topic)?;
        self.occupy(lane);
        Some(lane)
    }

    /// Takes a retrying lane of any topic whose first event was dispatched before, out of turn, and marks it busy. Returns
    /// its topic, too.
    pub(crate) fn take_retry(&mut self) -> Option<(u16, u32)> {
        let Lanes { lanes, events, .. } = self;
        let is_retry = |lane: u32| events.front(lanes[lane].queue).is_some_and(|first| first.dispatched);
        let (topic, lane) = self.schedule.pop_retrying_if(is_retry)?;
        self.occupy(lane);
        Some((topic, lane))
    }

    fn occupy(&mut self, lane: u32) {
        let Lane { queue, state, .. } = &mut self.lanes[lane];
        assert!(*state == LaneState::Ready && !queue.is_empty(), "lane {lane} was not ready: {state:?}");
        *state = LaneState::Busy;
    }

    /// Returns the first event of a lane.
    pub(crate) fn first(&self, lane: u32) -> Option<&Event> {
        self.events.front(self.lanes[lane].queue)
    }

    /// Takes the first event of a lane, if its bytes fit and no barrier holds it.
    pub(crate) fn pop_if(&mut self, lane: u32, fits: impl FnOnce(u32) -> bool) -> Option<Event> {
        let Lane { queue, partition, .. } = &mut self.lanes[lane];
        let first = self.events.front(*queue)?;
        if !fits(first.bytes) || self.barriers.holds((*partition, lane), first) {
            return None;
        }
        self.events.pop_front(queue)
    }

    /// Returns the index of the lane's partition.
    pub(crate) fn partition_of(&self, lane: u32) -> u32 {
        self.lanes[lane].partition
    }

    // -- settling and failing -----------------------------------------------------------------------

    /// Puts a dispatched event back to the front of its busy lane.
    pub(crate) fn put_back(&mut self, lane: u32, event: Event) {
        let Lane { queue, state, retrying, .. } = &mut self.lanes[lane];
        assert!(*state == LaneState::Busy, "lane {lane} has no dispatched event: {state:?}");
        self.events.push_front(queue, event);
        // This event will be dispatched in a call of its own.
        if (event.attempt > 1 || event.quarantined) && !*retrying {
            *retrying = true;
            self.retrying_lanes.begin(lane);
        }
    }

    /// Delays the first event of a busy lane: it may not be dispatched before this uptime.
    pub(crate) fn delay(&mut self, lane: u32, until: Duration) {
        self.lanes[lane].retrying = true;
        let timer = self.timers.set(lane, until);
        self.retrying_lanes.wait(lane, timer, until);
    }

    /// Notes that a call of the busy lane failed as a whole.
    pub(crate) fn record_fault(&mut self, lane: u32) {
        self.lanes[lane].retrying = true;
        self.retrying_lanes.record_fault(lane);
    }

    /// Notes that a call of the lane ended without a fault.
    pub(crate) fn record_clean_call(&mut self, lane: u32) {
        if !self.lanes[lane].retrying || !self.retrying_lanes.record_clean_call(lane) {
            return;
        }
        if self.first(lane).is_none_or(|event| event.attempt == 1 && !event.quarantined) {
            self.end_retry_state(lane);
        }
    }

    /// Releases a busy lane: its call has terminated, and none of its rows waits for acks.
    pub(crate) fn release(&mut self, lane: u32) {
        let Lane { queue, state, retrying, parked, .. } = &mut self.lanes[lane];
        assert!(*state == LaneState::Busy, "lane {lane} has no call");
        *state = LaneState::Detached;
        if queue.is_empty() && *parked == 0 {
            self.remove(lane);
        } else if *retrying && self.retrying_lanes.is_delayed(lane) {
            *state = LaneState::Delayed;
            self.appended(lane); // an event that was appended during the call may take the place of the first
        } else {
            self.make_ready(lane);
        }
    }

    // -- time and barriers --------------------------------------------------------------------------

    /// Makes lanes ready when their retry delay has passed.
    pub(crate) fn wake(&mut self, now: Duration) {
        while let Some((lane, timer)) = self.timers.pop_expired(now) {
            if self.retrying_lanes.expired(lane, timer) {
                assert!(self.lanes[lane].state == LaneState::Delayed, "lane {lane} is not delayed");
                self.make_ready(lane);
            }
        }
    }

    /// Returns when the next timer of a lane expires.
    pub(crate) fn next_wake(&self) -> Option<Duration> {
        self.timers.next()
    }

    /// Sets the last offset of the partition that may be dispatched; `None`: no barrier. `exempt`: the lane that is not held.
    pub(crate) fn set_barrier(&mut self, partition: u32, last: Option<i64>, exempt: Option<u32>) {
        if !self.barriers.set(partition, last, exempt) {
            return;
        }
        let mut moved = Vec::new();
        let Lanes { lanes, events, barriers, schedule, .. } = self;
        schedule.retain(|lane| {
            let Lane { partition, queue, .. } = lanes[lane];
            let first = events.front(queue).expect("a ready lane has events");
            let held = barriers.holds((partition, lane), first);
            if held {
                moved.push(lane);
            }
            !held
        });
        moved.append(&mut self.barriers.held);
        for lane in moved {
            self.keep_released(lane);
            self.make_ready(lane);
        }
    }

    // -- the end of ownerships ----------------------------------------------------------------------

    /// Drops the queued events of the partitions that `kept` returns false for. Lanes with a call stay until it
    /// releases them.
    pub(crate) fn retain(&mut self, kept: impl Fn(u32) -> bool, mut dropped: impl FnMut(Event)) {
        let lanes = &self.lanes;
        self.schedule.retain(|lane| kept(lanes[lane].partition));
        self.barriers.held.retain(|&lane| kept(lanes[lane].partition));
        self.drop_parked(&kept, &mut dropped);
        for lane in self.lanes.indexes() {
            let Lane { queue, state, partition, .. } = &mut self.lanes[lane];
            let is_used = !queue.is_empty() || matches!(state, LaneState::Busy | LaneState::Waiting);
            if !is_used || kept(*partition) {
                continue;
            }
            while let Some(event) = self.events.pop_front(queue) {
                dropped(event);
            }
            self.end_retry_state(lane);
            if self.lanes[lane].state == LaneState::Busy {
                self.make_orphaned(lane);
            } else {
                self.lanes[lane].state = LaneState::Detached;
                self.remove(lane);
            }
        }
    }

    /// Adds the lane of an unkeyed event to the table: if the event is read again, it waits for this call.
    fn make_orphaned(&mut self, lane: u32) {
        let Lane { id, partition, .. } = &mut self.lanes[lane];
        if let LaneId::Unkeyed(offset) = *id {
            *id = self.keys.insert_orphaned(offset, *partition, lane);
        }
    }

    // -- reports ------------------------------------------------------------------------------------

    /// Returns the events that are between two attempts, each with the index of its partition.
    pub(crate) fn delayed_events(&self) -> impl Iterator<Item = (u32, &Event)> {
        let delayed = self.retrying_lanes.lanes().filter(|&lane| self.retrying_lanes.is_delayed(lane));
        delayed.filter_map(|lane| Some((self.lanes[lane].partition, self.first(lane)?)))
    }

    /// Returns the index after the last lane.
    pub(crate) fn end(&self) -> u32 {
        self.lanes.end()
    }

    /// Returns a lane that no call holds; `None`: the index is not used by such a lane.
    pub(crate) fn lane_without_call(&self, lane: u32) -> Option<LaneWithoutCall<'_>> {
        let Lane { partition, queue, state, .. } = self.lanes.get(lane)?;
        let state = match state {
            LaneState::Ready => LaneWithoutCallState::Ready,
            LaneState::Delayed => LaneWithoutCallState::Delayed(self.retrying_lanes.waits_until(lane)?),
            LaneState::Barred => LaneWithoutCallState::Barred,
            LaneState::Loading => LaneWithoutCallState::Loading,
            LaneState::Waiting | LaneState::Busy | LaneState::Detached => return None,
        };
        let first = self.events.front(*queue)?;
        Some(LaneWithoutCall { partition: *partition, first, events: queue.len(), state })
    }

    /// Returns the number of queued events of a lane.
    pub(crate) fn queued(&self, lane: u32) -> u32 {
        self.lanes.get(lane).map_or(0, |lane| lane.queue.len())
    }

    /// Returns the number of lanes whose first event is between two attempts.
    pub(crate) fn delayed(&self) -> usize {
        self.retrying_lanes.delayed()
    }

    /// Returns the number of lanes with a retry state.
    pub(crate) fn retrying(&self) -> usize {
        self.retrying_lanes.lanes().count()
    }

    /// Returns the number of lanes.
    pub(crate) fn count(&self) -> usize {
        self.lanes.in_use()
    }

    // -- private ------------------------------------------------------------------------------------

    /// Schedules a lane that has events, no call and no retry delay, unless a barrier holds it.
    fn make_ready(&mut self, lane: u32) {
        if self.gates.is_some() && !self.is_due(lane) {
            return;
        }
        let Lane { partition, topic, queue, state, retrying, .. } = &mut self.lanes[lane];
        let first = self.events.front(*queue).expect("a ready lane has events");
        if self.barriers.holds((*partition, lane), first) {
            *state = LaneState::Barred;
            self.barriers.held.push(lane);
        } else {
            *state = LaneState::Ready;
            self.schedule.push(*topic, lane, *retrying);
        }
    }

    /// With a gate: asks a free lane. If none of its events may run, the lane waits, or is removed.
    fn is_due(&mut self, lane: u32) -> bool {
        self.lanes[lane].state = LaneState::Detached;
        let asked = self.ask(lane);
        self.set_not_due(lane, asked);
        asked == Asked::Due
    }

    /// Sets the state of a detached lane that was asked, unless it is due.
    fn set_not_due(&mut self, lane: u32, asked: Asked) {
        let Lane { queue, state, parked, .. } = &mut self.lanes[lane];
        match asked {
            Asked::Due => {}
            Asked::Loading => *state = LaneState::Loading,
            Asked::Nothing if queue.is_empty() && *parked == 0 => self.remove(lane),
            Asked::Nothing => *state = LaneState::Waiting,
        }
    }

    fn end_retry_state(&mut self, lane: u32) {
        if std::mem::take(&mut self.lanes[lane].retrying) {
            self.retrying_lanes.remove(lane);
        }
    }

    fn remove(&mut self, lane: u32) {
        let Lane { state, queue, parked, .. } = &self.lanes[lane];
        let unused = *state == LaneState::Detached && queue.is_empty() && *parked == 0;
        assert!(unused, "lane {lane} is in use: {:?}", self.lanes[lane]);
        self.end_retry_state(lane);
        let Lane { id, partition, .. } = self.lanes[lane];
        self.keys.remove(id, partition, lane);
        self.lanes[lane].partition = NONE;
        self.lanes.free(lane);
    }
}

/// Creates a lane. The lane is built in its slot, because a copy into the slot is visible in profiles.
fn make(lanes: &mut Slab<Lane>, partition: u32, topic: u16, id: LaneId) -> u32 {
    let (queue, state) = (Queue::EMPTY, LaneState::Detached);
    let new = || Lane { partition, topic, id, queue, state, retrying: false, parked: 0 };
    let index = lanes.acquire(new);
    lanes[index] = new();
    index
}
