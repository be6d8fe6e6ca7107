//! The event loop of one handler, on a thread of its own. Each turn receives events, feeds them to the core, and
//! carries out the core's actions.
//!
//! Each stage of an event's life has one owner: [`Reading`] (records to rows), [`Calling`] (rows to guest calls),
//! [`Publishing`] (outputs and dead letters to acknowledgements), [`Committing`] (the responses to commits),
//! [`Transacting`] (both in one, under transactional delivery), and [`Closing`] (the end of the loop). They borrow the [`Source`] and the [`HandlerLog`] from the loop.

mod calling;
mod closing;
mod committing;
mod gates;
mod keyed;
mod log;
mod mailbox;
mod marks;
mod observing;
mod publishing;
mod reading;
mod report;
mod source_events;
mod transacting;
mod until_end;
mod view;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use keylane_core::{
    Action, CallId, Core, FailedEvent, FetchedRow, Input, Notice, Now, Partition, PartitionStop, Reason,
};

use crate::guest::{Call, CallEvent};
use crate::librdkafka::WakeHandle;
use crate::source::Source;

use super::Totals;
use super::admin::Pulse;
use super::authentication::RejectionSender;
use super::clock::Clock;
pub(super) use calling::Calling;
pub(super) use closing::Closing;
pub(super) use committing::Committing;
pub(super) use gates::{Gates, GatesView};
pub(super) use keyed::{Keyed, KeyedSettings, TopicChangelog, TopicStates};
pub(super) use log::HandlerLog;
pub(super) use mailbox::{LoopEvent, Mailbox};
pub(super) use observing::{
    CALL_RESULTS, GrownTopic, LaneOrder, LanesRequest, LimitedBy, ObservedPartition, Observing, OldestEvent,
    RankedLane,
};
use publishing::EffectContext;
pub(super) use publishing::Publishing;
pub(super) use reading::Reading;
pub(super) use report::LastReport;
use transacting::Snapshot;
pub(super) use transacting::{LeftOut, Transacting, TransactionView};
pub(super) use view::HandlerView;

/// Maximum sleep: the client must be polled well within `max.poll.interval.ms`, and a lost wake-up must not block the
/// loop.
const SLEEP_MAX: Duration = Duration::from_millis(100);
/// Maximum reads per turn, before other events are received.
const READS_PER_TURN: usize = 8;
/// Number of ready lanes at which nothing more is read: more events would only fall out of the CPU caches (measured:
/// 2.4 µs of CPU per event and 257 MiB without this limit, 1.45 µs and 122 MiB with it). Lanes with a running call do
/// not count, so slow keys do not block reading.
const READY_LANES_MAX: usize = 1024;
/// Time limit for leaving the group, and the minimum time limit for a pending join.
const LEAVE_MAX: Duration = Duration::from_secs(5);

/// How a loop ended.
#[derive(Debug)]
pub(super) struct LoopEnd {
    pub(super) handler: String,
    pub(super) failures: Vec<String>,
    pub(super) totals: Totals,
    /// The last snapshot.
    pub(super) view: HandlerView,
    /// Whether a call is stuck, so that the process must end.
    pub(super) stuck: bool,
    /// Whether a cancelled call has not terminated. The end of the process must not wait for it.
    pub(super) has_unterminated_calls: bool,
}

/// The loop of one handler, and everything that it owns.
pub(super) struct EventLoop {
    pub(super) core: Core,
    pub(super) log: HandlerLog,
    pub(super) source: Source,
    pub(super) reading: Reading,
    pub(super) calling: Calling,
    pub(super) publishing: Publishing,
    pub(super) committing: Committing,
    pub(super) transacting: Transacting,
    /// `None`: the handler has no keyed state.
    pub(super) keyed: Option<Keyed>,
    pub(super) closing: Closing,
    pub(super) observing: Observing,
    pub(super) clock: Clock,
    /// The time at which this turn began.
    pub(super) now: Now,
    /// Whether the last turn handled anything.
    pub(super) was_busy: bool,
    pub(super) mailbox: Arc<Mailbox>,
    /// Events taken out of the mailbox. The memory of the queue is reused.
    pub(super) events: VecDeque<LoopEvent>,
    /// The loop's signs of life, for the admin server.
    pub(super) pulse: Arc<Pulse>,
    pub(super) rejection_sender: RejectionSender,
    pub(super) wake: WakeHandle,
    pub(super) report: LastReport,
    /// Number of calls that the workers accept without queueing them for long.
    pub(super) worker_calls: u32,
}

impl EventLoop {
    pub(super) fn name(&self) -> &str {
        self.log.handler()
    }

