//! What must hold at the end, and what an ending is.

use super::commits::Stored;
use super::plan::{MS, Micros, SECOND};
use super::process::CallRow;
use super::trace::Seen;
use super::world::{Event, Stage, World};

impl World {
    /// A record came to its ending: its output landed, or it was done and has none.
    pub(crate) fn came_to_its_end(&mut self, row: &CallRow) {
        let (index, offset) = (row.partition, row.offset);
        if self.logs[index].incarnation != row.incarnation {
            return; // of a topic that is gone
        }
        let Some(record) = self.logs[index].record_mut(offset) else { return };
        record.outcomes += 1;
        if record.outcomes > 1 {
            self.saw(Seen::Repeats);
            let may = self.plan.may_repeat;
            self.require(may, "I13 no repeats", index, offset, || {
                "an event came to its ending twice in a world without a reason for it".into()
            });
        }
    }

    /// Nothing may be kept of a partition that is not ours, and never more than the limit.
    pub(crate) fn check_kept(&mut self, p: usize) {
        let limit = self.plan.config.max_queued;
        for index in 0..self.logs.len() {
            let part = &self.processes[p].parts[index];
            let (owned, kept) = (part.owned, part.kept);
            self.require(owned || kept == 0, "I-places", index, -1, || {
                format!("process {p} still keeps {kept} events of a partition that it gave up")
            });
            self.require(kept <= limit, "I-limits", index, -1, || {
                format!("process {p} keeps {kept} events, at most {limit} are to be queued")
            });
            if kept == limit {
                self.saw(Seen::FullQueues);
            }
        }
    }

    /// Whether everything is handled and committed; then everybody is told to leave.
    pub(crate) fn check_drained(&mut self) {
        if self.stage != Stage::Healing {
            return;
        }
        let rests = self.lagging().is_none();
        let since = *self.rests_since.get_or_insert(self.now);
        if !rests {
            self.rests_since = None;
        }
        let standing = self.processes.iter().any(|process| process.alive && !process.draining);
        if self.plan.until_end && rests {
            self.check_ends_reached(since);
        }
        // Answers that were lost before are waited for; under `--until-end` everybody must find out by themselves.
        let calm = self.now >= self.plan.faults_until + 5 * SECOND;
        let watched = calm && (!self.plan.until_end || self.now >= since + 12 * SECOND);
        if !rests || !standing || !watched {
            self.after(200 * MS, Event::Check);
            return;
        }
        self.note(0, "all committed", None, -1, 0);
        self.check_loss();
        self.stage = Stage::Leaving;
        self.rest_until = self.now + 40 * SECOND;
        self.after(40 * SECOND, Event::Deadline);
        for p in 0..self.processes.len() {
            if self.processes[p].alive {
                let delay = self.rng.below(2 * SECOND);
                self.after(delay, Event::Drain(p));
            }
        }
    }

    /// A process whose partitions are all committed does not stay.
    fn check_ends_reached(&mut self, since: Micros) {
        if self.group.rebalancing() {
            return; // its next assignment is on its way, however long a dead member holds it
        }
        let stays = self.processes.iter().position(|process| {
            let settled = since.max(process.assigned_at) + 5 * SECOND < self.now;
            let reads = process.parts.iter().any(|part| part.reader.is_some());
            let rebalanced = process.outstanding.is_none() && process.controls.is_empty();
            process.alive && !process.draining && reads && settled && rebalanced
        });
        if let Some(p) = stays {
            self.broken("I-end", format!("process {p} has nothing left to do and stays"), None, -1);
        }
    }

    /// A partition whose committed offset is not at the end of its log.
    fn lagging(&self) -> Option<usize> {
        (0..self.logs.len()).find(|&index| {
            let log = &self.logs[index];
            let sound = |stored: &&Stored| !self.is_of_another_topic(index, stored);
            let stored = self.stored[index].as_ref().filter(sound);
            stored.map_or(log.start, |stored| stored.offset) < log.end
        })
    }

    pub(crate) fn deadline(&mut self) {
        if self.now < self.rest_until {
            return;
        }
        if self.stage == Stage::Leaving {
            self.broken("I11 drained", "a process does not come to the end of its drain".into(), None, -1);
            return;
        }
        let Some(index) = self.lagging() else { return };
        let stored = self.stored[index].as_ref().map(|stored| stored.offset);
        let from = stored.unwrap_or(self.logs[index].start);
        let open =
            self.logs[index].records.iter().find(|record| record.offset >= from && record.outcomes == 0);
        let offset = open.map_or(-1, |record| record.offset);
        let end = self.logs[index].end;
        let text = format!("a minute without faults, and {stored:?} of {end} is committed; open: {offset}");
        self.broken("I11 drained", text, Some(index), offset);
    }

    fn check_loss(&mut self) {
        for index in 0..self.logs.len() {
            let lost = self.logs[index].records.iter().find(|record| record.outcomes == 0 && !record.excused);
            if let Some(offset) = lost.map(|record| record.offset) {
                self.broken("I1 no loss", format!("{offset} never came to an ending"), Some(index), offset);
            }
        }
    }

    /// Everybody has left.
    pub(crate) fn check_end(&mut self) {
        self.check_loss();
        let repeats = self.logs.iter().flat_map(|log| &log.records).any(|record| record.outcomes > 1);
        if !repeats {
            self.saw(Seen::SeedsWithoutRepeats);
        }
        self.stage = Stage::Over;
    }
}
