//! One partition that is restored: the records between the store's file and the end of the changelog.

use std::time::Duration;

use keylane_state::{BINDING_KEY, Binding, Entry, StateRecord, record_key};

use super::reader::RestoreRequest;
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
        }
    }

    /// Takes a record. The error says why it can't be a record of this changelog.
    pub(super) fn take(&mut self, record: &Record<'_>, version: u32) -> Result<Taken, String> {
        let offset = record.offset();
        let (timestamp, _) = record.timestamp();
        let changed_ms = Some(timestamp).filter(|timestamp| *timestamp >= 0);
        let entry = entry_of(record.key(), record.value(), changed_ms, version)
            .map_err(|reason| format!("offset {offset}: {reason}"))?;
        self.records += 1;
        self.next = Some(offset + 1);
        self.entry_bytes += entry.bytes();
        self.entries.push(entry);
        Ok(if self.entry_bytes >= BATCH_BYTES { Taken::Batch } else { Taken::Continue })
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

/// Checks a record, and returns it as an entry of the store.
fn entry_of(
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    changed_ms: Option<i64>,
    version: u32,
) -> Result<Entry, String> {
    let key = key.filter(|key| !key.is_empty()).ok_or("the record has no key")?;
    let name = || record_key::display(key);
    if let Some(value) = value {
        if *key == BINDING_KEY {
            Binding::decode(value).map_err(|error| format!("binding record: {error}"))?;
        } else {
            let state = StateRecord::decode(value).map_err(|error| format!("key {}: {error}", name()))?;
            if state.version > version {
                let newer = state.version;
                return Err(format!(
                    "key {}: its state has version {newer}, and this component has {version}",
                    name()
                ));
            }
        }
    }
    Ok(Entry::new(key, value, changed_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_is_not_of_a_changelog_is_named() {
        let mut value = Vec::new();
        StateRecord::encode(2, b"7", &mut value);
        let entry = entry_of(Some(b"\x01ada"), Some(&value), Some(70), 2).expect("a state");
        assert_eq!((&*entry.key, entry.value.as_deref()), (&b"\x01ada"[..], Some(value.as_slice())));
        assert_eq!(entry.changed_ms, Some(70));
        let deleted = entry_of(Some(b"\x01ada"), None, Some(70), 2).expect("a tombstone");
        assert_eq!(deleted.value, None);
        fn error(key: Option<&[u8]>, value: Option<&[u8]>, version: u32) -> String {
            entry_of(key, value, None, version).expect_err("not a state")
        }
        assert_eq!(error(None, Some(&value[..]), 2), "the record has no key");
        let newer = "key \"ada\": its state has version 2, and this component has 1";
        assert_eq!(error(Some(b"\x01ada"), Some(&value[..]), 1), newer);
        value[8] ^= 1;
        assert!(error(Some(b"\x01ada"), Some(&value[..]), 2).starts_with("key \"ada\": "));
        assert!(error(Some(&BINDING_KEY), Some(b"?"), 2).starts_with("binding record: "));
    }
}
