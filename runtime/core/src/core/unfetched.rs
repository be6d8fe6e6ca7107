//! Partitions whose log has records that do not arrive: an open transaction holds them back, or the leader does not
//! respond. The client reports neither.

use std::time::Duration;

use super::Core;
use crate::partitions::{Phase, Unfetched};
use crate::{Blockage, BlockedOn, LogEnd, Partition};

/// How long records must be known to exist before their absence is reported: they may be on their way, in particular
/// after the whole process was suspended.
const ARRIVAL_MAX: Duration = Duration::from_secs(2);

impl Core {
    /// Compares the end of a log with the position of its reader.
    pub(super) fn log_end(&mut self, id: Partition, end: LogEnd) {
        let Some(index) = self.partitions.find(id) else { return };
        let now = self.now.uptime;
        let state = self.partitions.get_mut(index);
        let is_behind = match end {
            LogEnd::At(end) => end > state.ledger.next(),
            LogEnd::LeaderUnavailable => true,
            LogEnd::Unknown => return,
        };
        // While no read is permitted, no records are expected. Failed reads, events that are not settled, and commits
        // that are not stored are reported elsewhere.
        let is_expected =
            state.phase == Phase::Active && state.reading.permitted && state.reading.failure.is_none();
        if !is_expected || state.ledger.open() > 0 || state.is_dirty() {
            return self.end_unfetched(index, false);
        }
        if !is_behind {
            return self.end_unfetched(index, true);
        }
        let leader_responds = end != LogEnd::LeaderUnavailable;
        let new = Unfetched { leader_responds, known_at: now, reported: false };
        let unfetched = state.reading.unfetched.get_or_insert(new);
        unfetched.leader_responds = leader_responds;
    }

    /// Records that the reader is up to date, and ends the stall of missing records if one was reported. `resumed`: see
    /// [`Action::StallEnded`](crate::Action::StallEnded).
    pub(super) fn end_unfetched(&mut self, index: u32, resumed: bool) {
        let now = self.now.uptime;
        let reading = &mut self.partitions.get_mut(index).reading;
        reading.up_to_date_at = now;
        if reading.unfetched.take().is_some_and(|unfetched| unfetched.reported) {
            self.end_stall(index, resumed);
        }
    }

    /// Reports partitions from which nothing has arrived for `stall_after` although records are known to exist.
    pub(super) fn check_unfetched(&mut self) {
        let now = self.now.uptime;
        let stall_after = self.config.stall_after;
        let mut stalled = Vec::new();
        for state in self.partitions.iter_mut().filter(|state| state.phase == Phase::Active) {
            let (partition, offset) = (state.id, state.ledger.next());
            if let Some(unfetched) = &mut state.reading.unfetched
                && now >= state.reading.up_to_date_at + stall_after
                && now >= unfetched.known_at + ARRIVAL_MAX
                && !std::mem::replace(&mut unfetched.reported, true)
            {
                let blocked_on = BlockedOn::NotFetched { leader_responds: unfetched.leader_responds };
                stalled.push(Blockage::of_partition(partition, Some(offset), blocked_on));
            }
        }
        stalled.into_iter().for_each(|blockage| self.report_stall(blockage));
    }
}
