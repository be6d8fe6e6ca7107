//! Readers: the batches that a partition's queue returns, and read errors.

use keylane_core::{Admission, ArenaSlot, FetchedRow, Input, LogEnd, OutOfRange, Partition, ReadError};

use super::log::Record;
use super::plan::{Class, MS};
use super::planted::Planted;
use super::process::{Kept, Reader};
use super::trace::Seen;
use super::world::{Event, World};

/// One read of a partition.
#[derive(Default)]
struct Read {
    rows: Vec<FetchedRow>,
    end: Option<i64>,
    error: Option<ReadError>,
    /// The position of the reader afterwards.
    position: i64,
}

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
        // During a rebalance, the reader stops, but may return records that were already fetched.
        if halted || (rebalancing && !self.occurs(Class::ReaderSkips, 50)) {
            return;
        }
        let Some((events, bytes)) = permission else { return };
        if self.rng.percent(5) {
            self.report_log_end(p, index);
        }
        if rebalancing {
            self.saw(Seen::ReadsWhileUnanswered);
        }
        let Some(reader) = &mut self.processes[p].parts[index].reader else { return };
        let log = &self.logs[index];
        if reader.position < log.start || reader.position > log.end {
            reader.halted = true;
            reader.needs_assign = true;
            let why = ReadError::OutOfRange { log_start: log.start, log_end: log.end };
            if !self.reads_current_topic(p, index) && self.rng.percent(80) {
                self.check_topic(p, index); // the bounds usually arrive together with the topic id
            } else {
                self.out_of_range(p, index, why);
            }
            return;
        }
        let read = self.read(p, index, (events, bytes));
        self.report_read(p, index, read);
    }

    /// The end of the log, as its leader reports it, or that the leader does not respond.
    fn report_log_end(&mut self, p: usize, index: usize) {
        let beyond = i64::from(self.planted == Some(Planted::LogEndTooHigh));
        let end = match self.rng.below(10) {
            0 => LogEnd::LeaderUnavailable,
            1 => LogEnd::Unknown,
            _ => LogEnd::At(self.logs[index].end + beyond),
        };
        let partition = self.logs[index].partition;
        self.feed(p, Input::LogEnd { partition, end });
    }

    /// The records that the client has fetched, followed by the end of the log, an error, or both.
    fn read(&mut self, p: usize, index: usize, (events, bytes): (u32, u64)) -> Read {
        let Some(reader) = &self.processes[p].parts[index].reader else { return Read::default() };
        let (position, end_reported) = (reader.position, reader.end_reported);
        let skipped = self.planted == Some(Planted::SkipAfterEnd) && end_reported.is_some();
        let at_once = self.rng.range(1, 20).min(u64::from(events)) as usize;
        let mut read = Read { position, ..Read::default() };
        let mut at = self.logs[index].position(position) + usize::from(skipped);
        let mut taken = 0;
        while let Some(record) = self.logs[index].records.get(at).cloned() {
            if self.logs[index].damage.is_some_and(|(at, _)| at == record.offset) {
                if read.rows.is_empty() || self.rng.percent(50) {
                    read.error = self.damaged(p, index);
                }
                return read;
            }
            if read.rows.len() >= at_once || taken >= bytes {
                read.end = (self.planted == Some(Planted::ReadTakenForEnd)).then_some(read.position);
                return read;
            }
            taken += u64::from(record.bytes);
            read.rows.push(self.read_row(p, index, &record));
            read.position = record.offset + 1;
            at += 1;
        }
        let end = self.logs[index].end;
        let is_new = end_reported != Some(end) || !read.rows.is_empty();
        if is_new && (read.rows.is_empty() || self.rng.percent(60)) {
            read.end = Some(end);
            read.position = read.position.max(end);
        }
        let found = !read.rows.is_empty() || read.end.is_some();
        if found && self.occurs(Class::Damage, 3) {
            read.error = Some(ReadError::Corrupt);
        } else if self.occurs(Class::Interrupted, 10) {
            read.error = Some(ReadError::Interrupted);
        }
        read
    }

    fn read_row(&mut self, p: usize, index: usize, record: &Record) -> FetchedRow {
        let Record { offset, lane, bytes, filtered, timestamp, .. } = *record;
        let admission = if filtered { self.filtered_admission(record) } else { lane.admission(&self.plan) };
        let is_dropped = self.is_dropped_at_admission(p, index, record);
        let admission = if is_dropped { Admission::Filtered } else { admission };
        let incarnation = self.logs[index].incarnation;
        let kept = Kept { partition: index, incarnation, lane, offset };
        let is_kept = admission != Admission::Filtered;
        let arena_slot = if is_kept { self.processes[p].keep(kept) } else { ArenaSlot(u64::MAX) };
        if filtered {
            self.saw(Seen::Filtered);
        }
        if admission == Admission::NoLaneKey && !self.publishes_dead_letters(p) {
            self.logs[index].waive_outcomes(offset, offset + 1);
        }
        self.note(p, "read", Some(index), offset, i64::from(bytes));
        FetchedRow { offset, timestamp, bytes, arena_slot, admission }
    }

    fn report_read(&mut self, p: usize, index: usize, read: Read) {
        let Read { rows, end, error, position } = read;
        if rows.is_empty() && end.is_none() && error.is_none() {
            return;
        }
        let Some(reader) = &mut self.processes[p].parts[index].reader else { return };
        reader.position = position;
        reader.expected = reader.expected.max(position);
        reader.end_reported = end;
        reader.permission = None;
        if let Some(end) = end {
            self.note(p, "end", Some(index), end, rows.len() as i64);
            self.saw(if rows.is_empty() { Seen::ReadsOfEnd } else { Seen::ReadsOfRowsAndEnd });
        }
        if error.is_some() {
            self.note(p, "read error", Some(index), position, rows.len() as i64);
            self.saw(Seen::ReadErrors);
            self.saw(if rows.is_empty() { Seen::ReadsOfError } else { Seen::ReadsOfRowsAndError });
            // After an error the position of a reader is undefined.
            let skip = self.rng.below(4) as i64;
            self.move_reader(p, index, skip);
        }
        if error == Some(ReadError::Interrupted) {
            self.saw(Seen::ReadsInterrupted);
        } else if error.is_some() {
            self.halt(p, index);
        }
        let hidden = self.planted == Some(Planted::HideReadErrors);
        let error = error.filter(|why| !hidden || *why != ReadError::Interrupted);
        let partition = self.logs[index].partition;
        let orders = self.orders(p, index, &rows);
        self.admit_rows(p, index, &rows);
        let times: Vec<(i64, i64)> = rows.iter().map(|row| (row.offset, row.timestamp)).collect();
        self.times_read(p, index, &times, end);
        if self.planted == Some(Planted::SplitReads) && !rows.is_empty() && end.is_some() {
            self.feed(p, Input::Fetched { partition, rows: &rows, orders: &orders, end: None, error: None });
            self.feed(p, Input::Fetched { partition, rows: &[], orders: &[], end, error });
        } else {
            self.feed(p, Input::Fetched { partition, rows: &rows, orders: &orders, end, error });
        }
        self.times_admitted(p, index, &times, end);
        self.wake_reader(p, index);
    }

    fn out_of_range(&mut self, p: usize, index: usize, why: ReadError) {
        self.saw(Seen::OutOfRange);
        let (start, end) = (self.logs[index].start, self.logs[index].end);
        self.note(p, "out of range", Some(index), start, end);
        let expected = self.processes[p].parts[index].reader.as_ref().map_or(0, |reader| reader.expected);
        if self.processes[p].out_of_range == OutOfRange::Latest && expected < start {
            // `out_of_range` skips all records that are now in the log, unless the reader is
            // outside the log only because an error moved it.
            self.logs[index].waive_outcomes(i64::MIN, end);
        }
        let partition = self.logs[index].partition;
        if let Some(reader) = &mut self.processes[p].parts[index].reader {
            reader.permission = None;
        }
        self.feed(p, Input::Fetched { partition, rows: &[], orders: &[], end: None, error: Some(why) });
    }

    /// Returns the error of a damaged offset, or nothing, because some errors are reported only
    /// once.
    fn damaged(&mut self, p: usize, index: usize) -> Option<ReadError> {
        let log = &mut self.logs[index];
        let mut last = false;
        if let Some((at, times)) = log.damage {
            last = times == 1;
            log.damage = (times > 1).then_some((at, times - 1));
            self.note(p, "damaged", Some(index), at, i64::from(times));
        }
        let reader = self.processes[p].parts[index].reader.as_mut()?;
        if reader.error_reported && !last {
            return None;
        }
        let why = self.rng.pick(&[
            ReadError::Corrupt,
            ReadError::Corrupt,
            ReadError::Corrupt,
            ReadError::Unknown,
            ReadError::Denied,
            ReadError::Missing,
        ]);
        let reader = self.processes[p].parts[index].reader.as_mut()?;
        reader.error_reported = matches!(why, ReadError::Denied | ReadError::Missing);
        Some(why)
    }

    fn halt(&mut self, p: usize, index: usize) {
        if let Some(reader) = &mut self.processes[p].parts[index].reader {
            reader.halted = true;
        }
    }

    /// A seek fails. With a planted bug the failure is not noticed.
    fn seek_fails(&mut self, p: usize, index: usize, percent: u64) -> bool {
        let fails = self.occurs(Class::SeekFails, percent);
        if fails {
            self.saw(Seen::SeeksFailed);
            if self.planted != Some(Planted::HideSeekFailures) {
                self.halt(p, index);
                let epoch = self.processes[p].parts[index].epoch;
                self.after(1, Event::SeekFailed(p, index, epoch));
            }
        }
        fails
    }

    pub(crate) fn report_seek_failed(&mut self, p: usize, index: usize, epoch: u32) {
        let part = &self.processes[p].parts[index];
        if part.epoch == epoch && part.reader.is_some() {
            self.processes[p].parts[index].reader.iter_mut().for_each(|reader| reader.permission = None);
            let partition = self.logs[index].partition;
            let error = Some(ReadError::SeekFailed);
            self.feed(p, Input::Fetched { partition, rows: &[], orders: &[], end: None, error });
        }
    }

    fn move_reader(&mut self, p: usize, index: usize, by: i64) {
        let log = &self.logs[index];
        let Some(reader) = &mut self.processes[p].parts[index].reader else { return };
        // The new position may be past the end of the log.
        reader.position = (reader.position + by).max(log.start.min(reader.position));
        reader.end_reported = None;
    }

    /// A rebalance may change the position of readers.
    pub(crate) fn move_readers(&mut self, p: usize) {
        for index in 0..self.logs.len() {
            if self.occurs(Class::ReaderSkips, 40) {
                let by = self.rng.range(0, 8) as i64 - 3;
                self.move_reader(p, index, by);
            }
        }
    }

    pub(crate) fn permit(&mut self, p: usize, partition: Partition, events: u32, bytes: u64) {
        let index = self.index(partition);
        let limit = self.plan.config.max_queued;
        self.require((1..=limit).contains(&events) && bytes > 0, "I-limits", index, -1, || {
            format!("process {p} may read {events} events, {bytes} bytes; the limit is {limit}")
        });
        if let Some(reader) = self.reader(p, index, "permits reading") {
            reader.permission = Some((events, bytes));
            self.wake_reader(p, index);
        }
    }

    pub(crate) fn withdraw_read(&mut self, p: usize, partition: Partition) {
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
            let needs_assign = reader.needs_assign;
            self.require(!needs_assign, "I-protocol", index, offset, || {
                format!("process {p} seeks after an out-of-range error")
            });
            if self.seek_fails(p, index, 20) {
                return;
            }
            let Some(reader) = &mut self.processes[p].parts[index].reader else { return };
            reader.position = offset;
            reader.expected = offset;
            reader.end_reported = None;
            reader.halted = false;
            self.wake_reader(p, index);
        }
    }

    pub(crate) fn reassign(&mut self, p: usize, partition: Partition, offset: i64) {
        self.saw(Seen::Reassigns);
        let index = self.index(partition);
        self.note(p, "reassign", Some(index), offset, 0);
        let part = &mut self.processes[p].parts[index];
        if part.owned && part.reader.is_none() {
            part.reader = Some(Reader::new(offset)); // the partition was stopped before its first read
        }
        if self.reader(p, index, "reassigns").is_some() && !self.seek_fails(p, index, 10) {
            let Some(reader) = &mut self.processes[p].parts[index].reader else { return };
            let (permission, poll_scheduled, error_reported) =
                (reader.permission, reader.poll_scheduled, reader.error_reported);
            *reader = Reader { permission, poll_scheduled, error_reported, ..Reader::new(offset) };
            self.wake_reader(p, index);
        }
    }

    /// The reader of a partition that the process owns. If there is none, this is a violation.
    fn reader(&mut self, p: usize, index: usize, what: &str) -> Option<&mut Reader> {
        let part = &self.processes[p].parts[index];
        if !part.owned || part.reader.is_none() {
            let text = format!("process {p} {what} {index}, which it does not own");
            self.report_violation("I10 own partitions only", text, Some(index), -1);
        }
        self.processes[p].parts[index].reader.as_mut()
    }
}
