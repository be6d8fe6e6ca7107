//! Parked events: those that wait for others of their gate key, or for stream time. Each key has a tree of them by value, and
//! a list of those that wait in order of their arrival. The events themselves stay in the event store; their places are at
//! the same indexes.

mod by_arrival;
mod by_value;
mod maybe_due;

use std::collections::BTreeMap;

use crate::slab::NONE;
use maybe_due::MaybeDue;

/// A parked event: its index in the event store.
pub(crate) type Node = u32;

/// The parked events of a key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ParkedOfKey {
    pub(crate) len: u32,
    /// The root of the tree by value.
    root: Node,
    /// The first and the last event that wait.
    oldest: Node,
    newest: Node,
}

impl ParkedOfKey {
    pub(crate) const NONE: ParkedOfKey = ParkedOfKey { len: 0, root: NONE, oldest: NONE, newest: NONE };
}

/// Where an event stands among those of its key.
#[derive(Clone, Copy, Debug)]
struct Place {
    value: i64,
    offset: i64,
    /// The key; [`NONE`]: the event is not parked.
    key: u32,
    /// Its children in the tree by value.
    lower: Node,
    higher: Node,
    /// Its neighbours in the list by arrival.
    earlier: Node,
    later: Node,
    /// Whether it is in the list by arrival: it was not released.
    waits: bool,
}

const UNUSED: Place = Place {
    value: 0,
    offset: 0,
    key: NONE,
    lower: NONE,
    higher: NONE,
    earlier: NONE,
    later: NONE,
    waits: false,
};

#[derive(Debug, Default)]
pub(crate) struct Parked {
    /// By node.
    places: Vec<Place>,
    /// Keys whose oldest event waits for stream time: partition and offset of that event.
    waiting: BTreeMap<(u32, i64), u32>,
    /// The keys of each lane that may have a parked event that may run.
    maybe_due: MaybeDue,
}

impl Parked {
    /// `waits`: it was not released.
    pub(crate) fn insert(
        &mut self,
        (key, of_key): (u32, &mut ParkedOfKey),
        (value, offset): (i64, i64),
        node: Node,
        waits: bool,
    ) {
        let at = node as usize;
        self.places.resize(self.places.len().max(at + 1), UNUSED);
        if let Some(place) = self.places.get_mut(at) {
            *place = Place { value, offset, key, ..UNUSED };
        }
        of_key.len += 1;
        self.insert_by_value(of_key, node);
        if waits {
            self.insert_by_arrival(of_key, node);
        }
    }

    /// Returns whether it was waiting.
    pub(crate) fn remove(&mut self, of_key: &mut ParkedOfKey, node: Node) -> bool {
        of_key.len -= 1;
        let waited = self.released(of_key, node);
        self.remove_by_value(of_key, node);
        self.place_mut(node).key = NONE;
        waited
    }

    fn place(&self, node: Node) -> &Place {
        self.places.get(node as usize).expect("a parked event has a place")
    }

    fn place_mut(&mut self, node: Node) -> &mut Place {
        self.places.get_mut(node as usize).expect("a parked event has a place")
    }

    /// Returns the event that has waited longest, and its offset, without released events.
    pub(crate) fn oldest(&self, of_key: &ParkedOfKey) -> Option<(i64, Node)> {
        (of_key.oldest != NONE).then(|| (self.place(of_key.oldest).offset, of_key.oldest))
    }

