//! Stream time: lets it advance, and requests the ends of logs that events wait for.

use std::time::Duration;

use super::super::Core;
use crate::outbox::Pending;
use crate::partitions::Phase;
use crate::{Consecutive, First, GapCause, GateRule, Partition, Window};

/// Bounds of the interval at which the end of a log is requested while events of it wait.
const REQUEST_MIN: Duration = Duration::from_millis(50);
const REQUEST_MAX: Duration = Duration::from_secs(1);
/// The interval at which the clock of a full partition advances.
const FULL_INTERVAL: Duration = Duration::from_millis(100);
/// How long a partition must be full, with nothing that can run, before a gap is closed for that reason.
const STUCK_AFTER: Duration = Duration::from_secs(1);
/// With `first = "any"`, all waiting keys are checked at this interval of stream time, in milliseconds.
const SCAN_INTERVAL_MS: i64 = 100;

impl Core {
    /// Takes the timestamp of a record that was read.
    pub(in crate::core) fn record_read(&mut self, index: u32, timestamp: i64) {
        let (uptime, wall_ms) = (self.now.uptime, self.now.wall_ms);
        let Some(gates) = self.gates() else { return };
        let stream = &mut gates.partition(index).stream;
        stream.record(timestamp, wall_ms);
        stream.stand(uptime);
    }

    pub(in crate::core) fn log_end_seen(&mut self, id: Partition, end: i64, sent_at: Duration) {
        let Some(index) = self.partitions.find(id) else { return };
        let state = self.partitions.get(index);
        if state.phase != Phase::Active {
            return;
        }
        // Everything before the ledger's next offset was read, wherever the reader is.
        let is_at_end = state.ledger.next() >= end;
        let is_stopped = self.stopping
            || self.output_backlog_full
            || (self.is_full() && !state.waits_for_first())
            || self.rebalance.assign.is_some()
            || self.rebalance.revoke.is_some();
        let uptime = self.now.uptime;
        let Some(gates) = self.gates() else { return };
        let stream = &mut gates.partition(index).stream;
        if is_at_end && !is_stopped {
            stream.at_end(sent_at.min(uptime));
        } else if is_stopped {
            stream.stand(uptime);
        }
        self.check_waits(index);
    }

    /// Closes gaps and releases windows whose time has come.
    pub(in crate::core) fn check_waits(&mut self, index: u32) {
        if self.stopping || self.partitions.get(index).phase != Phase::Active {
            return;
        }
        if let Some(rule) = self.window() {
            let state = self.partitions.get(index);
            let is_last = state.end.is_some_and(|end| state.ledger.next() >= end);
            while let Some(key) =
                self.lanes.gates.as_deref().and_then(|gates| gates.parked.first_waiting(index))
                && (is_last || self.is_expired(key))
            {
                self.release_oldest(key);
            }
            self.release_overflow(index, &rule);
        } else if let Some(rule) = self.consecutive() {
            self.close_expired_gaps(index, &rule);
        }
        self.carry_out_decisions();
    }

    pub(super) fn close_expired_gaps(&mut self, index: u32, rule: &Consecutive) {
        let Some(gates) = self.gates() else { return };
        if matches!(rule.first, First::Any { .. }) {
            // A key without a mark waits less long than others.
            let now_ms = gates.partition(index).stream.now_ms();
            if now_ms < gates.partition(index).scanned_ms + SCAN_INTERVAL_MS {
                return;
            }
            gates.partition(index).scanned_ms = now_ms;
            let waiting: Vec<u32> = gates.parked.waiting(index).collect();
            waiting
                .into_iter()
                .filter(|&key| self.is_expired(key))
                .collect::<Vec<_>>()
                .into_iter()
                .for_each(|key| self.close_gap_if_due(key));
            return;
        }
        while let Some(key) = self.lanes.gates.as_deref().and_then(|gates| gates.parked.first_waiting(index))
            && self.is_expired(key)
        {
            self.close_gap_if_due(key);
        }
    }

