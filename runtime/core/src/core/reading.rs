//! Reading: admits rows, verifies gaps, and permits reads.

use super::Core;
use crate::outbox::Pending;
use crate::partitions::{Phase, PositionState, ReadPause};
use crate::{Admission, EventOrder, FetchedRow, Notice, Partition, ReadError, ReadLimit, Reason};

/// Maximum events per read: larger reads gain little, and other partitions must have their turn.
const READ_EVENTS_MAX: u64 = 1024;
/// Maximum bytes per read, for the same reason.
const READ_BYTES_MAX: u64 = 512 << 10;

/// Which partitions' permissions to read must be decided again, and how many ownerships share the arena.
#[derive(Debug, Default)]
pub(super) struct ReadScheduling {
    /// Indexes of partitions whose permission must be decided again.
    pub(super) to_decide: Vec<u32>,
    /// Number of ownerships in [`Phase::Active`], which share the arena.
    pub(super) active_ownerships: u64,
}

impl Core {
    /// Handles one read: its rows, its end and its error, up to the first of them at which the reader is repositioned.
    pub(super) fn fetched(
        &mut self,
        id: Partition,
        (rows, orders): (&[FetchedRow], &[EventOrder]),
        end: Option<i64>,
        error: Option<ReadError>,
    ) {
        let Some(index) = self.partitions.find(id) else { return self.release_all(rows) };
        let state = self.partitions.get_mut(index);
        state.reading.permitted = false;
        if state.phase != Phase::Active {
            // The reader has moved past rows that are dropped here.
            state.reading.position = PositionState::Unverified;
            self.release_all(rows);
            return self.read_failed_outside(index, error);
        }
        self.reads.to_decide.push(index);
        if !rows.is_empty() {
            self.end_unfetched(index, true);
        }
        assert!(orders.is_empty() || orders.len() == rows.len(), "one order per row");
        assert!(self.lanes.gates.is_none() || orders.len() == rows.len(), "rows without their orders");
        for (at, row) in rows.iter().enumerate() {
            if !self.admit(index, row, orders.get(at)) {
                return self.release_all(rows.get(at..).unwrap_or_default());
            }
        }
        if !rows.is_empty() && self.lanes.gates.is_some() {
            self.check_waits(index);
        }
        if end.is_none_or(|offset| self.end_of_partition(index, offset))
            && let Some(why) = error
        {
            self.read_failed(index, why);
        }
    }

    /// Handles an error outside [`Phase::Active`]: the client may reject the position of an assign, and the topic may
    /// have been replaced.
    fn read_failed_outside(&mut self, index: u32, error: Option<ReadError>) {
        match error {
            Some(why @ ReadError::TopicRecreated { .. }) => self.read_failed(index, why),
            Some(why @ ReadError::SeekFailed) if self.partitions.get(index).phase == Phase::Starting => {
                self.read_failed(index, why);
            }
            Some(_) | None => {}
        }
    }

    /// Admits a row. Returns false if the reader was repositioned: this row and the rows after it are read again.
    fn admit(&mut self, index: u32, row: &FetchedRow, order: Option<&EventOrder>) -> bool {
        let next = self.partitions.get(index).ledger.next();
        if row.offset < next {
            self.release_row(row); // it was admitted before
            return true;
        }
        let gap = row.offset > next;
        if gap && !self.accept_gap(index) {
            return false;
        }
        self.position_verified(index);
        if order.is_some() {
            self.record_read(index, row.timestamp); // before the event begins to wait
        }
        let state = self.partitions.get_mut(index);
        if let Some(end) = state.end
            && row.offset >= end
        {
            state.ledger.pass(end);
            state.commit.changes += 1;
            self.release_row(row);
            return true;
        }
        if self.in_step.is_some() {
            self.record_time(index, row.offset, row.timestamp);
        }
        let state = self.partitions.get_mut(index);
        // A gap, or an event that an earlier owner settled, needs a commit, too. Otherwise the lag never reaches 0.
        state.commit.changes += u64::from(gap);
        let open = state.ledger.enter(row.offset);
        if open && row.admission == Admission::NoLaneKey {
            state.queued_bytes += u64::from(row.bytes);
            self.queue_without_call(index, row, Reason::NoLaneKey);
            return true;
        }
        if open && row.admission != Admission::Filtered {
            state.queued_bytes += u64::from(row.bytes);
            self.lanes.admit(index, state.id.topic, (row, order), self.now.uptime_ms());
            return true;
        }
        state.commit.changes += 1;
        if open {
            state.ledger.settle(row.offset);
            if let Some(transactions) = &mut self.transactions {
                transactions.number(self.now.uptime, state, (row.offset, 0), false);
            }
            self.committer.count_settled(1);
            self.outbox.counters.filtered += 1;
            self.outbox.counters.settled += 1;
        }
        self.release_row(row);
        true
    }

    /// Frees the arena slot of a row. A filtered event has none.
    fn release_row(&mut self, row: &FetchedRow) {
        if row.admission != Admission::Filtered {
            self.outbox.release(row.arena_slot);
        }
    }

