//! Iterates the outputs of a result.

use super::super::batch::{self, ABSENT};
use super::{GuestOutput, wit};

/// An iterator over checked columns, from the first output to the last.
pub(super) struct Cursor<'a> {
    columns: &'a wit::OutputColumns,
    output: usize,
    keys: &'a [u8],
    values: &'a [u8],
    header: usize,
    header_names: &'a [u8],
    header_values: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(super) fn new(columns: &'a wit::OutputColumns) -> Cursor<'a> {
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
