//! The simulator's own record of each event: charged attempts, backoff, outcomes, retry rounds.

use std::time::Duration;

use keylane_core::{CallId, Dispatch, FailedEvent, OnExhausted, Reason, RetryScope};

use super::gates::is_of_gate;
use super::log::Lane;
use super::plan::Micros;
use super::process::{CallRow, key_of};
use super::results::counts;
use super::trace::Seen;
use super::world::World;

/// One event in one ownership.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RetryState {
    /// Failed attempts.
    charged: u32,
    /// The event was in a call that failed as a whole. It runs alone next, on a fresh instance.
    quarantined: bool,
    /// The earliest time of the next attempt.
    not_before: Micros,
    /// No further attempt is allowed.
    failed_permanently: Option<Reason>,
}

impl World {
    /// An event of a failed call is not charged unless it ran alone.
    pub(crate) fn quarantine_rows(
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
                self.retry_state(p, row).quarantined = true;
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
        self.begin_retry_round(p, row);
        let wall = (self.now / 1_000) as i64;
        let retry_state = self.retry_state(p, row);
        retry_state.charged += 1;
        let charged = retry_state.charged;
        let record = self.record_of(row.partition, row.incarnation, row.offset);
        let timestamp = record.map_or(row.offset * 7 - 1, |record| record.timestamp);
        let age = Duration::from_millis((wall - timestamp).max(0) as u64);
        if charged >= retry.max_attempts {
            self.failed_permanently(p, id, row, reason);
        } else if timestamp >= 0 && retry.max_record_age.is_some_and(|max| age > max) {
            self.saw(Seen::TooOld);
            self.failed_permanently(p, id, row, Reason::TooOld);
        } else {
            self.saw(Seen::Retries);
            let grown = retry.initial_interval.as_secs_f64() * retry.multiplier.powi(charged as i32 - 1);
            let shortest = grown.min(retry.max_interval.as_secs_f64()) * (1.0 - retry.jitter);
            let shortest = after.map_or(shortest, |after| after.min(retry.max_interval).as_secs_f64());
            let now = self.now;
            // One microsecond for rounding.
            self.retry_state(p, row).not_before = now + ((shortest * 1e6) as Micros).saturating_sub(1);
        }
    }

    /// The event gets no further attempt.
    pub(crate) fn failed_permanently(&mut self, p: usize, id: CallId, row: &CallRow, reason: Reason) {
        if !counts(&self.processes[p], id, row) {
            return;
        }
        self.note(p, "failed permanently", Some(row.partition), row.offset, row.ownership as i64);
        self.retry_state(p, row).failed_permanently = Some(reason);
        if self.processes[p].retry.on_exhausted == OnExhausted::Skip {
            self.saw(Seen::Skipped);
            self.count_outcome(row);
            if !self.is_transactional() {
                self.skip_output(row);
            }
        }
    }

    /// This event stores no output, so the events after it do not wait for it.
    pub(crate) fn skip_output(&mut self, row: &CallRow) {
        let Some(record) = self.record_of(row.partition, row.incarnation, row.offset) else { return };
        if let (Some(key), true, seq) = (record.key, record.has_outputs, record.seq) {
            self.logs[row.partition].store_output(key, seq);
        }
    }

    pub(crate) fn check_dead_letter(&mut self, p: usize, dead_letter: &FailedEvent, row: &CallRow) {
        let process = &self.processes[p];
        let expected = if is_of_gate(dead_letter.reason) {
            Some(dead_letter.reason) // the explanation of the step checks it
        } else if dead_letter.reason == Reason::NoLaneKey {
            Some(Reason::NoLaneKey)
                .filter(|_| self.plan.rejects_unkeyed && matches!(row.lane, Lane::Unkeyed(_)))
        } else {
            process
                .retry_states
                .get(&(row.ownership, row.offset))
                .and_then(|retry_state| retry_state.failed_permanently)
        };
        let always = matches!(dead_letter.reason, Reason::Gap | Reason::Late);
        let publishes = always || process.retry.on_exhausted == OnExhausted::DeadLetter;
        self.require(
            publishes && expected == Some(dead_letter.reason),
            "I-outcomes",
            row.partition,
            row.offset,
            || format!("process {p} sends {dead_letter:?}; expected reason: {expected:?}"),
        );
    }

