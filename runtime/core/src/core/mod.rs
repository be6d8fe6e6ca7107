//! The core: one input in, actions out.
//!
//! Each file contains one step in the life of an event or an ownership: `ownership` (assign, revoke, lost) → `reading`
//! (admit) → `dispatching` → `settling` → `committing`. `read_errors` schedules the retries of failed reads, `attempts`
//! decides between another attempt, a rerun and an outcome, `retry_delay` computes the delay before another attempt,
//! `without_call` handles events that need no call, `rounds` holds a partition back under the strict batch retry,
//! `gating` carries out what gates decide, `in_step` lets partitions wait for slower ones,
//! `forgetting` numbers the deletions of old states, `closing` ends ownerships, `stalls` reports blocked partitions,
//! `unfetched` detects records that do not arrive, `scans` runs the checks that depend on time, `until_end` detects the end
//! of `run --until-end`.

mod attempts;
mod closing;
mod committing;
mod dispatching;
mod forgetting;
mod gating;
mod in_step;
mod ownership;
mod read_errors;
mod reading;
mod refusals;
mod retry_delay;
mod rounds;
mod scans;
mod settling;
mod stalls;
mod unfetched;
mod until_end;
mod without_call;

use std::time::Duration;

use crate::calls::Calls;
use crate::config::Config;
use crate::gates::Gates;
use crate::lanes::Lanes;
use crate::outbox::{Outbox, Pending};
use crate::partitions::{Partitions, Phase};
use crate::{
    Action, CallId, Counters, Dispatch, EventTimes, FailedEvent, Input, Now, OwnershipId, Partition,
};

use closing::Drain;
use committing::{Committer, Transactions};
use dispatching::CallSizing;
use in_step::InStep;
use ownership::PendingRebalance;
use reading::ReadScheduling;
use scans::Scans;
use until_end::UntilEnd;
use without_call::EventsWithoutCall;

/// The rules of one handler. Call [`Core::handle`], then carry out the actions of [`Core::poll`].
#[derive(Debug)]
pub struct Core {
    config: Config,
    now: Now,
    pub(crate) partitions: Partitions,
    pub(crate) lanes: Lanes,
    /// Partitions whose ownership accepts no more results: what their gates know is forgotten.
    gates_to_clear: Vec<u32>,
    /// When the gates have to do something; `None`: as soon as events wait.
    gate_check_at: Option<Duration>,
    pub(crate) calls: Calls,
    without_call: EventsWithoutCall,
    sizing: CallSizing,
    pub(crate) times: EventTimes,
    committer: Committer,
    /// `None`: at-least-once delivery.
    transactions: Option<Transactions>,
    rebalance: PendingRebalance,
    drain: Option<Drain>,
    /// Whether the handler is stopping at an event that can't be handled: nothing is dispatched any more.
    pub(crate) stopping: bool,
    scans: Scans,
    /// Whether the queue of outputs for the producer is full: no more calls begin.
    pub(crate) output_backlog_full: bool,
    next_ownership: u64,
    reads: ReadScheduling,
    /// `None`: partitions do not wait for each other.
    in_step: Option<InStep>,
    until_end: UntilEnd,
    outbox: Outbox,
}

impl Core {
    /// Creates a core without partitions.
    pub fn new(config: Config) -> Self {
        let Config { topics, max_batch, max_concurrency, max_queued, max_window, arena_bytes, .. } = config;
        let attempts = config.retry.max_attempts;
        let limits =
            [topics.into(), max_batch.into(), max_concurrency.into(), max_queued.into(), attempts.into()];
        let any_zero = limits.into_iter().chain([max_window, arena_bytes]).any(|limit: u64| limit == 0);
        assert!(!any_zero, "a limit must not be zero: {config:?}");
        Core {
            lanes: Lanes::new(config.topics, Gates::new(config.gate, config.duplicates)),
            gates_to_clear: Vec::new(),
            gate_check_at: None,
            committer: Committer::new(config.metadata_limit),
            transactions: config.transactions.map(Transactions::new),
            in_step: config.read_in_step.map(InStep::new),
            config,
            now: Now { uptime: Duration::ZERO, wall_ms: 0 },
            partitions: Partitions::default(),
            calls: Calls::new(topics),
            without_call: EventsWithoutCall::new(topics),
            sizing: CallSizing::new(),
            times: EventTimes::default(),
            rebalance: PendingRebalance::default(),
            drain: None,
            stopping: false,
            scans: Scans::default(),
            output_backlog_full: false,
            next_ownership: 1,
            reads: ReadScheduling::default(),
            until_end: UntilEnd::default(),
            outbox: Outbox::default(),
        }
    }

