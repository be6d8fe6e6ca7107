//! `read_in_step`, in a share of the seeds: the record times, and what each process may dispatch.
//!
//! The simulator does not know when the core handles what, so it uses bounds: the least time that a dispatched event can
//! have, and the greatest that another partition can be at.

use std::collections::BTreeMap;
use std::time::Duration;

use keylane_core::{Config, Row};

use super::plan::{Class, MS, Plan};
use super::planted::Planted;
use super::rng::Rng;
use super::world::World;

/// Percentage of seeds with `read_in_step`.
const IN_STEP: u64 = 25;
/// As many records in a row must be ahead until their partition is.
const LOOK_AHEAD: usize = 8;
/// Timestamps that are further ahead of the wall clock count for nothing.
const AHEAD_MAX_MS: i64 = 60_000;

/// The times of records.
#[derive(Debug)]
pub(crate) struct RecordTimes {
    rng: Rng,
    /// How far each partition is behind the wall clock.
    lags_ms: Vec<i64>,
}

/// What a process has read in one ownership.
#[derive(Debug, Default)]
pub(crate) struct ReadTimes {
    /// The times of the records by offset; `None`: it counts for nothing. A row that the core did not admit is included.
    read: BTreeMap<i64, Option<i64>>,
    /// Whether the last read may have reached the end of the log.
    at_end: bool,
}

impl RecordTimes {
    pub(crate) fn new(partitions: usize, seed: u64) -> RecordTimes {
        let mut rng = Rng::new(seed ^ 0x7265_6164_7469_6d65);
        let lags_ms =
            (0..partitions).map(|_| rng.pick(&[0, 0, 300, 4_000]) + rng.below(200) as i64).collect();
        RecordTimes { rng, lags_ms }
    }

    fn draw(&mut self, index: usize, now_ms: i64) -> i64 {
        if self.rng.percent(5) {
            return self.rng.pick(&[-1, now_ms + 3_600_000, now_ms + 30_000, now_ms / 2]);
        }
        (now_ms - self.lags_ms[index] - self.rng.below(30) as i64).max(0)
    }
}

/// Draws whether partitions are read in step. The draw does not change what the seed is otherwise.
pub(crate) fn draw(plan: &mut Plan, seed: u64) {
    let mut rng = Rng::new(seed ^ 0x696e_2073_7465_7021);
    if rng.percent(IN_STEP) {
        plan.config.read_in_step = Some(Duration::from_millis(rng.pick(&[20, 300, 2_000])));
    }
}

impl World {
    /// Gives the record that was just appended its time. With gates, it has one.
    pub(crate) fn time_last_record(&mut self, index: usize) {
        if self.plan.config.read_in_step.is_none() || self.is_gated() {
            return;
        }
        let timestamp = self.record_times.draw(index, (self.now / MS) as i64);
        self.logs[index].records.last_mut().into_iter().for_each(|record| record.timestamp = timestamp);
    }

    /// The core does not know the limit.
    pub(crate) fn planted_step(&self, config: &mut Config) {
        if self.planted == Some(Planted::StepTooLong) {
            config.read_in_step = config.read_in_step.map(|ahead| ahead * 10);
        }
    }

    /// A read is about to be given to the core.
    pub(crate) fn times_read(&mut self, p: usize, index: usize, rows: &[(i64, i64)], end: Option<i64>) {
        let Some(ownership) = self.processes[p].parts[index].ownership else { return };
        if self.plan.config.read_in_step.is_none() {
            return;
        }
        let (wall_ms, log_end) = ((self.now / MS) as i64, self.logs[index].end);
        let times = self.processes[p].times.entry(ownership).or_default();
        let valid = |at: &i64| (0..=wall_ms + AHEAD_MAX_MS).contains(at);
        times.read.extend(
            rows.iter().map(|&(offset, at)| (offset, Some(at).filter(valid).map(|at| at.min(wall_ms)))),
        );
        times.at_end |= end == Some(log_end);
    }

