//! Assign, revoke and lost: the start of ownerships, and the requests to end them.

use std::time::Duration;

use super::Core;
use crate::codec::{self, Identity};
use crate::outbox::Pending;
use crate::partitions::{LogBounds, Lookup, PartialStart, Phase, PositionState};
use crate::{
    Notice, OutOfRange, OwnershipEnd, Partition, PartitionStart, PartitionStop, RebalanceId, StartAt,
};

/// Pause before a failed lookup is retried.
const LOOKUP_PAUSE: Duration = Duration::from_millis(500);
/// How often a lookup is repeated because the log ends before the committed set.
const SHORT_LOGS_MAX: u32 = 2;

/// The same pause while a transaction is open: most transactions end within milliseconds.
const OPEN_TRANSACTION_PAUSE: Duration = Duration::from_millis(100);

/// The unanswered requests of the group. There is one rebalance at a time.
#[derive(Debug, Default)]
pub(super) struct PendingRebalance {
    pub(super) assign: Option<Assign>,
    pub(super) revoke: Option<Revoke>,
    /// Whether an assign was answered at least once.
    pub(super) ever_assigned: bool,
    /// Whether some start is being looked up, or an assign is unanswered.
    pub(super) looking_up: bool,
}

/// Partitions to release, in the order of the request.
#[derive(Debug)]
pub(super) struct Revoke {
    pub(super) request: RebalanceId,
    pub(super) partitions: Vec<Partition>,
}

#[derive(Debug)]
pub(super) struct Assign {
    pub(super) request: RebalanceId,
    pub(super) partitions: Vec<Partition>,
    /// Indexes of partitions whose start may still be unknown; checked from the end.
    unresolved: Vec<u32>,
    /// When the assign is answered without the missing starts.
    until: Duration,
}

impl Core {
    pub(super) fn assign_requested(&mut self, request: RebalanceId, partitions: &[Partition]) {
        self.unverify_positions();
        if self.drain.is_some() {
            // None of these partitions will be read or committed, but the group must not wait.
            self.outbox.push(Pending::AnswerAssign(Some(request), Vec::new()));
            return;
        }
        let mut unresolved = Vec::with_capacity(partitions.len());
        for &id in partitions {
            let index = self.partitions.index_of(id);
            unresolved.push(index);
            let state = self.partitions.get_mut(index);
            assert!(state.phase == Phase::Vacant, "{id} is assigned twice; it is {:?}", state.phase);
            state.phase = Phase::LookingUp(Lookup::new(self.now.uptime));
            self.restart_stall_watch(index, false);
            self.request_lookup(index);
        }
        self.rebalance.looking_up = true;
        let until = self.now.uptime + self.config.lookup_timeout;
        self.rebalance.assign = Some(Assign { request, partitions: partitions.to_vec(), unresolved, until });
        self.answer_assign_if_ready();
    }

    pub(super) fn lookup_failed(&mut self, id: Partition, transaction_open: bool) {
        let again_at = self.now.uptime + if transaction_open { OPEN_TRANSACTION_PAUSE } else { LOOKUP_PAUSE };
        if let Some((_, lookup)) = self.lookup_mut(id) {
            lookup.again_at = Some(again_at);
        }
    }

    /// Handles a start that can't be used, although it is known.
    pub(super) fn start_refused(&mut self, id: Partition, offset: i64) {
        let Some((index, _)) = self.lookup_mut(id) else { return };
        self.outbox.push(Pending::PartitionStopped(id, offset, PartitionStop::UnusableState));
        self.stop_partition(index);
        self.answer_assign_if_ready();
    }

