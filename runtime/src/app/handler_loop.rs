//! The loop of one handler, on a thread of its own: hear, feed the core, carry out.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use keylane_core::{CallFailure, CommittedStart, Core, Input, Now, Partition, PartitionStart};

use crate::guest::{CallEvent, CallResult};
use crate::librdkafka::{ErrorCode, WakeHandle};
use crate::source::SourceEvent;

use super::Totals;
use super::authentication::{Refusals, Side};
use super::clock::Clock;
use super::mailbox::{LoopEvent, Mailbox};
use super::outputs::OutputEvent;
use super::report::{self, Counts, Report};
use super::shell::{Read, Shell};

/// The client must be polled well within `max.poll.interval.ms`, and a lost wake-up must not last.
const SLEEP_MAX: Duration = Duration::from_millis(100);
/// Reads between two looks at what else has happened.
const READS_PER_TURN: usize = 8;
/// Lanes that stand ready are enough for the workers: events read beyond them only fall out of the processor's caches
/// (measured: 2.4 µs of CPU per event and 257 MiB without this limit, 1.45 µs and 122 MiB with it). Lanes with a call
/// out do not count, so slow keys hold nobody up.
const READY_ENOUGH: usize = 1024;
/// How long leaving the group may take, and at least the answer to a join that is under way.
const LEAVE_MAX: Duration = Duration::from_secs(5);

/// A loop that is ready to run.
pub(super) struct Prepared {
    pub(super) core: Core,
    pub(super) shell: Shell,
    pub(super) clock: Clock,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) refusals: Refusals,
    pub(super) wake: WakeHandle,
    /// Calls that the workers take without standing in line for long.
    pub(super) worker_calls: u32,
    pub(super) drain_timeout: Duration,
    /// An assignment that stays empty for so long ends `--until-end`.
    pub(super) session_timeout: Duration,
    pub(super) until_end: bool,
}

/// How a loop ended.
#[derive(Debug)]
pub(super) struct LoopEnd {
    pub(super) handler: String,
    pub(super) failures: Vec<String>,
    pub(super) totals: Totals,
    /// The process must end.
    pub(super) stuck: bool,
    /// Something still runs that nobody may wait for.
    pub(super) calls_left: bool,
}

pub(super) struct HandlerLoop {
    core: Core,
    shell: Shell,
    clock: Clock,
    now: Now,
    mailbox: Arc<Mailbox>,
    refusals: Refusals,
    wake: WakeHandle,
    events: VecDeque<LoopEvent>,
    drain_timeout: Duration,
    /// Until when.
    draining: Option<Duration>,
    until_end: bool,
    session_timeout: Duration,
    /// Since when nothing is assigned.
    empty_since: Duration,
    had_loss: bool,
    /// So much waits for the producer that no more calls begin.
    backlog_full: bool,
    first_read: Option<Duration>,
    report: Report,
}

impl Prepared {
    pub(super) fn name(&self) -> &str {
        &self.shell.name
    }
}

impl HandlerLoop {
    /// Runs until the handler has drained and left its group.
    pub(super) fn run(prepared: Prepared) -> LoopEnd {
        let now = prepared.clock.now();
        let mut this = HandlerLoop {
            core: prepared.core,
            shell: prepared.shell,
            clock: prepared.clock,
            now,
            mailbox: prepared.mailbox,
            refusals: prepared.refusals,
            wake: prepared.wake,
            events: VecDeque::new(),
            drain_timeout: prepared.drain_timeout,
            draining: None,
            until_end: prepared.until_end,
            first_read: None,
            session_timeout: prepared.session_timeout,
            empty_since: now.uptime,
            had_loss: false,
            backlog_full: false,
            report: Report::new(now.uptime),
        };
        if let Err(error) = this.shell.source.join() {
            this.shell.fail(error.to_string());
            return this.leave();
        }
        this.feed(Input::WorkersFree { calls: prepared.worker_calls });
        while !this.shell.asked.drained && !this.shell.asked.stuck {
            if !this.turn() {
                this.sleep();
            }
        }
        this.leave()
    }