    /// The core has handled that read. If it has admitted its rows, what was the end before is none.
    pub(crate) fn times_admitted(&mut self, p: usize, index: usize, rows: &[(i64, i64)], end: Option<i64>) {
        let part = &self.processes[p].parts[index];
        let (Some(ownership), Some(&(first, _))) = (part.ownership, rows.first()) else { return };
        let partition = self.logs[index].partition;
        let next = self.processes[p].core.as_ref().and_then(|core| {
            let found = core.view().partitions.into_iter().find(|view| view.partition == partition);
            found.map(|view| view.next_offset)
        });
        let log_end = self.logs[index].end;
        if next.is_some_and(|next| next > first)
            && let Some(times) = self.processes[p].times.get_mut(&ownership)
        {
            times.at_end = end == Some(log_end);
        }
    }

    /// No event runs that is too far ahead of another partition of the process.
    pub(crate) fn check_in_step(&mut self, p: usize, index: usize, row: &Row) {
        let Some(ahead) = self.plan.config.read_in_step else { return };
        let plan = &self.plan;
        let refuses =
            [Class::TopicsBlocked, Class::EffectsRefused].iter().any(|class| self.classes.contains(class));
        let is_held =
            refuses || plan.broker_metadata_limit < 4096 || plan.request_metadata_limit != usize::MAX;
        if self.is_gated() || (self.is_transactional() && is_held) {
            return; // an event that was not ahead when it was read may be when it runs, and what is held does not wait
        }
        let ahead_ms = ahead.as_millis() as i64;
        let grain_ms = (ahead_ms / 16).max(1);
        let Some(least) = self.least_time(p, row) else { return };
        for other in (0..self.logs.len()).filter(|&other| other != index) {
            let Some(most) = self.greatest_time(p, other) else { continue };
            let is_in_step = least - grain_ms <= most.saturating_add(ahead_ms);
            self.require(is_in_step, "I-step", index, row.offset, || {
                format!(
                    "process {p} dispatches {} of {least} ms; partition {other} is at {most} ms",
                    row.offset
                )
            });
        }
    }

    /// The least time of an event that is dispatched for the first time. `None`: it counts for nothing.
    fn least_time(&self, p: usize, row: &Row) -> Option<i64> {
        let process = &self.processes[p];
        let times = process.times.get(&row.ownership.0)?;
        let is_first =
            process.dispatched_to.get(&row.ownership.0).is_none_or(|&highest| highest < row.offset);
        times.read.get(&row.offset).copied().flatten().filter(|_| is_first)?;
        times.read.range(row.offset..).take(LOOK_AHEAD).filter_map(|(_, at)| *at).min()
    }

    /// The greatest time that a partition can be at which others wait for. `None`: they may not wait for it.
    fn greatest_time(&self, p: usize, index: usize) -> Option<i64> {
        let (process, log) = (&self.processes[p], &self.logs[index]);
        let part = &process.parts[index];
        let ownership = part.ownership.filter(|ownership| !process.ended.contains(ownership))?;
        let reader =
            part.reader.as_ref().filter(|_| part.owned && !part.stopped && !process.revoking(index))?;
        if reader.needs_assign {
            return None; // its ownership ends
        }
        let times = process.times.get(&ownership);
        let dispatched_to = process.dispatched_to.get(&ownership).copied().unwrap_or(-1);
        let is_queued = |&offset: &i64| {
            log.record(offset).is_some_and(|record| process.keeps(index, record.lane, offset))
        };
        let queued = times.and_then(|times| {
            let mut undispatched = times.read.range(dispatched_to + 1..).map(|(&offset, _)| offset);
            Some((times, undispatched.find(is_queued)?))
        });
        if let Some((times, first)) = queued {
            return times.read.range(..=first).filter_map(|(_, at)| *at).max();
        }
        if times.is_some_and(|times| times.at_end) {
            return None;
        }
        let last_read = times.and_then(|times| times.read.last_key_value()).map(|(&offset, _)| offset);
        let next = last_read.map_or(reader.expected.max(reader.position), |last| last + 1);
        let is_unread = |offset: i64| offset >= next && process.ends[index].is_none_or(|end| offset < end);
        if !log.records.iter().any(|record| is_unread(record.offset)) {
            return None;
        }
        match times.filter(|times| !times.read.is_empty()) {
            None => Some(i64::MIN),
            Some(times) => times.read.values().filter_map(|at| *at).max(),
        }
    }
}
