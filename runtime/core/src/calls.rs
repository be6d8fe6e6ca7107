//! Guest calls: the rows of each, and how far they are settled.

#![expect(
    clippy::indexing_slicing,
    reason = "every index comes from the same `Slab`; topics are below the configured number"
)]

use crate::event::Event;
use crate::slab::Slab;
use crate::{CallId, KeptEffect, OwnershipId, Partition, Reason, Row};
use std::time::Duration;

/// All calls that are running or wait for acks, in reused slots.
#[derive(Debug)]
pub(crate) struct Calls {
    slots: Slab<Call>,
    /// Calls that have not terminated.
    pub(crate) unterminated: u32,
    /// Number of slots used for outcomes that need no guest call, by topic.
    without_call: Vec<u32>,
}

#[derive(Debug)]
pub(crate) struct Call {
    reuse_count: u32,
    pub(crate) topic: u16,
    /// The attempt number of all its events.
    pub(crate) attempt: u32,
    /// Whether the call needs an instance that has processed no call.
    pub(crate) fresh: bool,
    pub(crate) state: CallState,
    /// Whether there is no guest call: the slot is used for an event whose outcome was known when it was read.
    without_call: bool,
    /// Whether the call was suspended. It freed its worker then, not at its end.
    pub(crate) suspended: bool,
    pub(crate) rows: Vec<Row>,
    /// The state of each row that is not part of [`Row`].
    pub(crate) row_states: Vec<RowState>,
    pub(crate) lanes: Vec<CallLane>,
    /// Rows whose outputs are to be submitted to the producer.
    pub(crate) to_produce: Vec<u32>,
    /// Transactional delivery: rows with outputs, ascending, and the bytes of those outputs.
    pub(crate) output_bytes: Vec<(u32, u32)>,
    /// Number of lanes that the call has not released.
    pub(crate) lanes_held: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallState {
    /// The slot is free.
    Free,
    /// The guest call is running.
    Running,
    /// Cancelled; this many checks have found it still running.
    Cancelled(u32),
    /// Cancelled, and reported as not terminating.
    Stuck,
    /// Terminated; some effects are not acked yet.
    Terminated,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct RowState {
    /// Its share of the partition's `queued_bytes`.
    pub(crate) bytes: u32,
    /// See [`Event::admitted_ms`].
    pub(crate) admitted_ms: u32,
    /// See [`Event::order`].
    pub(crate) order: u32,
    /// Whether it is dead-lettered or skipped.
    pub(crate) failed: bool,
    pub(crate) awaited: Awaited,
}

/// What a row waits for after its call has ended, besides the rows before it in its lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Awaited {
    /// Nothing.
    Nothing,
    /// The acks of its effects, which were submitted to the producer.
    Acks(Effect),
    /// Transactional delivery: nothing, and its effects are kept when it settles.
    Transaction(KeptEffect),
    /// Its outcome, because it can't be handled. The outcome is applied when the rows before it have settled.
    Outcome(Reason),
}

/// What an event publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Records on output topics.
    Outputs,
    /// A record on the dead-letter topic.
    DeadLetter,
}

/// The rows of one lane in a call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallLane {
    /// Index of the lane.
    pub(crate) index: u32,
    /// Index of the partition.
    pub(crate) partition: u32,
    pub(crate) ownership: OwnershipId,
    /// Its first row.
    pub(crate) start: u32,
    /// One past its last row.
    pub(crate) end: u32,
    /// One past its last settled row.
    pub(crate) settled_to: u32,
    /// One past its last row that is done or can't be handled; meaningful after the call has ended. The rows from there
    /// on go back to the lane.
    pub(crate) decided_to: u32,
    /// How the lane resumes, if a row failed.
    pub(crate) resume: Resume,
    /// Whether its results no longer count, because its ownership accepts none.
    pub(crate) disowned: bool,
    /// Whether the call has released the lane: it is finished, or disowned and the call has terminated.
    pub(crate) released: bool,
}

