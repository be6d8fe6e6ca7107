//! The rules of the contract for a result.

use keylane_core::Fault;

use super::super::batch::ABSENT;
use super::limits::{EventLimits, EventSize};
use super::states::StateLimits;
use super::{RESERVED, Results, single, wit};

/// Why a result is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InvalidResult {
    /// A contract fault, or a limit.
    pub(crate) fault: Fault,
    /// Describes the violation and names the field, or the limit.
    pub(crate) message: String,
}

impl InvalidResult {
    pub(super) fn contract(field: &str, what: impl std::fmt::Display) -> InvalidResult {
        InvalidResult { fault: Fault::Contract, message: format!("result `{field}`: {what}") }
    }

    pub(super) fn limit(message: String) -> InvalidResult {
        InvalidResult { fault: Fault::Limit, message }
    }
}

/// Checks that every lane states how many of its rows are done, and has a failure exactly if not all are.
pub(super) fn lanes(lanes: &[u32], result: &wit::Results) -> Result<(), InvalidResult> {
    let done = &result.done;
    if done.len() != lanes.len() {
        let what = format!("{} entries for {} lanes", done.len(), lanes.len());
        return Err(InvalidResult::contract("done", what));
    }
    let mut failures = result.failures.iter();
    let mut failure = failures.next();
    for (lane, (done, rows)) in (0_u32..).zip(done.iter().zip(lanes)) {
        if done > rows {
            return Err(InvalidResult::contract(
                "done",
                format!("lane {lane} has {rows} rows, {done} are done"),
            ));
        }
        let named = failure.is_some_and(|failure| failure.lane == lane);
        match (done < rows, named) {
            (true, false) => {
                let what = format!("lane {lane} is done up to row {done} of {rows} but has no failure");
                return Err(InvalidResult::contract("failures", what));
            }
            (false, true) => {
                let what = format!("all rows of lane {lane} are done but it has a failure");
                return Err(InvalidResult::contract("failures", what));
            }
            (true, true) => failure = failures.next(),
            (false, false) => {}
        }
    }
    match failure {
        None => Ok(()),
        Some(failure) => {
            let what = format!("lane {} does not exist or is out of order", failure.lane);
            Err(InvalidResult::contract("failures", what))
        }
    }
}

/// Checks that every changed state belongs to a lane with a done row, and its size. `limits`: `None` for a handler
/// without state. The lanes of the result must have been checked.
pub(super) fn states(
    lanes: &[u32],
    result: &wit::Results,
    limits: Option<&StateLimits>,
) -> Result<(), InvalidResult> {
    let Some(states) = &result.states else { return Ok(()) };
    let Some(limits) = limits else {
        return Err(InvalidResult::contract("states", "no state is configured for this handler"));
    };
    column("states.values", &states.values, states.lanes.len())?;
    let mut before = None;
    for &lane in &states.lanes {
        let what = match result.done.get(lane as usize) {
            None => format!("lane {lane} does not exist, there are {} lanes", lanes.len()),
            Some(_) if before.is_some_and(|before| lane <= before) => format!("lane {lane} is out of order"),
            Some(0) => format!("lane {lane} has a new state but no done row"),
            Some(_) => {
                before = Some(lane);
                continue;
            }
        };
        return Err(InvalidResult::contract("states.lanes", what));
    }
    for (lane, length) in states.lanes.iter().zip(&states.values.lengths) {
        limits.check(*lane, usize::try_from(*length).unwrap_or(0)).map_err(InvalidResult::limit)?;
    }
    Ok(())
}

/// Maximum bytes of an unknown name in a message: the name may be as long as the guest's memory.
const NAME_MAX: usize = 256;

/// A done row with an output that can never be published.
pub(super) struct InvalidRow {
    pub(super) lane: u32,
    /// The number of rows of its lane before it.
    pub(super) before: u32,
    pub(super) reason: String,
}

/// The findings about the outputs of a result.
pub(super) struct CheckedOutputs {
    /// The first row of each lane whose outputs can't be published.
    pub(super) invalid: Vec<InvalidRow>,
    /// For each target name of the result: the index of the handler's output.
    pub(super) targets: Vec<Option<u32>>,
    /// Whether all outputs belong to recorded rows.
    pub(super) all_recorded: bool,
}

