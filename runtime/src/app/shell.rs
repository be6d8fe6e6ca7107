//! Carries out what the core asks for. It owns everything that the core must not know: clients, bytes, calls.

use std::collections::VecDeque;
use std::time::Duration;

use keylane_core::{Action, CallId, FetchedRow, HandlerStop, Partition, ReadError};

use crate::admit::{Arena, LaneRule};
use crate::guest::{Call, Outcome, Refusal};
use crate::source::Source;

use super::guest_calls::GuestCalls;
use super::notices::Place;
use super::outputs::Outputs;

/// One side of a handler's loop; the core is the other.
pub(super) struct Shell {
    pub(super) name: String,
    pub(super) topics: Vec<String>,
    pub(super) source: Source,
    pub(super) arena: Arena,
    pub(super) lane_rule: LaneRule,
    pub(super) calls: GuestCalls,
    pub(super) outputs: Outputs,
    /// What may be read, in turn.
    pub(super) permissions: VecDeque<Permission>,
    /// The call whose end the core is hearing of: its outputs may be handed over.
    pub(super) ended: Option<Box<Call>>,
    /// Rows of the read under way.
    rows: Vec<FetchedRow>,
    pub(super) asked: Asked,
    pub(super) failures: Vec<String>,
    pub(super) calls_made: u64,
}

/// What the core decided about the loop itself.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asked {
    /// The handler can't go on.
    pub(super) stop: bool,
    /// A partition can't go on.
    pub(super) partition_stopped: bool,
    /// Everything up to the ends is committed.
    pub(super) end_reached: bool,
    /// The drain is over.
    pub(super) drained: bool,
    /// A call can't be cancelled: the process must end.
    pub(super) stuck: bool,
    /// How many partitions the last answered assignments left us with.
    pub(super) owned: usize,
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

/// What one read came to.
#[derive(Debug)]
pub(super) struct Read<'a> {
    pub(super) rows: &'a [FetchedRow],
    pub(super) end_of_partition: Option<i64>,
    pub(super) error: Option<ReadError>,
    pub(super) more: bool,
}

impl Shell {
    pub(super) fn new(
        name: String,
        topics: Vec<String>,
        source: Source,
        lane_rule: LaneRule,
        calls: GuestCalls,
        outputs: Outputs,
    ) -> Self {
        Shell {
            name,
            topics,
            source,
            arena: Arena::default(),
            lane_rule,
            calls,
            outputs,
            permissions: VecDeque::new(),
            ended: None,
            rows: Vec::new(),
            asked: Asked::default(),
            failures: Vec::new(),
            calls_made: 0,
        }
    }

    /// Does one thing that the core asked for. Nothing here waits.
    pub(super) fn carry_out(&mut self, now: Duration, action: Action<'_>) {
        match action {
            Action::LookUpStart { partition } => self.source.look_up_start(partition),
            Action::AnswerAssign { starts } => {
                self.asked.owned += starts.len();
                self.asked.assigned = true;
                self.source.answer_assign(starts);
            }
            Action::AnswerRevoke { partitions } => {
                self.asked.owned = self.asked.owned.saturating_sub(partitions.len());
                self.source.answer_revoke(partitions);
            }
            Action::Reposition { partition, offset } => self.source.reposition(partition, offset),
            Action::Reassign { partition, offset } => self.source.reassign(partition, offset),
            Action::LeaveGroup => {} // after `Drained`, when the loop gives the source up
            Action::Read { partition, max_events, max_bytes } => {
                self.forbid(partition);
                self.permissions.push_back(Permission { partition, max_events, max_bytes });
            }
            Action::StopReading { partition } => self.forbid(partition),
            Action::Dispatch(dispatch) => {
                let topic = self.topics.get(usize::from(dispatch.topic)).map_or("", String::as_str);
                self.outputs.remember_sessions(&dispatch);
                self.calls.submit(&dispatch, topic, &mut self.arena);
                self.calls_made += 1;
            }
            Action::Cancel { call } => self.calls.cancel(call),
            Action::ReleaseRows { places } => places.iter().for_each(|&place| self.arena.release(place)),
            Action::HandOver { call, rows } => self.hand_over(call, rows),
            Action::Commit { id, entries, metadata } => self.source.commit(now, id, entries, metadata),
            Action::ReportStall(stall) => self.place().stall(&stall),
            Action::StallEnded { partition } => self.place().stall_ended(partition),
            Action::Notice(notice) => self.place().notice(notice),
            Action::PartitionStopped { partition, offset, reason } => {
                self.fail(self.place().partition_stop(partition, offset, reason));
                self.asked.partition_stopped = true;
            }
            Action::StopHandler { partition, offset, reason } => self.stop((partition, offset), reason),
            Action::EndReached => self.asked.end_reached = true,
            Action::Drained { clean } => {
                self.asked.drained = true;
                tracing::info!(handler = self.name, clean, "drained");
            }
            Action::CallStuck { call } => {
                self.asked.stuck = true;
                self.fail(format!(
                    "guest call {call:?} does not end although it was cancelled; the process ends"
                ));
            }
        }
    }