    /// The attempt has the right number, is not too early, and runs alone if it must.
    pub(crate) fn check_attempt(&mut self, p: usize, dispatch: &Dispatch<'_>, row: &CallRow) {
        self.inherit_attempts(p, row);
        let retry_state = *self.retry_state(p, row);
        let (partition, offset) = (row.partition, row.offset);
        let retry = self.processes[p].retry.clone();
        let attempt = dispatch.attempt;
        let last = attempt >= retry.max_attempts;
        let counted = attempt == retry_state.charged + 1 && attempt <= retry.max_attempts;
        self.require(counted && dispatch.last_attempt == last, "I-attempts", partition, offset, || {
            format!("process {p} dispatches {offset} with attempt {attempt}; its state is {retry_state:?}")
        });
        self.require(retry_state.failed_permanently.is_none(), "I-outcomes", partition, offset, || {
            format!("process {p} retries {offset}, whose state is {retry_state:?}")
        });
        let now = self.now;
        self.require(now >= retry_state.not_before, "I-backoff", partition, offset, || {
            format!("process {p} retries {offset} at {now}; its state is {retry_state:?}")
        });
        let isolated = !retry_state.quarantined || (dispatch.rows.len() == 1 && dispatch.fresh);
        let single = attempt == 1 || dispatch.rows.len() == 1;
        self.require(isolated && single, "I-attribution", partition, offset, || {
            format!(
                "process {p} dispatches {offset} among {} rows, fresh: {}",
                dispatch.rows.len(),
                dispatch.fresh
            )
        });
        if retry_state.quarantined {
            self.saw(Seen::Reruns);
            self.retry_state(p, row).quarantined = false;
        }
        let round = self.processes[p].rounds.get(&row.ownership).copied();
        let beyond = round.is_some_and(|last| offset > last && !self.may_end_round_early(p, partition, last));
        self.require(!beyond, "I-round", partition, offset, || {
            format!("process {p} dispatches {offset} beyond its round, which ends at {round:?}")
        });
        let highest = self.processes[p].dispatched_to.entry(row.ownership).or_insert(-1);
        *highest = (*highest).max(offset);
    }

    /// Under transactional delivery, a round may end without its commit if the completed set does not fit.
    fn may_end_round_early(&self, p: usize, index: usize, last: i64) -> bool {
        let mut queue = self.processes[p].queue.iter();
        let is_open = queue.any(|&(partition, _, offset, _)| partition == index && offset <= last);
        self.is_transactional() && self.plan.broker_metadata_limit < 4096 && !is_open
    }

    fn begin_retry_round(&mut self, p: usize, row: &CallRow) {
        let process = &mut self.processes[p];
        let closing = process.draining || process.revoking(row.partition);
        if process.retry.scope == RetryScope::Partition && !closing {
            let last = process.dispatched_to.get(&row.ownership).copied().unwrap_or(-1);
            if let std::collections::btree_map::Entry::Vacant(vacant) = process.rounds.entry(row.ownership) {
                vacant.insert(last);
                self.saw(Seen::Rounds);
            }
        }
    }

    /// A commit of this process was applied, and the process received the response.
    pub(crate) fn finish_retry_round(&mut self, p: usize, index: usize, offset: i64) {
        let process = &mut self.processes[p];
        let Some(ownership) = process.parts[index].ownership else { return };
        if process.rounds.get(&ownership).is_some_and(|&last| offset > last) {
            process.rounds.remove(&ownership);
        }
    }

    /// With `latest_first`: an event that takes the place of one between two attempts has its attempts.
    fn inherit_attempts(&mut self, p: usize, row: &CallRow) {
        for offset in self.gave_way_to(p, row) {
            let states = &mut self.processes[p].retry_states;
            if let Some(state) = states.get_mut(&(row.ownership, offset))
                && (state.charged > 0 || state.quarantined)
                && state.failed_permanently.is_none()
            {
                let state = std::mem::take(state);
                states.insert((row.ownership, row.offset), state);
                self.saw(Seen::Preemptions);
            }
        }
    }

    /// Whether the event gets no further attempt.
    pub(crate) fn has_failed(&self, p: usize, row: &CallRow) -> bool {
        let state = self.processes[p].retry_states.get(&(row.ownership, row.offset));
        state.is_some_and(|state| state.failed_permanently.is_some())
    }

    fn retry_state(&mut self, p: usize, row: &CallRow) -> &mut RetryState {
        self.processes[p].retry_states.entry((row.ownership, row.offset)).or_default()
    }

    /// The rows of a lane in a call must be the first kept events of that lane.
    pub(crate) fn check_front(&mut self, p: usize, id: CallId, group: &[CallRow]) {
        let Some(&first) = group.first() else { return };
        let from = (first.partition, first.lane, i64::MIN, 0);
        let queue = self.processes[p].queue.range(from..);
        let kept: Vec<i64> = queue
            .take_while(|(partition, lane, ..)| (*partition, *lane) == (first.partition, first.lane))
            .take(group.len())
            .map(|(_, _, offset, _)| *offset)
            .collect();
        let valid = kept.iter().eq(group.iter().map(|row| &row.offset));
        self.require(valid, "I4 lane order", first.partition, first.offset, || {
            format!(
                "process {p} dispatches {group:?} in {:?}; the first in the lane are {kept:?}",
                key_of(id)
            )
        });
    }
}
