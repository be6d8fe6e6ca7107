//! The last errors of events that have no outcome yet.

use std::collections::BTreeMap;

use keylane_core::Partition;

use crate::guest::{Call, CallStatus};

/// Maximum number of kept errors. With more, those with the lowest offsets of the first partitions are dropped.
const ERRORS_MAX: usize = 10_000;
/// Maximum size of a kept error, in bytes. Longer ones are truncated.
const ERROR_MAX: usize = 256;

#[derive(Debug, Default)]
pub(super) struct LastErrors {
    by_event: BTreeMap<(Partition, i64), Box<str>>,
}

impl LastErrors {
    /// Keeps the errors of a call. Errors of events that are done now are dropped only when there are too many.
    pub(super) fn call_ended(&mut self, call: &Call, topic: impl Fn() -> u16) {
        for (row, failed) in call.failed_rows() {
            self.keep(call, topic(), row, &failed.reason);
        }
        if let CallStatus::Failed(failure) = &call.status {
            self.keep(call, topic(), failure.row.unwrap_or(0), &failure.message);
        }
    }

    fn keep(&mut self, call: &Call, topic: u16, row: u32, error: &str) {
        let Some((number, offset)) = call.batch.position(row as usize) else { return };
        let (Ok(number), Ok(offset)) = (i32::try_from(number), i64::try_from(offset)) else { return };
        let error = error.get(..error.floor_char_boundary(ERROR_MAX)).unwrap_or_default();
        self.by_event.insert((Partition { topic, number }, offset), error.into());
        if self.by_event.len() > ERRORS_MAX {
            self.by_event.pop_first();
        }
    }

    /// Returns the last error of an event.
    pub(super) fn of(&self, partition: Partition, offset: i64) -> Option<&str> {
        self.by_event.get(&(partition, offset)).map(|error| &**error)
    }
}
