//! Partitions whose log has records that do not arrive: an open transaction holds them back, or the leader is away. The
//! client reports neither.

use super::Core;
use crate::outbox::Pending;
use crate::partitions::{Phase, Unfetched};
use crate::{BlockedOn, Partition, Stall};

impl Core {
    /// Compares the end of a log with the position of its reader.
    pub(super) fn log_end(&mut self, id: Partition, end: Option<i64>) {
        let Some(index) = self.partitions.find(id) else { return };
        let state = self.partitions.get_mut(index);
        let is_behind = end.is_none_or(|end| end > state.ledger.next());
        // Without a permission to read nothing is expected, and a failed read is reported elsewhere.
        let is_expected =
            state.phase == Phase::Active && state.reading.permitted && state.reading.failure.is_none();
        if !is_expected || !is_behind {
            return self.records_arrive(index);
        }
        let new = Unfetched { leader_responds: true, since: self.now.uptime, reported: false };
        state.reading.unfetched.get_or_insert(new).leader_responds = end.is_some();
    }

    /// Ends the state in which records do not arrive, if there is one.
    pub(super) fn records_arrive(&mut self, index: u32) {
        let reading = &mut self.partitions.get_mut(index).reading;
        if reading.unfetched.take().is_some_and(|unfetched| unfetched.reported) {
            self.end_stall(index, true);
        }
    }

    /// Reports partitions whose log has long been known to have records that do not arrive.
    pub(super) fn check_unfetched(&mut self) {
        let reported_before = self.now.uptime.saturating_sub(self.config.stall_after);
        for state in self.partitions.iter_mut().filter(|state| state.phase == Phase::Active) {
            let (partition, offset) = (state.id, state.ledger.next());
            if let Some(unfetched) = &mut state.reading.unfetched
                && unfetched.since <= reported_before
                && !std::mem::replace(&mut unfetched.reported, true)
            {
                let blocked_on = BlockedOn::NotFetched { leader_responds: unfetched.leader_responds };
                self.outbox.push(Pending::ReportStall(Stall { partition, offset, attempt: 0, blocked_on }));
            }
        }
    }
}
