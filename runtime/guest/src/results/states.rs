//! The states of a call's lanes after their done rows.

use super::super::batch::ABSENT;

/// Capacity beyond this is freed between calls, as for outputs.
const KEPT_ENTRIES: usize = super::KEPT_ENTRIES / 8;

/// Maximum bytes of states that are only needed if rows are retracted. Beyond it, a lane keeps only its newest state.
const HISTORY_BYTES_MAX: usize = 8 << 20;

/// The limits of a handler's states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateLimits {
    /// Maximum size of one state, in bytes.
    pub max_bytes: usize,
}

impl StateLimits {
    /// Checks the size of a state. The error names size and limit.
    pub(in super::super) fn check(&self, lane: u32, bytes: usize) -> Result<(), String> {
        let max = self.max_bytes;
        if bytes <= max {
            return Ok(());
        }
        Err(format!(
            "the new state of lane {lane} has {bytes} bytes, the limit is {max}: keep less, or set `state.max_value`"
        ))
    }
}

/// A lane's state after its done rows, which differs from the state before them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateChange<'a> {
    /// The lane, by its position in the call.
    pub lane: u32,
    /// The last done row of the lane in this call.
    pub row: u32,
    /// The new state; `None`: the state is deleted.
    pub state: Option<&'a [u8]>,
}

/// The error of retracting a row when the state before it is unknown. The call must fail as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownState {
    /// The lane, by its position in the call.
    pub lane: u32,
    /// Number of the lane's rows before the retracted one.
    pub done: u32,
    /// Why the row was retracted.
    pub reason: String,
}

impl std::fmt::Display for UnknownState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let UnknownState { lane, done, reason } = self;
        write!(f, "row {done} of lane {lane} is not done, and the state before it is unknown: {reason}")
    }
}

/// What is known about a lane's state after some of its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StateAfter {
    /// It is the state before the call.
    Unchanged,
    /// It differs from the state before the call.
    Changed,
    /// It can't be known.
    Unknown,
}

/// The states after the rows that changed them.
#[derive(Debug, Default)]
pub(super) struct States {
    /// Ascending by row.
    entries: Vec<Entry>,
    /// The bytes of all entries, in their order.
    data: Vec<u8>,
    /// Whether the states are known only after the last done row of each lane, as for a `batch-handler`. Then even a lane
    /// without an entry may have had other states in between.
    only_last: bool,
}

/// The state of a lane after a row.
#[derive(Clone, Copy, Debug)]
struct Entry {
    lane: u32,
    /// The lane's first row in this call.
    first: u32,
    row: u32,
    /// Where the bytes begin.
    start: usize,
    /// Number of bytes; [`ABSENT`]: the state was deleted.
    length: i32,
    /// Whether earlier states of this lane in this call were discarded.
    is_cut: bool,
}

impl Entry {
    fn bytes<'a>(&self, data: &'a [u8]) -> Option<&'a [u8]> {
        let length = usize::try_from(self.length).ok()?; // negative: absent
        data.get(self.start..self.start.checked_add(length)?)
    }
}

impl States {
    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.entries.shrink_to(KEPT_ENTRIES);
        self.data.clear();
        self.data.shrink_to(super::KEPT_BYTES);
        self.only_last = false;
    }

    /// States that are pushed from now on are those after the last done rows of lanes.
    pub(super) fn begin_only_last(&mut self) {
        self.only_last = true;
    }

    /// Adds the state after a row, which is higher than all rows before. `first`: the first row of the lane.
    pub(super) fn push(&mut self, lane: u32, first: u32, row: u32, state: Option<&[u8]>) {
        let mut is_cut = false;
        if self.data.len() > HISTORY_BYTES_MAX
            && let Some(oldest) = self.entries_of(lane).first().copied()
        {
            is_cut = true;
            let before = self.entries.partition_point(|entry| entry.lane < lane);
            self.entries.truncate(before);
            self.data.truncate(oldest.start);
        }
        let length = state.map_or(ABSENT, |state| {
            i32::try_from(state.len()).expect("the memory of a guest, and so a state, is smaller than 2 GiB")
        });
        self.entries.push(Entry { lane, first, row, start: self.data.len(), length, is_cut });
        self.data.extend_from_slice(state.unwrap_or_default());
    }

    /// Returns the last state of the lane that was pushed. The outer `None`: none was pushed.
    pub(super) fn newest(&self, lane: u32) -> Option<Option<&[u8]>> {
        let newest = self.entries.last().filter(|entry| entry.lane == lane)?;
        Some(newest.bytes(&self.data))
    }

    /// Returns the first row of a lane with a pushed state.
    pub(super) fn first_row(&self, lane: u32) -> Option<u32> {
        self.entries_of(lane).first().map(|entry| entry.first)
    }

    /// Returns what is known about the lane's state after `done` of its rows, when more of them were done before.
    pub(super) fn after(&self, lane: u32, done: u32) -> StateAfter {
        let entries = self.entries_of(lane);
        if done == 0 {
            StateAfter::Unchanged
        } else if self.only_last {
            StateAfter::Unknown
        } else if entries.iter().any(|entry| entry.row < entry.first + done) {
            StateAfter::Changed
        } else if entries.iter().any(|entry| entry.is_cut) {
            StateAfter::Unknown
        } else {
            StateAfter::Unchanged
        }
    }

    /// Returns the change of each lane after its done rows. `done`: the number of done rows of a lane.
    pub(super) fn changes(&self, done: impl Fn(u32) -> u32) -> impl Iterator<Item = StateChange<'_>> {
        let following = self.entries.iter().skip(1).map(Some).chain([None]);
        self.entries.iter().zip(following).filter_map(move |(entry, next)| {
            let end = entry.first + done(entry.lane);
            let is_superseded = next.is_some_and(|next| next.lane == entry.lane && next.row < end);
            (entry.row < end && !is_superseded).then(|| StateChange {
                lane: entry.lane,
                row: end - 1,
                state: entry.bytes(&self.data),
            })
        })
    }

    /// Returns the size of the buffer of states, in bytes.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.data.capacity()
    }

    fn entries_of(&self, lane: u32) -> &[Entry] {
        let start = self.entries.partition_point(|entry| entry.lane < lane);
        let end = self.entries.partition_point(|entry| entry.lane <= lane);
        self.entries.get(start..end).unwrap_or_default()
    }
}
