//! What each event has been charged with, as the world sees it: attempts, their distance, endings, rounds.

use std::time::Duration;

use keylane_core::{CallId, DeadLetter, Dispatch, OnExhausted, Reason, RetryScope};

use super::endings::counts;
use super::log::Lane;
use super::plan::Micros;
use super::process::{CallRow, key_of};
use super::trace::Seen;
use super::world::World;

/// One event in one ownership.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Blame {
    /// Failed attempts.
    charged: u32,
    /// It was in a call that failed as a whole: it comes alone next, on a fresh instance.
    suspect: bool,
    /// The next attempt may not come before.
    not_before: Micros,
    /// It is to have no other attempt.
    failed_for_good: Option<Reason>,
}

impl World {
    /// An event of a call that failed is not charged unless it was alone.
    pub(crate) fn suspect_rows(
        &mut self,
        p: usize,
        id: CallId,
        rows: &[CallRow],
        failing_row: Option<usize>,
    ) {
        for (at, row) in rows.iter().enumerate() {
            let same_lane = |failing_row: usize| {
                at >= failing_row
                    && (row.partition, row.lane) == (rows[failing_row].partition, rows[failing_row].lane)
            };
            if failing_row.is_none_or(same_lane) && counts(&self.processes[p], id, row) {
                self.blame(p, row).suspect = true;
            }
        }
    }

    /// An attempt failed.
    pub(crate) fn charge(
        &mut self,
        p: usize,
        id: CallId,
        row: &CallRow,
        reason: Reason,
        after: Option<Duration>,
    ) {
        if !counts(&self.processes[p], id, row) {
            return;
        }
        let retry = self.processes[p].retry.clone();
        self.hold_partition(p, row);
        let wall = (self.now / 1_000) as i64;
        let blame = self.blame(p, row);
        blame.charged += 1;
        let charged = blame.charged;
        let timestamp = row.offset * 7 - 1;
        let age = Duration::from_millis((wall - timestamp).max(0) as u64);
        if charged >= retry.max_attempts {
            self.failed_for_good(p, id, row, reason);
        } else if timestamp >= 0 && retry.max_record_age.is_some_and(|max| age > max) {
            self.saw(Seen::TooOld);
            self.failed_for_good(p, id, row, Reason::TooOld);
        } else {
            self.saw(Seen::Retries);
            let grown = retry.initial_interval.as_secs_f64() * retry.multiplier.powi(charged as i32 - 1);
            let shortest = grown.min(retry.max_interval.as_secs_f64()) * (1.0 - retry.jitter);
            let shortest = after.map_or(shortest, |after| after.min(retry.max_interval).as_secs_f64());
            let now = self.now;
            // A microsecond for rounding.
            self.blame(p, row).not_before = now + ((shortest * 1e6) as Micros).saturating_sub(1);
        }
    }

    /// The event is to have no other attempt.
    pub(crate) fn failed_for_good(&mut self, p: usize, id: CallId, row: &CallRow, reason: Reason) {
        if !counts(&self.processes[p], id, row) {
            return;
        }
        self.note(p, "failed_for_good", Some(row.partition), row.offset, row.ownership as i64);
        self.blame(p, row).failed_for_good = Some(reason);
        if self.processes[p].retry.on_exhausted == OnExhausted::Skip {
            self.saw(Seen::Skipped);
            self.came_to_its_end(row);
            self.pass_output(row);
        }
    }

    /// Nothing of this event is to land: those behind it are not held up by that.
    pub(crate) fn pass_output(&mut self, row: &CallRow) {
        let Some(record) = self.record_of(row.partition, row.incarnation, row.offset) else { return };
        if let (Some(key), true, seq) = (record.key, record.has_outputs, record.seq) {
            self.logs[row.partition].land(key, seq);
        }
    }

    pub(crate) fn check_letter(&mut self, p: usize, letter: &DeadLetter, row: &CallRow) {
        let process = &self.processes[p];
        let expected = if letter.reason == Reason::NoKey {
            Some(Reason::NoKey).filter(|_| self.plan.rejects_unkeyed && matches!(row.lane, Lane::Alone(_)))
        } else {
            process.blames.get(&(row.ownership, row.offset)).and_then(|blame| blame.failed_for_good)
        };
        let wanted = process.retry.on_exhausted == OnExhausted::DeadLetter;
        self.require(
            wanted && expected == Some(letter.reason),
            "I-endings",
            row.partition,
            row.offset,
            || format!("process {p} sends {letter:?}; it should be {expected:?}"),
        );
    }

