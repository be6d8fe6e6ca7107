//! Which lane a record belongs to (SEMANTICS: lanes, lane key, `no_key`).

use std::hash::BuildHasher;

use foldhash::quality::RandomState;
use keylane_core::Admission;

use crate::config::{NoKey, Ordering};

/// Finds lanes by a hash with a seed of this process: nobody outside can aim keys at one lane.
#[derive(Debug)]
pub struct LaneRule {
    ordering: Ordering,
    no_key: NoKey,
    seed: RandomState,
}

impl LaneRule {
    /// A rule with a fresh seed.
    pub fn new(ordering: Ordering, no_key: NoKey) -> Self {
        LaneRule { ordering, no_key, seed: RandomState::default() }
    }

    /// The lane of a record with this key. An empty key is a key.
    pub fn admission(&self, key: Option<&[u8]>) -> Admission {
        match (self.ordering, key, self.no_key) {
            (Ordering::Key, Some(key), _) => Admission::Lane(self.seed.hash_one(key)),
            (Ordering::Key, None, NoKey::Spread) | (Ordering::Unordered, _, _) => Admission::NoLane,
            (Ordering::Key, None, NoKey::Partition) => Admission::Lane(self.seed.hash_one(None::<&[u8]>)),
            (Ordering::Partition, _, _) => Admission::Lane(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_and_empty_keys_differ() {
        let rule = LaneRule::new(Ordering::Key, NoKey::Partition);
        assert_eq!(rule.admission(Some(b"a")), rule.admission(Some(b"a")));
        assert_ne!(rule.admission(Some(b"a")), rule.admission(Some(b"b")));
        assert_ne!(rule.admission(Some(b"")), rule.admission(None));
        assert_eq!(rule.admission(None), rule.admission(None));
        assert_eq!(LaneRule::new(Ordering::Key, NoKey::Spread).admission(None), Admission::NoLane);
    }

    #[test]
    fn other_orderings_do_not_look_at_the_key() {
        let partition = LaneRule::new(Ordering::Partition, NoKey::Spread);
        assert_eq!(partition.admission(Some(b"a")), partition.admission(None));
        let unordered = LaneRule::new(Ordering::Unordered, NoKey::Spread);
        assert_eq!(unordered.admission(Some(b"a")), Admission::NoLane);
    }
}
