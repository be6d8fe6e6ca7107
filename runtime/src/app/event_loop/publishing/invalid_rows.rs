//! Finds unpublishable outputs before anything behind them in their lane is published.

use keylane_core::Verdict;

use crate::guest::{Call, GuestOutput};
use crate::sink::{RecordSize, SinkTopic, Unpublishable};

use super::order_values::OrderHeader;
use super::targets::Target;
use super::{Publishing, provenance};

/// A row with an unpublishable output.
struct InvalidRow {
    lane: u32,
    /// Number of rows of its lane before it.
    before: u32,
    reason: String,
}

impl Publishing {
    /// Retracts the first row of each lane that has an unpublishable output, and the rows behind it. That row gets its
    /// outcome, and its lane continues after that. If the state of a lane is unknown then, the call fails: its events run
    /// again, one per call. Called before the end of the call is fed to the core.
    pub(in crate::app::event_loop) fn retract_invalid_rows(&self, call: &mut Call) {
        for row in self.invalid_rows(call) {
            let InvalidRow { lane, before, reason } = row;
            if let Err(unknown) = call.results.retract(lane, before, Verdict::Unpublishable, reason) {
                return call.fail(unknown.to_string());
            }
        }
    }

    /// Finds the first row of each lane that has an unpublishable output. Allocates nothing in the common case that
    /// every output is well below the limits.
    fn invalid_rows(&self, call: &Call) -> Vec<InvalidRow> {
        let mut invalid: Vec<InvalidRow> = Vec::new();
        let mut lanes = LaneCursor::of(call);
        let (mut row_before, mut index_in_row) = (None, 0);
        for output in call.results.outputs() {
            index_in_row = if row_before == Some(output.row) { index_in_row + 1 } else { 0 };
            row_before = Some(output.row);
            let (lane, first) = lanes.find(output.row);
            if invalid.last().is_some_and(|found| found.lane == lane) {
                continue; // only the first row of a lane counts: the rows behind it run again
            }
            if let Err((topic, why)) = self.check_output(call, &output, index_in_row) {
                let topic = self.topic_name(topic);
                let reason = format!("the output to topic `{topic}` {why}");
                invalid.push(InvalidRow { lane, before: output.row - first, reason });
            }
        }
        invalid
    }

    fn check_output(
        &self,
        call: &Call,
        output: &GuestOutput<'_>,
        index_in_row: u32,
    ) -> Result<(), (SinkTopic, Unpublishable)> {
        let Target { topic, provenance, .. } = *self.target(output);
        let size = RecordSize::new(output.key, output.value);
        let size = output.headers().fold(size, |size, (name, value)| size.with(name.as_bytes(), value));
        let pending_call = self.calls.get(call.key.call);
        let order_header = self.order_values.header(output, pending_call);
        let size = order_header.iter().fold(size, OrderHeader::add_to);
        let checked = if !provenance {
            self.sink.check(topic, size)
        } else if self.sink.check(topic, size.with_extra_bytes(provenance::BYTES_MAX)).is_ok() {
            Ok(())
        } else {
            let headers = self.provenance.headers(call, pending_call, output.row, index_in_row);
            self.sink.check(topic, headers.iter().fold(size, |size, (name, value)| size.with(name, value)))
        };
        checked.map_err(|why| (topic, why))
    }
}

/// Finds the lanes of ascending rows.
pub(super) struct LaneCursor<'a> {
    /// Rows of each lane.
    lengths: &'a [u32],
    lane: u32,
    first: u32,
}

impl<'a> LaneCursor<'a> {
    pub(super) fn of(call: &'a Call) -> Self {
        LaneCursor { lengths: call.batch.lanes(), lane: 0, first: 0 }
    }

    /// Returns the lane of a row, and the lane's first row.
    pub(super) fn find(&mut self, row: u32) -> (u32, u32) {
        while let Some(length) = self.lengths.get(self.lane as usize)
            && row >= self.first + length
        {
            self.first += length;
            self.lane += 1;
        }
        (self.lane, self.first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_belong_to_lanes() {
        let mut lanes = LaneCursor { lengths: &[2, 1, 3], lane: 0, first: 0 };
        let found: Vec<_> = [0, 1, 1, 2, 5].map(|row| lanes.find(row)).into();
        assert_eq!(found, [(0, 0), (0, 0), (0, 0), (1, 2), (2, 3)]);
    }
}
