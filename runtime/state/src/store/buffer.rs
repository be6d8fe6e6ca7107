//! The entries of a partition that are not in its file yet.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::row::Row;
use super::types::{Entry, entry_bytes};
use crate::{KeyBytes, StateValue};

/// The value of a key, or its deletion.
#[derive(Debug)]
struct Newest {
    value: StateValue,
    changed_ms: Option<i64>,
}

impl Newest {
    fn row(&self) -> Option<Row<'_>> {
        self.value.as_deref().map(|value| Row { changed_ms: self.changed_ms, value })
    }
}

/// The newest entry of each key. A hash table, because a restore adds millions of entries; they are sorted once, when
/// they are written, because a file is filled several times faster in the order of its keys.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    entries: HashMap<KeyBytes, Newest, RandomState>,
    bytes: usize,
}

impl Buffer {
    pub(super) fn add(&mut self, entry: Entry) {
        let Entry { key, value, changed_ms } = entry;
        let length = key.len();
        self.bytes += entry_bytes(&key, value.as_deref());
        if let Some(replaced) = self.entries.insert(key, Newest { value, changed_ms }) {
            self.bytes -= entry_bytes(&[], replaced.value.as_deref()) + length;
        }
    }

    /// Returns the newest value of a key; `None`: it is as in the file, `Some(None)`: it is deleted.
    pub(super) fn get(&self, key: &[u8]) -> Option<&StateValue> {
        self.entries.get(key).map(|newest| &newest.value)
    }

    /// Returns the memory of the entries, as estimated by [`Entry::bytes`].
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns all entries in the order of their keys.
    pub(super) fn sorted(&self) -> Vec<(&[u8], Option<Row<'_>>)> {
        let mut sorted: Vec<_> = self.entries.iter().map(|(key, newest)| (&**key, newest.row())).collect();
        sorted.sort_unstable_by_key(|&(key, _)| key);
        sorted
    }

    /// Removes all entries and releases their memory.
    pub(super) fn clear(&mut self) {
        *self = Buffer::default();
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::entry;
    use super::*;

    #[test]
    fn the_newest_entry_of_each_key_counts() {
        let mut buffer = Buffer::default();
        for (key, value) in [("b", Some("1")), ("a", Some("long value")), ("b", None), ("a", Some("2"))] {
            buffer.add(entry(key, value));
        }
        let last = entry("a", Some("2"));
        let expected: [(&[u8], Option<Row<'_>>); 2] = [(b"a", last.row()), (b"b", None)];
        assert_eq!(buffer.sorted(), expected);
        assert_eq!(buffer.get(b"b"), Some(&None));
        assert_eq!(buffer.get(b"c"), None);
        assert_eq!(buffer.bytes(), entry("a", Some("2")).bytes() + entry("b", None).bytes());
        buffer.clear();
        assert!(buffer.is_empty() && buffer.bytes() == 0);
    }
}