    pub(super) fn start_resolved(&mut self, id: Partition, start: &PartitionStart<'_>) {
        let again_at = self.now.uptime + LOOKUP_PAUSE;
        let is_transactional = self.transactions.is_some();
        let Some((index, lookup)) = self.lookup_mut(id) else { return };
        let may_repeat = is_transactional && lookup.short_logs < SHORT_LOGS_MAX;
        // An offset below one that an earlier lookup returned is a late commit of an older owner.
        let same_topic = lookup.partial.filter(|partial| partial.topic_id == start.topic_id);
        let known = same_topic.and_then(|partial| partial.committed);
        let committed = start.committed.filter(|committed| Some(committed.offset) >= known);
        let metadata = committed.map_or(&[][..], |committed| committed.metadata);
        let offset = committed.map_or(0, |committed| committed.offset);
        let identity = Identity { topic_id: start.topic_id, partition: id.number, offset };
        let of_other_topic = codec::is_of_another_topic(metadata, &identity);
        // An ownership can begin without the end of the log, unless there are claims to check.
        let claims_nothing =
            || codec::decode(metadata, &identity, i64::MAX).is_some_and(|claims| claims.is_empty());
        let partial = PartialStart {
            committed: committed.map_or(known, |committed| Some(committed.offset)),
            of_other_topic,
            fallback: start.fallback,
            log_start: start.log_start,
            topic_id: start.topic_id,
        };
        // The end of the log may be older than the set: the former owner has read on, and has committed since. If the next
        // lookups find the same, the set is not of this log, and the partition stops.
        let ends_before_set = |log_end| {
            let decoded = |log_end| codec::decode(metadata, &identity, log_end).is_some();
            decoded(i64::MAX) && !decoded(log_end)
        };
        match start.log_end {
            Some(log_end) if may_repeat && !of_other_topic && ends_before_set(log_end) => {
                lookup.again_at = Some(again_at);
                lookup.short_logs += 1;
            }
            Some(log_end) => self.begin_ownership(index, partial, metadata, Some(log_end)),
            None if of_other_topic || claims_nothing() => self.begin_ownership(index, partial, &[], None),
            None => {
                lookup.partial = Some(partial);
                lookup.again_at = Some(again_at);
            }
        }
    }

    pub(super) fn end_known(&mut self, id: Partition, offset: i64) {
        let index = self.partitions.index_of(id);
        self.partitions.get_mut(index).end.get_or_insert(offset);
        self.until_end.enable();
    }

    pub(super) fn revoked(&mut self, request: RebalanceId, partitions: &[Partition]) {
        self.unverify_positions();
        assert!(self.rebalance.revoke.is_none(), "a revoke came before the answer to the previous one");
        self.rebalance.revoke = Some(Revoke { request, partitions: partitions.to_vec() });
        let until = self.now.uptime + self.config.revoke_timeout;
        for &id in partitions {
            if let Some(index) = self.partitions.find(id) {
                self.close(index, until);
            }
        }
        self.drop_queued();
        self.remove_from_assign(partitions);
    }

    pub(super) fn lost(&mut self, request: RebalanceId, partitions: &[Partition]) {
        self.unverify_positions();
        for &id in partitions {
            if let Some(index) = self.partitions.find(id) {
                self.abandon(index, OwnershipEnd::Lost);
            }
        }
        self.drop_queued();
        self.outbox.push(Pending::AnswerRevoke(request, partitions.to_vec()));
        self.remove_from_assign(partitions);
    }

    /// Removes partitions from the pending assign, if there is one.
    fn remove_from_assign(&mut self, partitions: &[Partition]) {
        if let Some(assign) = &mut self.rebalance.assign {
            assign.partitions.retain(|id| !partitions.contains(id));
            self.answer_assign_if_ready();
        }
    }

    /// Retries failed lookups. Lookups that time out no longer delay the others.
    pub(super) fn check_lookups(&mut self) {
        if !self.rebalance.looking_up {
            return;
        }
        let now = self.now.uptime;
        for index in self.partitions.indexes() {
            let state = self.partitions.get_mut(index);
            let Phase::LookingUp(lookup) = &mut state.phase else { continue };
            let is_due = lookup.again_at.is_some_and(|at| at <= now);
            if is_due {
                lookup.again_at = None;
            }
            // Under transactional delivery, a set is never ignored: its events have taken effect.
            let partial = match lookup.partial {
                Some(_) if self.transactions.is_some() => None,
                partial => partial.filter(|_| now >= lookup.since + self.config.lookup_timeout),
            };
            let partition = state.id;
            if is_due {
                self.request_lookup(index);
            }
            if let Some(partial) = partial {
                self.outbox.notice(Notice::MetadataIgnored { partition });
                self.begin_ownership(index, partial, &[], None);
            }
        }
        if self.rebalance.assign.as_ref().is_some_and(|assign| assign.until <= now) {
            self.answer_assign();
        }
        let looking_up = self.partitions.iter().any(|state| matches!(state.phase, Phase::LookingUp(_)));
        self.rebalance.looking_up = looking_up || self.rebalance.assign.is_some();
    }

    pub(super) fn next_lookup(&self) -> Option<Duration> {
        if !self.rebalance.looking_up {
            return None;
        }
        let timeout = self.config.lookup_timeout;
        let lookups = self.partitions.iter().filter_map(|state| {
            let Phase::LookingUp(lookup) = state.phase else { return None };
            let may_begin = lookup.partial.is_some() && self.transactions.is_none();
            let timeout_at = may_begin.then(|| lookup.since + timeout);
            lookup.again_at.into_iter().chain(timeout_at).min()
        });
        lookups.chain(self.rebalance.assign.as_ref().map(|assign| assign.until)).min()
    }

