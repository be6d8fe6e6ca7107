//! Gates: carries out what was decided about events. [`gaps`] closes gaps, [`windows`] releases windows, and [`clock`] lets
//! stream time advance.

mod clock;
mod gaps;
mod windows;

use super::Core;
use crate::event::Event;
use crate::gates::{GateOutcome, Gates, Settled};
use crate::outbox::Pending;
use crate::partitions::Phase;
use crate::{Change, KeyMemory, LookUpId, MemoryChange, Notice, Reason};

impl Core {
    fn gates(&mut self) -> Option<&mut Gates> {
        self.lanes.gates.as_deref_mut()
    }

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
}
