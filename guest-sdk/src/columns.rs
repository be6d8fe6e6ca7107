//! Reads columns row by row, without copying, and fills them row by row.

use crate::bindings::{BytesColumn, HeaderColumns};
use crate::event::Headers;

/// The unread rows of a [`BytesColumn`]. Absent entries are `None`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ColumnReader<'a> {
    lengths: &'a [i32],
    data: &'a [u8],
}

impl<'a> ColumnReader<'a> {
    pub(crate) fn new(column: &'a BytesColumn) -> Self {
        Self { lengths: &column.lengths, data: &column.data }
    }

    /// Returns the number of unread rows.
    pub(crate) fn len(&self) -> usize {
        self.lengths.len()
    }

    /// Reads the next row. Panics if there is none.
    pub(crate) fn read(&mut self) -> Option<&'a [u8]> {
        self.next().expect("the host sends one length for every row")
    }

    /// Splits off the first `rows` rows as a separate column.
    pub(crate) fn read_many(&mut self, rows: usize) -> Self {
        let (lengths, lengths_left) =
            self.lengths.split_at_checked(rows).expect("the host sends one length for every row");
        let size = lengths.iter().filter_map(|&length| usize::try_from(length).ok()).sum();
        let (data, data_left) = split(self.data, size);
        *self = Self { lengths: lengths_left, data: data_left };
        Self { lengths, data }
    }
}

impl<'a> Iterator for ColumnReader<'a> {
    type Item = Option<&'a [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        let (&length, lengths_left) = self.lengths.split_first()?;
        self.lengths = lengths_left;
        // A negative length means that the value is absent.
        let Ok(size) = usize::try_from(length) else { return Some(None) };
        let (bytes, data_left) = split(self.data, size);
        self.data = data_left;
        Some(Some(bytes))
    }
}

/// The unread rows of [`HeaderColumns`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HeaderRows<'a> {
    counts: &'a [u32],
    names: ColumnReader<'a>,
    values: ColumnReader<'a>,
}

impl<'a> HeaderRows<'a> {
    /// Creates a view of all rows. `None`: no row has a header.
    pub(crate) fn new(columns: Option<&'a HeaderColumns>) -> Self {
        columns.map_or_else(Self::default, |columns| Self {
            counts: &columns.counts,
            names: ColumnReader::new(&columns.names),
            values: ColumnReader::new(&columns.values),
        })
    }

    /// Reads the headers of the next row.
    pub(crate) fn read(&mut self) -> Headers<'a> {
        let Some((&count, counts_left)) = self.counts.split_first() else { return Headers::default() };
        self.counts = counts_left;
        if count == 0 {
            return Headers::default();
        }
        let count = usize::try_from(count).expect("a count of headers in memory fits in usize");
        Headers::new(self.names.read_many(count), self.values.read_many(count))
    }
}

fn split(data: &[u8], size: usize) -> (&[u8], &[u8]) {
    data.split_at_checked(size).expect("the host sends as many bytes as the lengths specify")
}

/// An empty column, to be filled row by row.
pub(crate) const EMPTY: BytesColumn = BytesColumn { lengths: Vec::new(), data: Vec::new() };

/// Appends one row.
pub(crate) fn push(column: &mut BytesColumn, bytes: Option<&[u8]>) {
    column.lengths.push(length(bytes));
    column.data.extend_from_slice(bytes.unwrap_or_default());
}

/// Replaces the bytes of the last row.
pub(crate) fn replace_last(column: &mut BytesColumn, bytes: Option<&[u8]>) {
    let Some(last) = column.lengths.last_mut() else { return };
    let old = usize::try_from(*last).unwrap_or(0);
    *last = length(bytes);
    column.data.truncate(column.data.len() - old);
    column.data.extend_from_slice(bytes.unwrap_or_default());
}

/// Truncates the column to `rows` rows with `data` bytes.
pub(crate) fn truncate(column: &mut BytesColumn, rows: usize, data: usize) {
    column.lengths.truncate(rows);
    column.data.truncate(data);
}

fn length(bytes: Option<&[u8]>) -> i32 {
    bytes.map_or(-1, |bytes| {
        i32::try_from(bytes.len()).expect("a key, value or header in Kafka is smaller than 2 GiB")
    })
}
