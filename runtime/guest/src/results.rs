//! The result of a call, checked before it is used.
//!
//! A guest is not trusted to meet the contract: lengths, sums, orders and bounds are checked. A violation fails the
//! call as a trap would, with a message that names the field. Outputs that are too large, too many or for an unknown
//! target would be the same in every attempt: their row is retracted and gets its outcome without another attempt.
//! Outputs stay in the columns in which they arrived; iterating them borrows slices.

mod check;
mod limits;

use std::time::Duration;

use keylane_core::{LaneEnd, Verdict};

use super::batch::{self, ABSENT};
use super::bindings::batch::exports::keylane::handler::batch_handler as wit;
use super::bindings::single::keylane::handler::types as single;

pub(super) use check::ContractViolation;
pub(super) use limits::EVENT_BYTES;
use limits::EventLimits;
pub use limits::OUTPUT_BYTES;

/// Maximum bytes of a reason, which is written to a log line and a header.
const REASON_MAX: usize = 1024;

/// Prefix of header names that only Keylane may write.
const RESERVED: &str = "keylane-";

/// Capacity beyond this is freed, as in the staging area: the buffers must not stay as large as one huge result.
const KEPT_BYTES: usize = 256 << 10;
const KEPT_ENTRIES: usize = KEPT_BYTES / 4;

/// Why a lane stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoppedLane {
    /// The lane, by its position in the call.
    pub lane: u32,
    /// The verdict on the first row that is not done.
    pub verdict: Verdict,
    /// The reason of the guest, or of the check that retracted the row; truncated to 1 KiB.
    pub reason: String,
}

/// One output of a guest.
#[derive(Clone, Copy, Debug)]
pub struct GuestOutput<'a> {
    /// The row that caused the output.
    pub row: u32,
    /// Index into the outputs of the handler.
    pub target: u32,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value.
    pub value: Option<&'a [u8]>,
    header_lengths: &'a [i32],
    header_names: &'a [u8],
    header_value_lengths: &'a [i32],
    header_values: &'a [u8],
}

impl<'a> GuestOutput<'a> {
    /// Returns the headers, in order, without reserved ones.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, Option<&'a [u8]>)> + use<'a> {
        let (mut names, mut values) = (self.header_names, self.header_values);
        self.header_lengths.iter().zip(self.header_value_lengths).filter_map(move |(name, value)| {
            let name = batch::next(*name, &mut names)?;
            let value = batch::next(*value, &mut values);
            let name = std::str::from_utf8(name).ok()?; // always: names were checked
            (!name.starts_with(RESERVED)).then_some((name, value))
        })
    }
}

/// The checked result of a call.
#[derive(Debug)]
pub struct Results {
    limits: EventLimits,
    ends: Vec<LaneEnd>,
    stopped_lanes: Vec<StoppedLane>,
    /// The outputs of done rows, including rows that are retracted later. Here `targets` are indices into the
    /// handler's outputs, and `target_names` is empty.
    outputs: wit::OutputColumns,
    /// Done rows with outputs, including rows that are retracted later, ascending.
    rows_with_outputs: Vec<u32>,
    reserved_headers: u64,
    /// The row that the `handler` is processing.
    running: Option<RunningRow>,
}

#[derive(Clone, Copy, Debug)]
struct RunningRow {
    lane: u32,
    done: u32,
    row: u32,
}

impl Results {
    /// Creates an empty result. `max_output_bytes`: the limit of one output, for key, value and headers together.
    pub(super) fn new(max_output_bytes: usize) -> Results {
        Results {
            limits: EventLimits::new(max_output_bytes),
            ends: Vec::new(),
            stopped_lanes: Vec::new(),
            outputs: no_outputs(),
            rows_with_outputs: Vec::new(),
            reserved_headers: 0,
            running: None,
        }
    }

    /// Returns how each lane ended, in the form that the core takes.
    pub fn lane_ends(&self) -> &[LaneEnd] {
        &self.ends
    }

