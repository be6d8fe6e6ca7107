//! What a test shell records of the core's actions.

use std::time::Duration;

use keylane_core::{CallId, CommitEntry, CommitId, EffectClaim, Partition};

/// A dispatched guest call.
#[derive(Clone, Debug)]
pub(crate) struct Dispatched {
    pub(crate) id: CallId,
    pub(crate) rows: Vec<(Partition, i64)>,
    pub(crate) lanes: Vec<u32>,
    pub(crate) attempt: u32,
    pub(crate) last_attempt: bool,
    pub(crate) fresh: bool,
}

/// A commit that the core sent.
#[derive(Clone, Debug)]
pub(crate) struct SentCommit {
    pub(crate) id: CommitId,
    pub(crate) entries: Vec<CommitEntry>,
    /// One completed set per entry.
    pub(crate) sets: Vec<String>,
    pub(crate) at: Duration,
}

/// A transaction that the core began.
#[derive(Clone, Debug)]
pub(crate) struct SentTransaction {
    pub(crate) id: CommitId,
    pub(crate) entries: Vec<CommitEntry>,
    pub(crate) claims: Vec<EffectClaim>,
    /// One completed set per entry.
    pub(crate) sets: Vec<String>,
    pub(crate) at: Duration,
}

impl SentTransaction {
    pub(super) fn new(
        id: CommitId,
        (entries, claims): (&[CommitEntry], &[EffectClaim]),
        metadata: &str,
        at: Duration,
    ) -> Self {
        let sets = entries.iter().map(|entry| set_of(entry, metadata)).collect();
        SentTransaction { id, entries: entries.to_vec(), claims: claims.to_vec(), sets, at }
    }
}

impl SentCommit {
    /// The offset committed for a partition.
    pub(crate) fn offset_of(&self, partition: Partition) -> Option<i64> {
        self.entries.iter().find(|entry| entry.partition == partition).map(|entry| entry.offset)
    }
}

pub(super) fn set_of(entry: &CommitEntry, metadata: &str) -> String {
    let (from, to) = (entry.metadata.0 as usize, entry.metadata.1 as usize);
    metadata.get(from..to).expect("a range of the metadata").to_owned()
}
