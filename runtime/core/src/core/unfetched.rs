//! Partitions whose log has records that do not arrive: an open transaction holds them back, or the leader does not
//! respond. The client reports neither.

use super::Core;
use crate::outbox::Pending;
use crate::partitions::{Phase, Unfetched};
use crate::{Blockage, BlockedOn, LogEnd, Partition};

impl Core {
    /// Compares the end of a log with the position of its reader.
    pub(super) fn log_end(&mut self, id: Partition, end: LogEnd) {
        let Some(index) = self.partitions.find(id) else { return };
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
        match &mut state.reading.unfetched {
            Some(unfetched) => (unfetched.leader_responds, unfetched.confirmed) = (leader_responds, true),
            none => {
                let since = self.now.uptime;
                *none = Some(Unfetched { leader_responds, since, confirmed: false, reported: false });
            }
        }
    }

    /// Clears the unfetched state, and ends its stall if one was reported. `resumed`: see [`Pending::StallEnded`].
    pub(super) fn end_unfetched(&mut self, index: u32, resumed: bool) {
        let reading = &mut self.partitions.get_mut(index).reading;
        if reading.unfetched.take().is_some_and(|unfetched| unfetched.reported) {
            self.end_stall(index, resumed);
        }
    }

    /// Reports partitions whose records have not arrived for `stall_after`, according to more than one response.
    pub(super) fn check_unfetched(&mut self) {
        let latest = self.now.uptime.saturating_sub(self.config.stall_after);
        let now = self.now.uptime;
        for state in self.partitions.iter_mut().filter(|state| state.phase == Phase::Active) {
            let (partition, offset) = (state.id, state.ledger.next());
            if let Some(unfetched) = &mut state.reading.unfetched
                && unfetched.confirmed
                && unfetched.since <= latest
                && !std::mem::replace(&mut unfetched.reported, true)
            {
                state.stall_reported_at = now;
                let blocked_on = BlockedOn::NotFetched { leader_responds: unfetched.leader_responds };
                self.outbox.push(Pending::ReportStall(Blockage {
                    partition,
                    offset,
                    attempt: 0,
                    arena_slot: None,
                    blocked_on,
                }));
            }
        }
    }
}
