//! The changelog of a partition: a compacted log with transactions.

use std::collections::{BTreeMap, BTreeSet};

use keylane_state::{KeyBytes, StateValue};

use super::super::plan::{MS, Micros};
use super::super::trace::Seen;
use super::super::transactions::TransactionState;
use super::super::world::World;

/// The key of a record.
type Key = KeyBytes;

/// A record as a producer sends it.
#[derive(Clone, Debug)]
pub(crate) struct KeyRecord {
    pub(crate) partition: usize,
    pub(crate) key: Key,
    pub(crate) value: StateValue,
}

#[derive(Debug, Default)]
pub(super) struct Changelog {
    /// Ascending by offset, with the gaps of markers and of compaction.
    pub(super) records: Vec<StoredRecord>,
    /// One past the last offset, open transactions included.
    pub(super) end: i64,
    /// Per key: the last committed value and its offset.
    pub(super) latest: BTreeMap<Key, (i64, StateValue)>,
    /// Every committed record, for checks: its key, offset and value.
    pub(super) committed: BTreeMap<(Key, i64), StateValue>,
}

#[derive(Debug)]
pub(super) struct StoredRecord {
    pub(super) offset: i64,
    transaction: (usize, u64),
    pub(super) key: Key,
    pub(super) value: StateValue,
    pub(super) state: TransactionState,
    /// The timestamp of the record.
    pub(super) appended_ms: i64,
    /// When compaction found it first: a deletion is kept for some time from then on.
    compacted_at: Option<Micros>,
}

impl Changelog {
    fn append(&mut self, transaction: (usize, u64), record: &KeyRecord, now: Micros) -> i64 {
        let (offset, state) = (self.end, TransactionState::Open);
        let KeyRecord { key, value, .. } = record.clone();
        let appended_ms = (now / MS) as i64;
        let compacted_at = None;
        self.records.push(StoredRecord { offset, transaction, key, value, state, appended_ms, compacted_at });
        self.end += 1;
        offset
    }

    /// A read_committed reader is not given the records from here on.
    pub(super) fn last_stable(&self) -> i64 {
        let open = self.records.iter().find(|record| record.state == TransactionState::Open);
        open.map_or(self.end, |record| record.offset)
    }

    /// Writes the marker of a transaction, if it has records here.
    fn end_transaction(&mut self, transaction: (usize, u64), committed: bool) {
        let mut any = false;
        for record in &mut self.records {
            if record.transaction != transaction || record.state != TransactionState::Open {
                continue;
            }
            any = true;
            record.state = TransactionState::Aborted;
            if committed {
                record.state = TransactionState::Committed;
                let (key, value) = (record.key.clone(), record.value.clone());
                self.committed.insert((key, record.offset), value);
                let latest = self.latest.entry(record.key.clone()).or_insert((-1, None));
                if latest.0 < record.offset {
                    *latest = (record.offset, record.value.clone());
                }
            }
        }
        self.end += i64::from(any);
    }

    /// Removes what newer records replace, and deletions that an earlier compaction found long ago. Returns the number of
    /// deletions that were removed. Nothing from the last stable offset on is compacted.
    fn compact(&mut self, now: Micros, deletions_kept: Micros) -> u64 {
        let (stable, mut newer, mut removed) = (self.last_stable(), BTreeSet::new(), 0);
        self.records.reverse();
        self.records.retain_mut(|record| {
            if record.offset >= stable {
                return true;
            }
            let is_last = record.state == TransactionState::Committed && newer.insert(record.key.clone());
            let found = *record.compacted_at.get_or_insert(now);
            let is_old_deletion = is_last && record.value.is_none() && found + deletions_kept < now;
            removed += u64::from(is_old_deletion);
            is_last && !is_old_deletion
        });
        self.records.reverse();
        removed
    }
}

impl World {
    /// Appends a record of an open transaction. Returns its offset.
    pub(crate) fn append_key_record(&mut self, transaction: (usize, u64), record: &KeyRecord) -> i64 {
        self.keyed.changelogs[record.partition].append(transaction, record, self.now)
    }

    /// The key records of an open transaction.
    pub(super) fn key_records_of(&self, transaction: (usize, u64)) -> Vec<KeyRecord> {
        let logs = self.keyed.changelogs.iter().enumerate();
        logs.flat_map(|(partition, log)| {
            let records = log
                .records
                .iter()
                .filter(|record| record.transaction == transaction && record.state == TransactionState::Open);
            records.map(move |record| KeyRecord {
                partition,
                key: record.key.clone(),
                value: record.value.clone(),
            })
        })
        .collect()
    }

    /// Writes the markers of a transaction. Sometimes, the log is compacted soon after.
    pub(crate) fn end_transaction_in_changelogs(&mut self, transaction: (usize, u64), committed: bool) {
        let Some(plan) = self.plan.keyed else { return };
        for index in 0..self.keyed.changelogs.len() {
            self.keyed.changelogs[index].end_transaction(transaction, committed);
            if self.rng.percent(40) {
                let removed = self.keyed.changelogs[index].compact(self.now, plan.deletions_kept);
                (0..removed).for_each(|_| self.saw(Seen::DeletionsCompacted));
            }
        }
    }

    /// Appends a transaction of the operator, which is committed at once.
    pub(super) fn append_of_operator(&mut self, records: &[KeyRecord]) {
        let transaction = (usize::MAX, self.trace.lines.len() as u64);
        for record in records {
            self.append_key_record(transaction, record);
            self.keyed.changelogs[record.partition].end_transaction(transaction, true);
        }
    }
}
