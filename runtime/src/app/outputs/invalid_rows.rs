//! Outputs that can't be stored are found before anything behind them in their lane is handed over (SEMANTICS: check
//! first).

use keylane_core::Verdict;

use crate::guest::{Call, GuestOutput};
use crate::sink::{RecordSize, Unpublishable};

use super::provenance;
use super::{Outputs, Target};

/// A row with an output that can't be stored.
struct Row {
    lane: u32,
    /// Rows of its lane before it.
    before: u32,
    reason: String,
}

impl Outputs {
    /// Takes the first such row of each lane back, with what is behind it: it will get its ending, and its lane goes on
    /// after that. Called before the core hears of the call's end.
    pub(in crate::app) fn retract_invalid_rows(&self, call: &mut Call) {
        for row in self.invalid_rows(call) {
            call.results.take_back(row.lane, row.before, Verdict::Unpublishable, row.reason);
        }
    }

    /// Nothing is allocated where everything fits.
    fn invalid_rows(&self, call: &Call) -> Vec<Row> {
        let mut unfit: Vec<Row> = Vec::new();
        let mut lanes = Lanes::of(call);
        let (mut row_before, mut index_in_row) = (None, 0);
        for output in call.results.outputs() {
            index_in_row = if row_before == Some(output.row) { index_in_row + 1 } else { 0 };
            row_before = Some(output.row);
            let (lane, first) = lanes.find(output.row);
            if unfit.last().is_some_and(|found| found.lane == lane) {
                continue; // only the first row of a lane is asked for: what is behind it runs again
            }
            if let Err((topic, why)) = self.fits(call, &output, index_in_row) {
                let topic = self.topic_name(topic);
                let reason = format!("the output to topic `{topic}` {why}");
                unfit.push(Row { lane, before: output.row - first, reason });
            }
        }
        unfit
    }

    fn fits(
        &self,
        call: &Call,
        output: &GuestOutput<'_>,
        index_in_row: u32,
    ) -> Result<(), (u16, Unpublishable)> {
        let &Target { topic, provenance, .. } = self.target(output);
        let size = RecordSize::new(output.key, output.value);
        let size = output.headers().fold(size, |size, (name, value)| size.with(name.as_bytes(), value));
        let checked = if !provenance {
            self.sink.check(topic, size)
        } else if self.sink.check(topic, size.with_room_for(provenance::BYTES_MAX)).is_ok() {
            Ok(())
        } else {
            let mut headers = Vec::new();
            self.provenance.add_to(&mut headers, call, output.row, index_in_row);
            let size = headers.iter().fold(size, |size, (name, value)| size.with(name, value.as_deref()));
            self.sink.check(topic, size)
        };
        checked.map_err(|why| (topic, why))
    }
}

/// Finds the lanes of ascending rows.
pub(super) struct Lanes<'a> {
    /// Rows of each lane.
    lengths: &'a [u32],
    lane: u32,
    first: u32,
}

impl<'a> Lanes<'a> {
    pub(super) fn of(call: &'a Call) -> Self {
        Lanes { lengths: call.batch.lanes(), lane: 0, first: 0 }
    }

    /// The lane of a row, and the lane's first row.
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
        let mut lanes = Lanes { lengths: &[2, 1, 3], lane: 0, first: 0 };
        let found: Vec<_> = [0, 1, 1, 2, 5].map(|row| lanes.find(row)).into();
        assert_eq!(found, [(0, 0), (0, 0), (0, 0), (1, 2), (2, 3)]);
    }
}