    /// Returns why lanes stopped, in the order of the lanes.
    pub fn stopped_lanes(&self) -> &[StoppedLane] {
        &self.stopped_lanes
    }

    /// Returns the done rows that have outputs, and those of them that were retracted, ascending, in the form that the
    /// core takes.
    pub fn rows_with_outputs(&self) -> &[u32] {
        &self.rows_with_outputs
    }

    /// Returns the number of headers that are dropped because their names are reserved.
    pub fn reserved_headers(&self) -> u64 {
        self.reserved_headers
    }

    /// Returns the outputs of done rows, and of rows that were retracted, in the order of their rows.
    pub fn outputs(&self) -> impl Iterator<Item = GuestOutput<'_>> {
        Cursor::new(&self.outputs)
    }

    /// Retracts a done row: its lane ends before it, and the rows behind it count as not run.
    pub fn retract(&mut self, lane: u32, done: u32, verdict: Verdict, reason: String) {
        let Some(end) = self.ends.get_mut(lane as usize).filter(|end| end.done > done) else { return };
        *end = LaneEnd { done, verdict: Some(verdict) };
        let stopped = StoppedLane { lane, verdict, reason: truncate(reason) };
        let at = self.stopped_lanes.partition_point(|stopped| stopped.lane < lane);
        match self.stopped_lanes.get_mut(at).filter(|known| known.lane == lane) {
            Some(known) => *known = stopped,
            None => self.stopped_lanes.insert(at, stopped),
        }
    }

    /// Discards everything: no row is done.
    pub(super) fn clear(&mut self) {
        self.ends.clear();
        self.stopped_lanes.clear();
        self.rows_with_outputs.clear();
        self.reserved_headers = 0;
        self.running = None;
        let outputs = &mut self.outputs;
        for entries in [&mut outputs.causes, &mut outputs.targets] {
            entries.clear();
            entries.shrink_to(KEPT_ENTRIES);
        }
        for column in [&mut outputs.keys, &mut outputs.values] {
            column.lengths.clear();
            column.lengths.shrink_to(KEPT_ENTRIES);
            column.data.clear();
            column.data.shrink_to(KEPT_BYTES);
        }
        outputs.headers = None;
    }

    /// Begins a row of a `handler`; `done` rows of its lane are done.
    pub(super) fn start_row(&mut self, lane: u32, done: u32, row: u32) {
        self.running = Some(RunningRow { lane, done, row });
    }

    /// Fails a call with this number of lanes. For a `handler` the rows that are done stay, the lane of the running row
    /// ends before that row, and the row is returned; for a `batch-handler` nothing stays.
    pub(super) fn fail(&mut self, lanes: usize) -> Option<u32> {
        let Some(RunningRow { lane, done, row }) = self.running.take() else {
            self.clear();
            return None;
        };
        self.end_lane(lane, done, None);
        // The lanes that were not reached have no done rows.
        self.ends.resize(lanes, LaneEnd { done: 0, verdict: None });
        Some(row)
    }

    /// Takes the result of a `batch-handler`, if it meets the contract. `self` must be clear. After an error the call
    /// must fail, because a part of the result may have been taken.
    pub(super) fn accept(
        &mut self,
        lanes: &[u32],
        targets: &[String],
        result: wit::Results,
    ) -> Result<(), ContractViolation> {
        check::lanes(lanes, &result)?;
        if result.states.is_some() {
            return Err(ContractViolation::new("states", "no state is configured for this handler"));
        }
        let mut invalid = Vec::new();
        if let Some(outputs) = result.outputs {
            let found = check::check_and_record_outputs(lanes, &result.done, targets, &outputs, self)?;
            self.keep(outputs, &found);
            invalid = found.invalid;
        }
        let mut failures = result.failures.into_iter().peekable();
        for (lane, done) in (0_u32..).zip(result.done) {
            let failure = failures.next_if(|failure| failure.lane == lane).map(|failure| failure.failure);
            self.end_lane(lane, done, failure.map(verdict_of_batch));
        }
        for row in invalid {
            self.retract(row.lane, row.before, Verdict::Unpublishable, row.reason);
        }
        Ok(())
    }

    /// Takes the result of one invocation of a `handler`: the outputs of a done row. The error describes why
    /// the outputs can never be published; then none of them is taken.
    pub(super) fn push_row(
        &mut self,
        row: u32,
        targets: &[String],
        outputs: &[single::Output],
    ) -> Result<(), String> {
        if outputs.is_empty() {
            return Ok(());
        }
        self.reserved_headers += check::row(outputs, targets, &self.limits)?;
        for output in outputs {
            let target = check::target(targets, &output.target)?;
            self.push_output(row, target, output);
        }
        self.rows_with_outputs.push(row);
        Ok(())
    }

    /// Takes the outputs of the recorded rows. Other rows may have millions of outputs, which must not be iterated
    /// later.
    fn keep(&mut self, mut outputs: wit::OutputColumns, found: &check::CheckedOutputs) {
        let target = |entry: u32| found.targets.get(entry as usize).copied().flatten();
        if found.all_recorded {
            for entry in &mut outputs.targets {
                *entry = target(*entry).expect("the outputs of recorded rows have targets");
            }
            outputs.target_names = Vec::new();
            self.outputs = outputs;
            return;
        }
        let recorded = self.rows_with_outputs.as_slice();
        for output in Cursor::new(&outputs).filter(|output| recorded.binary_search(&output.row).is_ok()) {
            let target = target(output.target).expect("the outputs of recorded rows have targets");
            copy(&mut self.outputs, &output, target, outputs.headers.is_some());
        }
    }

    fn push_output(&mut self, row: u32, target: u32, output: &single::Output) {
        let columns = &mut self.outputs;
        if columns.headers.is_none() && !output.headers.is_empty() {
            let mut headers = no_headers();
            headers.counts.resize(columns.causes.len(), 0);
            columns.headers = Some(headers);
        }
        if let Some(headers) = &mut columns.headers {
            for header in &output.headers {
                batch::push(&mut headers.names, Some(header.name.as_bytes()));
                batch::push(&mut headers.values, header.value.as_deref());
            }
            headers.counts.push(u32::try_from(output.headers.len()).unwrap_or(u32::MAX));
        }
        columns.causes.push(row);
        columns.targets.push(target);
        batch::push(&mut columns.keys, output.key.as_deref());
        batch::push(&mut columns.values, output.value.as_deref());
    }

    /// Ends a lane. `stopped`: the verdict on its first row that is not done, and the reason.
    pub(super) fn end_lane(&mut self, lane: u32, done: u32, stopped: Option<(Verdict, String)>) {
        self.running = None;
        self.ends.push(LaneEnd { done, verdict: stopped.as_ref().map(|(verdict, _)| *verdict) });
        if let Some((verdict, reason)) = stopped {
            self.stopped_lanes.push(StoppedLane { lane, verdict, reason: truncate(reason) });
        }
    }
}

