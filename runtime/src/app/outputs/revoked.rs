//! Rows whose ownership is over.

use std::ops::Range;

use keylane_core::CallId;

/// Collected until everything that waits for the brokers is gone through once for all of them.
#[derive(Debug, Default)]
pub(super) struct RevokedRows {
    /// Slot and generation of the call, rows.
    rows: Vec<((u32, u32), Range<u32>)>,
}

impl RevokedRows {
    pub(super) fn add(&mut self, call: CallId, rows: Range<u32>) {
        let call = (call.slot, call.generation);
        let at = self.rows.partition_point(|(known, before)| (*known, before.start) <= (call, rows.start));
        self.rows.insert(at, (call, rows));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(super) fn contains(&self, call: CallId, row: u32) -> bool {
        let call = (call.slot, call.generation);
        let behind = self.rows.partition_point(|(known, rows)| (*known, rows.start) <= (call, row));
        let before = behind.checked_sub(1).and_then(|at| self.rows.get(at));
        before.is_some_and(|(known, rows)| *known == call && rows.contains(&row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_found_whatever_came_first() {
        let call = |slot, generation| CallId { slot, generation };
        let mut revoked = RevokedRows::default();
        for (id, rows) in [(call(7, 1), 4..6), (call(2, 9), 0..1), (call(7, 1), 0..2)] {
            revoked.add(id, rows);
        }
        for (id, row, expected) in [
            (call(7, 1), 0, true),
            (call(7, 1), 1, true),
            (call(7, 1), 2, false),
            (call(7, 1), 5, true),
            (call(7, 1), 6, false),
            (call(7, 2), 0, false),
            (call(2, 9), 0, true),
            (call(1, 1), 0, false),
        ] {
            assert_eq!(revoked.contains(id, row), expected, "{id:?} {row}");
        }
    }
}
