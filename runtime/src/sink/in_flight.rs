//! The records that were handed over and have no report yet.
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use keylane_core::CallId;

use crate::librdkafka::Deadline;

/// Which output of which call a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// Index of the handler: says which route its report takes.
    pub handler: u16,
    /// The call.
    pub call: CallId,
    /// Row of the call.
    pub row: u32,
}

/// A table of tokens, because the C library carries one number per record; and the bytes on their way per topic.
#[derive(Debug)]
pub(super) struct InFlight {
    state: Mutex<State>,
    empty: Condvar,
    max_bytes_per_topic: usize,
}

#[derive(Debug)]
struct State {
    slots: Vec<Slot>,
    free: Vec<usize>,
    topic_bytes: Vec<usize>,
    records: usize,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    token: Token,
    topic: u16,
    bytes: usize,
}

impl InFlight {
    pub(super) fn new(topics: usize, max_bytes_per_topic: usize) -> InFlight {
        let state = State { slots: Vec::new(), free: Vec::new(), topic_bytes: vec![0; topics], records: 0 };
        InFlight { state: Mutex::new(state), empty: Condvar::new(), max_bytes_per_topic }
    }

    /// Takes a place before the record is handed over. `None` if the topic has too much on its way; a topic with
    /// nothing on its way takes any record.
    pub(super) fn enter(&self, token: Token, topic: u16, bytes: usize) -> Option<usize> {
        let mut state = self.lock();
        let on_its_way = state.topic_bytes.get_mut(usize::from(topic))?;
        if *on_its_way > 0 && *on_its_way + bytes > self.max_bytes_per_topic {
            return None;
        }
        *on_its_way += bytes;
        state.records += 1;
        let slot = Slot { token, topic, bytes };
        match state.free.pop() {
            Some(index) => {
                let place = state.slots.get_mut(index).expect("free places are places of the table");
                *place = slot;
                Some(index)
            }
            None => {
                state.slots.push(slot);
                Some(state.slots.len() - 1)
            }
        }
    }

    /// Gives a place back. Each place that was taken is given back exactly once.
    pub(super) fn leave(&self, index: usize) -> Token {
        let mut state = self.lock();
        let slot = *state.slots.get(index).expect("the library returns the numbers it was given");
        state.free.push(index);
        if let Some(on_its_way) = state.topic_bytes.get_mut(usize::from(slot.topic)) {
            *on_its_way -= slot.bytes;
        }
        state.records -= 1;
        if state.records == 0 {
            self.empty.notify_all();
        }
        slot.token
    }

    pub(super) fn records(&self) -> usize {
        self.lock().records
    }

    /// Waits until nothing is on its way; `false` if the limit came first.
    pub(super) fn wait_until_empty(&self, limit: Deadline) -> bool {
        let mut state = self.lock();
        while state.records > 0 {
            if limit.is_over() {
                return false;
            }
            let (woken, _) =
                self.empty.wait_timeout(state, limit.remaining()).unwrap_or_else(PoisonError::into_inner);
            state = woken;
        }
        true
    }

    /// Only a broken invariant panics while it is held, and that ends the process.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn token(row: u32) -> Token {
        Token { handler: 0, call: CallId { slot: 1, generation: 2 }, row }
    }

    #[test]
    fn a_full_topic_does_not_block_another() {
        let in_flight = InFlight::new(2, 100);
        let first = in_flight.enter(token(0), 0, 90).expect("an empty topic takes it");
        assert_eq!(in_flight.enter(token(1), 0, 20), None);
        let other = in_flight.enter(token(2), 1, 500).expect("an empty topic takes any record");
        assert_eq!(in_flight.leave(first), token(0));
        let again = in_flight.enter(token(3), 0, 20).expect("there is room again");
        assert_eq!(again, first, "places are used again");
        assert!(!in_flight.wait_until_empty(Deadline::after(Duration::ZERO)));
        assert_eq!(in_flight.leave(again), token(3));
        assert_eq!(in_flight.leave(other), token(2));
        assert!(in_flight.wait_until_empty(Deadline::after(Duration::ZERO)));
        assert_eq!(in_flight.records(), 0);
    }
}