/// Checks that every output has a cause and that the lengths add up. Records done rows with outputs, up to the first
/// row of each lane whose outputs can't be published.
pub(super) fn check_and_record_outputs(
    lanes: &[u32],
    done: &[u32],
    known: &[String],
    outputs: &wit::OutputColumns,
    into: &mut Results,
) -> Result<CheckedOutputs, InvalidResult> {
    let count = outputs.causes.len();
    length("outputs.targets", outputs.targets.len(), count)?;
    column("outputs.keys", &outputs.keys, count)?;
    column("outputs.values", &outputs.values, count)?;
    if let Some(headers) = &outputs.headers {
        into.reserved_headers = self::headers(headers, count)?;
    }
    let names = &outputs.target_names;
    if let Some(entry) = outputs.targets.iter().find(|entry| **entry as usize >= names.len()) {
        let what = format!("index {entry} is out of range, there are {} target names", names.len());
        return Err(InvalidResult::contract("outputs.targets", what));
    }
    let targets: Vec<Option<u32>> = names.iter().map(|name| index_of(known, name)).collect();
    let mut rows = Rows::new(lanes, done);
    let mut invalid: Vec<InvalidRow> = Vec::new();
    let mut size = EventSize::default();
    let mut all_recorded = true;
    for output in super::Cursor::new(outputs) {
        let is_new = rows.go_to(output.row)?;
        if is_new {
            size = EventSize::default();
        }
        if !rows.is_done(output.row) || invalid.last().is_some_and(|found| found.lane == rows.lane) {
            all_recorded = false;
            continue;
        }
        let headers = output.header_names.len() + output.header_values.len();
        let body = output.key.map_or(0, <[u8]>::len) + output.value.map_or(0, <[u8]>::len);
        let (name, target) = (names.get(output.target as usize), targets.get(output.target as usize));
        let name = name.map_or("", String::as_str);
        let checked = match target.copied().flatten() {
            None => Err(unknown_target(known, name)),
            Some(_) => size.add(name, body + headers, &into.limits),
        };
        if let Err(reason) = checked {
            if into.rows_with_effects.last() == Some(&output.row) {
                into.rows_with_effects.pop();
            }
            all_recorded = false;
            invalid.push(InvalidRow { lane: rows.lane, before: output.row - rows.first, reason });
        } else if is_new {
            into.rows_with_effects.push(output.row);
        }
    }
    Ok(CheckedOutputs { invalid, targets, all_recorded })
}

fn length(field: &str, found: usize, expected: usize) -> Result<(), InvalidResult> {
    if found == expected {
        return Ok(());
    }
    Err(InvalidResult::contract(field, format!("{found} entries, expected {expected}")))
}

fn column(field: &str, column: &wit::BytesColumn, entries: usize) -> Result<(), InvalidResult> {
    length(&format!("{field}.lengths"), column.lengths.len(), entries)?;
    let mut sum = 0_u64;
    for length in &column.lengths {
        match u64::try_from(*length) {
            Ok(length) => sum += length,
            Err(_) if *length == ABSENT => {}
            Err(_) => {
                return Err(InvalidResult::contract(
                    &format!("{field}.lengths"),
                    format!("{length} is not a valid length"),
                ));
            }
        }
    }
    if Ok(sum) == u64::try_from(column.data.len()) {
        return Ok(());
    }
    let what = format!("{} bytes, the lengths add up to {sum}", column.data.len());
    Err(InvalidResult::contract(&format!("{field}.data"), what))
}

