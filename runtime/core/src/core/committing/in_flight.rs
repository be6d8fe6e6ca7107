//! The commit in flight: assembles offsets and sets when [`super`] decides, and applies the responses for each
//! partition. At most one commit is in flight.

use crate::codec::Encoder;
use crate::partitions::{PartitionState, Phase};
use crate::{Action, CommitEntry, CommitId, OwnershipId};

/// With a lower limit, in characters, a set can claim nothing.
const METADATA_LIMIT_MIN: usize = 32;

#[derive(Debug)]
pub(super) struct CommitInFlight {
    next_id: u64,
    in_flight: Option<CommitId>,
    entries: Vec<CommitEntry>,
    sent: Vec<SentCommit>,
    unanswered: usize,
    metadata: String,
    encoder: Encoder,
    metadata_limit: usize,
    /// The last commit that lowered the limit: each commit lowers it only once, however many partitions it affects.
    lowered_for: Option<CommitId>,
}

/// The state that an entry of the commit in flight was made from.
#[derive(Clone, Copy, Debug)]
pub(super) struct SentCommit {
    pub(super) index: u32,
    pub(super) ownership: OwnershipId,
    pub(super) changes: u64,
    /// Whether the ownership no longer accepts results: nothing can settle after this commit.
    pub(super) is_final: bool,
    answered: bool,
}

impl CommitInFlight {
    pub(super) fn new(metadata_limit: usize) -> Self {
        CommitInFlight {
            next_id: 1,
            in_flight: None,
            entries: Vec::new(),
            sent: Vec::new(),
            unanswered: 0,
            metadata: String::new(),
            encoder: Encoder::default(),
            metadata_limit,
            lowered_for: None,
        }
    }

    pub(super) fn is_in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Begins a commit without entries.
    pub(super) fn begin(&mut self) {
        self.entries.clear();
        self.sent.clear();
        self.metadata.clear();
    }

    /// Adds one snapshot of a partition: its committable offset, and the set bound to it. Partitions are added in the
    /// order of their indexes.
    pub(super) fn add(&mut self, index: u32, state: &PartitionState) {
        let offset = state.ledger.committable();
        let from = self.metadata.len();
        let identity = state.identity(offset);
        let claimed =
            self.encoder.encode(&identity, state.ledger.runs(), self.metadata_limit, &mut self.metadata);
        self.entries.push(CommitEntry {
            partition: state.id,
            offset,
            metadata: (text_offset(from), text_offset(self.metadata.len())),
            unclaimed: state.ledger.completed_beyond().saturating_sub(claimed),
        });
        let (ownership, changes) = (state.ownership, state.commit.changes);
        let is_final = matches!(state.phase, Phase::Committing { .. });
        self.sent.push(SentCommit { index, ownership, changes, is_final, answered: false });
    }

    /// Marks the commit as in flight. Returns false if it has no entry.
    pub(super) fn send(&mut self) -> bool {
        self.unanswered = self.entries.len();
        if self.unanswered == 0 {
            return false;
        }
        self.in_flight = Some(CommitId(self.next_id));
        self.next_id += 1;
        true
    }

    pub(super) fn action(&self) -> Action<'_> {
        let id = self.in_flight.expect("a commit is polled in the step that created it");
        Action::Commit { id, entries: &self.entries, metadata: &self.metadata }
    }

    /// Takes the sent entry of a partition, if this is its first answer.
    pub(super) fn take_entry(&mut self, id: CommitId, index: u32) -> Option<(SentCommit, CommitEntry)> {
        if self.in_flight != Some(id) {
            return None;
        }
        let at = self.sent.binary_search_by_key(&index, |sent| sent.index).ok()?;
        let sent = self.sent.get_mut(at).filter(|sent| !sent.answered)?;
        sent.answered = true;
        self.unanswered -= 1;
        if self.unanswered == 0 {
            self.in_flight = None;
        }
        Some((*sent, *self.entries.get(at)?))
    }

    /// Stops waiting for the commit. Returns false if it was not in flight.
    pub(super) fn time_out(&mut self, id: CommitId) -> bool {
        self.in_flight.take_if(|own| *own == id).is_some()
    }

    /// Lowers the limit because the broker rejected a set of this length. Returns the new limit, once per commit.
    pub(super) fn lower_metadata_limit(&mut self, id: CommitId, set_length: usize) -> Option<usize> {
        if self.lowered_for.replace(id) == Some(id) {
            return None;
        }
        let half = self.metadata_limit.min(set_length) / 2;
        self.metadata_limit = if half < METADATA_LIMIT_MIN { 0 } else { half };
        Some(self.metadata_limit)
    }
}

fn text_offset(at: usize) -> u32 {
    u32::try_from(at).expect("4,096 characters per partition stay far below 2^32")
}
