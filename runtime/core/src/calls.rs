//! Guest calls: what each carries and which of its rows have reached their ending.

#![expect(
    clippy::indexing_slicing,
    reason = "`Slab` says in one place why its indexes are good; topics are known"
)]

use crate::slab::Slab;
use crate::{CallId, OwnershipId, Reason, Row};
use std::time::Duration;

/// All calls that are out or wait for acks, at reused places.
#[derive(Debug)]
pub(crate) struct Calls {
    slots: Slab<Call>,
    /// Calls that have not really ended.
    pub(crate) out: u32,
    /// Places of outcomes that need no call, by topic.
    without_guest: Vec<u32>,
}

#[derive(Debug)]
pub(crate) struct Call {
    generation: u32,
    pub(crate) topic: u16,
    /// Of all its events.
    pub(crate) attempt: u32,
    /// It needs an instance that has served no call.
    pub(crate) fresh: bool,
    pub(crate) state: CallState,
    /// It is no call: the outcome of its event was known before.
    without_guest: bool,
    /// Its worker's place was given back early.
    pub(crate) suspended: bool,
    pub(crate) rows: Vec<Row>,
    /// What is known of each row, beside what the shell sees.
    pub(crate) row_states: Vec<RowState>,
    pub(crate) parts: Vec<Part>,
    /// Rows whose outputs are handed over.
    pub(crate) to_produce: Vec<u32>,
    /// Parts that still hold their lane.
    pub(crate) parts_left: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallState {
    /// The place is free.
    Free,
    /// With the guest.
    Out,
    /// Asked to go away; so many looks have found it still there.
    Cancelled(u32),
    /// It is known that it never went away.
    Stuck,
    /// Really ended; some outputs are not acked yet.
    Unacked,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct RowState {
    /// What it takes of the partition's share of the memory.
    pub(crate) bytes: u32,
    pub(crate) waits: RowWait,
}

/// What a row that is done with the guest waits for, beside those before it in its lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowWait {
    /// Nothing.
    Not,
    /// Its outputs were handed over.
    Acks,
    /// It can't be handled; its ending comes when its turn does.
    Ending(Reason),
    /// Its dead letter was handed over.
    DeadLetter,
}

/// The rows of one lane in a call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub(crate) lane: u32,
    /// Index of the partition.
    pub(crate) partition: u32,
    pub(crate) ownership: OwnershipId,
    /// First row.
    pub(crate) first: u32,
    /// One past the last row.
    pub(crate) end: u32,
    /// Rows of it that are settled, from `first` on.
    pub(crate) settled_to: u32,
    /// One past its last row that is done or can't be handled; meaningful once the call ended. The rows behind it go
    /// back to the lane.
    pub(crate) done_to: u32,
    /// How the lane goes on, if a row failed.
    pub(crate) resume: Resume,
    /// Its ownership is over, or it has reached its ending: nothing of it counts any more.
    pub(crate) over: bool,
    /// It gave its lane back.
    pub(crate) released: bool,
}

/// How a lane goes on with the first row that went back to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resume {
    /// As if it had never been dispatched.
    Unchanged,
    /// Its next attempt, at this uptime.
    Retry(Duration),
    /// The same attempt, and each row on an instance of its own.
    Quarantined,
}

impl Calls {
    pub(crate) fn new(topics: u16) -> Self {
        Calls { slots: Slab::new(), out: 0, without_guest: vec![0; topics.into()] }
    }

    /// A new empty call, with room for so many rows.
    pub(crate) fn begin(&mut self, topic: u16, batch: u32) -> CallId {
        let slot = self.slots.claim(Call::empty);
        let call = &mut self.slots[slot];
        assert!(call.state == CallState::Free, "call slot {slot} is in use: {:?}", call.state);
        call.begin(topic);
        call.reserve(batch as usize);
        self.out += 1;
        CallId { slot, generation: call.generation }
    }

    /// A place for an outcome that needs no call: what comes of it is acknowledged, and settles, as if a call had ended.
    pub(crate) fn begin_without_guest(&mut self, topic: u16) -> CallId {
        let slot = self.slots.claim(Call::empty);
        let call = &mut self.slots[slot];
        assert!(call.state == CallState::Free, "call slot {slot} is in use: {:?}", call.state);
        call.begin(topic);
        call.state = CallState::Unacked;
        call.without_guest = true;
        self.without_guest[usize::from(topic)] += 1;
        CallId { slot, generation: call.generation }
    }

    /// How many outcomes of a topic that need no call have begun and have not settled.
    pub(crate) fn without_guest(&self, topic: u16) -> u32 {
        self.without_guest[usize::from(topic)]
    }

    /// The call, unless it is over and its place has another user.
    pub(crate) fn get_mut(&mut self, id: CallId) -> Option<&mut Call> {
        let call = self.slots.get_mut(id.slot)?;
        (call.generation == id.generation && call.state != CallState::Free).then_some(call)
    }

