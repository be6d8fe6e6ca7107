//! Decides whether a transaction was committed whose commit was requested without an answer, from the offsets that the
//! coordinator has stored since.

use crate::sink::{StoredOffset, TransactionOffset};

/// One partition of the transaction.
pub(super) struct Witness<'a> {
    /// Whether the ownership of the partition is still open. If not, another member may have committed since.
    pub(super) is_open: bool,
    pub(super) before: &'a StoredOffset,
    pub(super) sent: &'a TransactionOffset,
    pub(super) stored: &'a StoredOffset,
}

/// The result of reading the offsets back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadBack {
    Committed,
    /// Not committed. Also if nothing of the transaction concerns an open ownership.
    Aborted,
    /// Somebody else commits in this group.
    Overwritten,
}

/// Decides by the witnesses: the partitions whose ownership is open, and that the transaction changes.
pub(super) fn decide<'a>(partitions: impl Iterator<Item = Witness<'a>>) -> ReadBack {
    let mut decided = None;
    for Witness { before, sent, stored, .. } in partitions.filter(Witness::decides) {
        let found = if is(stored, sent) {
            ReadBack::Committed
        } else if stored == before {
            ReadBack::Aborted
        } else {
            return ReadBack::Overwritten;
        };
        if *decided.get_or_insert(found) != found {
            return ReadBack::Overwritten;
        }
    }
    decided.unwrap_or(ReadBack::Aborted)
}

impl Witness<'_> {
    fn decides(&self) -> bool {
        self.is_open && !is(self.before, self.sent)
    }
}

fn is(stored: &StoredOffset, sent: &TransactionOffset) -> bool {
    stored
        .as_ref()
        .is_some_and(|(offset, metadata)| *offset == sent.offset && metadata == sent.metadata.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(offset: i64, metadata: &str) -> TransactionOffset {
        TransactionOffset { topic: c"in".into(), partition: 0, offset, metadata: metadata.to_owned() }
    }

    fn stored(offset: i64, metadata: &str) -> StoredOffset {
        Some((offset, metadata.as_bytes().to_vec()))
    }

    type Case = (bool, StoredOffset, TransactionOffset, StoredOffset);

    fn decided(cases: &[Case]) -> ReadBack {
        decide(cases.iter().map(|(is_open, before, sent, stored)| Witness {
            is_open: *is_open,
            before,
            sent,
            stored,
        }))
    }

    #[test]
    fn the_open_partitions_that_the_transaction_changes_decide() {
        let committed = (true, stored(3, ""), sent(5, "a"), stored(5, "a"));
        let aborted = (true, None, sent(5, "a"), None);
        let other = (true, stored(3, ""), sent(5, "a"), stored(5, "b"));
        let unchanged = (true, stored(5, "a"), sent(5, "a"), stored(5, "a"));
        let closed = (false, stored(3, ""), sent(5, "a"), stored(9, ""));
        let case = |cases: &[&Case]| decided(&cases.iter().map(|case| (*case).clone()).collect::<Vec<_>>());
        assert_eq!(case(&[&committed, &unchanged, &closed]), ReadBack::Committed);
        assert_eq!(case(&[&unchanged, &aborted, &closed]), ReadBack::Aborted);
        assert_eq!(case(&[&committed, &aborted]), ReadBack::Overwritten);
        assert_eq!(case(&[&committed, &other]), ReadBack::Overwritten);
        assert_eq!(
            case(&[&closed, &unchanged]),
            ReadBack::Aborted,
            "no partition decides, and nothing depends on it"
        );
    }
}
