//! Reads of records with timestamps.

use keylane_core::{Admission, FetchedRow, Input, Partition};

use super::Shell;

impl Shell {
    /// A read of records with these offsets and timestamps, all in one lane, that ends at this offset of the log.
    pub(crate) fn fetch_timed(&mut self, partition: Partition, records: &[(i64, i64)], end: Option<i64>) {
        let mut row = |&(offset, timestamp): &(i64, i64)| FetchedRow {
            timestamp,
            ..self.row(offset, Admission::Lane(1))
        };
        let rows: Vec<FetchedRow> = records.iter().map(&mut row).collect();
        self.reads.retain(|permitted| *permitted != partition);
        self.give(Input::Fetched { partition, rows: &rows, orders: &[], end, error: None });
    }
}