fn copy(columns: &mut wit::OutputColumns, output: &GuestOutput<'_>, target: u32, with_headers: bool) {
    columns.causes.push(output.row);
    columns.targets.push(target);
    batch::push(&mut columns.keys, output.key);
    batch::push(&mut columns.values, output.value);
    if with_headers {
        let headers = columns.headers.get_or_insert_with(no_headers);
        headers.counts.push(u32::try_from(output.header_lengths.len()).unwrap_or(u32::MAX));
        headers.names.lengths.extend_from_slice(output.header_lengths);
        headers.names.data.extend_from_slice(output.header_names);
        headers.values.lengths.extend_from_slice(output.header_value_lengths);
        headers.values.data.extend_from_slice(output.header_values);
    }
}

fn verdict_of_batch(failure: wit::Failure) -> (Verdict, String) {
    match failure {
        wit::Failure::Retry(retry) => (retry_after(retry.after_ms), retry.reason),
        wit::Failure::Reject(reason) => (Verdict::Reject, reason),
    }
}

pub(super) fn verdict_of_single(failure: single::Failure) -> (Verdict, String) {
    match failure {
        single::Failure::Retry(retry) => (retry_after(retry.after_ms), retry.reason),
        single::Failure::Reject(reason) => (Verdict::Reject, reason),
    }
}

