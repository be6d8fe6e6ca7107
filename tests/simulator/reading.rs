//! Readers: what a partition's queue gives, in what portions, and where it goes wrong.

use keylane_core::{Admission, FetchedRow, Input, OutOfRange, Partition, Place, ReadError};

use super::plan::{Class, MS};
use super::planted::Planted;
use super::process::Reader;
use super::trace::Seen;
use super::world::{Event, World};

impl World {
    pub(crate) fn wake_reader(&mut self, p: usize, index: usize) {
        let process = &mut self.processes[p];
        let Some(reader) = &mut process.parts[index].reader else { return };
        if process.alive && !std::mem::replace(&mut reader.poll_scheduled, true) {
            let delay = self.rng.range(200, 5 * MS);
            self.after(delay, Event::Poll(p, index));
        }
    }

    pub(crate) fn poll_reader(&mut self, p: usize, index: usize) {
        let rebalancing = self.processes[p].outstanding.is_some();
        let Some(reader) = &mut self.processes[p].parts[index].reader else { return };
        reader.poll_scheduled = false;
        let (halted, permission) = (reader.halted, reader.permission);
        // During a rebalance it stands still, but it may give what it had at hand.
        if halted || (rebalancing && !self.strikes(Class::ReaderSkips, 50)) {
            return;
        }
        let Some((events, bytes)) = permission else { return };
        if rebalancing {
            self.saw(Seen::ReadsWhileUnanswered);
        }
        let Some(reader) = &mut self.processes[p].parts[index].reader else { return };
        let log = &self.logs[index];
        if reader.position < log.start || reader.position > log.end {
            reader.halted = true;
            let why = ReadError::OutOfRange { log_start: log.start, log_end: log.end };
            self.out_of_range(p, index, why);
            return;
        }
        let next = log.position(reader.position);
        let Some(record) = log.records.get(next) else {
            self.tell_end(p, index);
            return;
        };
        if log.damage.is_some_and(|(at, _)| at == record.offset) {
            self.read_damaged(p, index);
            return;
        }
        self.fetch(p, index, next, (events, bytes));
    }

    fn tell_end(&mut self, p: usize, index: usize) {
        let end = self.logs[index].end;
        let Some(reader) = &mut self.processes[p].parts[index].reader else { return };
        if reader.end_told == Some(end) {
            return;
        }
        reader.end_told = Some(end);
        reader.position = reader.position.max(end);
        reader.sound = reader.sound.max(end);
        self.note(p, "end", Some(index), end, 0);
        let partition = self.logs[index].partition;
        self.feed(p, Input::EndOfPartition { partition, offset: end });
        self.wake_reader(p, index);
    }

    fn fetch(&mut self, p: usize, index: usize, next: usize, (events, bytes): (u32, u64)) {
        let at_once = self.rng.range(1, 20).min(u64::from(events)) as usize;
        let skipped = self.planted == Some(Planted::SkipAfterEnd)
            && self.processes[p].parts[index].reader.as_ref().is_some_and(|r| r.end_told.is_some());
        let damage = self.logs[index].damage;
        let mut rows: Vec<FetchedRow> = Vec::new();
        let mut taken = 0;
        for at in next + usize::from(skipped)..self.logs[index].records.len() {
            let record = &self.logs[index].records[at];
            if rows.len() >= at_once || taken >= bytes || damage.is_some_and(|(at, _)| at == record.offset) {
                break;
            }
            let (offset, lane, size) = (record.offset, record.lane, record.bytes);
            let filtered = record.filtered;
            let admission = if filtered { Admission::Filtered } else { lane.admission(&self.plan) };
            taken += u64::from(size);
            let timestamp = offset * 7 - 1;
            let place = if filtered { Place(u64::MAX) } else { self.processes[p].keep(index, lane, offset) };
            if filtered {
                self.saw(Seen::Filtered);
            }
            if admission == Admission::Rejected && !self.buries(p) {
                self.logs[index].excuse(offset, offset + 1);
            }
            rows.push(FetchedRow { offset, timestamp, bytes: size, place, admission });
            self.note(p, "read", Some(index), offset, i64::from(size));
        }
        let Some(reader) = &mut self.processes[p].parts[index].reader else { return };
        let last = rows.last().map(|row| row.offset);
        reader.position = last.map_or(reader.position + 1, |last| last + 1);
        reader.sound = reader.sound.max(reader.position);
        reader.end_told = None;
        if !rows.is_empty() {
            reader.permission = None;
            let partition = self.logs[index].partition;
            self.feed(p, Input::Fetched { partition, rows: &rows });
        }
        self.wake_reader(p, index);
    }