    /// One look at everything. False: nothing had happened.
    fn turn(&mut self) -> bool {
        self.now = self.clock.now();
        let mut busy = self.poll_source();
        busy |= self.receive_events();
        self.shell.calls.hand_over();
        busy |= self.produce_backlog();
        self.report_backlog();
        busy |= self.read_partitions();
        if !busy && self.core.next_timeout().is_some_and(|at| at <= self.now.uptime) {
            self.feed(Input::Tick);
            busy = true;
        }
        self.follow_up();
        self.report();
        self.shell.calls.hand_over();
        busy
    }

    /// Feeds the core and does what it asks for.
    fn feed(&mut self, input: Input<'_>) {
        self.core.handle(self.now, input);
        self.carry_out();
    }

    fn carry_out(&mut self) {
        while let Some(action) = self.core.poll() {
            self.shell.carry_out(self.now, action);
        }
    }

    fn sleep(&mut self) {
        let timeouts = [self.core.next_timeout(), Some(self.shell.source.next_timeout())];
        let next = timeouts.into_iter().flatten().min();
        let limit = next.map_or(SLEEP_MAX, |at| at.saturating_sub(self.now.uptime).min(SLEEP_MAX));
        self.wake.wait(Some(limit));
    }

    // -- what happened ----------------------------------------------------------------------------

    fn poll_source(&mut self) -> bool {
        let mut busy = false;
        while let Some(event) = self.shell.source.next_event(self.now.uptime) {
            busy = true;
            self.take_source_event(event);
        }
        busy
    }

    fn take_source_event(&mut self, event: SourceEvent) {
        match event {
            SourceEvent::Assign(request, partitions) => {
                self.feed(Input::AssignRequested { request, partitions: &partitions });
            }
            SourceEvent::Revoke(request, partitions) => {
                self.feed(Input::Revoked { request, partitions: &partitions });
            }
            SourceEvent::Lost(request, partitions) => {
                self.had_loss = true;
                self.feed(Input::Lost { request, partitions: &partitions });
            }
            SourceEvent::StartResolved(found) => {
                let committed = found.committed.as_ref();
                let start = PartitionStart {
                    committed: committed
                        .map(|(offset, metadata)| CommittedStart { offset: *offset, metadata }),
                    fallback: found.fallback,
                    log_start: found.log_start,
                    log_end: found.log_end,
                    topic_id: found.topic_id,
                };
                self.feed(Input::StartResolved { partition: found.partition, start });
            }
            SourceEvent::AssignFailed { partition, reason, undecided } => {
                self.shell.log_start_not_found(self.now, partition, &reason);
                self.feed(Input::AssignFailed { partition, undecided });
            }
            SourceEvent::EndKnown { partition, offset } => self.feed(Input::EndKnown { partition, offset }),
            SourceEvent::ReadFailed { partition, why } => {
                self.shell.withdraw_permission(partition); // as after any other read
                self.feed(Input::Fetched { partition, rows: &[], end: None, error: Some(why) });
            }
            SourceEvent::CommitResult { id, partition, result, code } => match result {
                Ok(()) => self.feed(Input::Committed { id, partition }),
                Err(why) => {
                    self.shell.log_commit_rejected(self.now, partition, &code, why);
                    self.feed(Input::CommitFailed { id, partition, why });
                }
            },
            SourceEvent::CommitTimedOut { id } => {
                tracing::warn!(handler = self.shell.name, "commit not answered in time");
                self.feed(Input::CommitTimedOut { id });
            }
            SourceEvent::Error(error)
                if error.code == ErrorCode::INCONSISTENT_GROUP_PROTOCOL && !self.until_end =>
            {
                self.shell.log_other_assignor(self.now);
            }
            // A run that is to end does not wait for members that may stay.
            SourceEvent::Error(error)
                if error.fatal || error.code == ErrorCode::INCONSISTENT_GROUP_PROTOCOL =>
            {
                self.shell.fail(error.text);
                self.shell.asked.stop = true;
            }
            SourceEvent::Error(error) => {
                if error.code.is_refusal() {
                    self.refusals.report(Side::Consumers);
                }
                self.shell.log_client_error(self.now, &error.text);
            }
        }
    }

