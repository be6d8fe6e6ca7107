//! The rules that a result must keep.

use super::limits::{EventLimits, EventSize};
use super::{RESERVED, Results, single, wit};

/// A rule that a result breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Breach {
    /// Names the field.
    pub(crate) message: String,
}

impl Breach {
    pub(super) fn contract(field: &str, what: impl std::fmt::Display) -> Breach {
        Breach { message: format!("result `{field}`: {what}") }
    }
}

/// Every lane says how far it came, and why not to its end.
pub(super) fn lanes(lanes: &[u32], result: &wit::Results) -> Result<(), Breach> {
    let done = &result.done;
    if done.len() != lanes.len() {
        let what = format!("{} entries for {} lanes", done.len(), lanes.len());
        return Err(Breach::contract("done", what));
    }
    let mut failures = result.failures.iter();
    let mut failure = failures.next();
    for (lane, (done, rows)) in (0_u32..).zip(done.iter().zip(lanes)) {
        if done > rows {
            return Err(Breach::contract("done", format!("lane {lane} has {rows} rows, {done} are done")));
        }
        let named = failure.is_some_and(|failure| failure.lane == lane);
        match (done < rows, named) {
            (true, false) => {
                let what = format!("lane {lane} is done to row {done} of {rows} and nothing says why");
                return Err(Breach::contract("failures", what));
            }
            (false, true) => {
                let what = format!("lane {lane} is done to its end and has a failure");
                return Err(Breach::contract("failures", what));
            }
            (true, true) => failure = failures.next(),
            (false, false) => {}
        }
    }
    match failure {
        None => Ok(()),
        Some(failure) => {
            let what = format!("lane {} does not exist or is out of order", failure.lane);
            Err(Breach::contract("failures", what))
        }
    }
}

/// A name that is nobody's goes into a message up to here: it may be as long as the guest's memory.
const NAME_MAX: usize = 256;

/// A done row with an output that can never be published.
pub(super) struct InvalidRow {
    pub(super) lane: u32,
    /// Rows of its lane before it.
    pub(super) before: u32,
    pub(super) reason: String,
}

/// What was found out about the outputs of a result.
pub(super) struct Violations {
    /// The first row of each lane whose outputs can't be published.
    pub(super) unfit: Vec<InvalidRow>,
    /// Of each name that the result has: which of the handler's outputs it is.
    pub(super) targets: Vec<Option<u32>>,
    /// All outputs are of rows that were noted.
    pub(super) all_noted: bool,
}

/// Every output has a cause and bytes that add up. Done rows with outputs are noted, up to the first of each lane whose
/// outputs can't be published.
pub(super) fn outputs(
    lanes: &[u32],
    done: &[u32],
    known: &[String],
    outputs: &wit::OutputColumns,
    into: &mut Results,
) -> Result<Violations, Breach> {
    let count = outputs.causes.len();
    length("outputs.targets", outputs.targets.len(), count)?;
    column("outputs.keys", &outputs.keys, count)?;
    column("outputs.values", &outputs.values, count)?;
    if let Some(headers) = &outputs.headers {
        into.reserved_headers = self::headers(headers, count)?;
    }
    let names = &outputs.target_names;
    if let Some(entry) = outputs.targets.iter().find(|entry| **entry as usize >= names.len()) {
        let what = format!("{entry} points past the {} target names", names.len());
        return Err(Breach::contract("outputs.targets", what));
    }
    let targets: Vec<Option<u32>> = names.iter().map(|name| index_of(known, name)).collect();
    let mut rows = Rows::new(lanes, done);
    let mut unfit: Vec<InvalidRow> = Vec::new();
    let mut size = EventSize::default();
    let mut all_noted = true;
    for output in super::Cursor::new(outputs) {
        let is_new = rows.go_to(output.row)?;
        if is_new {
            size = EventSize::default();
        }
        if !rows.is_done(output.row) || unfit.last().is_some_and(|found| found.lane == rows.lane) {
            all_noted = false;
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
            if into.rows_with_outputs.last() == Some(&output.row) {
                into.rows_with_outputs.pop();
            }
            all_noted = false;
            unfit.push(InvalidRow { lane: rows.lane, before: output.row - rows.first, reason });
        } else if is_new {
            into.rows_with_outputs.push(output.row);
        }
    }
    Ok(Violations { unfit, targets, all_noted })
}

