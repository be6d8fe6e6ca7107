//! The batch loop: plain code over columns, the same natively and in a component.

use crate::bindings::{Batch, LaneFailure, Results};
use crate::columns::{ColumnReader, HeaderRows};
use crate::state::{LaneStates, State};
use crate::{Effects, Event, Result};

/// Calls `handle` for each row. A lane stops at its first failure, whose outputs are rolled back; the
/// other lanes continue. Called by the code that `handler!` generates.
pub fn run<H>(batch: &Batch, mut handle: H) -> Results
where
    H: FnMut(&Event<'_>, &mut Effects) -> Result,
{
    run_lanes(batch, |_, event, effects| handle(event, effects))
}

/// Does the same with the state of each lane, which the rows of a lane pass on. A change of the state by a row that
/// fails is rolled back, too. Called by the code that `keyed_handler!` generates.
pub fn run_keyed<T, H>(batch: &Batch, mut handle: H) -> Results
where
    T: State,
    H: FnMut(&Event<'_>, &mut Option<T>, &mut Effects) -> Result,
{
    let mut states = LaneStates::new(batch.states.as_ref());
    let results = run_lanes(batch, |lane, event, effects| {
        handle(event, states.before_row(lane)?, effects)?;
        states.row_is_done()
    });
    Results { states: states.into_changes(), ..results }
}

/// Calls `handle` for each row, with the number of its lane.
fn run_lanes<H>(batch: &Batch, mut handle: H) -> Results
where
    H: FnMut(u32, &Event<'_>, &mut Effects) -> Result,
{
    let mut rows = Rows::new(batch);
    let mut effects = Effects::new();
    let mut done = Vec::with_capacity(batch.lanes.len());
    let mut failures = Vec::new();
    for (lane, &length) in (0..).zip(&batch.lanes) {
        let mut lane_done = 0;
        let mut stopped = false;
        for _ in 0..length {
            // Rows of a stopped lane are read, too: a row in columns can only be skipped by reading it.
            let (row, event) = rows.read();
            if stopped {
                continue;
            }
            let mark = effects.begin(row);
            match handle(lane, &event, &mut effects) {
                Ok(()) => lane_done += 1,
                Err(failure) => {
                    effects.roll_back(&mark);
                    failures.push(LaneFailure { lane, failure: failure.into() });
                    stopped = true;
                }
            }
        }
        done.push(lane_done);
    }
    Results { done, failures, outputs: effects.into_columns(), states: None }
}

/// The unread rows of a batch.
struct Rows<'a> {
    batch: &'a Batch,
    row: u32,
    partitions: std::slice::Iter<'a, u32>,
    offsets: std::slice::Iter<'a, u64>,
    timestamps: std::slice::Iter<'a, i64>,
    keys: ColumnReader<'a>,
    values: ColumnReader<'a>,
    headers: HeaderRows<'a>,
}

impl<'a> Rows<'a> {
    fn new(batch: &'a Batch) -> Self {
        Self {
            batch,
            row: 0,
            partitions: batch.partitions.iter(),
            offsets: batch.offsets.iter(),
            timestamps: batch.timestamps.iter(),
            keys: ColumnReader::new(&batch.keys),
            values: ColumnReader::new(&batch.values),
            headers: HeaderRows::new(batch.headers.as_ref()),
        }
    }

    /// Reads the next row. Returns its index and its event.
    fn read(&mut self) -> (u32, Event<'a>) {
        let row = self.row;
        self.row += 1;
        let event = Event {
            topic: &self.batch.topic,
            partition: *self.partitions.next().expect("the host sends a partition for every row"),
            offset: *self.offsets.next().expect("the host sends an offset for every row"),
            timestamp: *self.timestamps.next().expect("the host sends a timestamp for every row"),
            key: self.keys.read(),
            value: self.values.read(),
            headers: self.headers.read(),
            attempt: self.batch.attempt,
            last_attempt: self.batch.last_attempt,
        };
        (row, event)
    }
}

#[cfg(test)]
mod tests;
