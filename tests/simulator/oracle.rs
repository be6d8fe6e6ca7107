//! The checks at the end of a run, and the count of outcomes.

use super::commits::Stored;
use super::plan::{MS, Micros, SECOND};
use super::process::CallRow;
use super::trace::Seen;
use super::world::{Event, Stage, World};

impl World {
    /// Counts an outcome of a record: its output is stored, or it is done without outputs.
    pub(crate) fn count_outcome(&mut self, row: &CallRow) {
        let (index, offset) = (row.partition, row.offset);
        if self.is_transactional() {
            return; // an outcome counts when a committed transaction claims it
        }
        if self.logs[index].incarnation != row.incarnation {
            return; // a record of a deleted topic
        }
        let Some(record) = self.logs[index].record_mut(offset) else { return };
        record.outcomes += 1;
        if record.outcomes > 1 {
            self.saw(Seen::Repeats);
            let may = self.plan.may_repeat;
            self.require(may, "I13 no repeats", index, offset, || {
                "an event had two outcomes although no fault allows a repeat".into()
            });
        }
    }

    /// A process may keep no event of a partition that it does not own, and no more events than the
    /// limit.
    pub(crate) fn check_kept(&mut self, p: usize) {
        let limit = self.plan.config.max_queued;
        for index in 0..self.logs.len() {
            let part = &self.processes[p].parts[index];
            let (owned, kept) = (part.owned, part.kept);
            self.require(owned || kept == 0, "I-slots", index, -1, || {
                format!("process {p} still keeps {kept} events of a partition that it released")
            });
            self.require(kept <= limit, "I-limits", index, -1, || {
                format!("process {p} keeps {kept} events; the limit is {limit}")
            });
            if kept == limit {
                self.saw(Seen::FullQueues);
            }
        }
    }

    /// Checks whether everything is handled and committed. If so, all processes drain.
    pub(crate) fn check_drained(&mut self) {
        if self.stage != Stage::Healing {
            return;
        }
        let all_committed = self.lagging().is_none();
        let since = *self.all_committed_since.get_or_insert(self.now);
        if !all_committed {
            self.all_committed_since = None;
        }
        let running = self.processes.iter().any(|process| process.alive && !process.draining);
        if self.plan.until_end && all_committed {
            self.check_ends_reached(since);
        }
        // Requests whose responses were lost must time out. Under `--until-end`, every process must
        // find its end by itself.
        let stable = self.now >= self.plan.faults_until + 5 * SECOND;
        let observed = stable && (!self.plan.until_end || self.now >= since + 12 * SECOND);
        if !all_committed || !running || !observed || self.is_operated() {
            self.after(200 * MS, Event::Check);
            return;
        }
        self.note(0, "all committed", None, -1, 0);
        self.check_loss();
        self.stage = Stage::Leaving;
        self.deadline_at = self.now + 40 * SECOND;
        self.after(40 * SECOND, Event::Deadline);
        for p in 0..self.processes.len() {
            if self.processes[p].alive {
                let delay = self.rng.below(2 * SECOND);
                self.after(delay, Event::Drain(p));
            }
        }
    }

    /// A process whose partitions are all committed must drain.
    fn check_ends_reached(&mut self, since: Micros) {
        if self.group.rebalancing() {
            return; // the next assignment is pending, however long a dead member delays it
        }
        let unfinished = self.processes.iter().position(|process| {
            let settled = since.max(process.assigned_at) + 5 * SECOND < self.now;
            let reads = process.parts.iter().any(|part| part.reader.is_some());
            let rebalanced = process.outstanding.is_none() && process.controls.is_empty();
            process.alive && !process.draining && reads && settled && rebalanced
        });
        if let Some(p) = unfinished {
            self.report_violation(
                "I-end",
                format!("process {p} has no work left and does not drain"),
                None,
                -1,
            );
        }
    }

    /// A partition whose committed offset is below the end of its log.
    fn lagging(&self) -> Option<usize> {
        (0..self.logs.len()).find(|&index| {
            let log = &self.logs[index];
            let valid = |stored: &&Stored| !self.is_of_another_topic(index, stored);
            let stored = self.stored[index].as_ref().filter(valid);
            stored.map_or(log.start, |stored| stored.offset) < log.end || self.is_unbound(index)
        })
    }

    pub(crate) fn deadline(&mut self) {
        if self.now < self.deadline_at {
            return;
        }
        if self.stage == Stage::Leaving {
            self.report_violation("I11 drained", "a process does not finish its drain".into(), None, -1);
            return;
        }
        let Some(index) = self.lagging() else { return };
        let stored = self.stored[index].as_ref().map(|stored| stored.offset);
        let from = stored.unwrap_or(self.logs[index].start);
        let open =
            self.logs[index].records.iter().find(|record| record.offset >= from && record.outcomes == 0);
        let offset = open.map_or(-1, |record| record.offset);
        let end = self.logs[index].end;
        let text = format!("after a minute without faults {stored:?} of {end} is committed; open: {offset}");
        self.report_violation("I11 drained", text, Some(index), offset);
    }

    fn check_loss(&mut self) {
        for index in 0..self.logs.len() {
            let lost = self.logs[index]
                .records
                .iter()
                .find(|record| record.outcomes == 0 && !record.outcome_not_required);
            if let Some(offset) = lost.map(|record| record.offset) {
                self.report_violation("I1 no loss", format!("{offset} has no outcome"), Some(index), offset);
            }
        }
    }

    /// All processes have left.
    pub(crate) fn check_end(&mut self) {
        self.check_transactions_end();
        self.check_loss();
        let repeats = self.logs.iter().flat_map(|log| &log.records).any(|record| record.outcomes > 1);
        if !repeats {
            self.saw(Seen::SeedsWithoutRepeats);
        }
        self.stage = Stage::Over;
    }
}
