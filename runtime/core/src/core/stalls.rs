//! No silent stall: a partition that does not move is named, with the event that holds it.

use super::Core;
use crate::calls::CallState;
use crate::outbox::Pending;
use crate::{Holds, Stall};

impl Core {
    pub(super) fn check_stalls(&mut self) {
        let now = self.now.uptime;
        for index in self.partitions.indexes() {
            let state = self.partitions.get_mut(index);
            if !state.may_commit() {
                continue;
            }
            let seen = (state.ledger.prefix(), state.commit.committed);
            let waits = state.ledger.open() > 0 || state.is_dirty();
            if seen != state.progress.seen || !waits {
                state.progress.seen = seen;
                state.progress.at = now;
                if std::mem::take(&mut state.progress.reported) {
                    self.outbox.push(Pending::StallEnded(state.id));
                }
            } else if now >= state.progress.at + self.config.stall_after && !state.progress.reported {
                state.progress.reported = true;
                let stall = self.stall(index);
                self.outbox.push(Pending::ReportStall(stall));
            }
        }
    }

    /// The first event that is not settled, and what it waits for.
    fn stall(&self, index: u32) -> Stall {
        let state = self.partitions.get(index);
        let (partition, offset) = (state.id, state.ledger.prefix());
        if state.ledger.open() == 0 {
            return Stall { partition, offset, attempt: 0, holds: Holds::Commit };
        }
        let call =
            self.calls.ids().filter_map(|id| self.calls.get(id)).find(|call| {
                call.rows.iter().any(|row| row.session == state.session && row.offset == offset)
            });
        let (attempt, holds) = match call.map(|call| call.state) {
            None | Some(CallState::Free) => (0, Holds::Queued),
            Some(CallState::Unacked) => (1, Holds::Unacked),
            Some(CallState::Out | CallState::Cancelled(_) | CallState::Stuck) => (1, Holds::Out),
        };
        Stall { partition, offset, attempt, holds }
    }
}
