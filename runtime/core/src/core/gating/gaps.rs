//! Gaps: closes those that were waited for long enough.

use super::super::Core;
use crate::gates::{GateOutcome, Role, WithoutCall};
use crate::{
    BlockedOn, Change, ClosedGap, Consecutive, First, GapCause, GateRule, MaxAhead, Notice, OnGap, Partition,
    PartitionStop, Reason, Window,
};

impl Core {
    pub(in crate::core) fn consecutive(&self) -> Option<Consecutive> {
        match self.lanes.gates.as_ref()?.config.as_ref()?.rule {
            GateRule::Consecutive(rule) => Some(rule),
            GateRule::Newest(_) | GateRule::Window(_) => None,
        }
    }

    pub(super) fn window(&self) -> Option<Window> {
        match self.lanes.gates.as_ref()?.config.as_ref()?.rule {
            GateRule::Window(rule) => Some(rule),
            GateRule::Newest(_) | GateRule::Consecutive(_) => None,
        }
    }

    /// Closes the gap of a key whose limits are reached, once its lane is free.
    pub(super) fn close_gap_if_due(&mut self, key: u32) {
        let Some(rule) = self.consecutive() else { return };
        let is_expired = self.is_expired(key);
        let Some(gates) = self.gates() else { return };
        let known = gates.keys.key(key);
        let (parked, lane) = (known.parked.len, known.lane);
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

    pub(super) fn is_expired(&self, key: u32) -> bool {
        let gates = self.lanes.gates.as_deref();
        gates.is_some_and(|gates| gates.is_expired(key, |node| self.lanes.parked_event(node)))
    }

    /// Closes the gap of a key whose lane is free.
    pub(super) fn close_gap(&mut self, key: u32, cause: GapCause) {
        let Some(rule) = self.consecutive() else { return };
        let Some(gates) = self.gates() else { return };
        let Some((low, node)) = gates.lowest(key) else { return };
        let known = gates.keys.key(key);
        let (index, mark, waiting) = (known.partition, known.memory.mark, known.parked.len);
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
        let on_gap = rule.on_gap;
        let early = (low, offset);
        self.outbox.notice(Notice::GapClosed(ClosedGap {
            partition,
            early,
            expected,
            waiting,
            on_gap,
            cause,
        }));
        match on_gap {
            OnGap::Pass => self.pass_to(key, expected.unwrap_or(low), low),
            OnGap::DeadLetter => self.break_key(key),
            OnGap::Stop => self.stop_at(index, offset, PartitionStop::Gap),
        }
    }

    /// Passes over the values from `from` on, so that the lowest parked event of the key may run.
    pub(super) fn pass_to(&mut self, key: u32, from: i64, low: i64) {
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
    pub(super) fn break_key(&mut self, key: u32) {
        let Some(gates) = self.gates() else { return };
        gates.keys.key_mut(key).memory.broken = true;
        let lane = gates.keys.key(key).lane;
        let nodes: Vec<u32> = gates.of_key(key).map(|(_, node)| node).collect();
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
    pub(super) fn reject_ahead(&mut self, key: u32, low: i64) {
        let Some(gates) = self.gates() else { return };
        let Some(MaxAhead::OfMark(ahead)) = gates.config.as_ref().and_then(|gate| gate.max_ahead) else {
            return;
        };
        if gates.keys.key(key).memory.mark.is_some() {
            return;
        }
        let lane = gates.keys.key(key).lane;
        let too_far = |&&(value, _): &&(i64, u32)| value.abs_diff(low) > ahead;
        let by_value: Vec<(i64, u32)> = gates.of_key(key).collect();
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
    pub(in crate::core) fn early_keys(&self, index: u32) -> Option<(usize, (i64, i64), Option<i64>)> {
        let gates = self.lanes.gates.as_deref()?;
        let first = gates.parked.first_waiting(index)?;
        let (offset, node) = gates.oldest(first)?;
        let value = gates.keys.order(self.lanes.parked_event(node).order).value?;
        let expected = gates.keys.key(first).memory.mark.map(|mark| mark.saturating_add(1));
        Some((gates.parked.waiting(index).count(), (value, offset), expected))
    }

    /// Returns what a partition is blocked on whose first unsettled event is parked.
    pub(in crate::core) fn blocked_by_gate(&self, index: u32) -> Option<BlockedOn> {
        let gates = self.lanes.gates.as_deref()?;
        gates.lane_of_parked(index, self.partitions.get(index).ledger.committable())?;
        Some(if self.window().is_some() { BlockedOn::Window } else { BlockedOn::Gap })
    }
}
