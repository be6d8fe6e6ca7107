//! Barriers: the offset of a partition beyond which nothing is dispatched for the first time: the rounds of the strict
//! batch retry, and the holds of transactional delivery. (Within a round, no event beyond it was ever dispatched.)

use crate::event::Event;
use crate::slab::NONE;

/// The barriers by partition index.
#[derive(Debug, Default)]
pub(super) struct Barriers {
    /// The last offset that may be dispatched; `i64::MAX`: no barrier.
    limits: Vec<i64>,
    /// The lane that the barrier does not hold; [`NONE`]: it holds all.
    exempt: Vec<u32>,
    /// Number of partitions with a barrier. Usually it is 0, and then nothing is checked.
    active: usize,
    /// Lanes whose first event is beyond a barrier.
    pub(super) held: Vec<u32>,
}

impl Barriers {
    /// Returns whether an event may not be dispatched now.
    pub(super) fn holds(&self, (partition, lane): (u32, u32), event: &Event) -> bool {
        self.active > 0
            && !event.dispatched
            && self.limits.get(partition as usize).is_some_and(|&limit| event.offset > limit)
            && self.exempt.get(partition as usize) != Some(&lane)
    }

    /// Sets or removes a barrier. Returns true if it changed.
    pub(super) fn set(&mut self, partition: u32, last: Option<i64>, exempt: Option<u32>) -> bool {
        let at = partition as usize;
        if last.is_none() && self.limits.len() <= at {
            return false;
        }
        if self.limits.len() <= at {
            self.limits.resize(at + 1, i64::MAX);
            self.exempt.resize(at + 1, NONE);
        }
        let exempt = exempt.unwrap_or(NONE);
        let moved = self.exempt.get_mut(at).is_some_and(|lane| std::mem::replace(lane, exempt) != exempt);
        let Some(barrier) = self.limits.get_mut(at) else { return false };
        let before = std::mem::replace(barrier, last.unwrap_or(i64::MAX));
        self.active += usize::from(*barrier != i64::MAX);
        self.active -= usize::from(before != i64::MAX);
        before != *barrier || moved
    }
}