    fn receive_events(&mut self) -> bool {
        let mut events = std::mem::take(&mut self.events);
        self.mailbox.take(&mut events);
        let busy = !events.is_empty();
        for item in events.drain(..) {
            match item {
                LoopEvent::Call(CallEvent::Ended(call)) => {
                    self.shell.ended = Some(call);
                    self.end_call();
                }
                LoopEvent::Call(CallEvent::Suspended(call)) => self.feed(Input::CallSuspended { call }),
                LoopEvent::Call(CallEvent::Terminated(call)) => {
                    self.feed(Input::CallTerminated { call: call.key.call });
                    self.shell.calls.recycle(call);
                }
                LoopEvent::Delivered(deliveries) => {
                    for delivery in &deliveries {
                        self.shell.outputs.take(delivery, &self.shell.arena);
                    }
                    self.shell.log_order_break(self.now);
                    self.pass_output_events();
                }
                LoopEvent::Drain(why) => {
                    if self.until_end {
                        self.shell.failures.push(format!("stopped by {why} before the end"));
                    }
                    self.drain();
                }
            }
        }
        self.events = events;
        busy
    }

    fn end_call(&mut self) {
        let Some(mut ended) = self.shell.ended.take() else { return };
        self.shell.outputs.retract_invalid_rows(&mut ended);
        self.shell.record_errors(self.now, &ended);
        let (call, results) = (ended.key.call, &ended.results);
        let (lanes, with_outputs) = (results.lane_ends(), results.rows_with_outputs());
        let input = match &ended.outcome {
            CallResult::Failed(failure) => {
                let (fault, failing_row, fresh) = (failure.fault, failure.row, ended.failed_fresh());
                let failure = CallFailure { fault, failing_row, fresh };
                Input::CallFailed { call, failure, lanes, with_outputs }
            }
            CallResult::Ended | CallResult::NotRun => {
                Input::CallEnded { call, lanes, with_outputs, took: ended.took }
            }
        };
        self.core.handle(self.now, input);
        self.shell.ended = Some(ended);
        self.carry_out();
        if let Some(call) = self.shell.ended.take() {
            self.shell.outputs.count_done(&call);
            self.shell.calls.recycle(call);
        }
    }

    /// Tells the core what became of outputs and dead letters. True: there was something.
    fn pass_output_events(&mut self) -> bool {
        let mut busy = false;
        while let Some(heard) = self.shell.outputs.next_event() {
            busy = true;
            self.feed(match heard {
                OutputEvent::Acked(call, row) => Input::OutputsAcked { call, row },
                OutputEvent::Refused(call, row) => Input::OutputRefused { call, row },
                OutputEvent::DeadLetterAcked(call, row) => Input::DeadLetterAcked { call, row },
            });
        }
        busy
    }

    fn produce_backlog(&mut self) -> bool {
        let moved = self.shell.outputs.produce_backlog(&self.shell.arena);
        self.pass_output_events() || moved
    }

    /// Outputs take memory too, and a call that is not made makes none.
    fn report_backlog(&mut self) {
        let full = self.shell.outputs.is_backlog_full();
        if std::mem::replace(&mut self.backlog_full, full) != full {
            tracing::debug!(handler = self.shell.name, full, "outputs wait for the producer");
            self.feed(Input::OutputBacklog { full });
        }
    }

    fn read_partitions(&mut self) -> bool {
        let mut busy = false;
        let mut reads = 0;
        for _ in 0..self.shell.permissions.len() {
            if reads == READS_PER_TURN || self.core.ready_lanes() >= READY_ENOUGH {
                break;
            }
            let Some(permission) = self.shell.permissions.pop_front() else { break };
            if !self.shell.source.is_ready(permission.partition) {
                self.shell.permissions.push_back(permission);
                continue;
            }
            reads += 1;
            let partition = permission.partition;
            let Read { rows, end, error, more } = self.shell.read(permission);
            if rows.is_empty() && end.is_none() && error.is_none() {
                busy |= more;
                self.shell.permissions.push_back(permission);
                continue;
            }
            busy = true;
            if !rows.is_empty() {
                self.first_read.get_or_insert(self.now.uptime);
            }
            self.core.handle(self.now, Input::Fetched { partition, rows, end, error });
            self.carry_out();
            self.shell.log_missing_lane_keys(self.now);
            self.shell.calls.hand_over();
        }
        busy
    }

