//! One partition that is restored: the records between the store's file and the end of the changelog.

use std::time::Duration;

use keylane_state::{BINDING_KEY, Binding, Entry, MarkRecord, StateRecord, record_key};

use super::reader::RestoreRequest;
use super::unusable::UnusableRecords;
use crate::librdkafka::{PartitionQueue, Record};

/// Bytes of entries that are passed to the store at once.
const BATCH_BYTES: usize = 1 << 20;

/// A restore in progress.
pub(super) struct Restore {
    pub(super) request: RestoreRequest,
    pub(super) phase: Phase,
    /// The next offset to read, as far as it is known.
    pub(super) next: Option<i64>,
    /// Number of records so far.
    pub(super) records: u64,
    pub(super) began: Duration,
    /// Records that were not passed to the store yet.
    entries: Vec<Entry>,
    entry_bytes: usize,
    /// If there are any at the end, the partition does not start.
    pub(super) unusable: UnusableRecords,
}

pub(super) enum Phase {
    /// The end of the log is requested, or will be at this time.
    Waiting { again_at: Duration },
    /// The end of the log is requested, with this number.
    Asking { request: usize },
    /// Records are read up to this end.
    Reading { queue: PartitionQueue, end: i64 },
}

/// What a record does to a restore.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    Continue,
    /// Enough records for the store.
    Batch,
    /// Too many records can't be used.
    Damaged,
}

impl Restore {
    pub(super) fn new(request: RestoreRequest, now: Duration) -> Restore {
        Restore {
            next: request.resume,
            request,
            phase: Phase::Waiting { again_at: now },
            records: 0,
            began: now,
            entries: Vec::new(),
            entry_bytes: 0,
            unusable: UnusableRecords::default(),
        }
    }

    pub(super) fn take(&mut self, record: &Record<'_>, version: u32) -> Taken {
        let (timestamp, _) = record.timestamp();
        let changed_ms = Some(timestamp).filter(|timestamp| *timestamp >= 0);
        self.take_record(record.offset(), record.key(), record.value(), changed_ms, version)
    }

    fn take_record(
        &mut self,
        offset: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        changed_ms: Option<i64>,
        version: u32,
    ) -> Taken {
        self.records += 1;
        self.next = Some(offset + 1);
        // Compaction removes records without a key, and those with an empty one after a tombstone.
        let key = key.unwrap_or_default();
        if let Err(reason) = check(key, value, version) {
            self.unusable.add(key, offset, reason);
            if self.unusable.is_full() {
                return Taken::Damaged;
            }
            // Commands to the reader wait until a batch ends, so every record counts.
            self.entry_bytes += key.len() + value.map_or(0, <[u8]>::len);
        } else {
            self.unusable.replaced(key);
            if !key.is_empty() {
                let entry = Entry::new(key, value, changed_ms);
                self.entry_bytes += entry.bytes();
                self.entries.push(entry);
            }
        }
        if self.entry_bytes >= BATCH_BYTES { Taken::Batch } else { Taken::Continue }
    }

    /// Returns the records that were not passed to the store yet.
    pub(super) fn take_batch(&mut self) -> Vec<Entry> {
        self.entry_bytes = 0;
        std::mem::take(&mut self.entries)
    }

    /// Returns how much of the log was read, in offsets.
    pub(super) fn progress(&self) -> (i64, i64) {
        match self.phase {
            Phase::Reading { end, .. } => (self.next.unwrap_or(0), end),
            Phase::Waiting { .. } | Phase::Asking { .. } => (0, 0),
        }
    }
}

/// Checks a record. The error says why it can't be used.
fn check(key: &[u8], value: Option<&[u8]>, version: u32) -> Result<(), String> {
    let name = || record_key::display(key);
    let Some(value) = value else { return Ok(()) };
    if key.is_empty() {
        return Err("the record has no key".to_owned());
    }
    if *key == BINDING_KEY {
        return Binding::decode(value).map(|_| ()).map_err(|error| format!("binding record: {error}"));
    }
    if record_key::is_mark(key) {
        return MarkRecord::decode(value).map(|_| ()).map_err(|error| format!("{}: {error}", name()));
    }
    let state = StateRecord::decode(value).map_err(|error| format!("key {}: {error}", name()))?;
    if state.version > version {
        let newer = state.version;
        return Err(format!(
            "key {}: its state has version {newer}, and this component has {version}",
            name()
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use keylane_state::SessionId;

    use super::*;

    const KEY: &[u8] = b"\x01ada";

    fn state() -> Vec<u8> {
        let mut value = Vec::new();
        StateRecord::encode(2, b"7", &mut value);
        value
    }

    #[test]
    fn a_record_that_is_not_of_a_changelog_is_named() {
        let mut value = state();
        assert_eq!(check(KEY, Some(&value), 2), Ok(()));
        assert_eq!(check(KEY, None, 2), Ok(()));
        fn error(key: &[u8], value: &[u8], version: u32) -> String {
            check(key, Some(value), version).expect_err("not a state")
        }
        assert_eq!(error(b"", &value, 2), "the record has no key");
        let newer = "key \"ada\": its state has version 2, and this component has 1";
        assert_eq!(error(KEY, &value, 1), newer);
        value[8] ^= 1;
        assert!(error(KEY, &value, 2).starts_with("key \"ada\": "));
        assert!(error(&BINDING_KEY, b"?", 2).starts_with("binding record: "));
    }

    #[test]
    fn a_later_record_of_its_key_replaces_one_that_cannot_be_used() {
        let request = RestoreRequest { topic: 0, partition: 0, session: SessionId(1), resume: None };
        let mut restore = Restore::new(request, Duration::ZERO);
        let (value, damaged) = (state(), Some(&b"?"[..]));
        let mut take = |offset, key, value| {
            let taken = restore.take_record(offset, key, value, Some(70), 2);
            assert_eq!(taken, Taken::Continue);
            restore.unusable.first()
        };
        assert_eq!(take(0, Some(KEY), Some(&value[..])), None);
        let of_key = take(1, Some(KEY), damaged).expect("a damaged record");
        assert!(of_key.starts_with("offset 1: key \"ada\": "), "{of_key}");
        assert_eq!(take(2, None, damaged).as_deref(), Some(of_key.as_str()));
        assert_eq!(take(4, Some(KEY), None).as_deref(), Some("offset 2: the record has no key"));
        assert_eq!(take(5, Some(b""), None), None, "an empty key");
        assert!(take(6, Some(&BINDING_KEY), damaged).is_some());
        assert_eq!(take(7, Some(&BINDING_KEY), None), None);
        assert_eq!((restore.next, restore.records), (Some(8), 7));
        let entry = |key, value| Entry::new(key, value, Some(70));
        let expected = [entry(KEY, Some(&value[..])), entry(KEY, None), entry(&BINDING_KEY, None)];
        assert_eq!(restore.take_batch(), expected, "what can't be used does not reach the store");
    }
}
