//! Events without a guest call: their outcome is known when they are read.
//!
//! Such an event is queued like one that waits for a call: within the limits of reading, until the producer has
//! capacity, and only while its ownership is active. The events are independent of each other: no order is guaranteed
//! among events without a lane key. Each topic has its own limit: its dead letters may have a topic of their own, and a
//! dead-letter topic that can't be written must not block others.

use std::collections::VecDeque;

use super::Core;
use crate::event::Event;
use crate::partitions::Phase;
use crate::{FetchedRow, Reason};

/// Maximum number of events per topic whose outcome is being applied: their dead letters are in flight.
const IN_FLIGHT_MAX: u32 = 1024;

/// Events whose outcome has not begun, by topic, oldest first.
#[derive(Debug)]
pub(super) struct EventsWithoutCall {
    queued: Vec<VecDeque<EventWithoutCall>>,
}

#[derive(Clone, Copy, Debug)]
struct EventWithoutCall {
    /// Index of the partition.
    partition: u32,
    event: Event,
    reason: Reason,
}

impl EventsWithoutCall {
    pub(super) fn new(topics: u16) -> Self {
        EventsWithoutCall { queued: (0..topics).map(|_| VecDeque::new()).collect() }
    }
}

impl Core {
    /// Queues an event that can't be handled.
    pub(super) fn queue_without_call(&mut self, index: u32, row: &FetchedRow, reason: Reason) {
        let event = Event::new(row, self.now.uptime_ms());
        self.queue_event_without_call(index, event, reason);
    }

    /// Queues an event that can't be handled, and was queued in a lane before.
    pub(super) fn queue_event_without_call(&mut self, index: u32, event: Event, reason: Reason) {
        let topic = self.partitions.get(index).id.topic;
        let queued = self.without_call.queued.get_mut(usize::from(topic)).expect("the topic is configured");
        queued.push_back(EventWithoutCall { partition: index, event, reason });
    }

    /// Begins outcomes up to the limit of each topic, and until no more effects may be kept.
    pub(super) fn begin_without_call(&mut self) {
        for topic in 0..self.config.topics {
            while !self.stopping
                && !self.is_full()
                && self.calls.without_call(topic) < IN_FLIGHT_MAX
                && let Some(event) = self.next_without_call(topic)
            {
                self.begin_outcome(event);
            }
        }
    }

    /// While no more effects may be kept: begins the outcomes of events that are the first unsettled ones of partitions
    /// that are held.
    pub(super) fn begin_held_without_call(&mut self) {
        let Core { without_call, partitions, transactions, .. } = self;
        if !transactions.as_ref().is_some_and(|transactions| transactions.any_held) || self.stopping {
            return;
        }
        let is_first =
            |queued: &EventWithoutCall| partitions.get(queued.partition).hold == Some(queued.event.offset);
        let mut first = Vec::new();
        for queued in &mut without_call.queued {
            first.extend(queued.iter().position(is_first).and_then(|at| queued.remove(at)));
        }
        first.into_iter().for_each(|event| self.begin_outcome(event));
    }

    fn next_without_call(&mut self, topic: u16) -> Option<EventWithoutCall> {
        self.without_call.queued.get_mut(usize::from(topic))?.pop_front()
    }

    fn begin_outcome(&mut self, event: EventWithoutCall) {
        let EventWithoutCall { partition: index, event, reason } = event;
        let state = self.partitions.get_mut(index);
        let (partition, ownership) = (state.id, state.ownership);
        state.unacked += 1;
        let lane = self.lanes.occupy_unkeyed(index, partition.topic, event.offset);
        let id = self.calls.begin_without_call(partition.topic);
        let call = self.calls.get_mut(id).expect("it just began");
        call.begin_lane(lane, index, ownership);
        call.push(partition, ownership, &event);
        self.fail_row(id, 0, reason);
        self.advance_lane(id, 0);
        self.remove_if_finished(id);
    }

    /// Drops the events of ownerships that are no longer active: the next owner reads them again.
    pub(super) fn drop_without_call(&mut self) {
        let Core { without_call, partitions, outbox, .. } = self;
        for queued in &mut without_call.queued {
            queued.retain(|queued| {
                let is_active = partitions.get(queued.partition).phase == Phase::Active;
                if !is_active {
                    outbox.release(queued.event.arena_slot);
                }
                is_active
            });
        }
    }
}
