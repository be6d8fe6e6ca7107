//! The keys of each lane that may have a parked event that may run: linked lists over the keys.

use crate::slab::NONE;

#[derive(Debug, Default)]
pub(super) struct MaybeDue {
    /// The first key of each lane.
    first: Vec<u32>,
    /// By key.
    links: Vec<Link>,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    before: u32,
    after: u32,
    is_in: bool,
}

impl MaybeDue {
    /// Returns the first key of a lane.
    pub(super) fn first(&self, lane: u32) -> Option<u32> {
        self.first.get(lane as usize).copied().filter(|&key| key != NONE)
    }

    /// Returns the key after this one of the same lane.
    pub(super) fn after(&self, key: u32) -> Option<u32> {
        self.links.get(key as usize).map(|link| link.after).filter(|&key| key != NONE)
    }

    /// Adds a key of a lane, unless it is there.
    pub(super) fn insert(&mut self, lane: u32, key: u32) {
        self.first.resize(self.first.len().max(lane as usize + 1), NONE);
        let unused = Link { before: NONE, after: NONE, is_in: false };
        self.links.resize(self.links.len().max(key as usize + 1), unused);
        let (Some(first), Some(link)) = (self.first.get_mut(lane as usize), self.links.get_mut(key as usize))
        else {
            return;
        };
        if link.is_in {
            return;
        }
        let after = std::mem::replace(first, key);
        *link = Link { before: NONE, after, is_in: true };
        if let Some(after) = self.links.get_mut(after as usize) {
            after.before = key;
        }
    }

    /// Removes a key of a lane, if it is there.
    pub(super) fn remove(&mut self, lane: u32, key: u32) {
        let Some(link) = self.links.get_mut(key as usize).filter(|link| link.is_in) else { return };
        link.is_in = false;
        let Link { before, after, .. } = *link;
        match self.links.get_mut(before as usize) {
            Some(before) => before.after = after,
            None => self.first.get_mut(lane as usize).into_iter().for_each(|first| *first = after),
        }
        if let Some(after) = self.links.get_mut(after as usize) {
            after.before = before;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_lane(keys: &MaybeDue, lane: u32) -> Vec<u32> {
        std::iter::successors(keys.first(lane), |&key| keys.after(key)).collect()
    }

    #[test]
    fn each_key_is_in_the_list_of_its_lane_once() {
        let mut keys = MaybeDue::default();
        for (lane, key) in [(1, 4), (0, 2), (1, 3), (1, 4), (1, 7)] {
            keys.insert(lane, key);
        }
        assert_eq!((of_lane(&keys, 1), of_lane(&keys, 0)), (vec![7, 3, 4], vec![2]));
        keys.remove(1, 3);
        keys.remove(1, 3);
        keys.remove(0, 9);
        assert_eq!(of_lane(&keys, 1), [7, 4]);
        keys.remove(1, 7);
        keys.remove(0, 2);
        keys.insert(0, 7);
        keys.remove(1, 4);
        assert_eq!((of_lane(&keys, 1), of_lane(&keys, 0)), (vec![], vec![7]));
    }
}
