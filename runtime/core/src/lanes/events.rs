//! The event store: the queued events of all lanes. Each lane is a linked list over one slab, so that memory depends on
//! the number of events, not on that of lanes.

#![expect(clippy::indexing_slicing, reason = "every index comes from the same `Slab`")]

use crate::event::Event;
use crate::slab::{NONE, Slab};

/// The events of one lane, in dispatch order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Queue {
    head: u32,
    tail: u32,
    len: u32,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    event: Event,
    /// The next event of its lane.
    next: u32,
}

#[derive(Debug)]
pub(super) struct EventStore {
    nodes: Slab<Node>,
}

impl Queue {
    pub(super) const EMPTY: Queue = Queue { head: NONE, tail: NONE, len: 0 };

    pub(super) fn is_empty(self) -> bool {
        self.head == NONE
    }

    /// Returns the number of events.
    pub(super) fn len(self) -> u32 {
        self.len
    }
}

impl EventStore {
    pub(super) fn new() -> Self {
        EventStore { nodes: Slab::new() }
    }

    pub(super) fn push_back(&mut self, queue: &mut Queue, event: Event) {
        let index = self.store(event, NONE);
        if queue.is_empty() {
            queue.head = index;
        } else {
            self.nodes[queue.tail].next = index;
        }
        queue.tail = index;
        queue.len += 1;
    }

    pub(super) fn push_front(&mut self, queue: &mut Queue, event: Event) {
        let index = self.store(event, queue.head);
        if queue.is_empty() {
            queue.tail = index;
        }
        queue.head = index;
        queue.len += 1;
    }

    pub(super) fn front(&self, queue: Queue) -> Option<&Event> {
        (!queue.is_empty()).then(|| &self.nodes[queue.head].event)
    }

    pub(super) fn pop_front(&mut self, queue: &mut Queue) -> Option<Event> {
        if queue.is_empty() {
            return None;
        }
        let Node { event, next } = self.nodes[queue.head];
        self.nodes.free(queue.head);
        queue.head = next;
        queue.len -= 1;
        if next == NONE {
            queue.tail = NONE;
        }
        Some(event)
    }

    fn store(&mut self, event: Event, next: u32) -> u32 {
        let index = self.nodes.acquire(|| Node { event, next });
        self.nodes[index] = Node { event, next };
        index
    }
}