/// How a lane resumes with the first row that went back to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resume {
    /// As if the row had never been dispatched.
    Unchanged,
    /// With the next attempt, at this uptime.
    Retry(Duration),
    /// With the same attempt, and each row on an instance of its own.
    Quarantined,
}

impl Calls {
    pub(crate) fn new(topics: u16) -> Self {
        Calls { slots: Slab::new(), unterminated: 0, without_call: vec![0; topics.into()] }
    }

    /// Begins an empty call, with capacity for `batch` rows.
    pub(crate) fn begin(&mut self, topic: u16, batch: u32) -> CallId {
        let slot = self.slots.acquire(Call::empty);
        let call = &mut self.slots[slot];
        assert!(call.state == CallState::Free, "call slot {slot} is in use: {:?}", call.state);
        call.begin(topic);
        call.reserve(batch as usize);
        self.unterminated += 1;
        CallId { slot, reuse_count: call.reuse_count }
    }

    /// Takes a slot for an outcome that needs no guest call. Its event settles as if a call had ended.
    pub(crate) fn begin_without_call(&mut self, topic: u16) -> CallId {
        let slot = self.slots.acquire(Call::empty);
        let call = &mut self.slots[slot];
        assert!(call.state == CallState::Free, "call slot {slot} is in use: {:?}", call.state);
        call.begin(topic);
        call.state = CallState::Terminated;
        call.without_call = true;
        self.without_call[usize::from(topic)] += 1;
        CallId { slot, reuse_count: call.reuse_count }
    }

    /// Returns the number of outcomes of a topic that need no call, and that have begun but not settled.
    pub(crate) fn without_call(&self, topic: u16) -> u32 {
        self.without_call[usize::from(topic)]
    }

    /// Returns the call; `None`: it was removed, and its slot may have another user.
    pub(crate) fn get_mut(&mut self, id: CallId) -> Option<&mut Call> {
        let call = self.slots.get_mut(id.slot)?;
        (call.reuse_count == id.reuse_count && call.state != CallState::Free).then_some(call)
    }

    /// Returns the call, as [`Calls::get_mut`] does.
    pub(crate) fn get(&self, id: CallId) -> Option<&Call> {
        let call = self.slots.get(id.slot)?;
        (call.reuse_count == id.reuse_count && call.state != CallState::Free).then_some(call)
    }

    /// Returns the ids of all calls that are running or wait for acks.
    pub(crate) fn ids(&self) -> impl Iterator<Item = CallId> + '_ {
        self.slots
            .indexes()
            .filter(|&slot| self.slots[slot].state != CallState::Free)
            .map(|slot| CallId { slot, reuse_count: self.slots[slot].reuse_count })
    }

    /// Checks the cancelled calls. Returns a call that has failed `checks_max` checks, including this one.
    pub(crate) fn find_stuck(&mut self, checks_max: u32) -> Option<CallId> {
        for slot in self.slots.indexes() {
            let call = &mut self.slots[slot];
            if let CallState::Cancelled(checks) = &mut call.state {
                *checks += 1;
                if *checks >= checks_max {
                    call.state = CallState::Stuck;
                    return Some(CallId { slot, reuse_count: call.reuse_count });
                }
            }
        }
        None
    }

    /// Frees the slot of a call that holds no lane.
    pub(crate) fn remove(&mut self, id: CallId) {
        let call = &mut self.slots[id.slot];
        assert!(call.lanes_held == 0, "call {id:?} still holds {} lanes", call.lanes_held);
        call.state = CallState::Free;
        self.without_call[usize::from(call.topic)] -= u32::from(call.without_call);
        self.slots.free(id.slot);
    }
}

impl Call {
    fn empty() -> Self {
        Call {
            reuse_count: 0,
            topic: 0,
            attempt: 1,
            fresh: false,
            state: CallState::Free,
            without_call: false,
            suspended: false,
            rows: Vec::new(),
            row_states: Vec::new(),
            lanes: Vec::new(),
            to_produce: Vec::new(),
            output_bytes: Vec::new(),
            lanes_held: 0,
        }
    }

