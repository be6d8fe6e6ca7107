//! The end of ownerships: finish running calls, stop accepting results, commit, release. A drain ends all ownerships.

use std::time::Duration;

use super::Core;
use super::ownership::Revoke;
use crate::calls::CallState;
use crate::outbox::Pending;
use crate::partitions::{LogBounds, Lookup, Phase, PositionState};
use crate::{CallId, Notice, OwnershipEnd, OwnershipId, Partition, PartitionStop};

/// Number of checks, a second apart, after which a cancelled call that has not terminated counts as stuck. Checks are
/// counted instead of time: a process that was suspended checks once when it resumes, before its guests could run.
const CHECKS_UNTIL_STUCK: u32 = 6;

/// The release of all partitions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drain {
    /// The uptime at which running calls are cancelled.
    pub(super) until: Duration,
    /// Whether every ownership that ended had all its calls finished and its settled events committed.
    pub(super) clean: bool,
    /// Whether its end was reported.
    pub(super) reported: bool,
}

impl Core {
    /// Finishes running calls, commits and leaves the group. Of several requests, the earliest deadline applies.
    pub(super) fn drain(&mut self, until: Duration) {
        let until = self.drain.map_or(until, |drain| drain.until.min(until));
        let before = self.drain;
        self.drain = Some(Drain {
            until,
            clean: before.is_none_or(|drain| drain.clean),
            reported: before.is_some_and(|drain| drain.reported),
        });
        if let Some(assign) = self.rebalance.assign.take() {
            self.outbox.push(Pending::AnswerAssign(Some(assign.request), Vec::new()));
        }
        for index in self.partitions.indexes() {
            self.close(index, until);
        }
        self.drop_queued();
    }

    /// Stops the dispatch of an ownership. Running calls may finish until this uptime. [`Core::drop_queued`] must
    /// follow.
    pub(super) fn close(&mut self, index: u32, until: Duration) {
        let state = self.partitions.get(index);
        if state.phase == Phase::Starting && self.has_cancelled_call(index) {
            self.scans.closing = true;
            self.begin_final_commit(index); // waits for the call, which belongs to a previous ownership
            return;
        }
        let state = self.partitions.get_mut(index);
        match &mut state.phase {
            Phase::Vacant | Phase::Closed => return,
            Phase::LookingUp(_) | Phase::Stopped => {
                state.phase = Phase::Closed;
                self.restart_stall_watch(index, false);
                self.scans.closing = true;
                return;
            }
            Phase::Resolved | Phase::Starting => {
                // Nothing was read in this ownership.
                state.phase = Phase::Closed;
                self.scans.closing = true;
                self.notify_ownership_ended(index, OwnershipEnd::Closed);
                return;
            }
            Phase::Closing { until: before } => {
                *before = until.min(*before);
                return;
            }
            Phase::Committing { until: before } => {
                // Nobody waits for the last transaction of a drain, until somebody does.
                let latest = until.max(self.now.uptime) + self.config.commit_timeout;
                *before = latest.min(*before);
                return;
            }
            Phase::Active => state.phase = Phase::Closing { until },
        }
        state.queued_bytes = 0;
        self.reads.active_ownerships -= 1;
        self.scans.closing = true;
        self.end_round(index);
        self.end_hold(index);
        self.end_wait(index);
        self.withdraw_read(index);
    }

    /// Ends an ownership at once: nothing of it may be committed or produced, because the partition may have another
    /// owner or its topic was recreated. [`Core::drop_queued`] must follow.
    pub(super) fn abandon(&mut self, index: u32, end: OwnershipEnd) {
        let state = self.partitions.get(index);
        let had_ownership = match state.phase {
            Phase::Vacant => return,
            Phase::LookingUp(_) | Phase::Stopped | Phase::Closed => false,
            Phase::Resolved
            | Phase::Starting
            | Phase::Active
            | Phase::Closing { .. }
            | Phase::Committing { .. } => true,
        };
        self.reads.active_ownerships -= u64::from(state.phase == Phase::Active);
        self.withdraw_read(index);
        self.end_round(index);
        self.end_hold(index);
        self.end_wait(index);
        self.close_to_results(index);
        let state = self.partitions.get_mut(index);
        if let Some(drain) = &mut self.drain {
            drain.clean &= !(had_ownership && state.is_dirty());
        }
        self.drop_unclaimed(index);
        let state = self.partitions.get_mut(index);
        state.phase = Phase::Vacant;
        state.queued_bytes = 0;
        if had_ownership {
            self.notify_ownership_ended(index, end);
        } else {
            self.restart_stall_watch(index, false);
        }
    }

