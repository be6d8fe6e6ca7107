//! The rules that a result must keep.

use keylane_core::Fault;

use super::{EVENT_BYTES_MAX, OUTPUT_BYTES_MAX, OUTPUTS_MAX, RESERVED, Results, single, wit};

/// A rule that a result breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Breach {
    /// Contract or limit.
    pub(crate) fault: Fault,
    /// Names the field.
    pub(crate) message: String,
}

impl Breach {
    pub(super) fn contract(field: &str, what: impl std::fmt::Display) -> Breach {
        Breach { fault: Fault::Contract, message: format!("result `{field}`: {what}") }
    }

    fn limit(field: &str, what: impl std::fmt::Display) -> Breach {
        Breach { fault: Fault::Limit, message: format!("result `{field}`: {what}") }
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

/// Every output has a cause, a target that exists, and bytes that add up. Targets become indices into the
/// handler's own outputs; done rows with outputs are noted.
pub(super) fn outputs(
    lanes: &[u32],
    done: &[u32],
    known: &[String],
    outputs: &mut wit::OutputColumns,
    into: &mut Results,
) -> Result<(), Breach> {
    let count = outputs.causes.len();
    length("outputs.targets", outputs.targets.len(), count)?;
    column("outputs.keys", &outputs.keys, count)?;
    column("outputs.values", &outputs.values, count)?;
    if let Some(headers) = &outputs.headers {
        into.reserved_headers = self::headers(headers, count)?;
    }
    resolve_targets(known, outputs)?;
    sizes(outputs)?;
    rows(lanes, done, &outputs.causes, &mut into.rows_with_outputs)
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

fn resolve_targets(known: &[String], outputs: &mut wit::OutputColumns) -> Result<(), Breach> {
    let names = std::mem::take(&mut outputs.target_names);
    for entry in &mut outputs.targets {
        let name = usize::try_from(*entry).ok().and_then(|entry| names.get(entry));
        let Some(name) = name else {
            let what = format!("{entry} points past the {} target names", names.len());
            return Err(Breach::contract("outputs.targets", what));
        };
        *entry = index_of(known, name)
            .ok_or_else(|| Breach::contract("outputs.target-names", unknown_target(known, name)))?;
    }
    Ok(())
}

fn index_of(known: &[String], name: &str) -> Option<u32> {
    known.iter().position(|known| known == name).and_then(|index| u32::try_from(index).ok())
}

fn unknown_target(known: &[String], name: &str) -> String {
    if known.is_empty() {
        return format!("`{name}`, but no outputs are configured for this handler");
    }
    let known = known.iter().map(|known| format!("`{known}`")).collect::<Vec<_>>().join(", ");
    format!("`{name}` is not one of the handler's outputs: {known}")
}

/// No output and no event gives more than it may.
fn sizes(outputs: &wit::OutputColumns) -> Result<(), Breach> {
    let mut event = EventSize::default();
    let mut cause = None;
    for output in super::Cursor::new(outputs) {
        if cause != Some(output.row) {
            cause = Some(output.row);
            event = EventSize::default();
        }
        let headers = output.header_names.len() + output.header_values.len();
        let body = output.key.map_or(0, <[u8]>::len) + output.value.map_or(0, <[u8]>::len);
        event.add(output.row, body + headers)?;
    }
    Ok(())
}

#[derive(Default)]
struct EventSize {
    outputs: usize,
    bytes: usize,
}

impl EventSize {
    fn add(&mut self, row: u32, bytes: usize) -> Result<(), Breach> {
        self.outputs += 1;
        self.bytes += bytes;
        let what = if self.outputs > OUTPUTS_MAX {
            format!("row {row} has more than {OUTPUTS_MAX}")
        } else if bytes > OUTPUT_BYTES_MAX {
            format!("one of row {row} has {bytes} bytes, {OUTPUT_BYTES_MAX} are allowed")
        } else if self.bytes > EVENT_BYTES_MAX {
            format!("row {row} has more than {EVENT_BYTES_MAX} bytes of them")
        } else {
            return Ok(());
        };
        Err(Breach::limit("outputs", what))
    }
}

/// Causes ascend and exist; notes those that are done.
fn rows(lanes: &[u32], done: &[u32], causes: &[u32], with_outputs: &mut Vec<u32>) -> Result<(), Breach> {
    let mut lanes = lanes.iter().zip(done);
    // The lane that the cause is in: its first row, the row after its last done one, the row after its end.
    let (mut done_end, mut end) = (0_u32, 0_u32);
    let mut last = None;
    for cause in causes {
        if last.is_some_and(|last| cause < last) {
            let what = format!("row {cause} comes after a later one");
            return Err(Breach::contract("outputs.causes", what));
        }
        while *cause >= end {
            let Some((rows, done)) = lanes.next() else {
                return Err(Breach::contract("outputs.causes", format!("row {cause} of {end}")));
            };
            done_end = end + done;
            end += rows;
        }
        if *cause < done_end && last != Some(cause) {
            with_outputs.push(*cause);
        }
        last = Some(cause);
    }
    Ok(())
}

/// The outputs of one row of a `handler`. Gives the number of reserved headers.
pub(super) fn row(outputs: &[single::Output], known: &[String]) -> Result<u64, Breach> {
    let mut event = EventSize::default();
    let mut reserved = 0;
    for output in outputs {
        target(known, &output.target)?;
        let mut bytes = output.key.as_ref().map_or(0, Vec::len) + output.value.as_ref().map_or(0, Vec::len);
        for header in &output.headers {
            bytes += header.name.len() + header.value.as_ref().map_or(0, Vec::len);
            reserved += u64::from(header.name.starts_with(RESERVED));
        }
        event.add(0, bytes)?;
    }
    Ok(reserved)
}

/// The configured output of that name.
pub(super) fn target(known: &[String], name: &str) -> Result<u32, Breach> {
    index_of(known, name).ok_or_else(|| Breach::contract("target", unknown_target(known, name)))
}