    /// Requests the lookup of a start. It has to wait while a transaction of this process that contains the partition is
    /// undecided: its offsets would not be found.
    pub(super) fn request_lookup(&mut self, index: u32) {
        let id = self.partitions.get(index).id;
        let must_wait = self.is_in_transaction(id);
        if let Phase::LookingUp(lookup) = &mut self.partitions.get_mut(index).phase {
            lookup.waits_for_transaction = must_wait;
            if !must_wait {
                self.outbox.push(Pending::LookUpStart(id));
            }
        }
    }

    /// Requests the lookups that have waited for a transaction which is decided now.
    pub(super) fn send_delayed_lookups(&mut self) {
        if !self.rebalance.looking_up || self.transactions.is_none() {
            return;
        }
        for index in self.partitions.indexes() {
            if let Phase::LookingUp(lookup) = self.partitions.get(index).phase
                && lookup.waits_for_transaction
            {
                self.request_lookup(index);
            }
        }
    }

    /// Returns what an ownership begins with beyond its start: the events that earlier owners claimed. `None`: they can't
    /// be read. Under at-least-once delivery, claims are valid only at the committed offset; under transactional delivery,
    /// those at or past another start still count, because their events have taken effect.
    fn decode_claims(
        &self,
        index: u32,
        (found, start): (&PartialStart, i64),
        metadata: &[u8],
        log_end: Option<i64>,
    ) -> Option<Vec<(i64, i64)>> {
        let is_kept = |&committed: &i64| committed == start || self.transactions.is_some();
        let committed = found.committed.filter(|_| !found.of_other_topic).filter(is_kept);
        let (Some(committed), Some(log_end)) = (committed, log_end) else { return Some(Vec::new()) };
        let claims = codec::decode(metadata, &self.partitions.get(index).identity(committed), log_end)?;
        Some(
            claims
                .into_iter()
                .map(|(from, to)| (from.max(start), to))
                .filter(|(from, to)| from < to)
                .collect(),
        )
    }

    /// Begins an ownership: resolves its start, and the claims of earlier owners beyond it.
    fn begin_ownership(&mut self, index: u32, found: PartialStart, metadata: &[u8], log_end: Option<i64>) {
        let Phase::LookingUp(lookup) = self.partitions.get(index).phase else { return };
        let Some(start) = self.resolve_start(index, &found, log_end) else {
            self.stop_partition(index);
            self.answer_assign_if_ready();
            return;
        };
        self.partitions.get_mut(index).topic_id = found.topic_id;
        let claims = self.decode_claims(index, (&found, start), metadata, log_end);
        if claims.is_none() && self.transactions.is_some() {
            let id = self.partitions.get(index).id;
            self.outbox.push(Pending::PartitionStopped(id, start, PartitionStop::UnreadableSet));
            self.stop_partition(index);
            self.answer_assign_if_ready();
            return;
        }
        let ownership = self.new_ownership();
        let now = self.now.uptime;
        let state = self.partitions.get_mut(index);
        if claims.is_none() {
            self.outbox.notice(Notice::MetadataIgnored { partition: state.id });
        }
        // A commit made in another topic is replaced, even by the same offset.
        let kept = found.committed.filter(|&committed| committed == start && !found.of_other_topic);
        state.begin(ownership, (start, &claims.unwrap_or_default()), kept, now);
        state.phase = Phase::Resolved;
        let (partition, claimed) = (state.id, state.ledger.completed_beyond());
        self.restart_stall_watch(index, true);
        self.outbox.notice(Notice::OwnershipStarted { partition, ownership, offset: start, claimed });
        if lookup.in_place {
            self.unverify_positions();
            self.partitions.get_mut(index).reading.position = PositionState::Repositioned;
            let at = self.partitions.get(index).ledger.next();
            self.start_reading(index);
            self.outbox.push(Pending::Reassign(partition, at));
        } else if lookup.late {
            self.add_late_partitions();
        } else {
            self.answer_assign_if_ready();
        }
    }

    /// Assigns the partitions whose lookup took too long, unless a rebalance is unanswered: the client would take that
    /// assign for the answer.
    pub(super) fn add_late_partitions(&mut self) {
        if self.rebalance.assign.is_some() || self.rebalance.revoke.is_some() {
            return;
        }
        let mut starts = Vec::new();
        for index in self.partitions.indexes() {
            let state = self.partitions.get(index);
            if state.phase == Phase::Resolved {
                starts.push(StartAt { partition: state.id, offset: state.ledger.next() });
                self.start_reading(index);
            }
        }
        if !starts.is_empty() {
            self.unverify_positions();
            self.outbox.push(Pending::AnswerAssign(None, starts));
        }
    }

