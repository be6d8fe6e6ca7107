//! Gates: carries out what was decided about events, closes gaps, releases windows, and lets stream time advance.

use std::time::Duration;

use super::Core;
use crate::event::Event;
use crate::gates::{GateOutcome, Gates, Role, Settled, WithoutCall};
use crate::outbox::Pending;
use crate::partitions::Phase;
use crate::{
    BlockedOn, Change, ClosedGap, Consecutive, First, GapCause, GateRule, KeyMemory, LookUpId, MaxAhead,
    MemoryChange, Notice, OnGap, Partition, PartitionStop, Reason, Window,
};

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
    fn gates(&mut self) -> Option<&mut Gates> {
        self.lanes.gates.as_deref_mut()
    }

    // -- what was decided ---------------------------------------------------------------------------

    /// Carries out what the gates have decided.
    pub(super) fn carry_out_decisions(&mut self) {
        if self.lanes.gates.is_none() {
            return;
        }
        let unfinished = self.gates().map(|gates| std::mem::take(&mut gates.decided.unfinished));
        unfinished.into_iter().flatten().for_each(|lane| self.lanes.ask_again(lane));
        while let Some(mut decided) = self.gates().and_then(Gates::take_decided) {
            let mut changes = decided.changes.drain(..);
            for settled in decided.settled.drain(..) {
                self.settle_without_call(&settled, changes.by_ref().take(settled.changes));
            }
            drop(changes);
            for (index, event, reason) in decided.rejected.drain(..) {
                self.queue_rejected(index, event, reason);
            }
            for (key, request, event) in decided.look_ups.drain(..) {
                self.look_up_key(key, request, event);
            }
            for key in decided.gaps.drain(..) {
                self.close_gap_if_due(key);
            }
            self.gates().into_iter().for_each(|gates| gates.reuse(&mut decided));
        }
    }

    /// Returns whether lanes wait for the next step, because too much was decided in this one.
    pub(super) fn has_unfinished_lanes(&self) -> bool {
        self.lanes.gates.as_ref().is_some_and(|gates| !gates.decided.unfinished.is_empty())
    }

    /// `changes`: what it changes, exactly.
    fn settle_without_call(
        &mut self,
        settled: &Settled,
        changes: impl Iterator<Item = (crate::GateKey, Change)>,
    ) {
        let Settled { partition: index, event, outcome, .. } = *settled;
        let state = self.partitions.get_mut(index);
        if state.phase != Phase::Active {
            changes.for_each(drop);
            return self.outbox.release(event.arena_slot); // the next owner reads it again
        }
        state.ledger.settle(event.offset);
        state.queued_bytes = state.queued_bytes.saturating_sub(u64::from(event.bytes));
        state.commit.changes += 1;
        let transactions = self.transactions.as_mut();
        let number = transactions
            .map(|transactions| transactions.number(self.now.uptime, state, (event.offset, 0), false))
            .unwrap_or_default();
        let (partition, ownership) = (state.id, state.ownership);
        if state.reading.paused.is_some() {
            self.reads.to_decide.push(index);
        }
        if let Some((value, mark)) = settled.stale_redrive {
            let offset = event.offset;
            self.outbox.notice(Notice::StaleRedrive { partition, offset, value, mark });
        }
        for (key, change) in changes {
            self.outbox.remember(MemoryChange { partition, ownership, key, number, change });
        }
        self.committer.count_settled(1);
        let counters = &mut self.outbox.counters;
        counters.settled += 1;
        *match outcome {
            GateOutcome::Stale => &mut counters.stale,
            GateOutcome::Superseded => &mut counters.superseded,
            GateOutcome::Late => &mut counters.late_dropped,
            GateOutcome::Duplicate => &mut counters.duplicates,
            GateOutcome::Filtered => &mut counters.filtered,
        } += 1;
        self.outbox.release(event.arena_slot);
    }

    fn queue_rejected(&mut self, index: u32, event: Event, reason: Reason) {
        if self.partitions.get(index).phase == Phase::Active {
            self.queue_event_without_call(index, event, reason);
        } else {
            self.outbox.release(event.arena_slot);
        }
    }

    fn look_up_key(&mut self, key: u32, request: LookUpId, event: Event) {
        let Some(gates) = self.gates() else { return };
        let (index, key) = (gates.keys.key(key).partition, gates.keys.key(key).id);
        let state = self.partitions.get(index);
        if state.phase != Phase::Active {
            return; // the event was dropped in the same step
        }
        let (partition, ownership) = (state.id, state.ownership);
        let arena_slot = event.arena_slot;
        self.outbox.push(Pending::LookUpKey { request, partition, ownership, key, arena_slot });
    }

    pub(super) fn key_known(&mut self, request: LookUpId, memory: &KeyMemory) {
        let Some(gates) = self.gates() else { return };
        let Some(key) = gates.keys.known(request, memory) else { return };
        let lane = gates.keys.key(key).lane;
        self.lanes.key_loaded(lane);
    }

    /// Forgets the keys whose last event has settled in this step.
    pub(super) fn free_gate_keys(&mut self) {
        if let Some(gates) = self.gates() {
            gates.keys.free_unreferenced();
        }
    }

    /// Forgets the keys of ownerships that accept no more results.
    pub(super) fn clear_gates(&mut self) {
        let uptime = self.now.uptime;
        for index in std::mem::take(&mut self.gates_to_clear) {
            if let Some(gates) = self.gates() {
                gates.clear(index, uptime);
            }
        }
    }

    // -- gaps ---------------------------------------------------------------------------------------

    pub(super) fn consecutive(&self) -> Option<Consecutive> {
        match self.lanes.gates.as_ref()?.config.as_ref()?.rule {
            GateRule::Consecutive(rule) => Some(rule),
            GateRule::Newest(_) | GateRule::Window(_) => None,
        }
    }

    fn window(&self) -> Option<Window> {
        match self.lanes.gates.as_ref()?.config.as_ref()?.rule {
            GateRule::Window(rule) => Some(rule),
            GateRule::Newest(_) | GateRule::Consecutive(_) => None,
        }
    }

    /// Closes the gap of a key whose limits are reached, once its lane is free.
    fn close_gap_if_due(&mut self, key: u32) {
        let Some(rule) = self.consecutive() else { return };
        let is_expired = self.is_expired(key);
        let Some(gates) = self.gates() else { return };
        let known = gates.keys.key(key);
        let (parked, lane) = (known.parked, known.lane);
        let cause = match () {
            () if parked == 0 => return,
            () if parked > rule.max_early => GapCause::TooManyEarly,
            () if is_expired => GapCause::Timeout,
            () => return gates.update_wait(key),
        };
        if self.lanes.is_waiting(lane) {
            self.close_gap(key, cause);
        } else if let Some(gates) = self.gates() {
            gates.wait_for_lane(key);
        }
    }

    fn is_expired(&self, key: u32) -> bool {
        let Some(gates) = self.lanes.gates.as_deref() else { return false };
        let Some(wait) = gates.wait_of(key) else { return false };
        let wait_ms = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
        let since = gates.waits_since(key, |node| self.lanes.parked_event(node));
        let now = gates.partition_now(gates.keys.key(key).partition).map(|gate| gate.stream.now_ms());
        since.zip(now).is_some_and(|(since, now)| now.saturating_sub(since) >= wait_ms)
    }

    /// Closes the gap of a key whose lane is free.
    fn close_gap(&mut self, key: u32, cause: GapCause) {
        let Some(rule) = self.consecutive() else { return };
        let Some(gates) = self.gates() else { return };
        let Some((low, node)) = gates.parked.lowest(key) else { return };
        let known = gates.keys.key(key);
        let (index, mark, waiting) = (known.partition, known.memory.mark, known.parked);
        let is_first = mark.is_none() && matches!(rule.first, First::Any { .. });
        let expected = match (mark, rule.first) {
            (Some(mark), _) => Some(mark.saturating_add(1)),
            (None, First::At(first)) => Some(first),
            (None, First::Any { .. }) => None,
        };
        if is_first {
            self.reject_ahead(key, low);
            return self.pass_to(key, i64::MIN + 1, low);
        }
        let (offset, partition) = (self.lanes.parked_event(node).offset, self.partitions.get(index).id);
        let passed = rule.on_gap == OnGap::Pass;
        let early = (low, offset);
        self.outbox.notice(Notice::GapClosed(ClosedGap {
            partition,
            early,
            expected,
            waiting,
            passed,
            cause,
        }));
        match rule.on_gap {
            OnGap::Pass => self.pass_to(key, expected.unwrap_or(low), low),
            OnGap::DeadLetter => self.break_key(key),
            OnGap::Stop => self.stop_at(index, offset, PartitionStop::Gap),
        }
    }

    /// Passes over the values from `from` on, so that the lowest parked event of the key may run.
    fn pass_to(&mut self, key: u32, from: i64, low: i64) {
        let Some(gates) = self.gates() else { return };
        let known = gates.keys.key_mut(key);
        let mut forgotten = 0;
        let holes = (from < low).then(|| Change::Holes(from, low - 1));
        for change in holes.into_iter().chain([Change::Mark(low.saturating_sub(1))]) {
            forgotten += known.memory.apply(change, 0) as u64;
            known.pending.push(change);
        }
        let lane = known.lane;
        gates.parked.may_be_due(lane, key);
        gates.update_wait(key);
        self.outbox.counters.holes_forgotten += forgotten;
        self.lanes.ask_again(lane);
    }

    /// Dead-letters the parked events of a key in the order of their values. Those that follow are dead-lettered, too, until
    /// the missing value comes.
    fn break_key(&mut self, key: u32) {
        let Some(gates) = self.gates() else { return };
        gates.keys.key_mut(key).memory.broken = true;
        let lane = gates.keys.key(key).lane;
        let nodes: Vec<u32> = gates.parked.of_key(key).map(|(_, node)| node).collect();
        for node in nodes {
            let event = self.lanes.take_parked(node);
            let Some(gates) = self.gates() else { return };
            gates.keys.set_role(event.order, Role::BreaksKey);
            if gates.keys.order(event.order).filtered {
                let outcome = GateOutcome::Filtered;
                self.lanes.decide(lane, event, WithoutCall { outcome, moves_mark: false, ends_key: false });
            } else {
                let index = gates.keys.key(key).partition;
                gates.decided.rejected.push((index, event, Reason::Gap));
            }
        }
        self.lanes.ask_again(lane);
    }

    /// Without a mark, the lowest value decides which values are too far ahead.
    fn reject_ahead(&mut self, key: u32, low: i64) {
        let Some(gates) = self.gates() else { return };
        let Some(MaxAhead::OfMark(ahead)) = gates.config.as_ref().and_then(|gate| gate.max_ahead) else {
            return;
        };
        if gates.keys.key(key).memory.mark.is_some() {
            return;
        }
        let lane = gates.keys.key(key).lane;
        let too_far = |&&(value, _): &&(i64, u32)| value.abs_diff(low) > ahead;
        let by_value: Vec<(i64, u32)> = gates.parked.of_key(key).collect();
        for &(_, node) in by_value.iter().rev().take_while(too_far) {
            let event = self.lanes.take_parked(node);
            self.lanes.reject(lane, event, Reason::OrderValueAhead);
        }
    }

    /// Returns the number of parked events of a partition.
    pub(crate) fn parked(&self, id: Partition) -> u64 {
        let gate = self.partitions.find(id).zip(self.lanes.gates.as_deref());
        gate.and_then(|(index, gates)| gates.partition_now(index)).map_or(0, |gate| gate.parked)
    }

    /// Returns the number of keys of a partition with early events, the order value and the offset of the one that waits
    /// longest, and the value that its key expects; `None`: the key has no mark.
    pub(super) fn early_keys(&self, index: u32) -> Option<(usize, (i64, i64), Option<i64>)> {
        let gates = self.lanes.gates.as_deref()?;
        let first = gates.parked.first_waiting(index)?;
        let (offset, node) = gates.parked.oldest(first)?;
        let value = gates.keys.order(self.lanes.parked_event(node).order).value?;
        let expected = gates.keys.key(first).memory.mark.map(|mark| mark.saturating_add(1));
        Some((gates.parked.waiting(index).count(), (value, offset), expected))
    }

    /// Returns what a partition is blocked on whose first unsettled event is parked.
    pub(super) fn blocked_by_gate(&self, index: u32) -> Option<BlockedOn> {
        let gates = self.lanes.gates.as_deref()?;
        gates.lane_of_parked(index, self.partitions.get(index).ledger.committable())?;
        Some(if self.window().is_some() { BlockedOn::Window } else { BlockedOn::Gap })
    }

    // -- windows ------------------------------------------------------------------------------------

    /// Releases the events of a key up to its oldest one.
    fn release_oldest(&mut self, key: u32) {
        let Some(gates) = self.gates() else { return };
        if let Some((low, _)) = gates.parked.lowest(key) {
            self.reject_ahead(key, low);
        }
        let Some(gates) = self.lanes.gates.as_deref() else { return };
        let Some((_, node)) = gates.parked.oldest(key) else { return };
        let value = gates.keys.order(self.lanes.parked_event(node).order).value;
        self.release_to(key, value.unwrap_or(i64::MAX));
    }

    fn release_to(&mut self, key: u32, to: i64) {
        let Some(gates) = self.lanes.gates.as_deref_mut() else { return };
        let known = gates.keys.key_mut(key);
        let before = known.released_to.replace(to);
        known.released_to = known.released_to.max(before);
        let (index, lane) = (known.partition, known.lane);
        let nodes: Vec<u32> =
            gates.parked.of_key(key).take_while(|&(value, _)| value <= to).map(|(_, node)| node).collect();
        for node in nodes {
            let event = self.lanes.parked_event(node);
            let Some(gates) = self.lanes.gates.as_deref_mut() else { return };
            if gates.parked.released(key, event.offset) {
                let since = gates.keys.order(event.order).waits_since;
                let gate = gates.partition(index);
                gate.released(event.bytes);
                let waited_ms = gate.stream.now_ms().saturating_sub(since);
                self.times.record_gate_wait(waited_ms.max(0).unsigned_abs());
            }
        }
        let Some(gates) = self.gates() else { return };
        gates.update_wait(key);
        gates.parked.may_be_due(lane, key);
        self.lanes.ask_again(lane);
    }

    /// Releases events before their time, while more of them wait than may.
    fn release_overflow(&mut self, index: u32, rule: &Window) {
        loop {
            let Some(gate) = self.lanes.gates.as_deref().and_then(|gates| gates.partition_now(index)) else {
                return;
            };
            let exceeds =
                gate.waiting > u64::from(rule.max_waiting) || gate.waiting_bytes > rule.max_waiting_bytes;
            if !(exceeds && rule.releases_on_overflow) || !self.release_first(index) {
                return;
            }
            self.outbox.counters.windows_released_early += 1;
        }
    }

    /// Returns how many more events of a partition may wait for their window.
    pub(super) fn waiting_left(&self, index: u32) -> u64 {
        let (Some(rule), Some(gates)) = (self.window(), self.lanes.gates.as_deref()) else { return u64::MAX };
        if rule.releases_on_overflow {
            return u64::MAX;
        }
        let (waiting, bytes) =
            gates.partition_now(index).map_or((0, 0), |gate| (gate.waiting, gate.waiting_bytes));
        let is_full = bytes >= rule.max_waiting_bytes;
        if is_full { 0 } else { u64::from(rule.max_waiting).saturating_sub(waiting) }
    }

    /// Releases the events of the key with the oldest one. Returns false if there is none.
    fn release_first(&mut self, index: u32) -> bool {
        let key = self.lanes.gates.as_deref().and_then(|gates| gates.parked.first_waiting(index));
        key.into_iter().for_each(|key| self.release_oldest(key));
        key.is_some()
    }

    // -- stream time --------------------------------------------------------------------------------

    /// Takes the timestamp of a record that was read.
    pub(super) fn record_read(&mut self, index: u32, timestamp: i64) {
        let (uptime, wall_ms) = (self.now.uptime, self.now.wall_ms);
        let has_events = self.partitions.get(index).ledger.open() > 0;
        let Some(gates) = self.gates() else { return };
        gates.partition(index).stream.record(timestamp, wall_ms, uptime, has_events);
    }

    pub(super) fn log_end_seen(&mut self, id: Partition, end: i64, sent_at: Duration) {
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
    pub(super) fn check_waits(&mut self, index: u32) {
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

    fn close_expired_gaps(&mut self, index: u32, rule: &Consecutive) {
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

    // -- the clock ----------------------------------------------------------------------------------

    /// Requests the ends of logs that events wait for, and lets the clock of full partitions advance.
    pub(super) fn check_gates(&mut self) {
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
    fn request_interval(&self) -> Option<Duration> {
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
    fn full(&mut self, index: u32) {
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