    // -- what follows from it ---------------------------------------------------------------------

    fn follow_up(&mut self) {
        let asked = &mut self.shell.asked;
        let unreadable = asked.unreadable.take().filter(|_| self.until_end);
        let cannot_end = self.until_end && asked.partition_stopped || unreadable.is_some();
        let over = asked.stop || asked.end_reached || cannot_end;
        unreadable.into_iter().for_each(|why| self.shell.fail(why));
        if over {
            self.drain();
        }
        if self.until_end {
            self.watch_empty_assignment();
        }
    }

    fn drain(&mut self) {
        if self.draining.is_none() {
            let deadline = self.now.uptime + self.drain_timeout;
            self.draining = Some(deadline);
            self.feed(Input::Drain { deadline });
        }
    }

    /// `--until-end` in a group with more members than partitions: nothing will ever be assigned.
    fn watch_empty_assignment(&mut self) {
        if !self.shell.owned.is_empty() || !self.shell.asked.assigned {
            self.empty_since = self.now.uptime;
        } else if self.now.uptime >= self.empty_since + self.session_timeout && self.draining.is_none() {
            tracing::warn!(handler = self.shell.name, "nothing was assigned");
            if self.had_loss {
                self.shell.failures.push("its partitions were lost, and none was assigned again".to_owned());
            }
            self.drain();
        }
    }

    /// Once a minute: what was done so far.
    fn report(&mut self) {
        if !self.report.is_due(self.now.uptime) {
            return;
        }
        let behind = |partition: &Partition| {
            let end = self.shell.source.last_known_end(*partition)?;
            Some((end - self.core.first_unsettled(*partition)?).max(0))
        };
        let lag = self.shell.owned.iter().filter_map(behind).sum();
        let counts = self.counts();
        self.report.log(&self.shell.name, self.now.uptime, &counts, lag);
    }

    fn counts(&self) -> Counts {
        Counts { outputs: self.shell.outputs.emitted(), events: self.core.failures() }
    }

    /// What is not told while it happens.
    fn log_remaining(&self) {
        let handler = &self.shell.name;
        let order_breaks = self.shell.outputs.order_breaks();
        if order_breaks > 0 {
            tracing::warn!(handler, order_breaks, "outputs that landed behind later ones of their lane");
        }
        let restamped = self.shell.outputs.restamped();
        if restamped > 0 {
            tracing::warn!(
                handler,
                restamped,
                "outputs that carry the time of sending: their topics refuse the time of their events"
            );
        }
        for count in self.shell.filter.counts() {
            let (rule, keep, events) =
                (count.rule.as_deref().unwrap_or("no rule"), count.keep, count.records);
            tracing::info!(handler, rule, keep, events, "filter");
        }
    }

    fn leave(self) -> LoopEnd {
        self.log_remaining();
        let active = self.first_read.map_or(Duration::ZERO, |first| self.now.uptime - first);
        report::log_totals(&self.shell.name, &self.counts(), active);
        // What is left of the drain's time, and some at any rate.
        let rest = self.draining.map_or(Duration::ZERO, |deadline| deadline.saturating_sub(self.now.uptime));
        let HandlerLoop { shell, .. } = self;
        let totals = Totals {
            done: shell.outputs.done(),
            emitted: shell.outputs.emitted(),
            calls: shell.calls_made,
            active,
        };
        let stuck = shell.asked.stuck;
        if !stuck && !shell.source.leave(rest.max(LEAVE_MAX), LEAVE_MAX) {
            tracing::warn!(handler = shell.name, "the group was not left in time; it finds out by itself");
        }
        let calls_left = shell.asked.calls_left;
        LoopEnd { handler: shell.name, failures: shell.failures, totals, stuck, calls_left }
    }
}
