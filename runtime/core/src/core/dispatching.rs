//! Dispatching: selects the events of the next call.

use std::time::Duration;

use super::Core;

use crate::calls::{Call, CallState};
use crate::event::Event;
use crate::lanes::Lanes;
use crate::outbox::Pending;
use crate::partitions::Partitions;
use crate::{CallId, Config, EventTimes, Now, SHORT_CALLS_MAX};

/// Target for the guest's work per call: long compared with the cost of a call, short enough to be fair to other calls.
const CALL_WORK_NS: u64 = 100_000;
/// Maximum bytes of a call, unless its only event is larger.
const CALL_BYTES_MAX: u64 = 1 << 20;

/// Call sizing: the capacity of the workers, and the handler's time per event.
#[derive(Debug)]
pub(super) struct CallSizing {
    /// Number of calls of [`CALL_WORK_NS`] that the workers accept at once.
    capacity: u32,
    /// Number of calls that the workers have, without suspended ones.
    busy: u32,
    /// Moving average of the handler's work per event, in nanoseconds.
    row_ns: u64,
    /// Whether a call of the handler was ever suspended. If so, its calls carry one event, unless `max_batch` is
    /// configured.
    suspends: bool,
}

impl CallSizing {
    pub(super) fn new() -> Self {
        // Nothing is measured yet: the first call carries one event.
        CallSizing { capacity: 0, busy: 0, row_ns: CALL_WORK_NS, suspends: false }
    }

    pub(super) fn add_capacity(&mut self, calls: u32) {
        self.capacity += calls;
    }

    pub(super) fn free_capacity(&mut self) {
        self.busy -= 1;
    }

    /// Returns whether the workers accept another call.
    fn has_capacity(&self, config: &Config) -> bool {
        let calls =
            if self.batch(config) == 1 { self.events_per_call().clamp(1, SHORT_CALLS_MAX) } else { 1 };
        self.busy < self.capacity.saturating_mul(calls)
    }

    /// Returns the number of events that amount to the target work of one call.
    fn events_per_call(&self) -> u32 {
        u32::try_from(CALL_WORK_NS / self.row_ns.max(1)).unwrap_or(u32::MAX)
    }

    pub(super) fn record_suspension(&mut self) {
        self.suspends = true;
    }

    fn record_work(&mut self, rows: u32, took: Duration) {
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let sample = (took / u64::from(rows.max(1))).clamp(1, 1 << 40);
        self.row_ns = (7 * self.row_ns + sample) / 8;
    }

    /// Returns the maximum number of events of the next call.
    fn batch(&self, config: &Config) -> u32 {
        if self.suspends && !config.max_batch_is_fixed {
            return 1;
        }
        self.events_per_call().clamp(1, config.max_batch)
    }
}

impl Core {
    pub(super) fn call_suspended(&mut self, id: CallId) {
        self.sizing.record_suspension();
        if let Some(call) = self.calls.get_mut(id)
            && call.is_unterminated()
            && !std::mem::replace(&mut call.suspended, true)
        {
            self.sizing.free_capacity();
        }
    }

    /// Records how long the guest worked for a valid result.
    pub(super) fn record_work(&mut self, id: CallId, took: Duration) {
        if let Some(call) = self.calls.get(id).filter(|call| call.state == CallState::Running) {
            self.sizing.record_work(call.len(), took);
        }
    }

    /// Returns the number of calls that the workers have, without suspended ones.
    pub(crate) fn calls_on_workers(&self) -> u32 {
        self.sizing.busy
    }

    pub(crate) fn is_at_call_limit(&self) -> bool {
        self.calls.unterminated >= self.config.max_concurrency
    }

    /// Begins outcomes that need no call, and forms calls as long as there are free workers and ready lanes.
    pub(super) fn dispatch(&mut self) {
        if self.drain.is_some() || self.stopping || self.output_backlog_full {
            return;
        }
        self.begin_without_call(); // the dead letters of these events may be the last that are kept
        if self.is_full() {
            return self.dispatch_while_full();
        }
        while self.may_form_call() {
            let Some(topic) = self.lanes.next_topic() else { return };
            self.form_call(topic);
        }
    }

    /// Returns whether no more effects may be kept.
    pub(super) fn is_full(&self) -> bool {
        self.transactions.as_ref().is_some_and(|transactions| transactions.is_full(self.now.uptime))
    }