/// Checks headers and returns the number of reserved ones.
fn headers(headers: &wit::HeaderColumns, outputs: usize) -> Result<u64, InvalidResult> {
    length("outputs.headers.counts", headers.counts.len(), outputs)?;
    let sum: u64 = headers.counts.iter().map(|count| u64::from(*count)).sum();
    let entries = headers.names.lengths.len();
    if Ok(sum) != u64::try_from(entries) {
        let what = format!("the counts add up to {sum}, but there are {entries} names");
        return Err(InvalidResult::contract("outputs.headers.counts", what));
    }
    column("outputs.headers.names", &headers.names, entries)?;
    column("outputs.headers.values", &headers.values, entries)?;
    let mut names = headers.names.data.as_slice();
    let mut reserved = 0;
    for length in &headers.names.lengths {
        let Some(name) = super::batch::next(*length, &mut names) else {
            return Err(InvalidResult::contract("outputs.headers.names", "a header without a name"));
        };
        if std::str::from_utf8(name).is_err() {
            let what = format!("`{}` is not UTF-8", String::from_utf8_lossy(name));
            return Err(InvalidResult::contract("outputs.headers.names", what));
        }
        reserved += u64::from(name.starts_with(RESERVED.as_bytes()));
    }
    Ok(reserved)
}

fn index_of(known: &[String], name: &str) -> Option<u32> {
    known.iter().position(|known| known == name).and_then(|index| u32::try_from(index).ok())
}

fn unknown_target(known: &[String], name: &str) -> String {
    let name = name.get(..name.floor_char_boundary(NAME_MAX)).unwrap_or_default();
    if known.is_empty() {
        return format!("the output `{name}` is not configured: the handler has no outputs");
    }
    let known = known.iter().map(|known| format!("`{known}`")).collect::<Vec<_>>().join(", ");
    format!("the output `{name}` is not configured: the handler has {known}")
}

/// The position before the first lane: adding 1 wraps to lane 0.
const NO_LANE: u32 = u32::MAX;

/// A cursor that follows ascending causes through the lanes.
struct Rows<'a> {
    lengths: std::iter::Zip<std::slice::Iter<'a, u32>, std::slice::Iter<'a, u32>>,
    /// The lane of the last cause.
    lane: u32,
    /// The first row of this lane.
    first: u32,
    /// The row after the last done row of this lane.
    done_end: u32,
    /// The row after the last row of this lane.
    end: u32,
    /// The last cause.
    last: Option<u32>,
}

impl<'a> Rows<'a> {
    fn new(lanes: &'a [u32], done: &'a [u32]) -> Self {
        let lengths = lanes.iter().zip(done);
        Rows { lengths, lane: NO_LANE, first: 0, done_end: 0, end: 0, last: None }
    }

    /// Moves to the row of an output. Returns true if it is another row than the last one. Fails if the row does not
    /// exist, or is lower than the last one.
    fn go_to(&mut self, cause: u32) -> Result<bool, InvalidResult> {
        if self.last.is_some_and(|last| cause < last) {
            let what = format!("row {cause} comes after a higher row");
            return Err(InvalidResult::contract("outputs.causes", what));
        }
        while cause >= self.end {
            let Some((rows, done)) = self.lengths.next() else {
                let what = format!("row {cause} does not exist, there are {} rows", self.end);
                return Err(InvalidResult::contract("outputs.causes", what));
            };
            self.lane = self.lane.wrapping_add(1);
            self.first = self.end;
            self.done_end = self.end + done;
            self.end += rows;
        }
        let is_new = self.last != Some(cause);
        self.last = Some(cause);
        Ok(is_new)
    }

    fn is_done(&self, row: u32) -> bool {
        row < self.done_end
    }
}

/// Checks the outputs of one row of a `handler`. Returns the number of reserved headers. The error describes why the
/// outputs can never be published.
pub(super) fn row(outputs: &[single::Output], known: &[String], limits: &EventLimits) -> Result<u64, String> {
    let mut size = EventSize::default();
    let mut reserved = 0;
    for output in outputs {
        target(known, &output.target)?;
        let mut bytes = output.key.as_ref().map_or(0, Vec::len) + output.value.as_ref().map_or(0, Vec::len);
        for header in &output.headers {
            bytes += header.name.len() + header.value.as_ref().map_or(0, Vec::len);
            reserved += u64::from(header.name.starts_with(RESERVED));
        }
        size.add(&output.target, bytes, limits)?;
    }
    Ok(reserved)
}

/// Returns the index of the configured output with that name.
pub(super) fn target(known: &[String], name: &str) -> Result<u32, String> {
    index_of(known, name).ok_or_else(|| unknown_target(known, name))
}
