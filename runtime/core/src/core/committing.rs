//! Committing: when and what to commit, and handling the answers. Offset and set always come from one snapshot.

use std::time::Duration;

use super::Core;
use crate::codec::Encoder;
use crate::outbox::Pending;
use crate::partitions::Phase;
use crate::{Action, CommitEntry, CommitError, CommitId, Notice, OwnershipId, Partition};

/// Pause before the same commit is sent again.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// How often the partitions are scanned for uncommitted changes, unless a commit is urgent.
const SCAN_INTERVAL: Duration = Duration::from_millis(2);
/// Below this many characters a set claims next to nothing.
const METADATA_LIMIT_MIN: usize = 32;

/// The commit of this consumer. At most one is in flight.
#[derive(Debug)]
pub(super) struct Committer {
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
    sent_at: Duration,
    not_before: Duration,
    scanned_at: Duration,
    /// Settled events since the last commit was sent.
    settled: u64,
    /// The next commit must not wait for its interval.
    urgent: bool,
}

/// The state behind an entry of the commit in flight.
#[derive(Clone, Copy, Debug)]
struct SentCommit {
    index: u32,
    ownership: OwnershipId,
    changes: u64,
    /// The ownership was already closed to results: nothing can settle after it.
    is_final: bool,
    answered: bool,
}

impl Committer {
    pub(super) fn new(metadata_limit: usize) -> Self {
        Committer {
            next_id: 1,
            in_flight: None,
            entries: Vec::new(),
            sent: Vec::new(),
            unanswered: 0,
            metadata: String::new(),
            encoder: Encoder::default(),
            metadata_limit,
            lowered_for: None,
            sent_at: Duration::ZERO,
            not_before: Duration::ZERO,
            scanned_at: Duration::ZERO,
            settled: 0,
            urgent: false,
        }
    }

    pub(super) fn count_settled(&mut self, events: u64) {
        self.settled += events;
    }

    /// Makes the next commit not wait for its interval.
    pub(super) fn make_urgent(&mut self) {
        self.urgent = true;
    }

    /// Makes the next commit urgent, even after an error: an ownership waits for its final commit for a limited time.
    pub(super) fn make_final_urgent(&mut self, now: Duration) {
        self.urgent = true;
        self.not_before = self.not_before.min(now + RETRY_PAUSE);
    }

    pub(super) fn action(&self) -> Action<'_> {
        let id = self.in_flight.expect("a commit is polled in the step that created it");
        Action::Commit { id, entries: &self.entries, metadata: &self.metadata }
    }

    /// The sent entry of a partition, if this is its first answer. Entries are in the order of indexes.
    fn take_entry(&mut self, id: CommitId, index: u32) -> Option<(SentCommit, CommitEntry)> {
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
}

impl Core {
    pub(super) fn committed(&mut self, id: CommitId, partition: Partition) {
        let Some((sent, entry)) = self.take_commit_entry(id, partition) else { return };
        let state = self.partitions.get_mut(sent.index);
        if state.ownership != sent.ownership || !state.may_commit() {
            return; // it was sent for an earlier ownership
        }
        let stored = Some(entry.offset);
        assert!(stored >= state.commit.committed, "{partition}: the commit went back to {stored:?}");
        state.commit.committed = stored;
        state.commit.applied = sent.changes;
        state.commit.applied_at = self.now.uptime;
        state.commit.unclaimed = entry.unclaimed;
        if state.phase == Phase::Starting {
            self.activate(sent.index);
        }
        self.end_round_if_committed(sent.index);
    }

    pub(super) fn commit_failed(&mut self, id: CommitId, partition: Partition, why: CommitError) {
        let Some((sent, entry)) = self.take_commit_entry(id, partition) else { return };
        let set_length = (entry.metadata.1 - entry.metadata.0) as usize;
        match why {
            CommitError::MetadataTooLarge if set_length > 0 => self.lower_metadata_limit(id, set_length),
            CommitError::TryAgain => self.committer.not_before = self.now.uptime + RETRY_PAUSE,
            CommitError::MetadataTooLarge | CommitError::Stale | CommitError::Other => {
                let state = self.partitions.get_mut(sent.index);
                if state.ownership == sent.ownership && sent.is_final {
                    state.commit.rejected = true;
                }
                // A closing ownership has little time, and the rejected commit may be an older one.
                let pause = if self.closing { RETRY_PAUSE } else { self.config.commit_interval };
                self.committer.not_before = self.now.uptime + pause;
            }
        }
    }

    fn take_commit_entry(&mut self, id: CommitId, partition: Partition) -> Option<(SentCommit, CommitEntry)> {
        let index = self.partitions.find(partition)?;
        self.committer.take_entry(id, index)
    }

