//! A search for old values, in steps: other work of the store is done between two of them.

use super::buffer::Buffer;
use super::file::{Fault, Reader};
use super::row::Row;
use crate::KeyBytes;

/// The rows of one step, and the bytes of their values: a few milliseconds.
const ROWS_MAX: usize = 2_000;
const BYTES_MAX: usize = 4 << 20;
/// The old values of one step. They are deleted by one transaction.
const EXPIRED_MAX: usize = 1_000;

/// One call of `scan`.
#[derive(Debug)]
pub(super) struct Scan {
    /// The last key of the step before; `None`: from the first key.
    pub(super) after: Option<KeyBytes>,
    /// A value that was changed before this time is old, in milliseconds since 1970.
    pub(super) changed_before_ms: i64,
}

/// What a step has found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) expired: Vec<KeyBytes>,
    pub(super) next: Option<KeyBytes>,
}

impl Scan {
    /// Does the step. Keys in the buffer are left out: they are in the file at the next search.
    pub(super) fn step(&self, reader: &Reader, buffer: &Buffer) -> Result<Found, Fault> {
        let (mut found, mut rows, mut bytes) = (Found::default(), 0, 0);
        reader.each_after(self.after.as_deref(), |key, row| {
            let changed = Row::decode(row).and_then(|row| row.changed_ms);
            let is_old = changed.is_some_and(|changed| changed < self.changed_before_ms);
            // The binding of a partition is not the state of a key.
            if is_old && *key != crate::BINDING_KEY && buffer.get(key).is_none() {
                found.expired.push(key.into());
            }
            (rows, bytes) = (rows + 1, bytes + row.len());
            let is_full = rows == ROWS_MAX || bytes >= BYTES_MAX || found.expired.len() == EXPIRED_MAX;
            found.next = is_full.then(|| key.into());
            !is_full
        })?;
        Ok(found)
    }
}