fn length(field: &str, found: usize, wanted: usize) -> Result<(), Breach> {
    if found == wanted {
        return Ok(());
    }
    Err(Breach::contract(field, format!("{found} entries, {wanted} are needed")))
}

fn column(field: &str, column: &wit::BytesColumn, entries: usize) -> Result<(), Breach> {
    length(&format!("{field}.lengths"), column.lengths.len(), entries)?;
    let mut sum = 0_u64;
    for length in &column.lengths {
        match u64::try_from(*length) {
            Ok(length) => sum += length,
            Err(_) if *length == super::ABSENT => {}
            Err(_) => {
                return Err(Breach::contract(&format!("{field}.lengths"), format!("{length} is no length")));
            }
        }
    }
    if Ok(sum) == u64::try_from(column.data.len()) {
        return Ok(());
    }
    let what = format!("{} bytes, the lengths add up to {sum}", column.data.len());
    Err(Breach::contract(&format!("{field}.data"), what))
}

/// Gives the number of reserved ones.
fn headers(headers: &wit::HeaderColumns, outputs: usize) -> Result<u64, Breach> {
    length("outputs.headers.counts", headers.counts.len(), outputs)?;
    let sum: u64 = headers.counts.iter().map(|count| u64::from(*count)).sum();
    let entries = headers.names.lengths.len();
    if Ok(sum) != u64::try_from(entries) {
        let what = format!("they add up to {sum}, there are {entries} names");
        return Err(Breach::contract("outputs.headers.counts", what));
    }
    column("outputs.headers.names", &headers.names, entries)?;
    column("outputs.headers.values", &headers.values, entries)?;
    let mut names = headers.names.data.as_slice();
    let mut reserved = 0;
    for length in &headers.names.lengths {
        let Some(name) = super::batch::next(*length, &mut names) else {
            return Err(Breach::contract("outputs.headers.names", "a header without a name"));
        };
        if std::str::from_utf8(name).is_err() {
            let what = format!("`{}` is not UTF-8", String::from_utf8_lossy(name));
            return Err(Breach::contract("outputs.headers.names", what));
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

/// The one before the first.
const NO_LANE: u32 = u32::MAX;

/// Follows ascending causes through the lanes.
struct Rows<'a> {
    lengths: std::iter::Zip<std::slice::Iter<'a, u32>, std::slice::Iter<'a, u32>>,
    /// The lane that the last cause is in; its first row, the row after its last done one, the row after its end.
    lane: u32,
    first: u32,
    done_end: u32,
    end: u32,
    last: Option<u32>,
}

impl<'a> Rows<'a> {
    fn new(lanes: &'a [u32], done: &'a [u32]) -> Self {
        let lengths = lanes.iter().zip(done);
        Rows { lengths, lane: NO_LANE, first: 0, done_end: 0, end: 0, last: None }
    }

    /// True: it is another row than the last one. The error: it does not exist, or comes before the last one.
    fn go_to(&mut self, cause: u32) -> Result<bool, Breach> {
        if self.last.is_some_and(|last| cause < last) {
            let what = format!("row {cause} comes after a later one");
            return Err(Breach::contract("outputs.causes", what));
        }
        while cause >= self.end {
            let Some((rows, done)) = self.lengths.next() else {
                return Err(Breach::contract("outputs.causes", format!("row {cause} of {}", self.end)));
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

/// The outputs of one row of a `handler`. Gives the number of reserved headers; the error says why they can never be
/// published.
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

/// The configured output of that name.
pub(super) fn target(known: &[String], name: &str) -> Result<u32, String> {
    index_of(known, name).ok_or_else(|| unknown_target(known, name))
}