    /// The commit may have been applied or not: everything in it is committed again.
    pub(super) fn commit_timed_out(&mut self, id: CommitId) {
        if self.committer.in_flight == Some(id) {
            self.committer.in_flight = None;
            self.committer.not_before = self.now.uptime + RETRY_PAUSE;
        }
    }

    /// Sends a commit if one is due and none is in flight.
    pub(super) fn decide_commit(&mut self) {
        let committer = &mut self.committer;
        let now = self.now.uptime;
        let soon = committer.urgent || committer.settled >= self.config.commit_every;
        if committer.in_flight.is_some()
            || now < committer.not_before
            || (!soon && now < committer.scanned_at + SCAN_INTERVAL)
        {
            return;
        }
        committer.scanned_at = now;
        let (changed, due) = self.commit_due();
        if changed && due.is_some_and(|due| due <= now) {
            self.send_commit();
        } else if !changed {
            self.committer.urgent = false;
            self.committer.settled = 0;
        }
    }

    pub(super) fn next_commit(&self) -> Option<Duration> {
        if self.committer.in_flight.is_some() {
            return None; // the shell answers within `commit_timeout`
        }
        let earliest = self.committer.not_before.max(self.committer.scanned_at + SCAN_INTERVAL);
        self.commit_due().1.map(|due| due.max(earliest))
    }

    /// Whether there is anything to commit, and when it is due.
    fn commit_due(&self) -> (bool, Option<Duration>) {
        let committer = &self.committer;
        let (mut dirty, mut urgent, mut refresh) = (false, committer.urgent, None::<Duration>);
        for state in self.partitions.iter().filter(|state| state.may_commit() && !state.commit.rejected) {
            if state.is_dirty() {
                dirty = true;
                urgent |=
                    matches!(state.phase, Phase::Starting | Phase::Committing { .. }) || state.ends_round();
            } else {
                let at = state.commit.applied_at + self.config.recommit_interval;
                refresh = Some(refresh.map_or(at, |before| before.min(at)));
            }
        }
        if !dirty {
            return (refresh.is_some_and(|at| at <= self.now.uptime), refresh);
        }
        let idle = self.calls.out == 0 && self.lanes.ready() == 0;
        let interval = if idle { self.config.commit_interval / 10 } else { self.config.commit_interval };
        let now = urgent || committer.settled >= self.config.commit_every;
        (true, Some(if now { self.now.uptime } else { committer.sent_at + interval }))
    }

    fn send_commit(&mut self) {
        let committer = &mut self.committer;
        committer.entries.clear();
        committer.sent.clear();
        committer.metadata.clear();
        committer.settled = 0;
        committer.urgent = false;
        committer.sent_at = self.now.uptime;
        for index in self.partitions.indexes() {
            let state = self.partitions.get(index);
            let stale = state.commit.applied_at + self.config.recommit_interval <= self.now.uptime;
            if state.may_commit() && !state.commit.rejected && (state.is_dirty() || stale) {
                self.add_entry(index);
            }
        }
        let committer = &mut self.committer;
        committer.unanswered = committer.entries.len();
        if committer.unanswered > 0 {
            committer.in_flight = Some(CommitId(committer.next_id));
            committer.next_id += 1;
            self.outbox.push(Pending::Commit);
        }
    }

    /// Adds one snapshot of a partition: its prefix, and the set bound to it.
    fn add_entry(&mut self, index: u32) {
        let state = self.partitions.get(index);
        let committer = &mut self.committer;
        let offset = state.ledger.prefix();
        let from = committer.metadata.len();
        let claimed = committer.encoder.encode(
            &state.identity(offset),
            state.ledger.runs(),
            committer.metadata_limit,
            &mut committer.metadata,
        );
        let range = (from, committer.metadata.len());
        committer.entries.push(CommitEntry {
            partition: state.id,
            offset,
            metadata: (text_offset(range.0), text_offset(range.1)),
            unclaimed: state.ledger.settled_beyond().saturating_sub(claimed),
        });
        let (ownership, changes) = (state.ownership, state.commit.changes);
        let is_final = matches!(state.phase, Phase::Committing { .. });
        committer.sent.push(SentCommit { index, ownership, changes, is_final, answered: false });
    }

    /// The broker rejected a set of this length. Lowers the limit once per commit, however many partitions it affects.
    fn lower_metadata_limit(&mut self, id: CommitId, set_length: usize) {
        let committer = &mut self.committer;
        committer.urgent = true;
        if committer.lowered_for.replace(id) == Some(id) {
            return;
        }
        let half = committer.metadata_limit.min(set_length) / 2;
        let limit = if half < METADATA_LIMIT_MIN { 0 } else { half };
        committer.metadata_limit = limit;
        self.notice(Notice::MetadataLimitLowered { limit });
    }
}

fn text_offset(at: usize) -> u32 {
    u32::try_from(at).expect("4,096 characters per partition stay far below 2^32")
}
