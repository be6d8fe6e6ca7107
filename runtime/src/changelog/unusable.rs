//! Records of a changelog that can't be used. The log keeps them after a reset until its compaction, so a record counts
//! only if no later one of its key replaces or deletes it.

use std::collections::HashMap;

/// Memory for the keys of these records and their reasons, for one restore: about 80,000 short keys.
const BYTES_MAX: usize = 16 << 20;
/// The allowance for the allocations of a key and its place in the table.
const KEY_OVERHEAD: usize = 96;

/// The keys whose last record so far can't be used.
#[derive(Debug, Default)]
pub(super) struct UnusableRecords {
    by_key: HashMap<Box<[u8]>, UnusableRecord>,
    bytes: usize,
}

#[derive(Debug)]
struct UnusableRecord {
    offset: i64,
    reason: String,
}

impl UnusableRecords {
    pub(super) fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// Returns whether there is no memory for more: the restore ends with what is known.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= BYTES_MAX
    }

    /// The last record of this key can't be used.
    pub(super) fn add(&mut self, key: &[u8], offset: i64, reason: String) {
        self.replaced(key);
        self.bytes += bytes_of(key, &reason);
        self.by_key.insert(key.into(), UnusableRecord { offset, reason });
    }

    /// The last record of this key can be used, or deletes the key.
    pub(super) fn replaced(&mut self, key: &[u8]) {
        if let Some(UnusableRecord { reason, .. }) = self.by_key.remove(key) {
            self.bytes -= bytes_of(key, &reason);
        }
    }

    /// Returns the first of the records, and what is wrong with it.
    pub(super) fn first(&self) -> Option<String> {
        let first = self.by_key.values().min_by_key(|record| record.offset);
        // After a reset, the restore would end here again.
        let remedy = if self.is_full() {
            "; too many keys have such records to read on, so `keylane state reset` needs another `keys.topic`"
        } else {
            ""
        };
        first.map(|UnusableRecord { offset, reason }| format!("offset {offset}: {reason}{remedy}"))
    }
}

fn bytes_of(key: &[u8], reason: &str) -> usize {
    KEY_OVERHEAD + key.len() + reason.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_until_another_one_of_its_key_comes() {
        let mut records = UnusableRecords::default();
        assert_eq!(records.first(), None);
        records.add(b"a", 3, "damaged".to_owned());
        records.add(b"b", 4, "newer".to_owned());
        records.replaced(b"c");
        assert_eq!(records.first().as_deref(), Some("offset 3: damaged"));
        records.add(b"a", 5, "still damaged".to_owned());
        assert_eq!(records.first().as_deref(), Some("offset 4: newer"));
        records.replaced(b"b");
        assert_eq!(records.first().as_deref(), Some("offset 5: still damaged"));
        records.replaced(b"a");
        assert!(records.is_empty() && records.bytes == 0, "{records:?}");
    }

    #[test]
    fn the_memory_has_a_limit() {
        let mut records = UnusableRecords::default();
        let keys = (0_u32..).find(|number| {
            records.add(&number.to_be_bytes(), i64::from(*number), "x".repeat(100));
            records.is_full()
        });
        assert!(keys.is_some_and(|keys| (50_000..100_000).contains(&keys)), "{keys:?}");
        assert!(records.first().is_some_and(|reason| reason.ends_with("another `keys.topic`")));
        records.replaced(&0_u32.to_be_bytes());
        assert!(!records.is_full());
    }
}
