//! What happens to offsets and producers from outside, and how look-ups answer.

use super::super::commits::Stored;
use super::super::plan::{Class, MS, SECOND};
use super::super::planted::Planted;
use super::super::trace::Seen;
use super::super::world::{Event, World};
use super::checks::Coverage;

impl World {
    /// Whether a look-up finds the offset of a transaction that is undecided.
    pub(crate) fn is_unstable(&mut self, index: usize) -> bool {
        let pending = self.is_pending(index);
        if pending {
            self.saw(Seen::LookUpsUnstable);
        }
        pending && self.planted != Some(Planted::UnstableLookUp)
    }

    /// Counts look-ups. Only the answer to the last one counts.
    pub(crate) fn next_lookup(&mut self, p: usize, index: usize) -> u64 {
        let count = self.processes[p].shell.lookups.entry(index).or_default();
        *count += 1;
        *count
    }

    pub(crate) fn is_last_lookup(&self, p: usize, index: usize, lookup: u64) -> bool {
        !self.is_transactional() || self.processes[p].shell.lookups.get(&index) == Some(&lookup)
    }

    /// A process has read the offset and metadata that the coordinator has stored.
    pub(crate) fn record_known(&mut self, p: usize, index: usize, committed: &mut Option<(i64, Vec<u8>)>) {
        if !self.is_transactional() {
            return;
        }
        let known = committed.clone();
        if let Some(ownership) = self.processes[p].parts[index].ownership {
            self.saw(Seen::LookUpsInPlace);
            if self.planted == Some(Planted::LedgerKept) {
                *committed = Some(self.settled_in(p, index, ownership));
            }
        }
        self.processes[p].shell.known.insert(index, known);
    }

    /// An operator resets the offset of a partition, or it expires.
    pub(crate) fn reset_offset(&mut self) {
        if self.is_keyed() {
            return self.call_operator_to_reset();
        }
        let index = self.rng.index(self.logs.len());
        if !self.is_transactional() || self.stored[index].is_none() {
            return;
        }
        self.saw(Seen::OffsetsReset);
        let (start, end) = (self.logs[index].start, self.logs[index].end);
        let expires = self.rng.percent(30);
        let to = if expires { start } else { self.rng.range(start as u64, end as u64) as i64 };
        self.note(0, "offset reset", Some(index), to, i64::from(expires));
        self.waive(index);
        let sent = self.trace.lines.len() as u64;
        self.stored[index] = (!expires).then(|| Stored::new(to, Vec::new(), sent));
        self.brokers.claimed[index] = Coverage::up_to(to);
    }

    /// The partition has stopped because its completed set can't be read. An operator accepts that
    /// events are repeated.
    pub(crate) fn accept_offset(&mut self, index: usize) {
        self.saw(Seen::SetsUnreadable);
        let Some(Stored { offset, .. }) = self.stored[index] else { return };
        self.waive(index);
        let sent = self.trace.lines.len() as u64;
        self.stored[index] = Some(Stored::new(offset, Vec::new(), sent));
        self.brokers.claimed[index] = Coverage::up_to(offset);
        self.note(0, "offset accepted", Some(index), offset, 0);
    }

    /// The records that are in the log now may be repeated or skipped.
    pub(crate) fn waive(&mut self, index: usize) {
        let log = &mut self.logs[index];
        log.offsets_reset = true;
        for record in &mut log.records {
            record.waived = true;
            record.outcome_not_required = true;
        }
    }

    pub(crate) fn set_claimed(&mut self, index: usize, claimed: Coverage) {
        self.brokers.claimed[index] = claimed;
    }

    /// The topic was recreated, and the offsets of its groups were deleted.
    pub(crate) fn forget_claims(&mut self, index: usize) {
        self.brokers.claimed[index] = Coverage::nothing();
    }

    /// A successor with the name of a paused process is started.
    pub(crate) fn supersede(&mut self, p: usize) {
        let shell = &self.processes[p].shell;
        if self.plan.named_producers && !shell.superseded && self.occurs(Class::Superseded, 40) {
            self.saw(Seen::ProcessesSuperseded);
            self.processes[p].shell.superseded = true;
            let (instance, delay) = (self.processes[p].instance, self.rng.range(50 * MS, 3 * SECOND));
            self.after(delay, Event::ProcessStart(instance));
        }
    }

    /// A fenced process stops if another one with its name runs, though not always at the first time.
    pub(super) fn stops_when_fenced(&mut self, p: usize) -> bool {
        let shell = &mut self.processes[p].shell;
        shell.fenced += 1;
        let stops = shell.superseded && (shell.fenced > 1 || self.rng.percent(50));
        if stops {
            self.die(p);
        }
        stops
    }

    /// The end of the simulation: every transaction is decided, and every event has its effects.
    pub(crate) fn check_transactions_end(&mut self) {
        if !self.is_transactional() {
            return;
        }
        self.decide_all();
        self.check_stable();
        if self.is_keyed() {
            self.check_states_end();
        }
        for index in 0..self.logs.len() {
            self.check_effects(index);
        }
    }

    /// An event that was handled with outputs, or that failed, has its effects.
    fn check_effects(&mut self, index: usize) {
        if self.logs[index].incarnation > 0 {
            return;
        }
        let is_missing = |record: &&super::super::log::Record| {
            record.outcomes > 0 && record.claimed_with_effects && record.effects == 0 && !record.waived
        };
        let missing = self.logs[index].records.iter().find(is_missing).map(|record| record.offset);
        if let Some(offset) = missing {
            let text = format!("{offset} is claimed, but its effects are not visible");
            self.report_violation("T1 once", text, Some(index), offset);
        }
    }
}
