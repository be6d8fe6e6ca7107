//! The ages of unsettled events. At most one event a second and [`EVENTS_MAX`] events are kept for each partition, so
//! the time since an event was read is exact to a second within eight minutes. The age by the time of its record is
//! less exact if records that were read within a second have very different times.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use keylane_core::Partition;

/// The interval of the kept events.
const INTERVAL: Duration = Duration::from_secs(1);
/// Maximum number of kept events of a partition. With more, every second one is dropped.
const EVENTS_MAX: usize = 512;

/// An event, for its age.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::app) struct OldestEvent {
    pub(in crate::app) offset: i64,
    /// Milliseconds since 1970; −1: none.
    pub(in crate::app) timestamp: i64,
    /// The uptime at which it was read.
    pub(in crate::app) read_at: Duration,
}

#[derive(Debug, Default)]
pub(super) struct Ages {
    by_partition: HashMap<Partition, VecDeque<OldestEvent>>,
}

impl Ages {
    /// Keeps an event, unless another one of its partition was kept less than a second ago. `committable`: returns the
    /// first unsettled offset of the partition.
    pub(super) fn event_read(
        &mut self,
        partition: Partition,
        event: OldestEvent,
        committable: impl FnOnce() -> Option<i64>,
    ) {
        let kept = self.by_partition.entry(partition).or_default();
        if let Some(last) = kept.back() {
            if event.offset <= last.offset {
                kept.clear(); // a new ownership, or the reader was repositioned
            } else if event.read_at < last.read_at + INTERVAL {
                return;
            }
        }
        let unsettled = committable().unwrap_or(event.offset);
        while kept.get(1).is_some_and(|second| second.offset <= unsettled) {
            kept.pop_front();
        }
        if kept.len() == EVENTS_MAX {
            let mut index = 0;
            kept.retain(|_| {
                index += 1;
                index % 2 == 1
            });
        }
        kept.push_back(event);
    }

    pub(super) fn forget(&mut self, partition: Partition) {
        self.by_partition.remove(&partition);
    }

    /// Returns the kept event that is the first unsettled one, or the last one kept before it.
    pub(super) fn oldest(&self, partition: Partition, committable: i64) -> Option<OldestEvent> {
        let kept = self.by_partition.get(&partition)?;
        let after = kept.partition_point(|event| event.offset <= committable);
        kept.get(after.saturating_sub(1)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTITION: Partition = Partition { topic: 0, number: 1 };

    fn read(ages: &mut Ages, offset: i64, second: u64, committable: i64) {
        let event = OldestEvent { offset, timestamp: offset, read_at: Duration::from_secs(second) };
        ages.event_read(PARTITION, event, || Some(committable));
    }

    fn oldest(ages: &Ages, committable: i64) -> Option<i64> {
        ages.oldest(PARTITION, committable).map(|event| event.offset)
    }

    #[test]
    fn the_oldest_event_is_the_last_kept_one_that_is_not_after_the_first_unsettled() {
        let mut ages = Ages::default();
        assert_eq!(oldest(&ages, 10), None);
        for (offset, second) in [(10, 1), (15, 1), (20, 2), (30, 3)] {
            read(&mut ages, offset, second, 10);
        }
        assert_eq!([10, 19, 20, 35].map(|offset| oldest(&ages, offset)), [10, 10, 20, 30].map(Some));
        read(&mut ages, 40, 4, 25);
        assert_eq!(oldest(&ages, 10), Some(20), "older events were dropped: all of them have settled");
        read(&mut ages, 5, 5, 5);
        assert_eq!(oldest(&ages, 5), Some(5), "a new ownership begins at an earlier offset");
    }

    #[test]
    fn a_partition_that_is_blocked_for_long_keeps_a_limited_number_of_events() {
        let mut ages = Ages::default();
        (0..10_000_u64).for_each(|second| read(&mut ages, second.cast_signed(), second, 0));
        let kept = ages.by_partition.get(&PARTITION).expect("it was read");
        assert!(kept.len() <= EVENTS_MAX, "{}", kept.len());
        assert_eq!(oldest(&ages, 0), Some(0));
    }
}
