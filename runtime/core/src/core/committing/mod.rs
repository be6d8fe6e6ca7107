//! Committing: when and what to commit, and what the answers mean. [`in_flight`] carries this out. Under transactional
//! delivery, [`transactions`] selects what is committed, each commit is a transaction, and [`holds`] holds partitions back of which
//! not everything can be claimed. [`too_long`] says when a set that did not fit is tried again.

mod holds;
mod in_flight;
mod too_long;
mod transactions;

use std::time::Duration;

use super::Core;
use crate::outbox::Pending;
use crate::partitions::Phase;
use crate::{Action, CommitEntry, CommitError, CommitId, Notice, Partition};

use in_flight::{CommitInFlight, SentCommit};
pub(super) use transactions::{Transactions, is_withheld};

/// Pause before the same commit is sent again.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// How often the partitions are scanned for uncommitted changes, unless a commit is urgent.
const SCAN_INTERVAL: Duration = Duration::from_millis(2);

/// The state that decides when this consumer commits.
#[derive(Debug)]
pub(super) struct Committer {
    commit: CommitInFlight,
    sent_at: Duration,
    not_before: Duration,
    scanned_at: Duration,
    /// Settled events since the last commit was sent.
    settled: u64,
    /// Whether the next commit must not wait for its interval.
    urgent: bool,
}

impl Committer {
    pub(super) fn new(metadata_limit: usize) -> Self {
        Committer {
            commit: CommitInFlight::new(metadata_limit),
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
        self.commit.action()
    }

    pub(super) fn transaction_action(&self) -> Action<'_> {
        self.commit.transaction_action()
    }
}

impl Core {
    pub(super) fn committed(&mut self, id: CommitId, partition: Partition) {
        let Some((sent, entry)) = self.take_commit_entry(id, partition) else { return };
        self.send_delayed_lookups();
        let state = self.partitions.get_mut(sent.index);
        if state.ownership != sent.ownership || !state.may_commit() {
            return; // it was sent for an earlier ownership
        }
        let stored = Some(entry.offset);
        assert!(stored >= state.commit.committed, "{partition}: the commit went back to {stored:?}");
        state.commit.committed = stored;
        if sent.claimed.is_none_or(|claimed| claimed.whole) {
            state.commit.applied = sent.changes;
        } else if sent.is_final && state.commit.withholds {
            state.commit.commits_ended = true; // nothing can settle any more: no later set is shorter
        }
        state.commit.applied_at = self.now.uptime;
        state.commit.unclaimed = entry.unclaimed;
        if let Some(claimed) = sent.claimed {
            self.transaction_committed(sent.index, claimed);
        }
        let state = self.partitions.get(sent.index);
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
                    state.commit.commits_ended = true;
                }
                // A closing ownership has little time, and its final commit may follow the rejected one.
                let pause = if self.scans.closing { RETRY_PAUSE } else { self.config.commit_interval };
                self.committer.not_before = self.now.uptime + pause;
            }
        }
    }

    fn take_commit_entry(&mut self, id: CommitId, partition: Partition) -> Option<(SentCommit, CommitEntry)> {
        let index = self.partitions.find(partition)?;
        self.committer.commit.take_entry(id, index)
    }

    /// Handles a commit without an answer. It may have been applied or not, so everything in it is committed again.
    pub(super) fn commit_timed_out(&mut self, id: CommitId) {
        if self.committer.commit.time_out(id) {
            self.committer.not_before = self.now.uptime + RETRY_PAUSE;
        }
    }

    /// Sends a commit if one is due and none is in flight.
    pub(super) fn decide_commit(&mut self) {
        let now = self.now.uptime;
        let soon = self.committer.urgent || self.is_commit_due_early();
        let committer = &mut self.committer;
        if committer.commit.is_in_flight()
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
        if self.committer.commit.is_in_flight() {
            return None; // the shell answers within `commit_timeout`
        }
        let earliest = self.committer.not_before.max(self.committer.scanned_at + SCAN_INTERVAL);
        self.commit_due().1.map(|due| due.max(earliest))
    }

    /// Returns whether there is anything to commit, and when it is due.
    fn commit_due(&self) -> (bool, Option<Duration>) {
        let committer = &self.committer;
        let (mut dirty, mut urgent, mut refresh) = (false, committer.urgent, None::<Duration>);
        for state in self.partitions.iter().filter(|state| state.may_be_committed()) {
            if state.is_dirty() {
                dirty = true;
                urgent |=
                    matches!(state.phase, Phase::Starting | Phase::Committing { .. }) || state.ends_round();
            } else if self.transactions.is_none() {
                let at = state.commit.applied_at + self.config.recommit_interval;
                refresh = Some(refresh.map_or(at, |before| before.min(at)));
            }
        }
        if !dirty {
            return (refresh.is_some_and(|at| at <= self.now.uptime), refresh);
        }
        let idle = self.calls.unterminated == 0 && self.lanes.ready() == 0;
        let interval = match &self.transactions {
            Some(transactions) => transactions.limits.interval,
            None if idle => self.config.commit_interval / 10,
            None => self.config.commit_interval,
        };
        let at_once = urgent || self.is_commit_due_early();
        (true, Some(if at_once { self.now.uptime } else { committer.sent_at + interval }))
    }

    /// Returns whether enough has settled that the next commit does not wait for its interval.
    fn is_commit_due_early(&self) -> bool {
        self.transactions
            .as_ref()
            .map_or_else(|| self.committer.settled >= self.config.commit_every, Transactions::is_due)
    }

    fn send_commit(&mut self) {
        if self.transactions.is_some() {
            self.committer.settled = 0;
            self.committer.urgent = false;
            self.committer.sent_at = self.now.uptime;
            return self.begin_transaction();
        }
        let Core { committer, partitions, config, now, outbox, .. } = self;
        committer.settled = 0;
        committer.urgent = false;
        committer.sent_at = now.uptime;
        committer.commit.begin();
        for index in partitions.indexes() {
            let state = partitions.get(index);
            let stale = state.commit.applied_at + config.recommit_interval <= now.uptime;
            if state.may_be_committed() && (state.is_dirty() || stale) {
                committer.commit.add(index, state);
            }
        }
        if committer.commit.send() {
            outbox.push(Pending::Commit);
        }
    }

    fn lower_metadata_limit(&mut self, id: CommitId, set_length: usize) {
        self.committer.urgent = true;
        if let Some(limit) = self.committer.commit.lower_metadata_limit(id, set_length) {
            self.outbox.notice(Notice::MetadataLimitLowered { limit });
        }
    }
}