    /// Handles one input. `now` never goes back.
    pub fn handle(&mut self, now: Now, input: Input<'_>) {
        assert!(now.uptime >= self.now.uptime, "time went back from {:?} to {:?}", self.now, now);
        self.now = now;
        self.lanes.wall_ms = now.wall_ms;
        self.apply(input);
        self.check_times();
        self.lanes.wake(now.uptime);
        self.carry_out_decisions();
        self.check_gates();
        self.progress_closing();
        self.clear_gates();
        self.keep_in_step();
        self.hold_partitions();
        self.dispatch();
        self.decide_commit();
        self.permit_reads();
        self.check_end();
        self.free_gate_keys();
    }

    fn apply(&mut self, input: Input<'_>) {
        match input {
            Input::AssignRequested { request, partitions } => self.assign_requested(request, partitions),
            Input::StartResolved { partition, start } => self.start_resolved(partition, &start),
            Input::StartRefused { partition, offset } => self.start_refused(partition, offset),
            Input::LookupFailed { partition, transaction_open } => {
                self.lookup_failed(partition, transaction_open)
            }
            Input::Revoked { request, partitions } => self.revoked(request, partitions),
            Input::Lost { request, partitions } => self.lost(request, partitions),
            Input::Fetched { partition, rows, orders, end, error } => {
                self.fetched(partition, (rows, orders), end, error);
            }
            Input::LogEndSeen { partition, end, sent_at } => self.log_end_seen(partition, end, sent_at),
            Input::KeyKnown { request, memory } => self.key_known(request, memory),
            Input::LogEnd { partition, end } => self.log_end(partition, end),
            Input::CapacityAdded { calls } => self.sizing.add_capacity(calls),
            Input::CallEnded { call, lanes, with_outputs, output_bytes, took } => {
                self.record_work(call, took);
                self.record_output_bytes(call, with_outputs, output_bytes);
                self.call_ended(call, lanes, with_outputs, None);
            }
            Input::CallFailed { call, failure, lanes, with_outputs, output_bytes } => {
                self.record_output_bytes(call, with_outputs, output_bytes);
                self.call_ended(call, lanes, with_outputs, Some(failure));
            }
            Input::CallSuspended { call } => self.call_suspended(call),
            Input::CallTerminated { call } => self.call_terminated(call),
            Input::EffectsAcked { call, row } => self.effects_acked(call, row),
            Input::OutputRejected { call, row } => self.output_rejected(call, row),
            Input::OutputBacklog { full } => self.output_backlog_full = full,
            Input::Committed { id, partition } => self.committed(id, partition),
            Input::CommitFailed { id, partition, why } => self.commit_failed(id, partition, why),
            Input::CommitTimedOut { id } => self.commit_timed_out(id),
            Input::TransactionAborted { id, why } => self.transaction_aborted(id, why),
            Input::ExcludePartition { partition, excluded } => self.exclude(partition, excluded),
            Input::EffectRefused { partition, ownership, offset } => {
                self.effect_refused(partition, ownership, offset);
            }
            Input::StatesExpired { partition, ownership, bytes } => {
                self.states_expired(partition, ownership, bytes);
            }
            Input::EndKnown { partition, offset } => self.end_known(partition, offset),
            Input::Drain { deadline } => self.drain(deadline),
            Input::Tick => {}
        }
    }