    /// Reads once, within the permission. The rows stay lent until the next read.
    pub(super) fn read(&mut self, permission: Permission) -> Read<'_> {
        let Shell { source, arena, lane_rule, rows, .. } = self;
        rows.clear();
        let Permission { partition, max_events, max_bytes } = permission;
        let read = source.read(partition, max_events, max_bytes, &mut |record| {
            let key = record.key();
            let (place, bytes) = arena.store(key, record.value(), record.headers());
            rows.push(FetchedRow {
                offset: record.offset(),
                timestamp: record.timestamp(),
                bytes,
                place,
                admission: lane_rule.admission(key),
            });
            bytes
        });
        Read { rows: &self.rows, end_of_partition: read.end_of_partition, error: read.error, more: read.more }
    }

    pub(super) fn fail(&mut self, failure: String) {
        tracing::error!(handler = self.name, failure, "needs attention");
        self.failures.push(failure);
    }

    fn hand_over(&mut self, call: CallId, rows: &[u32]) {
        let ended = self.ended.as_deref().expect("outputs are handed over while their call's end is heard");
        assert!(ended.key.call == call, "outputs of {call:?} asked for, {:?} has ended", ended.key.call);
        self.outputs.hand_over(ended, rows);
    }

    fn stop(&mut self, at: (Partition, i64), reason: HandlerStop) {
        let detail = self.stop_detail(at, reason);
        self.fail(self.place().handler_stop(at, reason, &detail));
        self.asked.stop = true;
    }

    /// The guest's or the brokers' own words about it.
    fn stop_detail(&self, at: (Partition, i64), reason: HandlerStop) -> String {
        if reason == HandlerStop::OutputRefused {
            return self.outputs.last_refusal().to_owned();
        }
        let Some(call) = self.ended.as_deref() else { return String::new() };
        if let Outcome::Failed(failure) = &call.outcome {
            let events = call.batch.rows();
            return match failure.row.and_then(|row| call.batch.place(row as usize)) {
                Some((partition, offset)) => {
                    format!("{} (partition {partition} offset {offset})", failure.message)
                }
                None if events > 1 => {
                    format!("{} (one of the {events} events of this call)", failure.message)
                }
                None => failure.message.clone(),
            };
        }
        refusal_at(call, at).map(|refusal| refusal.reason.clone()).unwrap_or_default()
    }

    fn forbid(&mut self, partition: Partition) {
        self.permissions.retain(|permission| permission.partition != partition);
    }

    fn place(&self) -> Place<'_> {
        Place { handler: &self.name, topics: &self.topics }
    }
}

/// What the guest said about the event at this place.
fn refusal_at(call: &Call, at: (Partition, i64)) -> Option<&Refusal> {
    let place = (at.0.number.unsigned_abs(), at.1.unsigned_abs());
    call.results.refusals().iter().find(|refusal| {
        let lane = refusal.lane as usize;
        let first: u32 = call.batch.lanes().iter().take(lane).sum();
        let done = call.results.lane_ends().get(lane).map_or(0, |end| end.done);
        call.batch.place((first + done) as usize) == Some(place)
    })
}
