//! What events have left and no committed transaction contains yet, in the order of the events.

use std::collections::VecDeque;

use super::StateValue;
use crate::KeyBytes;

/// A state that an event has left.
#[derive(Debug)]
pub(super) struct Change {
    /// The settle number of the event.
    pub(super) number: u64,
    pub(super) key: KeyBytes,
    pub(super) value: StateValue,
    /// The settle number of the next change of the key, so that only the last one is written.
    next: Option<u64>,
}

impl Change {
    /// Returns whether no other change of the key up to this number follows.
    pub(super) fn is_last_through(&self, through: u64) -> bool {
        self.next.is_none_or(|next| next > through)
    }
}

/// A change, in the order of all changes so far. [`ChangeId::NONE`]: a state that no event has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ChangeId(u64);

impl ChangeId {
    pub(super) const NONE: ChangeId = ChangeId(0);
}

/// The uncommitted changes. One event changes one key; one deletion of old states may have many.
#[derive(Debug, Default)]
pub(super) struct Changes {
    queue: VecDeque<Change>,
    /// The number of changes that are committed.
    committed: u64,
}

impl Changes {
    /// Returns the id of the next change.
    pub(super) fn next_id(&self) -> ChangeId {
        ChangeId(self.committed + self.queue.len() as u64 + 1)
    }

    pub(super) fn is_uncommitted(&self, id: ChangeId) -> bool {
        id.0 > self.committed
    }

    /// Adds a change. `before`: the change of the same key before it.
    ///
    /// # Panics
    /// If the number is below those before it.
    pub(super) fn push(&mut self, number: u64, (key, value): (KeyBytes, StateValue), before: ChangeId) {
        let last = self.queue.back().map_or(number, |last| last.number);
        assert!(number >= last, "settle number {number} after {last}");
        let before = before.0.checked_sub(self.committed + 1).and_then(|at| usize::try_from(at).ok());
        if let Some(before) = before.and_then(|at| self.queue.get_mut(at)) {
            before.next = Some(number);
        }
        self.queue.push_back(Change { number, key, value, next: None });
    }

    /// Returns the settle number of the last change.
    pub(super) fn last_number(&self) -> Option<u64> {
        self.queue.back().map(|last| last.number)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Change> {
        self.queue.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Removes the first change, if its settle number is not above this one.
    pub(super) fn commit_through(&mut self, through: u64) -> Option<Change> {
        let change = self.queue.pop_front_if(|change| change.number <= through)?;
        self.committed += 1;
        Some(change)
    }
}
