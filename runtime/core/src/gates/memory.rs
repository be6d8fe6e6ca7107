//! What is remembered of a gate key: its mark, its holes, and the ids of its last events.

use crate::{EventId, GateKey, OwnershipId, Partition, SettleNumber};

/// Maximum number of ranges of holes of a key. The lowest is forgotten first.
pub const HOLES_MAX: usize = 64;
/// Number of delivered values that a key remembers, with a tolerance.
pub const DELIVERED_MAX: usize = 16;

/// What is remembered of a gate key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyMemory {
    /// The value up to which the events of the key have passed.
    pub mark: Option<i64>,
    /// Values up to the mark whose events may still come: first and last value of each range, ascending.
    pub holes: Vec<(i64, i64)>,
    /// Whether events follow the dead letters of a gap until the value after the mark comes.
    pub broken: bool,
    /// The last values that were done, oldest first. Only with a tolerance.
    pub delivered: Vec<i64>,
    /// The ids of the last events that were done, oldest first.
    pub ids: Vec<RememberedId>,
}

/// The id of an event that was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RememberedId {
    /// The id.
    pub id: EventId,
    /// When the event settled, in milliseconds since 1970.
    pub settled_ms: i64,
}

/// A change of what is remembered of a gate key, by an event that has settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryChange {
    /// The partition.
    pub partition: Partition,
    /// The ownership in which the event has settled.
    pub ownership: OwnershipId,
    /// The gate key. The core still has an event of it when the shell gets the change.
    pub key: GateKey,
    /// Transactional delivery: the number of the event. Otherwise 0.
    pub number: SettleNumber,
    /// The change.
    pub change: Change,
}

/// One change of a [`KeyMemory`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The mark is this value now.
    Mark(i64),
    /// The values from the first to the second became holes.
    Holes(i64, i64),
    /// The hole with this value is filled.
    Filled(i64),
    /// Whether the key is broken now.
    Broken(bool),
    /// This value was done: only with a tolerance.
    Delivered(i64),
    /// An event with this id was done.
    Id(RememberedId),
    /// The key has ended: mark, holes and delivered values are forgotten.
    Ended,
}

impl KeyMemory {
    /// Applies a change. `keep_ids`: [`Duplicates::keep`](crate::Duplicates), or 0. Returns the number of ranges of holes, or
    /// of ids, that were forgotten.
    pub fn apply(&mut self, change: Change, keep_ids: usize) -> usize {
        match change {
            Change::Mark(mark) => self.mark = Some(mark),
            Change::Holes(from, to) => return self.add_holes(from, to),
            Change::Filled(value) => return self.fill(value),
            Change::Broken(broken) => self.broken = broken,
            Change::Delivered(value) => {
                self.delivered.push(value);
                forget_oldest(&mut self.delivered, DELIVERED_MAX);
            }
            Change::Id(id) => {
                self.ids.push(id);
                return forget_oldest(&mut self.ids, keep_ids);
            }
            Change::Ended => {
                self.mark = None;
                self.holes.clear();
                self.broken = false;
                self.delivered.clear();
            }
        }
        0
    }

    /// Returns whether the event of a value may still come although the mark is past it.
    pub fn is_hole(&self, value: i64) -> bool {
        let after = self.holes.partition_point(|&(_, to)| to < value);
        self.holes.get(after).is_some_and(|&(from, _)| from <= value)
    }

    /// Returns whether nothing but the mark is remembered.
    pub fn is_only_mark(&self) -> bool {
        self.holes.is_empty() && !self.broken && self.delivered.is_empty() && self.ids.is_empty()
    }

    fn add_holes(&mut self, from: i64, to: i64) -> usize {
        match self.holes.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(from) => *last = to,
            _ => self.holes.push((from, to)),
        }
        forget_oldest(&mut self.holes, HOLES_MAX)
    }

    fn fill(&mut self, value: i64) -> usize {
        let at = self.holes.partition_point(|&(_, to)| to < value);
        let Some(&(from, to)) = self.holes.get(at).filter(|&&(from, _)| from <= value) else { return 0 };
        let before = (from < value).then(|| (from, value - 1));
        let after = (value < to).then(|| (value + 1, to));
        self.holes.splice(at..=at, before.into_iter().chain(after));
        forget_oldest(&mut self.holes, HOLES_MAX)
    }
}

fn forget_oldest<T>(items: &mut Vec<T>, keep: usize) -> usize {
    let forgotten = items.len().saturating_sub(keep);
    items.drain(..forgotten);
    forgotten
}