    /// Runs until the handler has drained and left its group.
    pub(super) fn run(mut self) -> LoopEnd {
        self.now = self.clock.now();
        self.closing.begin(self.now.uptime);
        self.report = LastReport::new(self.now.uptime);
        if let Err(error) = self.source.join() {
            self.closing.join_failed(&self.log, error.to_string());
            return self.leave();
        }
        self.feed(Input::CapacityAdded { calls: self.worker_calls });
        while !self.closing.is_over() {
            if !self.turn() {
                self.sleep();
            }
        }
        self.leave()
    }

    /// Handles all pending events. Returns false if there were none.
    fn turn(&mut self) -> bool {
        self.pulse.turned();
        let before = std::mem::replace(&mut self.now, self.clock.now());
        if std::mem::take(&mut self.was_busy) {
            self.observing.turn_ended(self.now.uptime.saturating_sub(before.uptime));
        }
        let mut busy = self.poll_source();
        busy |= self.receive_events();
        self.calling.submit();
        busy |= self.publish_backlog();
        self.keyed.iter_mut().for_each(|keyed| keyed.search(self.now));
        busy |= self.read_partitions();
        if !busy && self.core.next_timeout().is_some_and(|at| at <= self.now.uptime) {
            self.feed(Input::Tick);
            busy = true;
        }
        if self.closing.check_drain_causes(&self.log, &self.reading, self.now.uptime) {
            self.drain();
        }
        busy |= self.observe();
        self.calling.submit();
        self.was_busy = busy;
        busy
    }

    fn sleep(&mut self) {
        let next_search = self.keyed.as_ref().and_then(Keyed::next_search);
        let others = [self.transacting.next_timeout(), Some(self.source.next_timeout()), next_search];
        let timeouts = std::iter::once(self.core.next_timeout()).chain(others);
        let next = timeouts.flatten().min();
        let limit = next.map_or(SLEEP_MAX, |at| at.saturating_sub(self.now.uptime).min(SLEEP_MAX));
        self.wake.wait(Some(limit));
    }

    /// Feeds one input to the core and carries out its actions.
    fn feed(&mut self, input: Input<'_>) {
        self.core.handle(self.now, input);
        self.carry_out(None);
    }

    /// Carries out the core's actions, and answers its questions about gate keys. Never blocks. `ended`: the call whose end was
    /// fed to the core; its outputs may be published.
    fn carry_out(&mut self, ended: Option<&Call>) {
        loop {
            self.carry_out_actions(ended);
            let EventLoop { core, reading, now, .. } = self;
            let answer = reading.next_answer();
            let Some((request, memory)) = answer else { break };
            core.handle(*now, Input::KeyKnown { request, memory });
        }
        self.keyed.iter_mut().for_each(Keyed::send_mark_loads);
    }

    fn carry_out_actions(&mut self, ended: Option<&Call>) {
        let now = self.now;
        while let Some(action) = self.core.poll() {
            let EventLoop { log, source, reading, calling, publishing, closing, observing, .. } = self;
            let (transacting, keyed) = (&mut self.transacting, &mut self.keyed);
            match action {
                // Reading
                Action::LookUpStart { partition } => keyed::look_up_start(keyed, source, partition),
                Action::AnswerAssign { request, starts } => {
                    source_events::answer_assign((source, reading, &self.pulse), request, starts);
                }
                Action::AnswerRevoke { request, partitions } => {
                    reading.revoked(partitions);
                    keyed::forget(keyed, partitions);
                    publishing.discard_disowned(); // before the new owner may begin
                    source.answer_revoke(request);
                }
                Action::Reposition { partition, offset } => source.reposition(partition, offset),
                Action::Reassign { partition, offset } => source.reassign(partition, offset),
                Action::PermitRead { partition, max_events, max_bytes } => {
                    reading.permit(partition, max_events, max_bytes);
                }
                Action::RequestLogEnds { partitions } => source.request_log_ends(now.uptime, partitions),
                Action::LookUpKey { request, partition, ownership, key, .. } => {
                    self.look_up_key(request, (partition, ownership), key);
                }
                Action::RememberKeys { changes } => marks::remember(reading, keyed, changes),
                Action::WithdrawRead { partition } => reading.withdraw_permission(partition),
                Action::ReleaseRows { slots } => reading.release(slots),

                // Calling
                Action::Dispatch(dispatch) => {
                    observing.call_began(dispatch.call, now.uptime);
                    publishing.begin_call(&dispatch, calling.digest(), reading.arena());
                    let call = calling.prepare(&dispatch, log.topic_at(dispatch.topic), reading.arena());
                    keyed::begin_call(keyed, &dispatch, reading);
                    self.give_states(call);
                }
                Action::Cancel { call } => keyed::cancel(keyed, calling, call),
                Action::CallStuck { call } => closing.call_stuck(log, call),

                // Publishing
                Action::Produce { call, rows } => publishing.publish(ended, call, rows, reading.arena(), now),
                Action::DropOutputs { call, first, end } => publishing.disown(call, first..end),
                Action::DeadLetter(dead_letter) => self.dead_letter(&dead_letter),

                // Committing
                Action::Commit { id, entries, metadata } => {
                    reading.commit_sent(id, entries, metadata);
                    source.commit(now.uptime, id, entries, metadata);
                }

                // Transacting
                Action::KeepEffects { effects } => {
                    observing.effects_kept((log, now), effects, publishing);
                    let context = EffectContext::new(source, reading, calling, now.wall_ms);
                    transacting.keep(effects, publishing.copy_effects(ended, effects, &context));
                    keyed::keep(keyed, ended, effects);
                }
                Action::DropEffects { ownership } => transacting.drop_effects(ownership),
                Action::ForgetStates { partition, number } => keyed::forget_states(keyed, partition, number),
                Action::BeginTransaction { id, entries, claims, metadata } => {
                    let snapshot = Snapshot::new(entries, claims, metadata, keyed.as_mut());
                    transacting.begin(id, &snapshot, keyed.as_ref(), source.group_metadata(), now);
                }

                // Closing
                Action::PartitionStopped { partition, offset, reason } => {
                    self.partition_stopped(partition, offset, reason);
                }
                Action::StopHandler { partition, offset, call, row, reason } => {
                    self.stop_handler((partition, offset), (call, row), reason);
                }
                Action::AllStopped => closing.all_stopped(log),
                Action::EndReached => closing.end_reached(),
                Action::Drained { clean, unterminated_calls } => self.drained(clean, unterminated_calls),

                // Reports
                Action::ReportStall(blockage) => self.report_stall(blockage),
                Action::StallEnded { partition, resumed } => log.stall_ended(partition, resumed),
                Action::Notice(notice) => self.noticed(notice),
            }
        }
    }

