//! The effects of a handler: the columns of a result, filled output by output.

use serde::Serialize;

use crate::Result;
use crate::bindings::{BytesColumn, HeaderColumns, OutputColumns};
use crate::columns::{EMPTY, push, replace_last, truncate};

/// The effects of an event, which are carried out when the event is done. Outputs are published in the order in which
/// they were emitted.
#[derive(Debug)]
pub struct Effects {
    target_names: Vec<String>,
    /// The current row, which is the cause of new outputs.
    row: u32,
    causes: Vec<u32>,
    targets: Vec<u32>,
    keys: BytesColumn,
    values: BytesColumn,
    header_counts: Vec<u32>,
    header_names: BytesColumn,
    header_values: BytesColumn,
}

impl Effects {
    /// Emits an event to a target: a NAME under `[handlers.<handler>.outputs]` of the configuration.
    /// The output has no key, no value and no headers; the returned [`Output`] sets them.
    ///
    /// ```
    /// # use keylane_sdk::{Effects, Event, Result};
    /// fn handle(event: &Event<'_>, effects: &mut Effects) -> Result {
    ///     effects.emit("copies").key(event.key()).value(event.value()).header("origin", event.topic());
    ///     effects.emit("sizes").key("all").json(&event.value().map_or(0, <[u8]>::len))?;
    ///     Ok(())
    /// }
    /// ```
    pub fn emit(&mut self, target: &str) -> Output<'_> {
        let target = self.target_index(target);
        self.causes.push(self.row);
        self.targets.push(target);
        push(&mut self.keys, None);
        push(&mut self.values, None);
        self.header_counts.push(0);
        Output { effects: self }
    }

    /// Creates effects without outputs. Nothing is allocated before the first output, because most calls of most
    /// handlers have none.
    pub(crate) fn new() -> Self {
        Self {
            target_names: Vec::new(),
            row: 0,
            causes: Vec::new(),
            targets: Vec::new(),
            keys: EMPTY,
            values: EMPTY,
            header_counts: Vec::new(),
            header_names: EMPTY,
            header_values: EMPTY,
        }
    }

    /// Sets the row that causes the next outputs, and returns the mark to roll back to.
    pub(crate) fn begin(&mut self, row: u32) -> Mark {
        self.row = row;
        Mark {
            target_names: self.target_names.len(),
            outputs: self.causes.len(),
            key_data: self.keys.data.len(),
            value_data: self.values.data.len(),
            headers: self.header_names.lengths.len(),
            header_name_data: self.header_names.data.len(),
            header_value_data: self.header_values.data.len(),
        }
    }

    /// Drops everything emitted since the mark, including target names that were new.
    pub(crate) fn roll_back(&mut self, mark: &Mark) {
        self.target_names.truncate(mark.target_names);
        self.causes.truncate(mark.outputs);
        self.targets.truncate(mark.outputs);
        truncate(&mut self.keys, mark.outputs, mark.key_data);
        truncate(&mut self.values, mark.outputs, mark.value_data);
        self.header_counts.truncate(mark.outputs);
        truncate(&mut self.header_names, mark.headers, mark.header_name_data);
        truncate(&mut self.header_values, mark.headers, mark.header_value_data);
    }

    /// Returns the columns for the host; `None` if nothing was emitted.
    pub(crate) fn into_columns(self) -> Option<OutputColumns> {
        if self.causes.is_empty() {
            return None;
        }
        let headers = (!self.header_names.lengths.is_empty()).then_some(HeaderColumns {
            counts: self.header_counts,
            names: self.header_names,
            values: self.header_values,
        });
        Some(OutputColumns {
            target_names: self.target_names,
            causes: self.causes,
            targets: self.targets,
            keys: self.keys,
            values: self.values,
            headers,
        })
    }

    /// Returns the index of a target name, which is added if it is new. A handler has few targets, so comparing is
    /// faster than hashing.
    fn target_index(&mut self, target: &str) -> u32 {
        let index = self.target_names.iter().position(|name| name == target).unwrap_or_else(|| {
            self.target_names.push(target.to_owned());
            self.target_names.len() - 1
        });
        u32::try_from(index).expect("a handler has fewer than 2^32 targets")
    }
}

/// The output that was just emitted, to set its parts. Setting the key or the value again replaces it.
#[derive(Debug)]
pub struct Output<'a> {
    effects: &'a mut Effects,
}