    /// Advances every closing ownership as far as possible.
    pub(super) fn progress_closing(&mut self) {
        if !self.scans.closing && self.drain.is_none() && self.rebalance.revoke.is_none() {
            return;
        }
        let now = self.now.uptime;
        for index in self.partitions.indexes() {
            let state = self.partitions.get(index);
            if let Phase::Closing { until } = state.phase
                && (state.running + state.unacked == 0 || now >= until)
            {
                self.begin_final_commit(index);
            }
        }
        // After all of them: a call with events of several ownerships is cancelled with the last one.
        for index in self.partitions.indexes() {
            let state = self.partitions.get(index);
            if let Phase::Committing { until } = state.phase
                && (now >= until || self.is_finished(index))
            {
                self.end_ownership(index);
            }
        }
        self.answer_revoke_if_ready();
        self.finish_drain();
        self.scans.closing = self.partitions.iter().any(|state| {
            matches!(state.phase, Phase::Closing { .. } | Phase::Committing { .. } | Phase::Closed)
        });
    }

    pub(super) fn next_closing(&self) -> Option<Duration> {
        let untils = self.partitions.iter().filter_map(|state| {
            let (Phase::Closing { until } | Phase::Committing { until }) = state.phase else { return None };
            Some(until)
        });
        untils.min()
    }

    /// Ends this ownership, and only this one, because its position is outside the log.
    pub(super) fn end_outside_log(&mut self, index: u32, log: LogBounds) {
        self.partitions.get_mut(index).reading.restart_in = Some(log);
        self.close(index, self.now.uptime);
        self.drop_queued();
    }

    /// Reports a cancelled call that does not terminate.
    pub(super) fn check_stuck_calls(&mut self) {
        if let Some(id) = self.calls.find_stuck(CHECKS_UNTIL_STUCK) {
            self.outbox.push(Pending::CallStuck(id));
        }
    }

    /// Begins the final commit of an ownership, which no longer accepts results.
    fn begin_final_commit(&mut self, index: u32) {
        self.close_to_results(index);
        let mut until = self.now.uptime + self.config.commit_timeout;
        if let (Some(transactions), Some(_), false) =
            (&self.transactions, &self.drain, self.is_revoked(index))
        {
            until += transactions.limits.timeout; // nobody waits for the partitions but the end of the process
        }
        self.partitions.get_mut(index).phase = Phase::Committing { until };
        self.committer.make_final_urgent(self.now.uptime);
    }

    /// Discards the results of the ownership: from here on none counts. Cancels its calls. A call that also has events
    /// of other ownerships is cancelled only with `cancels_partly_revoked_calls`.
    fn close_to_results(&mut self, index: u32) {
        if self.lanes.gates.is_some() {
            self.gates_to_clear.push(index);
        }
        let state = self.partitions.get_mut(index);
        let ownership = state.ownership;
        let unfinished = state.running + state.unacked > 0;
        state.running = 0;
        state.unacked = 0;
        if let Some(drain) = &mut self.drain {
            drain.clean &= !unfinished;
        }
        if !unfinished {
            return;
        }
        let ids: Vec<CallId> = self.calls.ids().collect();
        for id in ids {
            self.discard_results(id, index, ownership);
        }
    }

    fn discard_results(&mut self, id: CallId, index: u32, ownership: OwnershipId) {
        let Some(call) = self.calls.get_mut(id) else { return };
        let ended = !call.is_unterminated();
        let (mut released, mut unsettled) = (Vec::new(), Vec::new());
        for lane in &mut call.lanes {
            if lane.partition == index && lane.ownership == ownership && !lane.disowned && !lane.released {
                lane.disowned = true;
                unsettled.push(lane.settled_to..lane.end);
                call.to_produce.retain(|&row| row < lane.start || row >= lane.end);
                let rows = call.rows.get(lane.settled_to as usize..lane.end as usize);
                for row in rows.into_iter().flatten() {
                    self.outbox.release(row.arena_slot);
                }
                if ended && !lane.released {
                    lane.released = true;
                    released.push(lane.index);
                }
            }
        }
        call.lanes_held -= released.len();
        let (holds_lanes, state) = (call.lanes_held > 0, call.state);
        let discarded = !unsettled.is_empty();
        if state == CallState::Running
            && discarded
            && (call.is_disowned() || self.config.cancels_partly_revoked_calls)
        {
            call.state = CallState::Cancelled(0);
            self.outbox.push(Pending::Cancel(id));
        }
        unsettled.into_iter().for_each(|rows| self.drop_outputs(id, rows));
        if ended && !holds_lanes {
            self.calls.remove(id);
        }
        for lane in released {
            self.lanes.release(lane);
        }
    }

