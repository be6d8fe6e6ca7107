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
    /// The lane of the row, by its position in the call.
    pub lane: u32,
    /// Position among the outputs of the call; without a meaning for a dead letter.
    pub output: u32,
    /// It is the dead letter of the row, not an output of it.
    pub dead_letter: bool,
}

/// A table of tokens, because the C library carries one number per record; and the bytes on their way per topic.
#[derive(Debug)]
pub(super) struct InFlight {
    state: Mutex<Tracked>,
    empty: Condvar,
    max_bytes_per_topic: usize,
}

#[derive(Debug)]
struct Tracked {
    slots: Vec<TrackedRecord>,
    free: Vec<usize>,
    topics: Vec<OfTopic>,
    /// Places that are taken: on their way, or set aside to be sent again.
    records: usize,
    /// Those of them that nobody waits for.
    forgotten: usize,
    /// Records that ever took a place.
    entered: u64,
}

/// What is on its way to one topic.
#[derive(Clone, Copy, Debug, Default)]
struct OfTopic {
    records: usize,
    bytes: usize,
}

#[derive(Clone, Copy, Debug)]
struct TrackedRecord {
    token: Token,
    topic: u16,
    bytes: usize,
    /// Ascending in the order in which records were handed over first.
    sequence: u64,
    /// Not set aside.
    on_its_way: bool,
    /// Its own time, if it has one: the client does not tell that of a record that comes back.
    timestamp: Option<i64>,
    /// It was sent more than once.
    again: bool,
    /// Its own time was refused.
    restamped: bool,
    /// Nobody waits for it any more: if it comes back, it is not sent again.
    forgotten: bool,
}

/// A record that has its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Left {
    pub(super) token: Token,
    /// It was sent more than once.
    pub(super) again: bool,
    /// It carries the time at which it was sent again, instead of its own.
    pub(super) restamped: bool,
}

impl Tracked {
    fn set_aside(&mut self, index: usize) -> TrackedRecord {
        let slot = self.slots.get_mut(index).expect("the library returns the numbers it was given");
        let was_on_its_way = std::mem::take(&mut slot.on_its_way);
        let slot = *slot;
        if was_on_its_way && let Some(on_its_way) = self.topics.get_mut(usize::from(slot.topic)) {
            on_its_way.bytes -= slot.bytes;
            on_its_way.records -= 1;
        }
        slot
    }
}

impl InFlight {
    pub(super) fn new(topics: usize, max_bytes_per_topic: usize) -> InFlight {
        let state = Tracked {
            slots: Vec::new(),
            free: Vec::new(),
            topics: vec![OfTopic::default(); topics],
            records: 0,
            forgotten: 0,
            entered: 0,
        };
        InFlight { state: Mutex::new(state), empty: Condvar::new(), max_bytes_per_topic }
    }

