//! Carries out what the core asks for. It owns everything that the core must not know: clients, bytes, calls.

use std::collections::VecDeque;

use keylane_core::{
    Action, Admission, ArenaSlot, BlockedOn, CallId, CommitError, DeadLetter, FetchedRow, Notice, Now,
    Partition, ReadError, Reason, Stall, Verdict,
};

use crate::admit::{Arena, Filter, LaneRule};
use crate::guest::{Call, CallResult};
use crate::source::Source;

use super::guest_calls::GuestCalls;
use super::lines::{Cause, LineLimits};
use super::notices::{NoticeLog, commit_remedy};
use super::outputs::{Outputs, name_of};

/// Nothing is kept of an event that was filtered.
const NOWHERE: ArenaSlot = ArenaSlot(u64::MAX);
/// What such an event counts as, so that a read of nothing else ends, too.
const FILTERED_BYTES: u32 = 64;

/// One side of a handler's loop; the core is the other.
pub(super) struct Shell {
    pub(super) name: String,
    pub(super) topics: Vec<String>,
    pub(super) source: Source,
    pub(super) arena: Arena,
    pub(super) filter: Filter,
    pub(super) lane_rule: LaneRule,
    pub(super) calls: GuestCalls,
    pub(super) outputs: Outputs,
    /// What may be read, in turn.
    pub(super) permissions: VecDeque<Permission>,
    /// The call whose end the core is hearing of: its outputs may be handed over.
    pub(super) ended: Option<Box<Call>>,
    /// Rows of the read under way.
    rows: Vec<FetchedRow>,
    pub(super) asked: Requested,
    /// What the answered assignments left us with.
    pub(super) owned: Vec<Partition>,
    pub(super) failures: Vec<String>,
    pub(super) calls_made: u64,
    lines: LineLimits,
    /// The first event without its derived lane key since that was told last, and how many there were before.
    miss: Option<MissingLaneKey>,
    misses_told: u64,
}

/// What the core decided about the loop itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Requested {
    /// The handler can't go on.
    pub(super) stop: bool,
    /// A partition can't go on.
    pub(super) partition_stopped: bool,
    /// A partition can't be read for now: which, and why.
    pub(super) unreadable: Option<String>,
    /// Everything up to the ends is committed.
    pub(super) end_reached: bool,
    /// The drain is over.
    pub(super) drained: bool,
    /// A call can't be cancelled: the process must end.
    pub(super) stuck: bool,
    /// The drain is over, and a cancelled call has not ended: nobody may wait for it.
    pub(super) calls_left: bool,
    /// An assign was answered.
    pub(super) assigned: bool,
}

/// The core's permission to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Permission {
    pub(super) partition: Partition,
    max_events: u32,
    max_bytes: u64,
}

/// An event in which no lane key was found.
#[derive(Clone, Copy, Debug)]
struct MissingLaneKey {
    partition: Partition,
    offset: i64,
    /// It looks as if a serializer of a schema registry had written it.
    registered: bool,
}

/// What one read came to.
#[derive(Debug)]
pub(super) struct Read<'a> {
    pub(super) rows: &'a [FetchedRow],
    /// The end of the partition.
    pub(super) end: Option<i64>,
    pub(super) error: Option<ReadError>,
    pub(super) more: bool,
}

impl Shell {
    pub(super) fn new(
        name: String,
        topics: Vec<String>,
        source: Source,
        (filter, lane_rule): (Filter, LaneRule),
        calls: GuestCalls,
        outputs: Outputs,
    ) -> Self {
        Shell {
            name,
            topics,
            source,
            arena: Arena::default(),
            filter,
            lane_rule,
            calls,
            outputs,
            permissions: VecDeque::new(),
            ended: None,
            rows: Vec::new(),
            asked: Requested::default(),
            owned: Vec::new(),
            failures: Vec::new(),
            calls_made: 0,
            lines: LineLimits::new(),
            miss: None,
            misses_told: 0,
        }
    }