    /// The attempt is the one that it should be, in time, and with the care that it needs.
    pub(crate) fn check_attempt(&mut self, p: usize, dispatch: &Dispatch<'_>, row: &CallRow) {
        let blame = *self.blame(p, row);
        let (partition, offset) = (row.partition, row.offset);
        let retry = self.processes[p].retry.clone();
        let attempt = dispatch.attempt;
        let last = attempt >= retry.max_attempts;
        let counted = attempt == blame.charged + 1 && attempt <= retry.max_attempts;
        self.require(counted && dispatch.last_attempt == last, "I-attempts", partition, offset, || {
            format!("process {p} calls attempt {attempt} the next of {offset}, which has {blame:?}")
        });
        self.require(blame.failed_for_good.is_none(), "I-endings", partition, offset, || {
            format!("process {p} tries {offset} again, which has {blame:?}")
        });
        let now = self.now;
        self.require(now >= blame.not_before, "I-backoff", partition, offset, || {
            format!("process {p} tries {offset} again at {now}, which has {blame:?}")
        });
        let careful = !blame.suspect || (dispatch.rows.len() == 1 && dispatch.fresh);
        let single = attempt == 1 || dispatch.rows.len() == 1;
        self.require(careful && single, "I-blame", partition, offset, || {
            format!(
                "process {p} dispatches {offset} among {} rows, fresh: {}",
                dispatch.rows.len(),
                dispatch.fresh
            )
        });
        if blame.suspect {
            self.saw(Seen::Reruns);
            self.blame(p, row).suspect = false;
        }
        let round = self.processes[p].rounds.get(&row.ownership).copied();
        self.require(round.is_none_or(|last| offset <= last), "I-round", partition, offset, || {
            format!("process {p} dispatches {offset} beyond its round, which ends at {round:?}")
        });
        let highest = self.processes[p].dispatched_to.entry(row.ownership).or_insert(-1);
        *highest = (*highest).max(offset);
    }

    fn hold_partition(&mut self, p: usize, row: &CallRow) {
        let process = &mut self.processes[p];
        let on_its_way_out = process.draining || process.revoking(row.partition);
        if process.retry.scope == RetryScope::Partition && !on_its_way_out {
            let last = process.dispatched_to.get(&row.ownership).copied().unwrap_or(-1);
            if let std::collections::btree_map::Entry::Vacant(vacant) = process.rounds.entry(row.ownership) {
                vacant.insert(last);
                self.saw(Seen::Rounds);
            }
        }
    }

    /// A commit of this process was applied, and it has heard of it.
    pub(crate) fn let_partition_go(&mut self, p: usize, index: usize, offset: i64) {
        let process = &mut self.processes[p];
        let Some(ownership) = process.parts[index].ownership else { return };
        if process.rounds.get(&ownership).is_some_and(|&last| offset > last) {
            process.rounds.remove(&ownership);
        }
    }

    fn blame(&mut self, p: usize, row: &CallRow) -> &mut Blame {
        self.processes[p].blames.entry((row.ownership, row.offset)).or_default()
    }

    /// The rows of a lane in a call are the first of what is kept of it.
    pub(crate) fn check_front(&mut self, p: usize, id: CallId, group: &[CallRow]) {
        let Some(&first) = group.first() else { return };
        let from = (first.partition, first.lane, i64::MIN, 0);
        let queue = self.processes[p].queue.range(from..);
        let kept: Vec<i64> = queue
            .take_while(|(partition, lane, ..)| (*partition, *lane) == (first.partition, first.lane))
            .take(group.len())
            .map(|(_, _, offset, _)| *offset)
            .collect();
        let sound = kept.iter().eq(group.iter().map(|row| &row.offset));
        self.require(sound, "I4 lane order", first.partition, first.offset, || {
            format!("process {p} dispatches {group:?} in {:?}; first in line are {kept:?}", key_of(id))
        });
    }
}
