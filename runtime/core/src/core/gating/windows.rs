//! Windows: releases the events whose time has come.

use super::super::Core;
use crate::Window;

impl Core {
    /// Releases the events of a key up to its oldest one.
    pub(super) fn release_oldest(&mut self, key: u32) {
        let Some(gates) = self.gates() else { return };
        if let Some((low, _)) = gates.lowest(key) {
            self.reject_ahead(key, low);
        }
        let Some(gates) = self.lanes.gates.as_deref() else { return };
        let Some((_, node)) = gates.oldest(key) else { return };
        let value = gates.keys.order(self.lanes.parked_event(node).order).value;
        self.release_to(key, value.unwrap_or(i64::MAX));
    }

    /// Releases the oldest event of a key, and all events up to this value.
    fn release_to(&mut self, key: u32, to: i64) {
        let Some(gates) = self.gates() else { return };
        let known = gates.keys.key_mut(key);
        let before = known.released_to;
        known.released_to = before.max(Some(to));
        let lane = known.lane;
        if let Some((_, oldest)) = gates.oldest(key) {
            self.release(key, oldest);
        }
        // Lower ones were released before.
        let from = before.unwrap_or(i64::MIN);
        let gates = self.lanes.gates.as_deref();
        let mut next =
            gates.and_then(|gates| gates.parked.at_or_above(&gates.keys.key(key).parked, from).next());
        while let Some((value, node)) = next
            && value <= to
        {
            self.release(key, node);
            let gates = self.lanes.gates.as_deref();
            next = gates.and_then(|gates| gates.parked.after(&gates.keys.key(key).parked, node));
        }
        let Some(gates) = self.gates() else { return };
        gates.update_wait(key);
        gates.parked.may_be_due(lane, key);
        self.lanes.ask_again(lane);
    }

    /// Lets a parked event run when its turn comes.
    fn release(&mut self, key: u32, node: u32) {
        let event = self.lanes.parked_event(node);
        let Some(gates) = self.gates() else { return };
        let known = gates.keys.key_mut(key);
        let index = known.partition;
        if gates.parked.released(&mut known.parked, node) {
            let since = gates.keys.order(event.order).waits_since;
            let gate = gates.partition(index);
            gate.released(event.bytes);
            let waited_ms = gate.stream.now_ms().saturating_sub(since);
            self.times.record_gate_wait(waited_ms.max(0).unsigned_abs());
        }
    }

    /// Releases events before their time, while more of them wait than may.
    pub(super) fn release_overflow(&mut self, index: u32, rule: &Window) {
        loop {
            let Some(gate) = self.lanes.gates.as_deref().and_then(|gates| gates.partition_now(index)) else {
                return;
            };
            let exceeds =
                gate.waiting > u64::from(rule.max_waiting) || gate.waiting_bytes > rule.max_waiting_bytes;
            if !(exceeds && rule.releases_on_overflow && self.release_first(index)) {
                return;
            }
            self.outbox.counters.windows_released_early += 1;
        }
    }

    /// Returns how many more events of a partition may wait for their window.
    pub(in crate::core) fn waiting_left(&self, index: u32) -> u64 {
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
    pub(super) fn release_first(&mut self, index: u32) -> bool {
        let key = self.lanes.gates.as_deref().and_then(|gates| gates.parked.first_waiting(index));
        key.into_iter().for_each(|key| self.release_oldest(key));
        key.is_some()
    }
}