    /// Requests the ends of logs that events wait for, and lets the clock of full partitions advance.
    pub(in crate::core) fn check_gates(&mut self) {
        let uptime = self.now.uptime;
        let Some(gates) = self.lanes.gates.as_deref() else { return };
        if !gates.parked.any_waiting() {
            self.gate_check_at = None;
            return;
        }
        if self.gate_check_at.is_some_and(|at| at > uptime) {
            return;
        }
        let Some(interval) = self.request_interval() else { return };
        let waiting: Vec<u32> =
            gates.partitions().filter(|(_, gate)| gate.waiting > 0).map(|(index, _)| index).collect();
        let (mut requests, mut next) = (Vec::new(), uptime + interval);
        for index in waiting {
            let state = self.partitions.get(index);
            // What a partition is held for may be such an event: then nothing else can be read or handled.
            let (id, is_paused) = (state.id, state.reading.paused.is_some() || state.waits_for_first());
            let is_idle = state.running + state.unacked == 0;
            if state.phase != Phase::Active {
                continue;
            }
            if is_paused && is_idle && !self.stopping {
                self.full(index);
                next = next.min(uptime + FULL_INTERVAL);
            } else if let Some(gates) = self.gates() {
                let gate = gates.partition(index);
                gate.stuck_since = None;
                if gate.request_at <= uptime {
                    gate.request_at = uptime + interval;
                    requests.push(id);
                }
                next = next.min(gate.request_at);
            }
        }
        self.gate_check_at = Some(next);
        if !requests.is_empty() {
            self.outbox.push(Pending::RequestLogEnds(requests));
        }
    }

    /// Returns the interval at which the ends of logs are requested; `None`: nothing waits for time.
    pub(super) fn request_interval(&self) -> Option<Duration> {
        let wait = match self.lanes.gates.as_deref()?.config.as_ref()?.rule {
            GateRule::Consecutive(Consecutive { gap_timeout, first: First::At(_), .. }) => gap_timeout,
            GateRule::Consecutive(Consecutive { gap_timeout, first: First::Any { wait }, .. }) => {
                Some(gap_timeout.map_or(wait, |timeout| timeout.min(wait)))
            }
            GateRule::Window(Window { window, .. }) => Some(window),
            GateRule::Newest(_) => return None,
        };
        Some(wait.map_or(REQUEST_MAX, |wait| (wait / 2).clamp(REQUEST_MIN, REQUEST_MAX)))
    }

    /// Handles a partition that can't be read because it is full of events, none of which runs.
    pub(super) fn full(&mut self, index: u32) {
        let uptime = self.now.uptime;
        let window = self.window();
        let Some(gates) = self.gates() else { return };
        gates.partition(index).stream.full(uptime);
        self.check_waits(index);
        if let Some(rule) = window {
            let limit = u64::from(self.config.max_queued);
            let waiting = self.lanes.gates.as_deref().and_then(|gates| gates.partition_now(index));
            if rule.releases_on_overflow && waiting.is_some_and(|gate| gate.waiting > limit / 2) {
                self.outbox.counters.windows_released_early += u64::from(self.release_first(index));
                self.carry_out_decisions();
            }
            return;
        }
        if self.lanes.any_active(index, uptime + STUCK_AFTER) {
            self.gates().into_iter().for_each(|gates| gates.partition(index).stuck_since = None);
            return;
        }
        let Some(gates) = self.gates() else { return };
        let since = *gates.partition(index).stuck_since.get_or_insert(uptime);
        if uptime >= since + STUCK_AFTER {
            // A barred lane has an event that may run.
            let waiting: Vec<u32> = gates.parked.waiting(index).collect();
            let is_free = |&key: &u32| {
                let lane = self.lanes.gates.as_deref().map(|gates| gates.keys.key(key).lane);
                lane.is_some_and(|lane| self.lanes.is_waiting(lane))
            };
            let oldest = waiting.into_iter().find(is_free);
            oldest.into_iter().for_each(|key| self.close_gap(key, GapCause::PartitionFull));
            self.carry_out_decisions();
            self.partitions.get_mut(index).reading.reads_to_limit = true;
            self.reads.to_decide.push(index);
        }
    }
}
