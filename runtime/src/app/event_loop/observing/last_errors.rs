//! The last errors of events that have no outcome yet.

use std::collections::BTreeMap;

use keylane_core::Partition;

use crate::guest::{Call, CallStatus};

/// Maximum number of kept errors.
const ERRORS_MAX: usize = 10_000;
/// Maximum size of a kept error, in bytes. Longer ones are truncated.
const ERROR_MAX: usize = 256;

#[derive(Debug, Default)]
pub(super) struct LastErrors {
    by_event: BTreeMap<(Partition, i64), LastError>,
    /// Number of errors so far.
    count: u64,
}

#[derive(Debug)]
struct LastError {
    /// Its number among all errors.
    number: u64,
    text: Box<str>,
}

impl LastErrors {
    /// Keeps the errors of a call. `committable`: returns the first unsettled offset of a partition.
    pub(super) fn call_ended(
        &mut self,
        call: &Call,
        topic: impl Fn() -> u16,
        committable: impl Fn(Partition) -> Option<i64>,
    ) {
        let mut keep = |row: u32, error: &str| {
            let position = call.batch.position(row as usize);
            let Some((Ok(number), Ok(offset))) =
                position.map(|(number, offset)| (i32::try_from(number), i64::try_from(offset)))
            else {
                return;
            };
            self.keep((Partition { topic: topic(), number }, offset), error);
        };
        for (row, failed) in call.failed_rows() {
            keep(row, &failed.reason);
        }
        if let CallStatus::Failed(failure) = &call.status {
            keep(failure.row.unwrap_or(0), &failure.message);
        }
        if self.by_event.len() > ERRORS_MAX {
            self.by_event.retain(|(partition, offset), _| {
                committable(*partition).is_some_and(|first| *offset >= first)
            });
            self.drop_older_half();
        }
    }

    fn keep(&mut self, event: (Partition, i64), error: &str) {
        self.count += 1;
        let text = error.get(..error.floor_char_boundary(ERROR_MAX)).unwrap_or_default().into();
        self.by_event.insert(event, LastError { number: self.count, text });
    }

    /// Drops the older half of the errors, if there are still too many.
    fn drop_older_half(&mut self) {
        if self.by_event.len() <= ERRORS_MAX {
            return;
        }
        let mut numbers: Vec<u64> = self.by_event.values().map(|error| error.number).collect();
        let half = numbers.len() / 2;
        let (_, middle, _) = numbers.select_nth_unstable(half);
        let middle = *middle;
        self.by_event.retain(|_, error| error.number >= middle);
    }

    /// Drops the errors of a partition.
    pub(super) fn forget(&mut self, partition: Partition) {
        // Only the errors of the partition are visited: a rebalance may end a thousand ownerships at once.
        let own = self.by_event.range((partition, i64::MIN)..=(partition, i64::MAX));
        let own: Vec<_> = own.map(|(event, _)| *event).collect();
        for event in own {
            self.by_event.remove(&event);
        }
    }

    /// Returns the last error of an event.
    pub(super) fn of(&self, partition: Partition, offset: i64) -> Option<&str> {
        self.by_event.get(&(partition, offset)).map(|error| &*error.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newer_half_of_too_many_errors_is_kept() {
        let at = |number, offset| (Partition { topic: 0, number }, offset);
        let mut errors = LastErrors::default();
        (0..).take(ERRORS_MAX + 1).for_each(|offset| errors.keep(at(1, offset), "failed"));
        errors.keep(at(0, 7), "poison");
        errors.drop_older_half();
        assert_eq!(errors.of(at(0, 7).0, 7), Some("poison"), "although its partition is the first");
        assert_eq!((errors.of(at(1, 0).0, 0), errors.by_event.len()), (None, ERRORS_MAX / 2 + 1));
        errors.forget(at(0, 7).0);
        assert_eq!(errors.of(at(0, 7).0, 7), None);
    }
}