    /// Returns whether the final commit is stored or was rejected, and no cancelled call with events of the partition
    /// may still run.
    fn is_finished(&self, index: u32) -> bool {
        let state = self.partitions.get(index);
        let committed = !state.is_dirty() || state.commit.commits_ended || state.commit.excluded;
        committed && !self.has_cancelled_call(index)
    }

    /// Returns whether a cancelled call with events of the partition, in any ownership, may still run. Such a call must
    /// not overlap with calls of the next owner.
    fn has_cancelled_call(&self, index: u32) -> bool {
        self.calls.ids().filter_map(|id| self.calls.get(id)).any(|call| {
            matches!(call.state, CallState::Cancelled(_) | CallState::Stuck)
                && call.lanes.iter().any(|lane| lane.partition == index)
        })
    }

    fn end_ownership(&mut self, index: u32) {
        let cancelled = self.has_cancelled_call(index);
        let state = self.partitions.get_mut(index);
        let clean = !state.is_dirty() && !cancelled;
        self.drop_unclaimed(index);
        self.partitions.get_mut(index).phase = Phase::Closed;
        if let Some(drain) = &mut self.drain {
            drain.clean &= clean;
        }
        self.notify_ownership_ended(index, OwnershipEnd::Closed);
        self.restart_inside_log(index);
        self.stop_if_ended_for_it(index);
    }

    /// Restarts an ownership inside the log, if it ended because its position was outside the log.
    fn restart_inside_log(&mut self, index: u32) {
        let state = self.partitions.get_mut(index);
        let Some(log) = state.reading.restart_in.take() else { return };
        let from = state.ledger.committable();
        if self.is_being_released(index) {
            return;
        }
        if self.transactions.is_some() {
            return self.look_up_in_place(index);
        }
        let to = if log.contains(from) {
            Some(from)
        } else {
            self.apply_out_of_range(index, from, log, PartitionStop::OutOfRange)
        };
        match to {
            Some(to) => self.restart_ownership(index, to),
            None => self.stop_partition(index),
        }
    }

    /// Transactional delivery: begins another ownership of a partition that stays assigned, with a lookup: only the
    /// coordinator knows which events of the previous ownership have taken effect.
    fn look_up_in_place(&mut self, index: u32) {
        let since = self.now.uptime;
        let lookup = Lookup { late: true, in_place: true, ..Lookup::new(since) };
        self.partitions.get_mut(index).phase = Phase::LookingUp(lookup);
        self.rebalance.looking_up = true;
        self.request_lookup(index);
    }

    /// Keyed state: looks up the start of a partition whose topic was recreated, so that its states are checked. `before`:
    /// the phase of the ownership that has ended.
    fn look_up_new_topic(&mut self, index: u32, before: Phase) {
        if before != Phase::Resolved {
            return self.look_up_in_place(index);
        }
        // It is not part of the assignment yet: an assign adds it, the pending one or a late one.
        let id = self.partitions.get(index).id;
        let late = !self.rebalance.assign.as_ref().is_some_and(|assign| assign.partitions.contains(&id));
        let lookup = Lookup { late, ..Lookup::new(self.now.uptime) };
        self.partitions.get_mut(index).phase = Phase::LookingUp(lookup);
        self.rebalance.looking_up = true;
        self.request_lookup(index);
    }

    /// Ends an ownership whose committed state is not known, and begins another one in its place.
    pub(super) fn look_up_again(&mut self, index: u32) {
        if self.is_being_released(index) {
            self.partitions.get_mut(index).commit.commits_ended = true;
            return;
        }
        self.abandon(index, OwnershipEnd::Closed);
        self.drop_queued();
        self.look_up_in_place(index);
    }

    fn end_hold(&mut self, index: u32) {
        let state = self.partitions.get_mut(index);
        if state.hold.take().is_some() {
            let barrier = state.barrier();
            self.lanes.set_barrier(index, barrier, None);
        }
    }

    pub(super) fn is_being_released(&self, index: u32) -> bool {
        self.is_revoked(index) || self.drain.is_some()
    }

    fn is_revoked(&self, index: u32) -> bool {
        let id = self.partitions.get(index).id;
        self.rebalance.revoke.as_ref().is_some_and(|revoke| revoke.partitions.contains(&id))
    }

