//! The rows of a file: values with the times at which they were changed.
//!
//! ```text
//! row := changed_ms:i64be value
//! ```

const TIME: usize = 8;

/// The time of a value that never becomes old, because it is not known when it was changed.
const UNKNOWN: i64 = i64::MAX;

pub(super) fn encode(value: &[u8], changed_ms: Option<i64>) -> Box<[u8]> {
    let mut row = Vec::with_capacity(TIME + value.len());
    row.extend_from_slice(&changed_ms.unwrap_or(UNKNOWN).to_be_bytes());
    row.extend_from_slice(value);
    row.into_boxed_slice()
}

/// Returns the value of a row; `None`: it is not a row.
pub(super) fn value(row: &[u8]) -> Option<&[u8]> {
    row.get(TIME..)
}

/// Returns when the value of a row was changed, if that is known.
pub(super) fn changed_ms(row: &[u8]) -> Option<i64> {
    row.first_chunk().map(|time| i64::from_be_bytes(*time)).filter(|time| *time != UNKNOWN)
}