    fn begin(&mut self, topic: u16) {
        self.reuse_count = self.reuse_count.wrapping_add(1);
        self.topic = topic;
        self.attempt = 1;
        self.fresh = false;
        self.state = CallState::Running;
        self.without_call = false;
        self.suspended = false;
        self.rows.clear();
        self.row_states.clear();
        self.lanes.clear();
        self.to_produce.clear();
        self.output_bytes.clear();
        self.lanes_held = 0;
    }

    /// Reserves capacity for the batch size, so that a slot grows once instead of at every larger call.
    fn reserve(&mut self, batch: usize) {
        self.rows.reserve(batch);
        self.row_states.reserve(batch);
        self.lanes.reserve(batch);
        self.to_produce.reserve(batch);
    }

    /// Returns the number of rows so far.
    pub(crate) fn len(&self) -> u32 {
        u32::try_from(self.rows.len()).expect("max_batch is far below 2^32")
    }

    /// Begins the rows of one lane.
    pub(crate) fn begin_lane(&mut self, lane: u32, partition: u32, ownership: OwnershipId) {
        let start = self.len();
        self.lanes.push(CallLane {
            index: lane,
            partition,
            ownership,
            start,
            end: start,
            settled_to: start,
            decided_to: start,
            resume: Resume::Unchanged,
            disowned: false,
            released: false,
        });
        self.lanes_held += 1;
    }

    /// Adds a row to the last lane.
    pub(crate) fn push(&mut self, partition: Partition, ownership: OwnershipId, event: &Event) {
        let &Event { offset, timestamp, arena_slot, bytes, admitted_ms, order, .. } = event;
        self.rows.push(Row { partition, ownership, offset, timestamp, arena_slot });
        let awaited = Awaited::Nothing;
        self.row_states.push(RowState { bytes, admitted_ms, order, failed: false, awaited });
        let lane = self.lanes.last_mut().expect("a lane was begun");
        lane.end += 1;
    }

    /// Returns the number of rows per lane, in the order of the call.
    pub(crate) fn lane_lengths(&self) -> impl Iterator<Item = u32> + '_ {
        self.lanes.iter().map(|lane| lane.end - lane.start)
    }

    /// Returns whether the call has not terminated.
    pub(crate) fn is_unterminated(&self) -> bool {
        matches!(self.state, CallState::Running | CallState::Cancelled(_) | CallState::Stuck)
    }

    /// Returns whether no result of the call counts any more.
    pub(crate) fn is_disowned(&self) -> bool {
        self.lanes.iter().all(|lane| lane.disowned)
    }

    pub(crate) fn awaited(&self, row: u32) -> Awaited {
        self.row_states.get(row as usize).map_or(Awaited::Nothing, |row_state| row_state.awaited)
    }

    pub(crate) fn set_awaited(&mut self, row: u32, awaited: Awaited) {
        self.row_states.get_mut(row as usize).expect("a row of this call").awaited = awaited;
    }

    /// Notes that a row is dead-lettered or skipped.
    pub(crate) fn set_failed(&mut self, row: u32) {
        self.row_states.get_mut(row as usize).expect("a row of this call").failed = true;
    }

    /// Returns the position of the lane that a row belongs to.
    pub(crate) fn lane_of(&self, row: u32) -> usize {
        self.lanes.partition_point(|lane| lane.end <= row)
    }

    pub(crate) fn row(&self, row: u32) -> Row {
        *self.rows.get(row as usize).expect("a row of this call")
    }

    /// Returns the event of a row, as it was dispatched.
    pub(crate) fn event(&self, row: u32) -> Event {
        let Row { offset, timestamp, arena_slot, .. } = self.row(row);
        let &RowState { bytes, admitted_ms, order, .. } =
            self.row_states.get(row as usize).expect("every row has a state");
        Event {
            offset,
            timestamp,
            arena_slot,
            bytes,
            admitted_ms,
            attempt: self.attempt,
            quarantined: self.fresh,
            dispatched: true,
            order,
        }
    }
}
