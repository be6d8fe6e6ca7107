//! Stall detection: a partition without progress is reported, with the event that blocks it.

use super::Core;
use crate::calls::{Awaited, CallState, Effect};
use crate::outbox::Pending;
use crate::{BlockedOn, Row, Stall};

impl Core {
    pub(super) fn check_stalls(&mut self) {
        let now = self.now.uptime;
        for index in self.partitions.indexes() {
            let state = self.partitions.get_mut(index);
            if !state.may_commit() || state.reading.failure.is_some_and(|failure| failure.reported) {
                continue;
            }
            let seen = (state.ledger.committable(), state.commit.committed);
            let waits = state.ledger.open() > 0 || state.is_dirty();
            if seen != state.progress.seen || !waits {
                state.progress.seen = seen;
                state.progress.at = now;
                if std::mem::take(&mut state.progress.reported) {
                    self.end_stall(index, true);
                }
            } else if now >= state.progress.at + self.config.stall_after && !state.progress.reported {
                state.progress.reported = true;
                let stall = self.stall(index);
                self.report_stall(index, stall);
            }
        }
    }

    pub(super) fn report_stall(&mut self, index: u32, stall: Stall) {
        self.partitions.get_mut(index).stall = Some(stall);
        self.outbox.push(Pending::ReportStall(stall));
    }

    pub(super) fn end_stall(&mut self, index: u32, resumed: bool) {
        let state = self.partitions.get_mut(index);
        state.stall = None;
        let partition = state.id;
        self.outbox.push(Pending::StallEnded { partition, resumed });
    }

    /// Returns the first event that is not settled, and what it is blocked on.
    fn stall(&self, index: u32) -> Stall {
        let state = self.partitions.get(index);
        let (partition, offset) = (state.id, state.ledger.committable());
        if state.ledger.open() == 0 {
            return Stall { partition, offset, attempt: 0, blocked_on: BlockedOn::Commit };
        }
        let found = self.calls.ids().filter_map(|id| self.calls.get(id)).find_map(|call| {
            let is_blocking = |row: &Row| row.ownership == state.ownership && row.offset == offset;
            Some((call, u32::try_from(call.rows.iter().position(is_blocking)?).ok()?))
        });
        let Some((call, row)) = found else {
            return match self.lanes.retrying_event(index, offset) {
                Some(event) if event.is_waiting => {
                    Stall { partition, offset, attempt: event.attempt, blocked_on: BlockedOn::Retry }
                }
                Some(_) | None => Stall { partition, offset, attempt: 0, blocked_on: BlockedOn::Queued },
            };
        };
        let blocked_on = match (call.state, call.awaited(row)) {
            (CallState::Terminated, Awaited::Acks(Effect::DeadLetter)) => BlockedOn::DeadLetterUnacked,
            (CallState::Terminated | CallState::Free, _) => BlockedOn::OutputsUnacked,
            (CallState::Running | CallState::Cancelled(_) | CallState::Stuck, _) => BlockedOn::Guest,
        };
        Stall { partition, offset, attempt: call.attempt, blocked_on }
    }
}