impl Output<'_> {
    /// Sets the key. Outputs with the same key go to the same partition.
    pub fn key(self, key: impl OptionalBytes) -> Self {
        replace_last(&mut self.effects.keys, key.optional_bytes());
        self
    }

    /// Sets the value. Without one the output is a tombstone.
    pub fn value(self, value: impl OptionalBytes) -> Self {
        replace_last(&mut self.effects.values, value.optional_bytes());
        self
    }

    /// Sets the value to `value`, encoded as JSON.
    ///
    /// # Errors
    /// Rejects the event if the value cannot be encoded as JSON (for example, a map whose keys are not strings).
    pub fn json<T: Serialize + ?Sized>(self, value: &T) -> Result<Self> {
        replace_last(&mut self.effects.values, Some(&serde_json::to_vec(value)?));
        Ok(self)
    }

    /// Adds a header. Names that start with `keylane-` are reserved: the host drops them.
    pub fn header(self, name: &str, value: impl OptionalBytes) -> Self {
        if let Some(count) = self.effects.header_counts.last_mut() {
            *count += 1;
        }
        push(&mut self.effects.header_names, Some(name.as_bytes()));
        push(&mut self.effects.header_values, value.optional_bytes());
        self
    }
}

/// Types for a key, a value or a header's value: text, bytes, or an `Option` of either.
pub trait OptionalBytes {
    /// Returns the bytes; `None` if absent.
    fn optional_bytes(&self) -> Option<&[u8]>;
}

impl<T: OptionalBytes + ?Sized> OptionalBytes for &T {
    fn optional_bytes(&self) -> Option<&[u8]> {
        (**self).optional_bytes()
    }
}

impl<T: OptionalBytes> OptionalBytes for Option<T> {
    fn optional_bytes(&self) -> Option<&[u8]> {
        self.as_ref().and_then(T::optional_bytes)
    }
}

macro_rules! bytes_like {
    ($($kind:ty),*) => {$(
        impl OptionalBytes for $kind {
            fn optional_bytes(&self) -> Option<&[u8]> {
                Some(self.as_ref())
            }
        }
    )*};
}

bytes_like!(str, String, [u8], Vec<u8>);

impl<const N: usize> OptionalBytes for [u8; N] {
    fn optional_bytes(&self) -> Option<&[u8]> {
        Some(self)
    }
}

/// The sizes of all columns before an event.
#[derive(Debug)]
pub(crate) struct Mark {
    target_names: usize,
    outputs: usize,
    key_data: usize,
    value_data: usize,
    headers: usize,
    header_name_data: usize,
    header_value_data: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::columns::ColumnReader;

    #[test]
    fn setting_a_part_again_replaces_it() {
        let mut effects = Effects::new();
        effects.emit("a").key("first").value("x").key("2").value(None::<&str>);
        effects.emit("b").key("");
        let columns = effects.into_columns().expect("two outputs");
        assert_eq!(ColumnReader::new(&columns.keys).collect::<Vec<_>>(), [Some(&b"2"[..]), Some(b"")]);
        assert_eq!(ColumnReader::new(&columns.values).collect::<Vec<_>>(), [None, None]);
        assert_eq!(columns.headers.map(|headers| headers.counts), None);
    }

    #[test]
    fn rolling_back_keeps_earlier_outputs() {
        let mut effects = Effects::new();
        effects.begin(0);
        effects.emit("a").key("k").value("v").header("h", "1");
        let mark = effects.begin(1);
        effects.emit("a").key("other").value("value").header("h", "2");
        effects.emit("new").header("x", None::<&[u8]>);
        effects.roll_back(&mark);
        effects.begin(2);
        effects.emit("b").value("last");

        let columns = effects.into_columns().expect("two outputs");
        assert_eq!(columns.target_names, ["a", "b"]);
        assert_eq!((columns.causes, columns.targets), (vec![0, 2], vec![0, 1]));
        assert_eq!(ColumnReader::new(&columns.keys).collect::<Vec<_>>(), [Some(&b"k"[..]), None]);
        assert_eq!(columns.values.data, b"vlast");
        let headers = columns.headers.expect("the first output has a header");
        assert_eq!(headers.counts, [1, 0]);
        assert_eq!((headers.names.data, headers.values.data), (b"h".to_vec(), b"1".to_vec()));
    }
}