    fn out_of_range(&mut self, p: usize, index: usize, why: ReadError) {
        self.saw(Seen::OutOfRange);
        let (start, end) = (self.logs[index].start, self.logs[index].end);
        self.note(p, "out of range", Some(index), start, end);
        let sound = self.processes[p].parts[index].reader.as_ref().map_or(0, |reader| reader.sound);
        if self.processes[p].out_of_range == OutOfRange::Latest && sound < start {
            // The operator's policy passes over everything that is there now; a reader that went astray is
            // no reason for it.
            self.logs[index].excuse(i64::MIN, end);
        }
        let partition = self.logs[index].partition;
        self.feed(p, Input::ReadFailed { partition, why });
    }

    fn read_damaged(&mut self, p: usize, index: usize) {
        self.saw(Seen::ReadErrors);
        let log = &mut self.logs[index];
        let partition = log.partition;
        if let Some((at, times)) = log.damage {
            log.damage = (times > 1).then_some((at, times - 1));
            self.note(p, "damaged", Some(index), at, i64::from(times));
        }
        // After an error a reader stands anywhere.
        let skip = self.rng.below(4) as i64;
        self.move_reader(p, index, skip);
        let why = if self.rng.percent(10) { ReadError::Denied } else { ReadError::Damaged };
        self.feed(p, Input::ReadFailed { partition, why });
        self.wake_reader(p, index);
    }

    fn move_reader(&mut self, p: usize, index: usize, by: i64) {
        let log = &self.logs[index];
        let Some(reader) = &mut self.processes[p].parts[index].reader else { return };
        // Also past the end, where nothing is.
        reader.position = (reader.position + by).max(log.start.min(reader.position));
        reader.end_told = None;
    }

    /// A rebalance may leave a reader anywhere.
    pub(crate) fn move_readers(&mut self, p: usize) {
        for index in 0..self.logs.len() {
            if self.strikes(Class::ReaderSkips, 40) {
                let by = self.rng.range(0, 8) as i64 - 3;
                self.move_reader(p, index, by);
            }
        }
    }

    pub(crate) fn permit(&mut self, p: usize, partition: Partition, events: u32, bytes: u64) {
        let index = self.index(partition);
        let limit = self.plan.config.max_queued;
        self.require((1..=limit).contains(&events) && bytes > 0, "I-limits", index, -1, || {
            format!("process {p} may read {events} events, {bytes} bytes; at most {limit} are to be queued")
        });
        if let Some(reader) = self.reader(p, index, "permits reading") {
            reader.permission = Some((events, bytes));
            self.wake_reader(p, index);
        }
    }

    pub(crate) fn forbid(&mut self, p: usize, partition: Partition) {
        let index = self.index(partition);
        if let Some(reader) = &mut self.processes[p].parts[index].reader {
            reader.permission = None;
        }
    }

    pub(crate) fn reposition(&mut self, p: usize, partition: Partition, offset: i64) {
        self.saw(Seen::Repositions);
        let index = self.index(partition);
        self.note(p, "reposition", Some(index), offset, 0);
        if let Some(reader) = self.reader(p, index, "repositions") {
            reader.position = offset;
            reader.sound = offset;
            reader.end_told = None;
            let halted = reader.halted;
            self.require(!halted, "I-protocol", index, offset, || {
                format!("process {p} seeks after an out-of-range error")
            });
            self.wake_reader(p, index);
        }
    }

    pub(crate) fn reassign(&mut self, p: usize, partition: Partition, offset: i64) {
        self.saw(Seen::Reassigns);
        let index = self.index(partition);
        self.note(p, "reassign", Some(index), offset, 0);
        if let Some(reader) = self.reader(p, index, "reassigns") {
            let (permission, poll_scheduled) = (reader.permission, reader.poll_scheduled);
            *reader = Reader { permission, poll_scheduled, ..Reader::new(offset) };
            self.wake_reader(p, index);
        }
    }

    /// The reader of a partition that is ours; anything else is a broken promise.
    fn reader(&mut self, p: usize, index: usize, what: &str) -> Option<&mut Reader> {
        let part = &self.processes[p].parts[index];
        if !part.owned || part.reader.is_none() {
            let text = format!("process {p} {what} {index}, which it does not own");
            self.broken("I10 own partitions only", text, Some(index), -1);
        }
        self.processes[p].parts[index].reader.as_mut()
    }
}