fn retry_after(ms: Option<u32>) -> Verdict {
    Verdict::Retry { after: ms.map(|ms| Duration::from_millis(ms.into())) }
}

fn truncate(mut reason: String) -> String {
    reason.truncate(reason.floor_char_boundary(REASON_MAX));
    reason.shrink_to(REASON_MAX); // it may have been as long as the guest's memory
    reason
}

fn no_outputs() -> wit::OutputColumns {
    wit::OutputColumns {
        target_names: Vec::new(),
        causes: Vec::new(),
        targets: Vec::new(),
        keys: wit::BytesColumn { lengths: Vec::new(), data: Vec::new() },
        values: wit::BytesColumn { lengths: Vec::new(), data: Vec::new() },
        headers: None,
    }
}

fn no_headers() -> wit::HeaderColumns {
    wit::HeaderColumns {
        counts: Vec::new(),
        names: wit::BytesColumn { lengths: Vec::new(), data: Vec::new() },
        values: wit::BytesColumn { lengths: Vec::new(), data: Vec::new() },
    }
}

/// An iterator over checked columns, from the first output to the last.
struct Cursor<'a> {
    columns: &'a wit::OutputColumns,
    output: usize,
    keys: &'a [u8],
    values: &'a [u8],
    header: usize,
    header_names: &'a [u8],
    header_values: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn new(columns: &'a wit::OutputColumns) -> Cursor<'a> {
        let headers = columns.headers.as_ref();
        Cursor {
            columns,
            output: 0,
            keys: &columns.keys.data,
            values: &columns.values.data,
            header: 0,
            header_names: headers.map_or(&[], |headers| &headers.names.data),
            header_values: headers.map_or(&[], |headers| &headers.values.data),
        }
    }
}

impl<'a> Iterator for Cursor<'a> {
    type Item = GuestOutput<'a>;

    fn next(&mut self) -> Option<GuestOutput<'a>> {
        let (columns, at) = (self.columns, self.output);
        let row = *columns.causes.get(at)?;
        let target = *columns.targets.get(at)?;
        let key = batch::next(*columns.keys.lengths.get(at)?, &mut self.keys);
        let value = batch::next(*columns.values.lengths.get(at)?, &mut self.values);
        self.output += 1;
        let mut output = GuestOutput {
            row,
            target,
            key,
            value,
            header_lengths: &[],
            header_names: &[],
            header_value_lengths: &[],
            header_values: &[],
        };
        if let Some(headers) = &columns.headers {
            let count = usize::try_from(*headers.counts.get(at)?).ok()?;
            let next = self.header.checked_add(count)?;
            output.header_lengths = headers.names.lengths.get(self.header..next)?;
            output.header_value_lengths = headers.values.lengths.get(self.header..next)?;
            output.header_names = take(output.header_lengths, &mut self.header_names)?;
            output.header_values = take(output.header_value_lengths, &mut self.header_values)?;
            self.header = next;
        }
        Some(output)
    }
}

/// Takes the data of several entries.
fn take<'a>(lengths: &[i32], data: &mut &'a [u8]) -> Option<&'a [u8]> {
    let bytes = lengths
        .iter()
        .filter(|length| **length > ABSENT)
        .try_fold(0_usize, |sum, length| sum.checked_add(usize::try_from(*length).ok()?))?;
    let (taken, rest) = data.split_at_checked(bytes)?;
    *data = rest;
    Some(taken)
}

#[cfg(test)]
mod tests;