    /// Takes a place before the record is handed over. `None` if the topic has too much on its way; a topic with
    /// nothing on its way takes any record. `timestamp`: the record's own time, if it is not left to the client.
    pub(super) fn enter(
        &self,
        token: Token,
        topic: u16,
        bytes: usize,
        timestamp: Option<i64>,
    ) -> Option<usize> {
        let mut state = self.lock();
        let on_its_way = state.topics.get_mut(usize::from(topic))?;
        if on_its_way.bytes > 0 && on_its_way.bytes + bytes > self.max_bytes_per_topic {
            return None;
        }
        on_its_way.bytes += bytes;
        on_its_way.records += 1;
        state.records += 1;
        state.entered += 1;
        let sequence = state.entered;
        let slot = TrackedRecord {
            token,
            topic,
            bytes,
            sequence,
            on_its_way: true,
            timestamp,
            again: false,
            restamped: false,
            forgotten: false,
        };
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
    pub(super) fn leave(&self, index: usize) -> Left {
        let mut state = self.lock();
        let slot = state.set_aside(index);
        state.free.push(index);
        state.records -= 1;
        state.forgotten -= usize::from(slot.forgotten);
        if state.records == 0 {
            self.empty.notify_all();
        }
        Left { token: slot.token, again: slot.again, restamped: slot.restamped }
    }

    /// Nobody waits for these records of a handler any more. What is on its way can't be recalled.
    pub(super) fn forget(&self, handler: u16, which: &dyn Fn(&Token) -> bool) {
        let mut state = self.lock();
        let Tracked { slots, free, forgotten, .. } = &mut *state;
        let mut is_free = vec![false; slots.len()];
        free.iter().filter_map(|&index| is_free.get_mut(index).map(|free| *free = true)).for_each(drop);
        let taken = slots.iter_mut().zip(is_free).filter(|(_, is_free)| !is_free).map(|(slot, _)| slot);
        for slot in taken.filter(|slot| slot.token.handler == handler && which(&slot.token)) {
            *forgotten += usize::from(!std::mem::replace(&mut slot.forgotten, true));
        }
    }

    /// Whether nobody waits for the record at this place.
    pub(super) fn is_forgotten(&self, index: usize) -> bool {
        self.lock().slots.get(index).is_some_and(|slot| slot.forgotten)
    }

    /// Whether nobody waits for some of them.
    pub(super) fn has_forgotten(&self) -> bool {
        self.lock().forgotten > 0
    }

    /// The record has come back: its place stays taken until it was sent again. Gives its topic.
    pub(super) fn set_aside(&self, index: usize) -> u16 {
        self.lock().set_aside(index).topic
    }

    /// It is on its way again.
    pub(super) fn send_again(&self, index: usize) {
        let mut state = self.lock();
        let Some(slot) = state.slots.get_mut(index) else { return };
        slot.on_its_way = true;
        slot.again = true;
        let TrackedRecord { topic, bytes, .. } = *slot;
        if let Some(on_its_way) = state.topics.get_mut(usize::from(topic)) {
            on_its_way.bytes += bytes;
            on_its_way.records += 1;
        }
    }

    /// The place of the record at this place among all that were handed over.
    pub(super) fn sequence(&self, index: usize) -> u64 {
        self.lock().slots.get(index).map_or(0, |slot| slot.sequence)
    }

    /// The own time of the record at this place.
    pub(super) fn timestamp(&self, index: usize) -> Option<i64> {
        self.lock().slots.get(index).and_then(|slot| slot.timestamp)
    }

    /// From now on its time is left to the client.
    pub(super) fn restamp(&self, index: usize) {
        if let Some(slot) = self.lock().slots.get_mut(index) {
            slot.timestamp = None;
            slot.restamped = true;
        }
    }

    /// The topic of the record at this place.
    pub(super) fn topic(&self, index: usize) -> u16 {
        self.lock().slots.get(index).map_or(0, |slot| slot.topic)
    }

    /// Records on their way to one topic.
    pub(super) fn records_to(&self, topic: usize) -> usize {
        self.lock().topics.get(topic).map_or(0, |on_its_way| on_its_way.records)
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
    fn lock(&self) -> MutexGuard<'_, Tracked> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn token(row: u32) -> Token {
        Token {
            handler: 0,
            call: CallId { slot: 1, generation: 2 },
            row,
            lane: 0,
            output: row,
            dead_letter: false,
        }
    }

    fn left(row: u32, again: bool) -> Left {
        Left { token: token(row), again, restamped: false }
    }

    #[test]
    fn a_full_topic_does_not_block_another() {
        let in_flight = InFlight::new(2, 100);
        let first = in_flight.enter(token(0), 0, 90, None).expect("an empty topic takes it");
        assert_eq!(in_flight.enter(token(1), 0, 20, None), None);
        let other = in_flight.enter(token(2), 1, 500, None).expect("an empty topic takes any record");
        assert_eq!(in_flight.leave(first), left(0, false));
        let again = in_flight.enter(token(3), 0, 20, None).expect("there is room again");
        assert_eq!(again, first, "places are used again");
        assert!(!in_flight.wait_until_empty(Deadline::after(Duration::ZERO)));
        assert_eq!(in_flight.leave(again), left(3, false));
        assert_eq!(in_flight.leave(other), left(2, false));
        assert!(in_flight.wait_until_empty(Deadline::after(Duration::ZERO)));
        assert_eq!(in_flight.records(), 0);
    }

    #[test]
    fn what_is_forgotten_is_known_until_it_leaves() {
        let in_flight = InFlight::new(1, 100);
        let places: Vec<_> = (0..3).filter_map(|row| in_flight.enter(token(row), 0, 10, None)).collect();
        in_flight.leave(places[0]);
        in_flight.forget(1, &|_| true);
        assert!(!in_flight.has_forgotten(), "they are another handler's");
        in_flight.forget(0, &|token| token.row < 2);
        in_flight.forget(0, &|token| token.row < 2);
        assert_eq!([1, 2].map(|row| in_flight.is_forgotten(places[row])), [true, false]);
        in_flight.leave(places[1]);
        assert!(!in_flight.has_forgotten());
        let again = in_flight.enter(token(9), 0, 10, None).expect("there is room");
        assert!(!in_flight.is_forgotten(again), "a new record has its place");
    }

    #[test]
    fn what_is_set_aside_leaves_room_and_is_not_forgotten() {
        let in_flight = InFlight::new(1, 100);
        let place = in_flight.enter(token(0), 0, 90, None).expect("an empty topic takes it");
        assert_eq!((in_flight.set_aside(place), in_flight.records_to(0), in_flight.records()), (0, 0, 1));
        in_flight.send_again(place);
        assert_eq!((in_flight.records_to(0), in_flight.enter(token(1), 0, 20, None)), (1, None));
        assert_eq!((in_flight.leave(place), in_flight.records()), (left(0, true), 0), "it was sent again");
    }
}