    /// Returns all events, with their keys and offsets.
    pub(crate) fn all(&self) -> impl Iterator<Item = (u32, i64, Node)> + '_ {
        let places = (0..).zip(&self.places).filter(|(_, place)| place.key != NONE);
        places.map(|(node, place)| (place.key, place.offset, node))
    }

    // -- keys that wait for stream time -------------------------------------------------------------

    /// Replaces the offset under which a key waits.
    pub(crate) fn wait(&mut self, partition: u32, key: u32, before: Option<i64>, now: Option<i64>) {
        if before == now {
            return;
        }
        before.and_then(|offset| self.waiting.remove(&(partition, offset)));
        now.and_then(|offset| self.waiting.insert((partition, offset), key));
    }

    /// Returns the key of a partition that has waited longest.
    pub(crate) fn first_waiting(&self, partition: u32) -> Option<u32> {
        self.waiting(partition).next()
    }

    /// Returns the keys of a partition that wait.
    pub(crate) fn waiting(&self, partition: u32) -> impl Iterator<Item = u32> + '_ {
        let of_partition = self.waiting.range((partition, i64::MIN)..=(partition, i64::MAX));
        of_partition.map(|(_, &key)| key)
    }

    pub(crate) fn any_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    // -- keys with events that may run --------------------------------------------------------------

    pub(crate) fn may_be_due(&mut self, lane: u32, key: u32) {
        self.maybe_due.insert(lane, key);
    }

    pub(crate) fn not_due(&mut self, lane: u32, key: u32) {
        self.maybe_due.remove(lane, key);
    }

    /// Returns the first key of a lane that may have an event that may run.
    pub(crate) fn first_maybe_due(&self, lane: u32) -> Option<u32> {
        self.maybe_due.first(lane)
    }

    /// Returns the key after this one of the same lane that may have an event that may run.
    pub(crate) fn maybe_due_after(&self, key: u32) -> Option<u32> {
        self.maybe_due.after(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The order by value and the one by arrival, compared with sorted lists, while events come and go at random.
    #[test]
    fn the_orders_are_those_of_sorted_lists() {
        let mut parked = Parked::default();
        let mut keys = [ParkedOfKey::NONE; 3];
        let mut model: Vec<Vec<(i64, i64, Node, bool)>> = vec![Vec::new(); 3];
        let mut random = 0x9e37_79b9_u32;
        let mut draw = move |below: u32| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (random >> 8) % below
        };
        for step in 0..20_000 {
            let key = draw(3) as usize;
            let (events, of_key) = (&mut model[key], &mut keys[key]);
            // A node is used again only after it was removed.
            let node = u32::try_from(key).expect("small") + 3 * draw(200);
            match events.iter().position(|&(.., of, _)| of == node) {
                None => {
                    let waits = draw(4) > 0;
                    let (value, offset) = (i64::from(draw(50)), step - i64::from(draw(5)) * 1_000_000);
                    parked.insert((u32::try_from(key).expect("small"), of_key), (value, offset), node, waits);
                    events.push((value, offset, node, waits));
                }
                Some(at) if draw(3) == 0 => {
                    assert_eq!(parked.released(of_key, node), std::mem::take(&mut events[at].3));
                }
                Some(at) => assert_eq!(parked.remove(of_key, node), events.swap_remove(at).3),
            }
            events.sort_unstable();
            let by_value: Vec<(i64, Node)> =
                events.iter().map(|&(value, _, node, _)| (value, node)).collect();
            assert_eq!(parked.at_or_above(of_key, i64::MIN).collect::<Vec<_>>(), by_value);
            let from = i64::from(draw(50));
            let expected: Vec<_> = by_value.iter().copied().filter(|&(value, _)| value >= from).collect();
            assert_eq!(parked.at_or_above(of_key, from).collect::<Vec<_>>(), expected);
            assert_eq!(parked.lowest(of_key), by_value.first().copied());
            let greatest = by_value.last().map(|&(value, _)| value);
            let first_greatest = by_value.iter().copied().find(|&(value, _)| Some(value) == greatest);
            assert_eq!(parked.greatest(of_key), first_greatest);
            let waiting = events.iter().filter(|(.., waits)| *waits);
            let oldest = waiting.map(|&(_, offset, node, _)| (offset, node)).min();
            assert_eq!(parked.oldest(of_key), oldest);
            assert_eq!(of_key.len as usize, events.len());
        }
        let mut all: Vec<Node> = parked.all().map(|(.., node)| node).collect();
        all.sort_unstable();
        let mut expected: Vec<Node> = model.iter().flatten().map(|&(.., node, _)| node).collect();
        expected.sort_unstable();
        assert_eq!(all, expected);
    }
}