    fn dead_letter(&mut self, dead_letter: &FailedEvent) {
        let EventLoop { log, source, reading, calling, publishing, observing, now, .. } = self;
        let &FailedEvent { call, row, reason, event, .. } = dead_letter;
        observing.dead_letter_requested(publishing::name_of(reason));
        log.dead_letter(*now, dead_letter, publishing.error_of(call, row, reason));
        let (id, digest) = (source.topic_id(event.partition), calling.digest());
        publishing.dead_letter(dead_letter, reading.arena(), id, digest, now.wall_ms);
    }

    fn stop_handler(&mut self, at: (Partition, i64), (call, row): (CallId, u32), reason: Reason) {
        let error = self.publishing.error_of(call, row, reason);
        self.closing.handler_stopped(&self.log, at, reason, error);
    }

    fn drained(&mut self, clean: bool, unterminated_calls: u32) {
        self.publishing.discard_disowned(); // before the new owners may begin
        self.closing.drained(&self.log, clean, unterminated_calls > 0);
    }

    fn partition_stopped(&mut self, partition: Partition, offset: i64, reason: PartitionStop) {
        self.observing.partition_stopped(&self.log, partition, offset, reason);
        self.closing.partition_stopped(&self.log, partition, offset, reason);
    }

    fn noticed(&mut self, notice: Notice) {
        let EventLoop { log, publishing, transacting, keyed, closing, observing, reading, now, .. } = self;
        if let Notice::Skipped { partition, offset, call, row, reason } = notice {
            return log.skipped(*now, (partition, offset), reason, publishing.error_of(call, row, reason));
        }
        if let (Notice::TopicRecreated { partition, .. }, Some(gates)) = (notice, reading.gates_mut()) {
            gates.topic_recreated(partition);
        }
        observing.noticed(notice);
        transacting.noticed(notice);
        keyed.iter_mut().for_each(|keyed| keyed.noticed(notice));
        log.notice(notice);
        closing.noticed(log, notice);
    }

    // -- events -------------------------------------------------------------------------------------

    fn receive_events(&mut self) -> bool {
        let mut events = std::mem::take(&mut self.events);
        self.mailbox.take(&mut events);
        let busy = !events.is_empty();
        for event in events.drain(..) {
            match event {
                LoopEvent::Call(CallEvent::Ended(call)) => self.end_call(call),
                LoopEvent::Call(CallEvent::Suspended(call)) => self.feed(Input::CallSuspended { call }),
                LoopEvent::Call(CallEvent::Terminated(call)) => {
                    self.feed(Input::CallTerminated { call: call.key.call });
                    self.calling.recycle(call);
                }
                LoopEvent::Delivered(deliveries) => {
                    for delivery in &deliveries {
                        self.publishing.delivered(delivery, self.reading.arena());
                    }
                    self.log.order_break(self.now, &mut self.publishing);
                    self.feed_acknowledgements();
                }
                LoopEvent::Transaction(event) => self.transaction_ended(event),
                LoopEvent::Store { topic, event } => self.store_event(topic, event),
                LoopEvent::Restore(event) => self.restore_event(event),
                LoopEvent::Report => self.log_report(),
                LoopEvent::Lanes(request) => self.observing.rank_lanes(request),
                LoopEvent::View(view) => {
                    view.send_replace(Some(self.view()));
                }
                LoopEvent::Drain(why) => {
                    self.closing.stopped_by(why);
                    self.drain();
                }
            }
        }
        self.events = events;
        busy
    }

