//! Whether anybody else has owned a partition since our last commit of it.

use std::collections::BTreeMap;

use keylane_core::{CommitEntry, CommitId, Partition};

/// The last stored commit of each partition.
///
/// What is remembered of a partition's keys stays true if its next start is that commit: then nobody else has committed, and
/// events that have settled since are read again, and are passed over as they should be: their effects are published. Under
/// transactional delivery their effects are dropped, so what is remembered is, too.
#[derive(Debug)]
pub(super) struct LastCommits {
    is_enabled: bool,
    /// Commits without an answer.
    sent: BTreeMap<(CommitId, Partition), StoredCommit>,
    last: BTreeMap<Partition, StoredCommit>,
}

/// The offset and the metadata of a commit.
type StoredCommit = (i64, Vec<u8>);

impl LastCommits {
    pub(super) fn new(is_enabled: bool) -> LastCommits {
        LastCommits { is_enabled, sent: BTreeMap::new(), last: BTreeMap::new() }
    }

    pub(super) fn sent(&mut self, id: CommitId, entries: &[CommitEntry], metadata: &str) {
        if !self.is_enabled {
            return;
        }
        // A commit that was not answered before the next one has timed out, and is never answered.
        self.sent.clear();
        for entry in entries {
            let (start, end) = entry.metadata;
            let metadata = metadata.as_bytes().get(start as usize..end as usize).unwrap_or_default();
            self.sent.insert((id, entry.partition), (entry.offset, metadata.to_vec()));
        }
    }

    pub(super) fn answered(&mut self, id: CommitId, partition: Partition, stored: bool) {
        let Some(commit) = self.sent.remove(&(id, partition)) else { return };
        if stored {
            self.last.insert(partition, commit);
        }
    }

    /// Returns whether a partition starts at our last commit.
    pub(super) fn is_last(&self, partition: Partition, committed: Option<(i64, &[u8])>) -> bool {
        let last = self.last.get(&partition).map(|(offset, metadata)| (*offset, metadata.as_slice()));
        last.is_some() && last == committed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P0: Partition = Partition { topic: 0, number: 0 };
    const P1: Partition = Partition { topic: 0, number: 1 };

    fn entry(partition: Partition, offset: i64, metadata: (u32, u32)) -> CommitEntry {
        CommitEntry { partition, offset, metadata, unclaimed: 0 }
    }

    #[test]
    fn only_our_own_last_stored_commit_counts() {
        let mut commits = LastCommits::new(true);
        assert!(!commits.is_last(P0, None), "nothing is known without a commit");
        commits.sent(CommitId(1), &[entry(P0, 5, (0, 1)), entry(P1, 6, (1, 3))], "abc");
        assert!(!commits.is_last(P0, Some((5, b"a"))), "not answered yet");
        commits.answered(CommitId(1), P0, true);
        commits.answered(CommitId(1), P1, false);
        assert!(commits.is_last(P0, Some((5, b"a"))) && !commits.is_last(P1, Some((6, b"bc"))));
        assert!(!commits.is_last(P0, Some((5, b""))) && !commits.is_last(P0, Some((6, b"a"))));
        commits.sent(CommitId(2), &[entry(P0, 7, (0, 0))], "");
        assert!(commits.is_last(P0, Some((5, b"a"))));
        commits.answered(CommitId(2), P0, true);
        assert!(commits.is_last(P0, Some((7, b""))) && !commits.is_last(P0, Some((5, b"a"))));
        assert!(!commits.is_last(P0, None));
    }

    #[test]
    fn with_transactions_nothing_is_kept() {
        let mut commits = LastCommits::new(false);
        commits.sent(CommitId(1), &[entry(P0, 5, (0, 0))], "");
        commits.answered(CommitId(1), P0, true);
        assert!(!commits.is_last(P0, Some((5, b""))));
    }
}
