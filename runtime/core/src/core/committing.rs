//! Committing: when, what, and what the answer means. Offset and set always come from one snapshot.

use std::time::Duration;

use super::Core;
use crate::codec::Encoder;
use crate::outbox::Pending;
use crate::partitions::Phase;
use crate::{Action, CommitEntry, CommitError, CommitId, Notice, OwnershipId, Partition};

/// Pause before the same commit is sent again.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// How often the partitions are looked over for something to commit, unless there is a make_urgent.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);
/// Below this many characters a set says next to nothing.
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
    /// The commit that the limit was lowered for last: once is enough for each, however many partitions it hits.
    lowered_for: Option<CommitId>,
    sent_at: Duration,
    not_before: Duration,
    looked_at: Duration,
    /// Settled events since the last commit was sent.
    settled: u64,
    /// Something must not wait for the interval.
    make_urgent: bool,
}

/// What an entry of the commit in flight stands for.
#[derive(Clone, Copy, Debug)]
struct SentCommit {
    index: u32,
    ownership: OwnershipId,
    changes: u64,
    /// The ownership was closed to results before: nothing can be added to it.
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
            looked_at: Duration::ZERO,
            settled: 0,
            make_urgent: false,
        }
    }

    pub(super) fn count_settled(&mut self, events: u64) {
        self.settled += events;
    }

    /// The next commit does not wait for its interval.
    pub(super) fn make_urgent(&mut self) {
        self.make_urgent = true;
    }

    /// An ownership waits for its final commit, and not for long.
    pub(super) fn make_final_urgent(&mut self, now: Duration) {
        self.make_urgent = true;
        self.not_before = self.not_before.min(now + RETRY_PAUSE);
    }

    pub(super) fn action(&self) -> Action<'_> {
        let id = self.in_flight.expect("a commit is polled in the step that made it");
        Action::Commit { id, entries: &self.entries, metadata: &self.metadata }
    }

    /// What was sent for a partition, if this is the first answer about it. Entries are in the order of indexes.
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
            return; // it says nothing about the ownership of now
        }
        let stored = Some(entry.offset);
        assert!(stored >= state.commit.committed, "{partition}: the commit went back to {stored:?}");
        state.commit.committed = stored;
        state.commit.applied = sent.changes;
        state.commit.applied_at = self.now.uptime;
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
                    state.commit.refused = true;
                }
                // An ownership on its way out has no time to stand back: this may have been an older commit.
                let pause = if self.closing { RETRY_PAUSE } else { self.config.commit_interval };
                self.committer.not_before = self.now.uptime + pause;
            }
        }
    }

    fn take_commit_entry(&mut self, id: CommitId, partition: Partition) -> Option<(SentCommit, CommitEntry)> {
        let index = self.partitions.find(partition)?;
        self.committer.take_entry(id, index)
    }

    /// It may have been applied or not: everything in it is committed again.
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
        let soon = committer.make_urgent || committer.settled >= self.config.commit_every;
        if committer.in_flight.is_some()
            || now < committer.not_before
            || (!soon && now < committer.looked_at + LOOK_INTERVAL)
        {
            return;
        }
        committer.looked_at = now;
        let (changed, due) = self.commit_due();
        if changed && due.is_some_and(|due| due <= now) {
            self.send_commit();
        } else if !changed {
            self.committer.make_urgent = false;
            self.committer.settled = 0;
        }
    }

    pub(super) fn next_commit(&self) -> Option<Duration> {
        if self.committer.in_flight.is_some() {
            return None; // the shell answers within its limit
        }
        let earliest = self.committer.not_before.max(self.committer.looked_at + LOOK_INTERVAL);
        self.commit_due().1.map(|due| due.max(earliest))
    }

    /// Whether anything is to be committed, and when.
    fn commit_due(&self) -> (bool, Option<Duration>) {
        let committer = &self.committer;
        let (mut dirty, mut urgent, mut refresh) = (false, committer.make_urgent, None::<Duration>);
        for state in self.partitions.iter().filter(|state| state.may_commit() && !state.commit.refused) {
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
        let idle = self.calls.out == 0 && !self.lanes.any_ready();
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
        committer.make_urgent = false;
        committer.sent_at = self.now.uptime;
        for index in self.partitions.indexes() {
            let state = self.partitions.get(index);
            let stale = state.commit.applied_at + self.config.recommit_interval <= self.now.uptime;
            if state.may_commit() && !state.commit.refused && (state.is_dirty() || stale) {
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

    /// One snapshot of a partition: its prefix, and the set bound to it.
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

    /// The broker takes less than this set. Said once per commit, however many partitions it hits.
    fn lower_metadata_limit(&mut self, id: CommitId, set_length: usize) {
        let committer = &mut self.committer;
        committer.make_urgent = true;
        if committer.lowered_for.replace(id) == Some(id) {
            return;
        }
        let half = committer.metadata_limit.min(set_length) / 2;
        committer.metadata_limit = if half < METADATA_LIMIT_MIN { 0 } else { half };
        self.outbox.notice(Notice::MetadataLimitLowered { limit: committer.metadata_limit });
    }
}

fn text_offset(at: usize) -> u32 {
    u32::try_from(at).expect("4,096 characters per partition stay far below 2^32")
}