    /// See [`Calls::get_mut`].
    pub(crate) fn get(&self, id: CallId) -> Option<&Call> {
        let call = self.slots.get(id.slot)?;
        (call.generation == id.generation && call.state != CallState::Free).then_some(call)
    }

    /// Ids of all calls that are out or wait for acks.
    pub(crate) fn ids(&self) -> impl Iterator<Item = CallId> + '_ {
        self.slots
            .indexes()
            .filter(|&slot| self.slots[slot].state != CallState::Free)
            .map(|slot| CallId { slot, generation: self.slots[slot].generation })
    }

    /// Looks for calls that were cancelled and are still there. Gives one that was there for the `most`th time.
    pub(crate) fn find_stuck(&mut self, most: u32) -> Option<CallId> {
        for slot in self.slots.indexes() {
            let call = &mut self.slots[slot];
            if let CallState::Cancelled(looks) = &mut call.state {
                *looks += 1;
                if *looks >= most {
                    call.state = CallState::Stuck;
                    return Some(CallId { slot, generation: call.generation });
                }
            }
        }
        None
    }

    /// Nothing of the call is left: its place is free.
    pub(crate) fn forget(&mut self, id: CallId) {
        let call = &mut self.slots[id.slot];
        assert!(call.parts_left == 0, "call {id:?} still holds {} lanes", call.parts_left);
        call.state = CallState::Free;
        self.without_guest[usize::from(call.topic)] -= u32::from(call.without_guest);
        self.slots.free(id.slot);
    }
}

impl Call {
    fn empty() -> Self {
        Call {
            generation: 0,
            topic: 0,
            attempt: 1,
            fresh: false,
            state: CallState::Free,
            without_guest: false,
            suspended: false,
            rows: Vec::new(),
            row_states: Vec::new(),
            parts: Vec::new(),
            to_produce: Vec::new(),
            parts_left: 0,
        }
    }

    fn begin(&mut self, topic: u16) {
        self.generation = self.generation.wrapping_add(1);
        self.topic = topic;
        self.attempt = 1;
        self.fresh = false;
        self.state = CallState::Out;
        self.without_guest = false;
        self.suspended = false;
        self.rows.clear();
        self.row_states.clear();
        self.parts.clear();
        self.to_produce.clear();
        self.parts_left = 0;
    }

    /// A place grows once to the size of the calls it is used for, not now and then for its rarest.
    fn reserve(&mut self, batch: usize) {
        self.rows.reserve(batch);
        self.row_states.reserve(batch);
        self.parts.reserve(batch);
        self.to_produce.reserve(batch);
    }

    /// Rows so far.
    pub(crate) fn len(&self) -> u32 {
        u32::try_from(self.rows.len()).expect("max_batch is far below 2^32")
    }

    /// Begins the rows of one lane.
    pub(crate) fn begin_part(&mut self, lane: u32, partition: u32, ownership: OwnershipId) {
        let first = self.len();
        self.parts.push(Part {
            lane,
            partition,
            ownership,
            first,
            end: first,
            settled_to: first,
            done_to: first,
            resume: Resume::Unchanged,
            over: false,
            released: false,
        });
        self.parts_left += 1;
    }

    /// Adds a row to the lane begun last.
    pub(crate) fn push(&mut self, row: Row, bytes: u32) {
        self.rows.push(row);
        self.row_states.push(RowState { bytes, waits: RowWait::Not });
        let part = self.parts.last_mut().expect("a part was begun");
        part.end += 1;
    }

    /// Rows per lane, as the guest sees it.
    pub(crate) fn lane_lengths(&self) -> impl Iterator<Item = u32> + '_ {
        self.parts.iter().map(|part| part.end - part.first)
    }

    /// Whether it has not really ended.
    pub(crate) fn is_out(&self) -> bool {
        matches!(self.state, CallState::Out | CallState::Cancelled(_) | CallState::Stuck)
    }

    /// Whether nothing it could still return counts.
    pub(crate) fn is_pointless(&self) -> bool {
        self.parts.iter().all(|part| part.over)
    }

    pub(crate) fn waits(&self, row: u32) -> RowWait {
        self.row_states.get(row as usize).map_or(RowWait::Not, |known| known.waits)
    }

    pub(crate) fn set_waits(&mut self, row: u32, waits: RowWait) {
        self.row_states.get_mut(row as usize).expect("a row of this call").waits = waits;
    }

    /// Index of the lane that a row belongs to.
    pub(crate) fn part_of(&self, row: u32) -> usize {
        self.parts.partition_point(|part| part.end <= row)
    }

    pub(crate) fn row(&self, row: u32) -> Row {
        *self.rows.get(row as usize).expect("a row of this call")
    }
}
