//! The commit in flight: assembles offsets and sets when [`super`] decides, and applies the responses for each
//! partition. At most one commit, or transaction, is in flight.

use super::transactions::Claimed;
use crate::codec::{Encoder, Identity};
use crate::partitions::{PartitionState, Phase};
use crate::{Action, CommitEntry, CommitId, EffectClaim, OwnershipId, SettleNumber};

/// With a lower limit, in characters, a set can claim nothing.
const METADATA_LIMIT_MIN: usize = 32;

#[derive(Debug)]
pub(super) struct CommitInFlight {
    next_id: u64,
    in_flight: Option<CommitId>,
    entries: Vec<CommitEntry>,
    pub(super) sent: Vec<SentCommit>,
    /// Transactional delivery: one per entry.
    claims: Vec<EffectClaim>,
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
    /// Transactional delivery: what the transaction claims.
    pub(super) claimed: Option<Claimed>,
    answered: bool,
}

impl CommitInFlight {
    pub(super) fn new(metadata_limit: usize) -> Self {
        CommitInFlight {
            next_id: 1,
            in_flight: None,
            entries: Vec::new(),
            sent: Vec::new(),
            claims: Vec::new(),
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
        self.claims.clear();
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
        self.sent.push(SentCommit::of(index, state, None));
    }

    /// Adds a partition of a transaction, whose set was encoded from position `from` of the metadata on.
    pub(super) fn push_claimed(
        &mut self,
        index: u32,
        state: &PartitionState,
        (from, offset): (usize, i64),
        claimed: Claimed,
    ) {
        self.entries.push(CommitEntry {
            partition: state.id,
            offset,
            metadata: (text_offset(from), text_offset(self.metadata.len())),
            unclaimed: 0,
        });
        self.sent.push(SentCommit::of(index, state, Some(claimed)));
    }

    /// Sorts the partitions of a transaction by their indexes.
    pub(super) fn sort_entries(&mut self) {
        let mut order: Vec<usize> = (0..self.sent.len()).collect();
        order.sort_unstable_by_key(|&at| self.sent.get(at).map(|sent| sent.index));
        self.entries = order.iter().filter_map(|&at| self.entries.get(at).copied()).collect();
        self.sent = order.iter().filter_map(|&at| self.sent.get(at).copied()).collect();
        self.claims = self.sent.iter().filter_map(|sent| sent.claimed).map(|claimed| claimed.claim).collect();
    }

    /// Appends a set to the metadata. Returns the number of offsets that it claims.
    pub(super) fn encode(&mut self, identity: &Identity, runs: impl Iterator<Item = (u64, u64)>) -> u64 {
        self.encoder.encode(identity, runs, self.metadata_limit, &mut self.metadata)
    }

    pub(super) fn metadata_length(&self) -> usize {
        self.metadata.len()
    }

    pub(super) fn truncate_metadata(&mut self, length: usize) {
        self.metadata.truncate(length);
    }

    /// Returns whether an unanswered commit contains the partition.
    pub(super) fn contains(&self, index: u32) -> bool {
        self.in_flight.is_some() && self.sent.binary_search_by_key(&index, |sent| sent.index).is_ok()
    }

    /// Returns the last event of an ownership that the unanswered transaction claims; `None`: it does not contain the
    /// ownership.
    pub(super) fn claimed_through(&self, index: u32, ownership: OwnershipId) -> Option<SettleNumber> {
        let at =
            self.in_flight.and_then(|_| self.sent.binary_search_by_key(&index, |sent| sent.index).ok())?;
        let sent = self.sent.get(at).filter(|sent| sent.ownership == ownership && !sent.answered)?;
        sent.claimed.map(|claimed| claimed.claim.through)
    }

    /// Returns the length of the longest set of the last commit.
    pub(super) fn longest_set(&self) -> usize {
        let lengths = self.entries.iter().map(|entry| (entry.metadata.1 - entry.metadata.0) as usize);
        lengths.max().unwrap_or(0)
    }

    /// Returns the partitions of the last commit, by their indexes, with their ownerships.
    pub(super) fn sent_ownerships(&self) -> Vec<(u32, OwnershipId)> {
        self.sent.iter().map(|sent| (sent.index, sent.ownership)).collect()
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

    pub(super) fn transaction_action(&self) -> Action<'_> {
        let id = self.in_flight.expect("a transaction is polled in the step that created it");
        let CommitInFlight { entries, claims, metadata, .. } = self;
        Action::BeginTransaction { id, entries, claims, metadata }
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

impl SentCommit {
    fn of(index: u32, state: &PartitionState, claimed: Option<Claimed>) -> Self {
        let (ownership, changes) = (state.ownership, state.commit.changes);
        let is_final = matches!(state.phase, Phase::Committing { .. });
        SentCommit { index, ownership, changes, is_final, claimed, answered: false }
    }
}

fn text_offset(at: usize) -> u32 {
    u32::try_from(at).expect("4,096 characters per partition stay far below 2^32")
}