    /// Handles a topic that was recreated. Nothing of the old log may be committed or published. The new log is read
    /// from its first record.
    pub(super) fn topic_recreated(&mut self, index: u32, topic_id: [u8; 16], log_start: i64) {
        let (now, is_released) = (self.now.uptime, self.is_being_released(index));
        let state = self.partitions.get_mut(index);
        let (partition, phase) = (state.id, state.phase);
        match &mut state.phase {
            Phase::Vacant | Phase::Closed => return,
            Phase::LookingUp(lookup) => {
                lookup.partial = None;
                lookup.again_at = Some(now);
                return;
            }
            Phase::Closing { .. } | Phase::Committing { .. } if is_released => {
                if matches!(phase, Phase::Closing { .. }) {
                    self.begin_final_commit(index);
                }
                self.partitions.get_mut(index).commit.commits_ended = true;
                return; // the next owner looks up the new topic
            }
            Phase::Resolved
            | Phase::Starting
            | Phase::Active
            | Phase::Closing { .. }
            | Phase::Committing { .. }
            | Phase::Stopped => {}
        }
        self.abandon(index, OwnershipEnd::TopicRecreated);
        self.drop_queued();
        self.partitions.get_mut(index).topic_id = topic_id;
        self.outbox.notice(Notice::TopicRecreated { partition, offset: log_start });
        if self.transactions.as_ref().is_some_and(|transactions| transactions.limits.key_records) {
            self.look_up_new_topic(index, phase); // the states are those of the former topic
        } else if phase == Phase::Resolved {
            self.begin_ownership_at(index, log_start, Phase::Resolved); // the pending assign includes it
        } else {
            self.restart_ownership(index, log_start);
        }
    }

    /// Begins another ownership of a partition that stays assigned.
    fn restart_ownership(&mut self, index: u32, at: i64) {
        self.unverify_positions();
        self.begin_ownership_at(index, at, Phase::Starting);
        self.committer.make_urgent();
        self.outbox.push(Pending::Reassign(self.partitions.get(index).id, at));
    }

    /// Begins an ownership at an offset that is not committed.
    fn begin_ownership_at(&mut self, index: u32, at: i64, phase: Phase) {
        let ownership = self.new_ownership();
        let now = self.now.uptime;
        let state = self.partitions.get_mut(index);
        state.begin(ownership, (at, &[]), None, now);
        state.reading.position = PositionState::Repositioned;
        state.phase = phase;
        let partition = state.id;
        self.restart_stall_watch(index, true);
        self.outbox.notice(Notice::OwnershipStarted { partition, ownership, offset: at, claimed: 0 });
    }

    fn answer_revoke_if_ready(&mut self) {
        let Some(revoke) = &self.rebalance.revoke else { return };
        let is_released = |&id: &Partition| {
            let index = self.partitions.find(id);
            index
                .is_none_or(|index| matches!(self.partitions.get(index).phase, Phase::Closed | Phase::Vacant))
        };
        if !revoke.partitions.iter().all(is_released) {
            return;
        }
        let Some(Revoke { request, partitions }) = self.rebalance.revoke.take() else { return };
        for &id in &partitions {
            if let Some(index) = self.partitions.find(id)
                && self.partitions.get(index).phase == Phase::Closed
            {
                self.partitions.get_mut(index).phase = Phase::Vacant;
            }
        }
        self.unverify_positions();
        self.outbox.push(Pending::AnswerRevoke(request, partitions));
        self.add_late_partitions();
    }

    fn finish_drain(&mut self) {
        let is_released = |phase| matches!(phase, Phase::Closed | Phase::Vacant);
        let all_released = self.partitions.iter().all(|state| is_released(state.phase));
        if let Some(drain) = &mut self.drain
            && !drain.reported
            && all_released
            && self.rebalance.revoke.is_none()
        {
            drain.reported = true;
            let clean = drain.clean;
            self.outbox.push(Pending::Drained { clean, unterminated_calls: self.calls.unterminated });
        }
    }

    fn notify_ownership_ended(&mut self, index: u32, end: OwnershipEnd) {
        let state = self.partitions.get_mut(index);
        let (partition, ownership) = (state.id, state.ownership);
        let (failure, unfetched) = (state.reading.failure.take(), state.reading.unfetched.take());
        let is_reported = std::mem::take(&mut state.stall_watch.reported)
            || failure.is_some_and(|failure| failure.reported)
            || unfetched.is_some_and(|unfetched| unfetched.reported);
        if is_reported {
            self.end_stall(index, false);
        }
        self.outbox.notice(Notice::OwnershipEnded { partition, ownership, end });
    }

    pub(super) fn withdraw_read(&mut self, index: u32) {
        let state = self.partitions.get_mut(index);
        if std::mem::take(&mut state.reading.permitted) {
            self.outbox.push(Pending::WithdrawRead(state.id));
        }
    }

    /// Drops the queued events of ownerships that are no longer active. This scans all lanes, so it is done once for
    /// all partitions of a rebalance.
    pub(super) fn drop_queued(&mut self) {
        let Core { lanes, partitions, outbox, .. } = self;
        let is_active = |index| partitions.get(index).phase == Phase::Active;
        lanes.retain(is_active, |event| outbox.release(event.arena_slot));
        self.drop_without_call();
    }
}