    /// Handles the end of the partition. Returns false if the reader was repositioned: the end is reached again later.
    fn end_of_partition(&mut self, index: u32, offset: i64) -> bool {
        let next = self.partitions.get(index).ledger.next();
        if offset < next {
            return true; // rows past this end were already verified
        }
        if offset > next && !self.accept_gap(index) {
            return false;
        }
        self.position_verified(index);
        self.record_end(index);
        let state = self.partitions.get_mut(index);
        let to = offset.min(state.end.unwrap_or(i64::MAX));
        if to > state.ledger.next() {
            state.ledger.pass(to);
            state.commit.changes += 1;
            self.end_unfetched(index, true);
        }
        true
    }

    /// Marks the position as verified: the row or end that was just read follows the rows before it.
    fn position_verified(&mut self, index: u32) {
        let state = self.partitions.get_mut(index);
        state.reading.position = PositionState::Verified;
        if state.reading.failure.is_some() {
            self.read_recovered(index);
        }
    }

    /// Checks a gap before the row or end that was just read. Returns true if the missing offsets don't exist. Returns
    /// false if that is unverified: the reader is then repositioned to the ledger's next offset.
    fn accept_gap(&mut self, index: u32) -> bool {
        let state = self.partitions.get_mut(index);
        match state.reading.position {
            PositionState::Verified | PositionState::Repositioned => true,
            PositionState::Unverified => {
                state.reading.position = PositionState::Repositioned;
                let (partition, offset) = (state.id, state.ledger.next());
                self.outbox.notice(Notice::Repositioned { partition, offset });
                self.outbox.push(Pending::Reposition(partition, offset));
                false
            }
        }
    }

    /// Permits a read of each partition with free capacity.
    pub(super) fn permit_reads(&mut self) {
        debug_assert_eq!(
            self.reads.active_ownerships,
            self.partitions.iter().map(|state| u64::from(state.phase == Phase::Active)).sum::<u64>(),
            "active ownerships are miscounted"
        );
        while let Some(index) = self.reads.to_decide.pop() {
            self.permit_read(index);
        }
    }

    /// Reports partitions whose reading has been paused for a long time.
    pub(super) fn check_read_pauses(&mut self) {
        let latest = self.now.uptime.saturating_sub(self.config.stall_after);
        for state in self.partitions.iter_mut().filter(|state| state.phase == Phase::Active) {
            let partition = state.id;
            if let Some(pause) = &mut state.reading.paused
                && pause.since <= latest
                && !std::mem::replace(&mut pause.reported, true)
            {
                self.outbox.notice(Notice::ReadingPaused { partition, limit: pause.limit });
            }
        }
    }

    fn permit_read(&mut self, index: u32) {
        let (share, is_full) = (self.bytes_share(), self.is_full());
        let waiting_left = self.waiting_left(index);
        let is_ahead = self.is_ahead(index);
        let state = self.partitions.get_mut(index);
        let at_end = state.end.is_some_and(|end| state.ledger.next() >= end);
        // The set of a partition that is held becomes shorter only when its first unsettled event is read and settles.
        let must_read = state.hold.is_some() && state.ledger.open() == 0;
        let full = is_full && !must_read;
        state.reading.is_ahead = is_ahead && !must_read && state.phase == Phase::Active;
        if state.reading.is_ahead {
            // No limit is reached: with a gate, one would let time pass.
            if state.reading.paused.take().is_some_and(|pause| pause.reported) {
                let partition = state.id;
                self.outbox.notice(Notice::ReadingResumed { partition });
            }
            return;
        }
        if state.phase != Phase::Active || state.reading.permitted || at_end || full {
            return; // once a transaction has made room for effects, the permission is decided again
        }
        // After a limit was reached, reading resumes when a quarter is free: reads of single events are expensive.
        let is_paused = state.reading.paused.is_some();
        let is_reduced = is_paused && !state.reading.reads_to_limit;
        let scale = |limit: u64| if is_reduced { limit - limit / 4 } else { limit };
        let events_left = scale(u64::from(self.config.max_queued)).saturating_sub(state.ledger.open());
        let bytes_left = scale(share).saturating_sub(state.queued_bytes);
        let window_left = scale(self.config.max_window).saturating_sub(state.ledger.window());
        let reached = [
            (events_left, ReadLimit::Events),
            (bytes_left, ReadLimit::Bytes),
            (window_left, ReadLimit::Window),
            (waiting_left, ReadLimit::Waiting),
        ];
        if let Some((_, limit)) = reached.into_iter().find(|(left, _)| *left == 0) {
            let new = ReadPause { limit, since: self.now.uptime, reported: false };
            state.reading.paused.get_or_insert(new).limit = limit;
            return;
        }
        let partition = state.id;
        if state.reading.paused.take().is_some_and(|pause| pause.reported) {
            self.outbox.notice(Notice::ReadingResumed { partition });
        }
        state.reading.permitted = true;
        state.reading.reads_to_limit = false;
        let max_events = events_left.min(READ_EVENTS_MAX);
        self.outbox.push(Pending::PermitRead {
            partition: state.id,
            max_events: u32::try_from(max_events).unwrap_or(1),
            max_bytes: bytes_left.min(READ_BYTES_MAX),
        });
    }

    /// Returns the bytes that one partition may hold: active ownerships share the arena equally.
    fn bytes_share(&self) -> u64 {
        self.config.arena_bytes / self.reads.active_ownerships.max(1)
    }

    fn release_all(&mut self, rows: &[FetchedRow]) {
        for row in rows {
            self.release_row(row);
        }
    }
}