    fn end_call(&mut self, mut ended: Box<Call>) {
        self.publishing.retract_invalid_rows(&mut ended);
        self.keyed.iter().for_each(|keyed| keyed.check_states(&mut ended, self.publishing.sink()));
        self.publishing.keep_errors(&ended);
        self.log.call_ended(self.now, &ended);
        self.observing.call_ended(&ended, &self.core, &self.log, self.now.uptime);
        let output_bytes = self.transacting.output_bytes(&self.publishing, self.keyed.as_ref(), &ended);
        self.core.handle(self.now, calling::end_of(&ended, output_bytes));
        self.carry_out(Some(&ended));
        self.publishing.count_ended_call(&ended);
        self.calling.recycle(ended);
    }

    /// Feeds the results of outputs and dead letters to the core. Returns false if there were none.
    fn feed_acknowledgements(&mut self) -> bool {
        let mut busy = false;
        while let Some(input) = self.publishing.next_input() {
            busy = true;
            self.feed(input);
        }
        busy
    }

    fn publish_backlog(&mut self) -> bool {
        self.submit_ready();
        let moved = self.publishing.publish_backlog(self.reading.arena());
        let mut busy = self.feed_acknowledgements() || moved;
        while let Some(input) = self.transacting.next_input(self.keyed.as_ref(), self.now.uptime) {
            busy = true;
            self.feed(input);
        }
        // Queued outputs take memory, too. While the backlog is full, the core begins no call that would add outputs.
        if let Some(full) = self.publishing.backlog_changed() {
            tracing::debug!(handler = self.log.handler(), full, "output backlog");
            self.feed(Input::OutputBacklog { full });
        }
        busy
    }

    fn read_partitions(&mut self) -> bool {
        let mut busy = false;
        let mut reads = 0;
        for _ in 0..self.reading.permissions() {
            if reads == READS_PER_TURN || self.core.ready_lanes() >= READY_LANES_MAX {
                break;
            }
            let Some(permission) = self.reading.next_permission() else { break };
            if !self.source.is_ready(permission.partition) {
                self.reading.keep_permission(permission);
                continue;
            }
            reads += 1;
            let keyed = &mut self.keyed;
            let cached_mark = |key: &_| keyed.as_mut()?.cached_mark(permission.partition, key);
            let read = self.reading.read(&mut self.source, permission, self.now.uptime, cached_mark);
            if !read.found_anything() {
                busy |= read.more;
                self.reading.keep_permission(permission);
                continue;
            }
            busy = true;
            if let Some(first) = read.first() {
                let FetchedRow { offset, timestamp, .. } = *first;
                let event = OldestEvent { offset, timestamp, read_at: self.now.uptime };
                self.observing.event_read(permission.partition, event, &self.core);
            }
            self.core.handle(self.now, read.input(permission.partition));
            self.carry_out(None);
            self.log.missing_lane_keys(self.now, &mut self.reading);
            self.calling.submit();
        }
        busy
    }

    // -- drain and reports --------------------------------------------------------------------------

    fn drain(&mut self) {
        if let Some(deadline) = self.closing.begin_drain(self.now.uptime) {
            self.feed(Input::Drain { deadline });
        }
    }

    fn leave(self) -> LoopEnd {
        self.pulse.leaves();
        let view = self.view();
        let EventLoop { mut log, source, reading, calling, mut publishing, closing, now, .. } = self;
        log.log_dropped_lines();
        publishing.log_dropped_lines();
        let active = reading.active(now.uptime);
        report::log_totals(log.handler(), &view, active);
        let totals = Totals {
            done: publishing.done(),
            outputs_acknowledged: view.publishing.outputs_acknowledged,
            calls: calling.calls_made(),
            active,
        };
        // The remaining time of the drain, but never less than the minimum.
        let join_timeout = closing.time_left(now.uptime).max(LEAVE_MAX);
        if !closing.is_stuck() && !source.leave(join_timeout, LEAVE_MAX) {
            tracing::warn!(
                handler = log.handler(),
                "group not left in time: its partitions are reassigned after the consumer's session timeout"
            );
        }
        closing.into_end(log.into_handler(), totals, view)
    }
}