    /// Returns the first offset of the ownership; `None`: the stop of the partition was reported, because the committed
    /// offset is outside the log or of another topic.
    fn resolve_start(&mut self, index: u32, found: &PartialStart, log_end: Option<i64>) -> Option<i64> {
        let start = found.committed.unwrap_or(found.fallback);
        let inside = start >= found.log_start && log_end.is_none_or(|end| start <= end);
        if inside && !found.of_other_topic {
            return Some(start);
        }
        if found.committed.is_none() {
            // The log moved between two lookups. Without a commit, this skips no unprocessed event that still exists.
            return Some(start.clamp(found.log_start, log_end.unwrap_or(i64::MAX).max(found.log_start)));
        }
        let why = if found.of_other_topic { PartitionStop::OtherTopic } else { PartitionStop::OutOfRange };
        let log = LogBounds { start: found.log_start, end: log_end.unwrap_or(found.log_start) };
        self.apply_out_of_range(index, start, log, why)
    }

    /// Stops a partition: it is not read until it is revoked and assigned again.
    pub(super) fn stop_partition(&mut self, index: u32) {
        self.partitions.get_mut(index).phase = Phase::Stopped;
        self.restart_stall_watch(index, false); // the stop is reported instead
        self.scans.stopped = true;
    }

    /// Applies `out_of_range` to an offset outside the log. Returns the offset to continue at; `None`: the stop of the
    /// partition was reported.
    pub(super) fn apply_out_of_range(
        &mut self,
        index: u32,
        from: i64,
        log: LogBounds,
        why: PartitionStop,
    ) -> Option<i64> {
        let partition = self.partitions.get(index).id;
        let to = match self.config.out_of_range {
            OutOfRange::Fail => {
                self.outbox.push(Pending::PartitionStopped(partition, from, why));
                return None;
            }
            OutOfRange::Earliest => log.start,
            OutOfRange::Latest => log.end,
        };
        let count = u64::try_from(to - from).unwrap_or(0);
        self.outbox.notice(Notice::OffsetsSkipped { partition, count });
        Some(to)
    }

    pub(super) fn answer_assign_if_ready(&mut self) {
        let Some(assign) = &mut self.rebalance.assign else { return };
        while let Some(&index) = assign.unresolved.last() {
            if matches!(self.partitions.get(index).phase, Phase::LookingUp(_)) {
                return;
            }
            assign.unresolved.pop();
        }
        self.answer_assign();
    }

    /// Answers with the partitions whose start is known. The others follow in an assign of their own.
    fn answer_assign(&mut self) {
        let Some(assign) = self.rebalance.assign.take() else { return };
        let mut starts = Vec::with_capacity(assign.partitions.len());
        let request = Some(assign.request);
        for id in assign.partitions {
            let index = self.partitions.index_of(id);
            let state = self.partitions.get_mut(index);
            if let Phase::LookingUp(lookup) = &mut state.phase {
                lookup.late = true;
            } else if state.phase == Phase::Resolved {
                starts.push(StartAt { partition: id, offset: state.ledger.next() });
                self.start_reading(index);
            }
        }
        for state in self.partitions.iter_mut() {
            state.in_assignment = state.phase != Phase::Vacant;
        }
        self.rebalance.ever_assigned = true;
        self.unverify_positions();
        self.outbox.push(Pending::AnswerAssign(request, starts));
        self.add_late_partitions();
    }

    fn start_reading(&mut self, index: u32) {
        let state = self.partitions.get_mut(index);
        if state.commit.committed.is_none() {
            state.phase = Phase::Starting;
            self.committer.make_urgent();
        } else {
            self.activate(index);
        }
    }

    /// Begins to read a partition whose start is committed.
    pub(super) fn activate(&mut self, index: u32) {
        self.partitions.get_mut(index).phase = Phase::Active;
        self.reads.active_ownerships += 1;
        self.reads.to_decide.push(index);
    }

    fn lookup_mut(&mut self, id: Partition) -> Option<(u32, &mut Lookup)> {
        let index = self.partitions.find(id)?;
        let Phase::LookingUp(lookup) = &mut self.partitions.get_mut(index).phase else { return None };
        Some((index, lookup))
    }

    /// Marks all positions as unverified, because a rebalance or a reassign moves readers. For a rebalance this is done
    /// when it is announced, and again when it is answered: in between, a reader may still return buffered rows.
    pub(super) fn unverify_positions(&mut self) {
        for state in self.partitions.iter_mut() {
            state.reading.position = PositionState::Unverified;
        }
    }
}