    /// Does one thing that the core asked for. Nothing here waits.
    pub(super) fn carry_out(&mut self, now: Now, action: Action<'_>) {
        match action {
            Action::LookUpStart { partition } => self.source.look_up_start(partition),
            Action::AnswerAssign { request, starts } => {
                self.owned.extend(starts.iter().map(|start| start.partition));
                self.asked.assigned = true;
                self.source.answer_assign(request, starts);
            }
            Action::AnswerRevoke { request, partitions } => {
                self.owned.retain(|owned| !partitions.contains(owned));
                self.outputs.discard_revoked(); // before somebody else may begin
                self.source.answer_revoke(request);
            }
            Action::Reposition { partition, offset } => self.source.reposition(partition, offset),
            Action::Reassign { partition, offset } => self.source.reassign(partition, offset),
            // The group is left after `Drained`, when the loop gives the source up.
            Action::LeaveGroup => self.outputs.discard_revoked(),
            Action::Read { partition, max_events, max_bytes } => {
                self.withdraw_permission(partition);
                self.permissions.push_back(Permission { partition, max_events, max_bytes });
            }
            Action::StopReading { partition } => self.withdraw_permission(partition),
            Action::Dispatch(dispatch) => {
                let topic = self.topics.get(usize::from(dispatch.topic)).map_or("", String::as_str);
                self.outputs.remember(&dispatch);
                self.calls.prepare(&dispatch, topic, &self.arena);
                self.calls_made += 1;
            }
            Action::Cancel { call } => self.calls.cancel(call),
            Action::ReleaseRows { places } => places.iter().for_each(|&place| self.arena.release(place)),
            Action::Produce { call, rows } => self.hand_over(call, rows, now),
            Action::DropOutputs { call, first, end } => self.outputs.revoked(call, first..end),
            Action::DeadLetter(letter) => self.dead_letter(&letter, now),
            Action::Commit { id, entries, metadata } => {
                self.source.commit(now.uptime, id, entries, metadata);
            }
            Action::ReportStall(stall) => self.report_stall(&stall),
            Action::StallEnded { partition } => self.place().stall_ended(partition),
            Action::Notice(Notice::Skipped { partition, offset, call, row, reason }) => {
                self.log_skipped(now, (partition, offset), (call, row), reason);
            }
            Action::Notice(notice) => {
                self.place().notice(notice);
                if let Notice::TopicReplaced { partition, .. } = notice {
                    self.asked.unreadable = Some(self.place().replaced(partition));
                }
            }
            Action::PartitionStopped { partition, offset, reason } => {
                self.fail(self.place().partition_stop(partition, offset, reason));
                self.asked.partition_stopped = true;
            }
            Action::StopHandler { partition, offset, call, row, reason } => {
                self.stop((partition, offset), (call, row), reason);
            }
            Action::AllStopped => {
                self.fail("all of its partitions have stopped".to_owned());
                self.asked.stop = true;
            }
            Action::EndReached => self.asked.end_reached = true,
            Action::Drained { clean, calls_left } => self.drained(clean, calls_left > 0),
            Action::CallStuck { call } => {
                self.asked.stuck = true;
                self.fail(format!(
                    "guest call {call:?} does not end although it was cancelled; the process ends"
                ));
            }
        }
    }

    fn report_stall(&mut self, stall: &Stall) {
        self.place().stall(stall, self.outputs.blocking_topic());
        if let BlockedOn::ReadFailed(why) = stall.blocked_on {
            self.asked.unreadable = Some(self.place().unreadable(stall.partition, stall.offset, why));
        }
    }

    fn drained(&mut self, clean: bool, calls_left: bool) {
        self.asked.drained = true;
        self.asked.calls_left = calls_left;
        tracing::info!(handler = self.name, clean, "drained");
        if !clean {
            let text = "not everything ended, or could be committed, within the limits of the drain: its events run \
                        again";
            self.fail(text.to_owned());
        }
    }

