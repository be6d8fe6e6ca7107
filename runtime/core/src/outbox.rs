//! What the core reports: pending actions with the buffers that polled actions borrow, and the totals.

use std::collections::VecDeque;

use crate::{
    ArenaSlot, Blockage, CallId, Counters, FailedEvent, GateKey, KeptEffects, LookUpId, MemoryChange, Notice,
    OwnershipId, Partition, PartitionStop, RebalanceId, SettleNumber, StartAt,
};

/// An action before it is polled: [`crate::Core::poll`] turns it into an [`crate::Action`].
#[derive(Debug)]
pub(crate) enum Pending {
    LookUpStart(Partition),
    AnswerAssign(Option<RebalanceId>, Vec<StartAt>),
    AnswerRevoke(RebalanceId, Vec<Partition>),
    Reposition(Partition, i64),
    Reassign(Partition, i64),
    PermitRead {
        partition: Partition,
        max_events: u32,
        max_bytes: u64,
    },
    WithdrawRead(Partition),
    Dispatch(CallId),
    Cancel(CallId),
    Release,
    Produce(CallId),
    DropOutputs {
        call: CallId,
        first: u32,
        end: u32,
    },
    DeadLetter(FailedEvent),
    KeepEffects,
    DropEffects(OwnershipId),
    ForgetStates(Partition, SettleNumber),
    RequestLogEnds(Vec<Partition>),
    LookUpKey {
        request: LookUpId,
        partition: Partition,
        ownership: OwnershipId,
        key: GateKey,
        arena_slot: ArenaSlot,
    },
    RememberKeys,
    Commit,
    BeginTransaction,
    ReportStall(Blockage),
    StallEnded {
        partition: Partition,
        resumed: bool,
    },
    Notice(Notice),
    PartitionStopped(Partition, i64, PartitionStop),
    StopHandler(FailedEvent),
    AllStopped,
    EndReached,
    Drained {
        clean: bool,
        unterminated_calls: u32,
    },
    CallStuck(CallId),
}

#[derive(Debug, Default)]
pub(crate) struct Outbox {
    pub(crate) pending: VecDeque<Pending>,
    /// Arena slots to release, collected until they are polled.
    released: Vec<ArenaSlot>,
    pub(crate) lent_slots: Vec<ArenaSlot>,
    /// Effects to keep, collected until they are polled.
    kept: Vec<KeptEffects>,
    pub(crate) lent_effects: Vec<KeptEffects>,
    /// Changes of gate keys, collected until they are polled.
    remembered: Vec<MemoryChange>,
    pub(crate) lent_changes: Vec<MemoryChange>,
    pub(crate) lent_starts: Vec<StartAt>,
    pub(crate) lent_lane_lengths: Vec<u32>,
    pub(crate) lent_partitions: Vec<Partition>,
    pub(crate) counters: Counters,
}

impl Outbox {
    pub(crate) fn push(&mut self, action: Pending) {
        self.pending.push_back(action);
    }

    /// Counts a notice and sends it to the shell.
    pub(crate) fn notice(&mut self, notice: Notice) {
        self.counters.count(&notice);
        self.push(Pending::Notice(notice));
    }

    /// Releases the slot of an event that the core is done with.
    pub(crate) fn release(&mut self, arena_slot: ArenaSlot) {
        if self.released.is_empty() {
            self.push(Pending::Release);
        }
        self.released.push(arena_slot);
    }

    /// Makes the shell keep effects, before it carries out any other action of this step: some would free the memory
    /// that the effects are copied from.
    pub(crate) fn keep(&mut self, effects: KeptEffects) {
        if self.kept.is_empty() {
            self.pending.push_front(Pending::KeepEffects);
        }
        self.kept.push(effects);
    }

    /// Makes the shell remember a change of a gate key, before it carries out any other action of this step: it may be that of
    /// the last event of the key.
    pub(crate) fn remember(&mut self, change: MemoryChange) {
        if self.remembered.is_empty() {
            self.pending.push_front(Pending::RememberKeys);
        }
        self.remembered.push(change);
    }

    /// Moves the collected changes to `lent_changes`.
    pub(crate) fn lend_changes(&mut self) {
        self.lent_changes.clear();
        std::mem::swap(&mut self.lent_changes, &mut self.remembered);
    }

    /// Moves the collected effects to `lent_effects`.
    pub(crate) fn lend_effects(&mut self) {
        self.lent_effects.clear();
        std::mem::swap(&mut self.lent_effects, &mut self.kept);
    }

    /// Moves the collected slots to `lent_slots`.
    pub(crate) fn lend_slots(&mut self) {
        self.lent_slots.clear();
        std::mem::swap(&mut self.lent_slots, &mut self.released);
    }
}