    fn may_form_call(&self) -> bool {
        !self.stopping
            && self.sizing.has_capacity(&self.config)
            && !self.is_at_call_limit()
            && self.lanes.ready() > 0
    }

    /// Dispatches what is never held back while too many effects wait for a transaction: retries, and, if the sets of
    /// some partitions do not fit, one call at a time with the first unsettled events of partitions. Partitions are held
    /// then, so no other event without a retry is ready.
    fn dispatch_while_full(&mut self) {
        while self.may_form_call()
            && let Some((topic, lane)) = self.lanes.take_retry()
        {
            let id = self.form_single(topic, lane);
            self.begin_call(id);
        }
        let is_running = |id| self.calls.get(id).is_some_and(Call::is_unterminated);
        let may_begin = self.transactions.as_ref().is_some_and(|transactions| {
            transactions.any_held && !transactions.call_while_full.is_some_and(is_running)
        });
        self.begin_held_without_call();
        if may_begin
            && self.may_form_call()
            && let Some(topic) = self.lanes.next_topic()
        {
            let id = self.form_call(topic);
            if let Some(transactions) = &mut self.transactions {
                transactions.call_while_full = Some(id);
            }
        }
    }

    fn form_call(&mut self, topic: u16) -> CallId {
        let id = match self.lanes.take_retrying(topic) {
            Some(lane) => self.form_single(topic, lane),
            None => self.form_batch(topic),
        };
        self.begin_call(id);
        id
    }

    fn begin_call(&mut self, id: CallId) {
        self.sizing.busy += 1;
        self.outbox.push(Pending::Dispatch(id));
    }

    fn form_batch(&mut self, topic: u16) -> CallId {
        let batch = self.sizing.batch(&self.config);
        let id = self.calls.begin(topic, batch);
        let call = self.calls.get_mut(id).expect("it just began");
        let mut capacity = Capacity { rows: batch, bytes: 0 };
        while capacity.rows > 0
            && self.lanes.next_healthy_bytes(topic).is_some_and(|bytes| capacity.fits(bytes))
        {
            let Some(lane) = self.lanes.take_healthy(topic) else { break };
            take_lane(call, lane, &mut capacity, &mut self.lanes, &mut self.partitions, |event| {
                record_wait(&mut self.times, event, self.now);
            });
        }
        id
    }

    /// Forms a call with only the first event of a retrying lane: if the event fails again, no other is affected.
    fn form_single(&mut self, topic: u16, lane: u32) -> CallId {
        let id = self.calls.begin(topic, 1);
        let call = self.calls.get_mut(id).expect("it just began");
        let first = self.lanes.first(lane).expect("a ready lane has events");
        call.attempt = first.attempt;
        call.fresh = first.quarantined;
        let mut capacity = Capacity { rows: 1, bytes: 0 };
        let now = self.now;
        take_lane(call, lane, &mut capacity, &mut self.lanes, &mut self.partitions, |event| {
            record_wait(&mut self.times, event, now);
        });
        id
    }
}

/// The remaining capacity of a call being formed.
struct Capacity {
    rows: u32,
    /// Bytes taken so far.
    bytes: u64,
}

impl Capacity {
    fn fits(&self, bytes: u32) -> bool {
        self.rows > 0 && (self.bytes == 0 || self.bytes + u64::from(bytes) <= CALL_BYTES_MAX)
    }
}

/// Records how long an event has waited for its first dispatch.
fn record_wait(times: &mut EventTimes, event: &Event, now: Now) {
    if !event.dispatched {
        times.record_dispatched(event.admitted_ms, now);
    }
}

/// Moves events of a lane to the call, as many as fit.
fn take_lane(
    call: &mut Call,
    lane: u32,
    capacity: &mut Capacity,
    lanes: &mut Lanes,
    partitions: &mut Partitions,
    mut taken: impl FnMut(&Event),
) {
    let index = lanes.partition_of(lane);
    let state = partitions.get_mut(index);
    state.running += 1;
    let (partition, ownership) = (state.id, state.ownership);
    call.begin_lane(lane, index, ownership);
    while let Some(event) = lanes.pop_if(lane, |bytes| capacity.fits(bytes)) {
        taken(&event);
        capacity.rows -= 1;
        capacity.bytes += u64::from(event.bytes);
        state.dispatched_to = state.dispatched_to.max(event.offset);
        call.push(partition, ownership, &event);
        if capacity.rows == 0 || !lanes.bring_next(lane, &event) {
            break;
        }
    }
    lanes.end_taking();
}