    /// Reads once, within the permission. The rows stay lent until the next read.
    pub(super) fn read(&mut self, permission: Permission) -> Read<'_> {
        let Shell { source, arena, filter, lane_rule, rows, miss, .. } = self;
        rows.clear();
        let Permission { partition, max_events, max_bytes } = permission;
        let read = source.read(partition, max_events, max_bytes, &mut |record| {
            let (key, value) = (record.key(), record.value());
            let (timestamp, log_append_time) = record.timestamp();
            // What is not wanted is not copied, either.
            let (arena_slot, bytes, admission) = if filter.wants(key, value, || record.headers()) {
                let (arena_slot, bytes) = arena.store(key, value, record.headers(), log_append_time);
                let missed = lane_rule.missed();
                let admission = lane_rule.admission(key, value, || record.headers());
                if lane_rule.missed() != missed && miss.is_none() {
                    let registered = lane_rule.overlooks_registry(value);
                    *miss = Some(MissingLaneKey { partition, offset: record.offset(), registered });
                }
                (arena_slot, bytes, admission)
            } else {
                (NOWHERE, FILTERED_BYTES, Admission::Filtered)
            };
            let offset = record.offset();
            rows.push(FetchedRow { offset, timestamp, bytes, arena_slot, admission });
            bytes
        });
        Read { rows: &self.rows, end: read.end_of_partition, error: read.error, more: read.more }
    }

    pub(super) fn fail(&mut self, failure: String) {
        tracing::error!(handler = self.name, failure, "needs attention");
        self.failures.push(failure);
    }

    fn hand_over(&mut self, call: CallId, rows: &[u32], now: Now) {
        let ended = self.ended.as_deref().expect("outputs are handed over while their call's end is heard");
        assert!(ended.key.call == call, "outputs of {call:?} asked for, {:?} has ended", ended.key.call);
        self.outputs.hand_over(ended, rows, &self.arena, now.wall_ms);
    }

    fn dead_letter(&mut self, letter: &DeadLetter, now: Now) {
        let dropped = self.lines.allow(Cause::DeadLetter, now);
        let (topic, error) = (
            self.place().topic(letter.event.partition),
            self.outputs.error_of(letter.call, letter.row, letter.reason),
        );
        let (partition, offset, attempt) =
            (letter.event.partition.number, letter.event.offset, letter.attempt);
        let reason = name_of(letter.reason);
        if let Some(dropped) = dropped {
            let handler = &self.name;
            tracing::warn!(handler, topic, partition, offset, attempt, reason, error, dropped, "dead letter");
        }
        let topic_id = self.source.topic_id(letter.event.partition);
        self.outputs.dead_letter(letter, &self.arena, topic_id, now.wall_ms);
    }

    fn log_skipped(&mut self, now: Now, at: (Partition, i64), of: (CallId, u32), reason: Reason) {
        let Some(dropped) = self.lines.allow(Cause::Skipped, now) else { return };
        let (handler, topic, error) =
            (&self.name, self.place().topic(at.0), self.outputs.error_of(of.0, of.1, reason));
        let (partition, offset, reason) = (at.0.number, at.1, name_of(reason));
        tracing::warn!(handler, topic, partition, offset, reason, error, dropped, "event skipped");
    }

    fn stop(&mut self, at: (Partition, i64), (call, row): (CallId, u32), reason: Reason) {
        let detail = self.outputs.error_of(call, row, reason);
        self.fail(self.place().handler_stop(at, reason, detail));
        self.asked.stop = true;
    }

    /// Keeps what the guest said about events that are not done: the core asks for their ending later.
    pub(super) fn record_errors(&mut self, now: Now, call: &Call) {
        if call.outcome == CallResult::Ended && call.results.refusals().is_empty() {
            return; // nearly always
        }
        let id = call.key.call;
        let mut first = 0;
        let mut refusals = call.results.refusals().iter().peekable();
        for (lane, (rows, end)) in (0_u32..).zip(call.batch.lanes().iter().zip(call.results.lane_ends())) {
            if let Some(refusal) = refusals.next_if(|refusal| refusal.lane == lane) {
                let row = first + end.done;
                self.outputs.texts.add(id, row, refusal.reason.clone());
                if let Verdict::Retry { .. } = refusal.verdict {
                    self.log_failed_attempt(now, call, row, &refusal.reason);
                }
            }
            first += rows;
        }
        if let CallResult::Failed(failure) = &call.outcome {
            self.outputs.texts.add(id, failure.row.unwrap_or(0), failure.message.clone());
            let Some(dropped) = self.lines.allow(Cause::CallFailed, now) else { return };
            let (handler, topic, fault) = (&self.name, call.batch.topic(), failure.fault);
            let (partition, offset) = call.batch.place(failure.row.unwrap_or(0) as usize).unwrap_or_default();
            let (rows, error) = (call.batch.rows(), failure.message.as_str());
            tracing::warn!(
                handler,
                ?fault,
                topic,
                partition,
                offset,
                rows,
                error,
                dropped,
                "guest call failed"
            );
        }
    }

    pub(super) fn log_start_not_found(&mut self, now: Now, partition: Partition, reason: &str) {
        let Some(dropped) = self.lines.allow(Cause::StartUnknown, now) else { return };
        let (handler, topic, partition) = (&self.name, self.place().topic(partition), partition.number);
        tracing::warn!(handler, topic, partition, reason, dropped, "start of a partition not known yet");
    }

    fn log_failed_attempt(&mut self, now: Now, call: &Call, row: u32, error: &str) {
        let Some(dropped) = self.lines.allow(Cause::Retry, now) else { return };
        let (partition, offset) = call.batch.place(row as usize).unwrap_or_default();
        let (handler, topic, attempt) = (&self.name, call.batch.topic(), call.batch.attempt());
        tracing::info!(
            handler,
            topic,
            partition,
            offset,
            attempt,
            error,
            dropped,
            "the handler asks for a retry"
        );
    }

    /// Says, now and then, that events have no lane key although the configuration says where it is.
    pub(super) fn log_missing_lane_keys(&mut self, now: Now) {
        let Some(MissingLaneKey { partition, offset, registered }) = self.miss else { return };
        if !self.lane_rule.loses_order_silently() {
            self.miss = None; // they share a lane, or each has an ending of its own
            return;
        }
        if self.lines.allow(Cause::NoLaneKey, now).is_none() {
            return;
        }
        self.miss = None;
        let events =
            self.lane_rule.missed() - std::mem::replace(&mut self.misses_told, self.lane_rule.missed());
        let remedy = if registered {
            "the value begins like that of a schema registry: write `registry-json:` instead of `json:`"
        } else {
            "see `lane_key`, or set `no_key = \"reject\"`, which sets them aside"
        };
        let (handler, topic, partition) = (&self.name, self.place().topic(partition), partition.number);
        tracing::warn!(
            handler,
            topic,
            partition,
            offset,
            events,
            remedy,
            "`lane_key` finds nothing in events, this one the first of them: their order is not kept"
        );
    }

    pub(super) fn log_commit_rejected(
        &mut self,
        now: Now,
        partition: Partition,
        code: &dyn std::fmt::Display,
        why: CommitError,
    ) {
        let Some(dropped) = self.lines.allow(Cause::CommitRefused, now) else { return };
        let (handler, topic, partition) = (&self.name, self.place().topic(partition), partition.number);
        let remedy = commit_remedy(why);
        tracing::warn!(handler, topic, partition, %code, remedy, dropped, "commit refused");
    }

    pub(super) fn log_client_error(&mut self, now: Now, error: &str) {
        let Some(dropped) = self.lines.allow(Cause::Client, now) else { return };
        let (handler, remedy) =
            (&self.name, "see whether the brokers run; the client connects again by itself");
        tracing::warn!(handler, error, remedy, dropped, "the consumer reports an error");
    }

    /// The client tries to join again and again: a rolling change of the assignor waits for its last old member.
    pub(super) fn log_other_assignor(&mut self, now: Now) {
        let Some(dropped) = self.lines.allow(Cause::OtherAssignor, now) else { return };
        let remedy = "wait until they have left; if they are to stay, set `kafka.assignor` as they have it (most clients: \
                      \"range\"), or use another `group_id`";
        tracing::warn!(
            handler = self.name,
            remedy,
            dropped,
            "waiting to join: the group has members with another assignor"
        );
    }

    /// Says, now and then, that an output that was sent again has lost its place.
    pub(super) fn log_order_break(&mut self, now: Now) {
        let Some((topic, landed)) = self.outputs.broken_at() else { return };
        let Some(dropped) = self.lines.allow(Cause::OrderBreak, now) else { return };
        let (handler, partition, offset) = (&self.name, landed.partition, landed.offset);
        let breaks = self.outputs.order_breaks();
        tracing::warn!(
            handler,
            topic,
            partition,
            offset,
            breaks,
            dropped,
            "an output that the brokers refused at first landed behind a later one of its lane"
        );
    }

    /// Takes the permission to read a partition back.
    pub(super) fn withdraw_permission(&mut self, partition: Partition) {
        self.permissions.retain(|permission| permission.partition != partition);
    }

    fn place(&self) -> NoticeLog<'_> {
        NoticeLog { handler: &self.name, topics: &self.topics }
    }
}
