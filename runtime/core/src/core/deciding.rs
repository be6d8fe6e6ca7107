//! Outcomes that need no call: what becomes of an event is known when it is read (SEMANTICS: endings).
//!
//! Such an event waits for its turn like one that waits for a call: within the limits of what may be read, until the
//! producer has room for what comes of it, and only while its ownership is active. Each stands by itself: no order is
//! promised among events without a lane. Each topic has its own limit: its dead letters may have a topic of their own, and
//! one that can't be written holds up nothing else.

use std::collections::VecDeque;

use super::Core;
use crate::partitions::Phase;
use crate::{ArenaSlot, FetchedRow, Reason, Row};

/// Most outcomes of a topic that have begun and have not settled: their dead letters are on their way.
const UNDER_WAY_MAX: u32 = 1024;

/// Events whose outcome is known and has not begun, by topic, oldest first.
#[derive(Debug)]
pub(super) struct Decided {
    waiting: Vec<VecDeque<DecidedEvent>>,
}

#[derive(Clone, Copy, Debug)]
struct DecidedEvent {
    /// Index of the partition.
    partition: u32,
    offset: i64,
    timestamp: i64,
    arena_slot: ArenaSlot,
    /// What it takes of the partition's share of the memory.
    bytes: u32,
    reason: Reason,
}

impl Decided {
    pub(super) fn new(topics: u16) -> Self {
        Decided { waiting: (0..topics).map(|_| VecDeque::new()).collect() }
    }
}

impl Core {
    /// This event will not be handled.
    pub(super) fn decide(&mut self, index: u32, row: &FetchedRow, reason: Reason) {
        let &FetchedRow { offset, timestamp, arena_slot, bytes, .. } = row;
        let topic = self.partitions.get(index).id.topic;
        let waiting =
            self.decided.waiting.get_mut(usize::from(topic)).expect("partitions are of known topics");
        waiting.push_back(DecidedEvent { partition: index, offset, timestamp, arena_slot, bytes, reason });
    }

    /// Begins outcomes as long as there is room for what comes of them.
    pub(super) fn begin_decided(&mut self) {
        for topic in 0..self.config.topics {
            while !self.stopping
                && self.calls.without_guest(topic) < UNDER_WAY_MAX
                && let Some(event) = self.next_decided(topic)
            {
                self.begin_outcome(event);
            }
        }
    }

    fn next_decided(&mut self, topic: u16) -> Option<DecidedEvent> {
        self.decided.waiting.get_mut(usize::from(topic))?.pop_front()
    }

    fn begin_outcome(&mut self, event: DecidedEvent) {
        let DecidedEvent { partition: index, offset, timestamp, arena_slot, bytes, reason } = event;
        let state = self.partitions.get_mut(index);
        let (partition, ownership) = (state.id, state.ownership);
        state.unacked += 1;
        let lane = self.lanes.occupy_unkeyed(index, partition.topic, offset);
        let id = self.calls.begin_without_guest(partition.topic);
        let call = self.calls.get_mut(id).expect("it just began");
        call.begin_part(lane, index, ownership);
        call.push(Row { partition, ownership, offset, timestamp, arena_slot }, bytes);
        self.fail_row(id, 0, reason);
        self.go_on(id, 0);
        self.remove_if_finished(id);
    }

    /// Forgets those of ownerships that are not active any more: whoever comes next reads them again.
    pub(super) fn drop_decided(&mut self) {
        let Core { decided, partitions, outbox, .. } = self;
        for waiting in &mut decided.waiting {
            waiting.retain(|event| {
                let stays = partitions.get(event.partition).phase == Phase::Active;
                if !stays {
                    outbox.release(event.arena_slot);
                }
                stays
            });
        }
    }
}
