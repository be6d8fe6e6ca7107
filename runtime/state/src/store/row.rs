//! The rows of a file: values with the times at which they were changed.
//!
//! ```text
//! row := changed_ms:i64be value
//! ```

/// The time of a value that never becomes old, because it is not known when it was changed.
const UNKNOWN: i64 = i64::MAX;

/// A row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row<'a> {
    /// When the value was changed, in milliseconds since 1970; `None`: not known.
    pub(super) changed_ms: Option<i64>,
    pub(super) value: &'a [u8],
}

impl<'a> Row<'a> {
    pub(super) fn encode(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.changed_ms.unwrap_or(UNKNOWN).to_be_bytes());
        out.extend_from_slice(self.value);
    }

    /// Returns `None` if this is not a row.
    pub(super) fn decode(row: &'a [u8]) -> Option<Row<'a>> {
        let (time, value) = row.split_first_chunk()?;
        let changed_ms = Some(i64::from_be_bytes(*time)).filter(|time| *time != UNKNOWN);
        Some(Row { changed_ms, value })
    }
}