    /// Returns the next action; `None`: nothing to do until the next input.
    pub fn poll(&mut self) -> Option<Action<'_>> {
        Some(match self.next_pending()? {
            Pending::LookUpStart(partition) => Action::LookUpStart { partition },
            Pending::AnswerAssign(request, starts) => {
                self.outbox.lent_starts = starts;
                Action::AnswerAssign { request, starts: &self.outbox.lent_starts }
            }
            Pending::AnswerRevoke(request, partitions) => {
                self.outbox.lent_partitions = partitions;
                Action::AnswerRevoke { request, partitions: &self.outbox.lent_partitions }
            }
            Pending::Reposition(partition, offset) => Action::Reposition { partition, offset },
            Pending::Reassign(partition, offset) => Action::Reassign { partition, offset },
            Pending::PermitRead { partition, max_events, max_bytes } => {
                Action::PermitRead { partition, max_events, max_bytes }
            }
            Pending::WithdrawRead(partition) => Action::WithdrawRead { partition },
            Pending::Dispatch(id) => Action::Dispatch(self.dispatch_of(id)),
            Pending::Cancel(call) => Action::Cancel { call },
            Pending::Release => {
                self.outbox.lend_slots();
                Action::ReleaseRows { slots: &self.outbox.lent_slots }
            }
            Pending::Produce(id) => {
                let call = self.calls.get(id).expect("`next_pending` checked it");
                Action::Produce { call: id, rows: &call.to_produce }
            }
            Pending::DropOutputs { call, first, end } => Action::DropOutputs { call, first, end },
            Pending::DeadLetter(failed) => Action::DeadLetter(failed),
            Pending::KeepEffects => {
                self.outbox.lend_effects();
                Action::KeepEffects { effects: &self.outbox.lent_effects }
            }
            Pending::DropEffects(ownership) => Action::DropEffects { ownership },
            Pending::RequestLogEnds(partitions) => {
                self.outbox.lent_partitions = partitions;
                Action::RequestLogEnds { partitions: &self.outbox.lent_partitions }
            }
            Pending::LookUpKey { request, partition, ownership, key, arena_slot } => {
                Action::LookUpKey { request, partition, ownership, key, arena_slot }
            }
            Pending::RememberKeys => {
                self.outbox.lend_changes();
                Action::RememberKeys { changes: &self.outbox.lent_changes }
            }
            Pending::ForgetStates(partition, number) => Action::ForgetStates { partition, number },
            Pending::Commit => self.committer.action(),
            Pending::BeginTransaction => self.committer.transaction_action(),
            Pending::ReportStall(stall) => Action::ReportStall(stall),
            Pending::StallEnded { partition, resumed } => Action::StallEnded { partition, resumed },
            Pending::Notice(notice) => Action::Notice(notice),
            Pending::PartitionStopped(partition, offset, reason) => {
                Action::PartitionStopped { partition, offset, reason }
            }
            Pending::StopHandler(FailedEvent { call, row, event, reason, .. }) => {
                Action::StopHandler { partition: event.partition, offset: event.offset, call, row, reason }
            }
            Pending::AllStopped => Action::AllStopped,
            Pending::EndReached => Action::EndReached,
            Pending::Drained { clean, unterminated_calls } => Action::Drained { clean, unterminated_calls },
            Pending::CallStuck(call) => Action::CallStuck { call },
        })
    }

    fn dispatch_of(&mut self, id: CallId) -> Dispatch<'_> {
        let call = self.calls.get(id).expect("a call lives until its end was handled");
        self.outbox.lent_lane_lengths.clear();
        self.outbox.lent_lane_lengths.extend(call.lane_lengths());
        Dispatch {
            call: id,
            topic: call.topic,
            attempt: call.attempt,
            last_attempt: self.config.retry.is_last(call.attempt),
            fresh: call.fresh,
            rows: &call.rows,
            lane_lengths: &self.outbox.lent_lane_lengths,
        }
    }

    /// Returns the next action that is still valid.
    fn next_pending(&mut self) -> Option<Pending> {
        loop {
            let pending = self.outbox.pending.pop_front()?;
            // An ownership may have stopped accepting results in the same step: drop its outputs and dead letters.
            if let Pending::Produce(id) = &pending
                && self.calls.get(*id).is_none_or(|call| call.to_produce.is_empty())
            {
                continue;
            }
            if let Pending::DeadLetter(failed) = &pending
                && !self.is_current(failed)
            {
                continue;
            }
            return Some(pending);
        }
    }

    /// Returns the uptime at which the core needs a `Tick`, unless another input comes first.
    pub fn next_timeout(&self) -> Option<Duration> {
        let next = [
            self.next_lookup(),
            self.next_closing(),
            self.next_commit(),
            self.next_check(),
            self.next_read_retry(),
            self.lanes.next_wake(),
            self.gate_check_at,
            self.has_unfinished_lanes().then_some(self.now.uptime),
        ];
        next.into_iter().flatten().min()
    }

    /// Returns the number of lanes that a call could take now. With many of them, reading more gains nothing.
    pub fn ready_lanes(&self) -> usize {
        self.lanes.ready()
    }

    /// Returns the bytes of the effects that no committed transaction claims; 0 under at-least-once delivery.
    pub fn kept_effect_bytes(&self) -> u64 {
        self.transactions.as_ref().map_or(0, |transactions| transactions.kept_bytes)
    }

    /// Returns the totals so far.
    pub fn counters(&self) -> Counters {
        self.outbox.counters
    }

    /// Returns the first offset of an owned partition that is not settled.
    pub fn committable_offset(&self, partition: Partition) -> Option<i64> {
        let state = self.partitions.get(self.partitions.find(partition)?);
        // An ownership that has just ended is included, because the last report needs it.
        (state.may_commit() || state.phase == Phase::Closed).then(|| state.ledger.committable())
    }

    /// Returns the number of offsets of an owned partition below `end` that are not settled, claimed or missing.
    pub fn unsettled_below(&self, partition: Partition, end: i64) -> Option<u64> {
        let state = self.partitions.get(self.partitions.find(partition)?);
        // An ownership that has just ended is included, because the last report needs it.
        let is_known = state.may_commit() || state.phase == Phase::Closed;
        let beyond = u64::try_from(end - state.ledger.committable()).unwrap_or(0);
        is_known.then(|| beyond.saturating_sub(state.ledger.completed_beyond()))
    }

    pub(crate) fn now(&self) -> Now {
        self.now
    }

    pub(crate) fn drain_until(&self) -> Option<Duration> {
        self.drain.map(|drain| drain.until)
    }

    fn new_ownership(&mut self) -> OwnershipId {
        self.next_ownership += 1;
        OwnershipId(self.next_ownership - 1)
    }
}
