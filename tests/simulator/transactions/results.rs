//! The result of a transaction, as the core receives it, and what happens to the effects that were kept.

use keylane_core::{AbortCause, Input};

use super::super::planted::Planted;
use super::super::trace::Seen;
use super::super::world::World;
use super::requests::{Call, Entry, Request};

impl World {
    pub(super) fn transaction_committed(&mut self, p: usize) {
        let Some(attempt) = self.processes[p].shell.producer.attempt.take() else { return };
        self.saw(Seen::TransactionsCommitted);
        self.note(p, "transaction committed", None, -1, 0);
        self.processes[p].commit = None;
        for Entry { partition, ownership, through, offset, metadata, .. } in &attempt.entries {
            let process = &mut self.processes[p];
            process.shell.kept.retain(|_, kept| kept.ownership != *ownership || kept.number > *through);
            process.shell.known.insert(*partition, Some((*offset, metadata.clone())));
        }
        self.states_committed(p, &attempt);
        for entry in &attempt.entries {
            self.changes_committed(p, entry);
        }
        let id = attempt.id;
        for entry in &attempt.entries {
            let index = entry.partition;
            if self.is_own(p, entry) {
                self.processes[p].parts[index].floor = Some(entry.offset);
                self.finish_retry_round(p, index, entry.offset);
            }
            let partition = self.logs[index].partition;
            self.feed(p, Input::Committed { id, partition });
        }
    }

    pub(super) fn transaction_aborted(&mut self, p: usize, why: AbortCause) {
        let Some(attempt) = self.processes[p].shell.producer.attempt.take() else { return };
        self.saw(match why {
            AbortCause::Stale => Seen::TransactionsStale,
            AbortCause::MetadataTooLarge => Seen::TransactionsMetadataTooLarge,
            AbortCause::RequestTooLarge => Seen::TransactionsRequestTooLarge,
            AbortCause::TooSlow => Seen::TransactionsTooSlow,
            AbortCause::Other => Seen::TransactionsFailed,
            AbortCause::Excluded => Seen::TransactionsRefused,
            AbortCause::OverwrittenOffsets => Seen::OffsetsOverwritten,
        });
        self.note(p, "transaction aborted", None, -1, why as i64);
        self.processes[p].commit = None;
        if self.planted == Some(Planted::EffectsDroppedOnAbort) {
            for Entry { ownership, through, .. } in &attempt.entries {
                let kept = &mut self.processes[p].shell.kept;
                kept.retain(|_, kept| kept.ownership != *ownership || kept.number > *through);
            }
        }
        self.planted_drop_states(p, &attempt.entries);
        let id = attempt.id;
        self.feed(p, Input::TransactionAborted { id, why });
    }

    /// Counts what happens while a transaction of the process is undecided.
    pub(crate) fn saw_while_undecided(&mut self, p: usize, seen: Seen) {
        if self.processes[p].shell.producer.attempt.is_some() {
            self.saw(seen);
        }
    }

    /// A process that ends aborts its open transaction if it can.
    pub(crate) fn abort_at_exit(&mut self, p: usize) {
        let producer = &self.processes[p].shell.producer;
        let may_abort = producer.attempt.as_ref().is_some_and(|attempt| !attempt.commit_called);
        if may_abort && producer.epoch.is_some() && self.rng.percent(70) {
            let from = self.sender(p);
            self.send_request(Request { from, what: Call::Abort });
        }
    }
}
