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

    /// Returns whether an event with this offset is in a queue.
    pub(super) fn contains(&self, queue: Queue, offset: i64) -> bool {
        let mut at = queue.head;
        for _ in 0..queue.len() {
            let Node { event, next } = &self.nodes[at];
            if event.offset == offset {
                return true;
            }
            at = *next;
        }
        false
    }

    pub(super) fn pop_front(&mut self, queue: &mut Queue) -> Option<Event> {
        let node = self.detach_front(queue)?;
        Some(self.take(node))
    }

    /// Takes the first event out of its queue. It stays in the store, at the returned index, until [`EventStore::take`].
    pub(super) fn detach_front(&mut self, queue: &mut Queue) -> Option<u32> {
        if queue.is_empty() {
            return None;
        }
        let index = queue.head;
        let next = self.nodes[index].next;
        queue.head = next;
        queue.len -= 1;
        if next == NONE {
            queue.tail = NONE;
        }
        Some(index)
    }

    /// Puts an event of the store that is in no queue to the front of one.
    pub(super) fn attach_front(&mut self, queue: &mut Queue, index: u32) {
        self.nodes[index].next = queue.head;
        if queue.is_empty() {
            queue.tail = index;
        }
        queue.head = index;
        queue.len += 1;
    }

    /// Returns an event that is in no queue.
    pub(super) fn get(&self, index: u32) -> Event {
        self.nodes[index].event
    }

    /// Removes an event that is in no queue from the store.
    pub(super) fn take(&mut self, index: u32) -> Event {
        self.nodes.free(index);
        self.nodes[index].event
    }

    /// Replaces the first event of a queue.
    pub(super) fn set_front(&mut self, queue: Queue, event: Event) {
        if !queue.is_empty() {
            self.nodes[queue.head].event = event;
        }
    }

    fn store(&mut self, event: Event, next: u32) -> u32 {
        let index = self.nodes.acquire(|| Node { event, next });
        self.nodes[index] = Node { event, next };
        index
    }
}
