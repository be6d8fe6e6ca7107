//! The result of a call, checked before it is used.
//!
//! A guest is not trusted to meet the contract: lengths, sums, orders and bounds are checked. A violation fails the
//! call as a trap would, with a message that names the field. Outputs that are too large, too many or for an unknown
//! target would be the same in every attempt: their row is retracted and gets its outcome without another attempt.
//! Outputs stay in the columns in which they arrived; iterating them borrows slices. Of a handler with state, [`states`]
//! keeps the states of lanes.

mod check;
mod cursor;
mod limits;
mod states;

use std::time::Duration;

use keylane_core::{LaneEnd, Verdict};

use super::batch;
use super::bindings::batch::exports::keylane::handler::batch_handler as wit;
use super::bindings::single::keylane::handler::types as single;

pub(super) use check::InvalidResult;
use cursor::Cursor;
pub(super) use limits::EVENT_BYTES;
use limits::EventLimits;
pub use limits::OUTPUT_BYTES;
use states::{StateAfter, States};
pub use states::{StateChange, StateLimits, UnknownState};

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
    /// The states of lanes after done rows, including rows that are retracted later.
    states: States,
    /// Done rows with outputs, and the last done row of each lane with a changed state, including rows that are retracted
    /// later; ascending.
    rows_with_effects: Vec<u32>,
    reserved_headers: u64,
    /// The row that the `handler` or `keyed-handler` is processing.
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
            states: States::default(),
            rows_with_effects: Vec::new(),
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

    /// Returns the rows with effects, ascending, in the form that the core takes: done rows with outputs, the last done
    /// row of each lane with a changed state, and those of them that were retracted.
    pub fn rows_with_effects(&self) -> &[u32] {
        &self.rows_with_effects
    }

    /// Returns the number of headers that are dropped because their names are reserved.
    pub fn reserved_headers(&self) -> u64 {
        self.reserved_headers
    }

    /// Returns the outputs of done rows, and of rows that were retracted, in the order of their rows.
    pub fn outputs(&self) -> impl Iterator<Item = GuestOutput<'_>> {
        Cursor::new(&self.outputs)
    }

    /// Returns the changed states of lanes with done rows, at most one for each lane, in the order of the lanes.
    pub fn state_changes(&self) -> impl Iterator<Item = StateChange<'_>> {
        self.states.changes(|lane| self.ends.get(lane as usize).map_or(0, |end| end.done))
    }

    /// Retracts a done row: its lane ends before it, and the rows behind it count as not run. The lane's state is then the
    /// one after the rows that are still done.
    ///
    /// # Errors
    /// If this state is unknown, because the guest returned only the state after the lane's last row. Then nothing was
    /// retracted, and the call must fail: see [`Call::fail`](super::call::Call::fail).
    pub fn retract(
        &mut self,
        lane: u32,
        done: u32,
        verdict: Verdict,
        reason: String,
    ) -> Result<(), UnknownState> {
        let Some(end) = self.ends.get_mut(lane as usize).filter(|end| end.done > done) else { return Ok(()) };
        match self.states.after(lane, done) {
            StateAfter::Unknown => return Err(UnknownState { lane, done, reason: truncate(reason) }),
            StateAfter::Changed => {
                let row = self.states.first_row(lane).map(|first| first + done - 1);
                let row = row.expect("a lane with a changed state has an entry");
                if let Err(at) = self.rows_with_effects.binary_search(&row) {
                    self.rows_with_effects.insert(at, row);
                }
            }
            StateAfter::Unchanged => {}
        }
        *end = LaneEnd { done, verdict: Some(verdict) };
        let stopped = StoppedLane { lane, verdict, reason: truncate(reason) };
        let at = self.stopped_lanes.partition_point(|stopped| stopped.lane < lane);
        match self.stopped_lanes.get_mut(at).filter(|known| known.lane == lane) {
            Some(known) => *known = stopped,
            None => self.stopped_lanes.insert(at, stopped),
        }
        Ok(())
    }

    /// Discards everything: no row is done.
    pub(super) fn clear(&mut self) {
        self.ends.clear();
        self.stopped_lanes.clear();
        self.rows_with_effects.clear();
        self.states.clear();
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

    /// Begins a row of a `handler` or `keyed-handler`; `done` rows of its lane are done.
    pub(super) fn start_row(&mut self, lane: u32, done: u32, row: u32) {
        self.running = Some(RunningRow { lane, done, row });
    }

    /// Fails a call with this number of lanes. For a `handler` or `keyed-handler` the rows that are done stay, the lane of
    /// the running row ends before that row, and the row is returned; for a `batch-handler` nothing stays.
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

    /// Takes the result of a `batch-handler`, if it meets the contract. `limits`: those of states, if the handler has
    /// state. `self` must be clear. After an error the call must fail, because a part of the result may have been taken.
    pub(super) fn accept(
        &mut self,
        lanes: &[u32],
        targets: &[String],
        limits: Option<&StateLimits>,
        result: wit::Results,
    ) -> Result<(), InvalidResult> {
        check::lanes(lanes, &result)?;
        check::states(lanes, &result, limits)?;
        let mut invalid = Vec::new();
        if let Some(outputs) = result.outputs {
            let found = check::check_and_record_outputs(lanes, &result.done, targets, &outputs, self)?;
            self.keep(outputs, &found);
            invalid = found.invalid;
        }
        if limits.is_some() {
            self.record_last_states(lanes, &result.done, result.states);
        }
        let mut failures = result.failures.into_iter().peekable();
        for (lane, done) in (0_u32..).zip(result.done) {
            let failure = failures.next_if(|failure| failure.lane == lane).map(|failure| failure.failure);
            self.push_end(lane, done, failure.map(verdict_of_batch));
        }
        for row in invalid {
            self.retract(row.lane, row.before, Verdict::Unpublishable, row.reason)
                .map_err(|unknown| InvalidResult::limit(unknown.to_string()))?;
        }
        Ok(())
    }

    /// Records the checked states of a `batch-handler`, which are those after the last done rows of lanes.
    fn record_last_states(&mut self, lanes: &[u32], done: &[u32], changes: Option<wit::StateChanges>) {
        self.states.begin_only_last();
        let Some(changes) = changes.filter(|changes| !changes.lanes.is_empty()) else { return };
        let mut data = changes.values.data.as_slice();
        let mut states = changes.lanes.iter().zip(&changes.values.lengths).peekable();
        let mut first = 0;
        for (lane, (rows, done)) in (0_u32..).zip(lanes.iter().zip(done)) {
            if let Some((_, length)) = states.next_if(|(changed, _)| **changed == lane) {
                let row = first + done - 1; // checked: a lane with a changed state has a done row
                self.states.push(lane, first, row, batch::next(*length, &mut data));
                self.rows_with_effects.push(row);
            }
            first += rows;
        }
        self.rows_with_effects.sort_unstable();
        self.rows_with_effects.dedup();
    }

    /// Returns the state that the rows of the running lane left. The outer `None`: none of them changed it.
    pub(super) fn running_state(&self) -> Option<Option<&[u8]>> {
        self.running.and_then(|running| self.states.newest(running.lane))
    }

    /// Records the state after the running row of a `keyed-handler`, which is done. `None`: it is deleted.
    pub(super) fn push_state(&mut self, state: Option<&[u8]>) {
        let RunningRow { lane, done, row } = self.running.expect("a row returned a state, so it is running");
        self.states.push(lane, row - done, row, state);
    }

    /// Takes the result of one invocation of a `handler` or `keyed-handler`: the outputs of a done row. The error describes why
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
        self.rows_with_effects.push(row);
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
        let recorded = self.rows_with_effects.as_slice();
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

    /// Ends the lane of a `handler` or `keyed-handler`. `stopped`: the verdict on its first row that is not done, and the
    /// reason.
    pub(super) fn end_lane(&mut self, lane: u32, done: u32, stopped: Option<(Verdict, String)>) {
        self.running = None;
        if let Some(first) = self.states.first_row(lane) {
            let row = first + done - 1;
            if self.rows_with_effects.last() != Some(&row) {
                self.rows_with_effects.push(row);
            }
        }
        self.push_end(lane, done, stopped);
    }

    fn push_end(&mut self, lane: u32, done: u32, stopped: Option<(Verdict, String)>) {
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

#[cfg(test)]
mod tests;
