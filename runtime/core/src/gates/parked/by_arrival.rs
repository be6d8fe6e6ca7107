//! The waiting events of a key in order of their arrival: a linked list over the places.

use super::{Node, Parked, ParkedOfKey};
use crate::slab::NONE;

impl Parked {
    /// Most events are parked in the order of their arrival, so the place of one is near the end.
    pub(super) fn insert_by_arrival(&mut self, of_key: &mut ParkedOfKey, node: Node) {
        let offset = self.place(node).offset;
        let mut earlier = of_key.newest;
        while earlier != NONE && self.place(earlier).offset > offset {
            earlier = self.place(earlier).earlier;
        }
        let later = match earlier {
            NONE => std::mem::replace(&mut of_key.oldest, node),
            earlier => std::mem::replace(&mut self.place_mut(earlier).later, node),
        };
        match later {
            NONE => of_key.newest = node,
            later => self.place_mut(later).earlier = node,
        }
        let place = self.place_mut(node);
        (place.earlier, place.later, place.waits) = (earlier, later, true);
    }

    /// Notes that an event does not wait for stream time any more. Returns whether it was waiting.
    pub(crate) fn released(&mut self, of_key: &mut ParkedOfKey, node: Node) -> bool {
        let place = self.place_mut(node);
        if !std::mem::replace(&mut place.waits, false) {
            return false;
        }
        let (earlier, later) = (place.earlier, place.later);
        match earlier {
            NONE => of_key.oldest = later,
            earlier => self.place_mut(earlier).later = later,
        }
        match later {
            NONE => of_key.newest = earlier,
            later => self.place_mut(later).earlier = earlier,
        }
        true
    }
}
