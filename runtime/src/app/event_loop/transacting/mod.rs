//! Transactional delivery: keeps the effects of settled events, and publishes them together with the offsets.

mod blocked;
mod kept;
mod read_back;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::CString;
use std::sync::Arc;
use std::time::Duration;

use keylane_core::{
    AbortCause, CommitEntry, CommitId, EffectClaim, Histogram, Input, KeptEffects, Notice, OwnershipId,
    Partition,
};

use crate::guest::Call;
use crate::librdkafka::GroupMetadata;
use crate::sink::{StoredOffset, Transaction, TransactionEvent, TransactionOffset, TransactionalProducer};

use super::EventLoop;
use super::publishing::{CopiedEffects, Publishing};
use blocked::BlockedTopics;
use kept::KeptRecords;
use read_back::{ReadBack, Witness, decide};

/// The transactions of one handler.
pub(in crate::app) struct Transacting {
    /// `None`: at-least-once delivery.
    producer: Option<TransactionalProducer>,
    /// The handler's topics.
    topics: Vec<CString>,
    kept: KeptRecords,
    /// The offsets that the coordinator has stored, as far as known, of the owned partitions.
    stored: BTreeMap<Partition, StoredOffset>,
    open: BTreeSet<OwnershipId>,
    undecided: Option<Undecided>,
    blocked: BlockedTopics,
    /// Answers for the core.
    inputs: VecDeque<Input<'static>>,
    totals: TransactionTotals,
    times: Histogram,
    /// Reused: the bytes of the outputs of a call.
    output_bytes: Vec<u32>,
}

/// Counters of transactions.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::app) struct TransactionTotals {
    pub(in crate::app) committed: u64,
    pub(in crate::app) aborted: u64,
    /// Records of committed transactions.
    pub(in crate::app) records: u64,
    /// The outputs among them.
    pub(in crate::app) outputs: u64,
}

/// A snapshot of the transactions of one handler.
#[derive(Clone, Debug, Default)]
pub(in crate::app) struct TransactionView {
    pub(in crate::app) totals: TransactionTotals,
    /// Bytes of effects that no committed transaction contains, as the core counts them.
    pub(in crate::app) kept_bytes: u64,
    /// How long committed transactions took, in microseconds.
    pub(in crate::app) times: Histogram,
}

/// A transaction that has neither been committed nor aborted.
struct Undecided {
    id: CommitId,
    began: Duration,
    partitions: Vec<Partition>,
    claims: Vec<EffectClaim>,
    offsets: Vec<TransactionOffset>,
    before: Vec<StoredOffset>,
}

impl EventLoop {
    /// Handles an event of the transactional producer.
    pub(super) fn transaction_ended(&mut self, event: TransactionEvent) {
        let EventLoop { log, transacting, closing, publishing, now, .. } = self;
        if let Some(reason) = transacting.ended(&event, now.uptime) {
            log.transaction_aborted(*now, &reason);
        }
        match event {
            TransactionEvent::TopicBlocked { topic, code } => {
                log.topic_blocked(*now, publishing.topic_name(topic), code);
            }
            TransactionEvent::Unavailable(reason) => log.transactions_unavailable(&reason),
            TransactionEvent::Available => log.transactions_available(),
            TransactionEvent::Refused(reason) => closing.stop(log, reason),
            TransactionEvent::Committed { .. }
            | TransactionEvent::Aborted { .. }
            | TransactionEvent::ReadBack { .. } => {}
        }
    }
}

impl Transacting {
    pub(in crate::app) fn new(producer: Option<TransactionalProducer>, topics: Vec<CString>) -> Self {
        Transacting {
            producer,
            topics,
            kept: KeptRecords::default(),
            stored: BTreeMap::new(),
            open: BTreeSet::new(),
            undecided: None,
            blocked: BlockedTopics::default(),
            inputs: VecDeque::new(),
            totals: TransactionTotals::default(),
            times: Histogram::default(),
            output_bytes: Vec::new(),
        }
    }

    pub(super) fn is_enabled(&self) -> bool {
        self.producer.is_some()
    }

    /// Returns a snapshot; `None`: at-least-once delivery.
    pub(super) fn view(&self, kept_bytes: u64) -> Option<TransactionView> {
        self.is_enabled().then_some(TransactionView { totals: self.totals, kept_bytes, times: self.times })
    }

    /// Returns the number of outputs of committed transactions.
    pub(super) fn outputs(&self) -> u64 {
        self.totals.outputs
    }

    /// Returns the memory that the outputs of each row with outputs will take; nothing under at-least-once delivery.
    pub(super) fn output_bytes(&mut self, publishing: &Publishing, ended: &Call) -> &[u32] {
        if self.is_enabled() {
            publishing.output_bytes(ended, &mut self.output_bytes);
        }
        &self.output_bytes
    }

    /// Keeps the effects of settled events.
    pub(super) fn keep(&mut self, effects: &[KeptEffects], (records, ranges): CopiedEffects) {
        self.kept.add(effects, records, ranges);
    }

    pub(super) fn drop_effects(&mut self, ownership: OwnershipId) {
        self.kept.drop_ownership(ownership);
    }

    /// Remembers what the coordinator has stored when an ownership begins.
    pub(super) fn start_resolved(&mut self, partition: Partition, committed: &StoredOffset) {
        if self.is_enabled() {
            self.stored.insert(partition, committed.clone());
        }
    }

    pub(super) fn noticed(&mut self, notice: Notice) {
        match notice {
            _ if !self.is_enabled() => {}
            Notice::OwnershipStarted { ownership, .. } => {
                self.open.insert(ownership);
            }
            Notice::OwnershipEnded { ownership, .. } => {
                self.open.remove(&ownership);
            }
            Notice::MetadataIgnored { .. }
            | Notice::OffsetsSkipped { .. }
            | Notice::TopicRecreated { .. }
            | Notice::Repositioned { .. }
            | Notice::Skipped { .. }
            | Notice::ReadingPaused { .. }
            | Notice::ReadingResumed { .. }
            | Notice::MetadataLimitLowered { .. } => {}
        }
    }

    /// Begins a transaction. `group`: the membership now; `None`: the client is not a member.
    pub(super) fn begin(
        &mut self,
        id: CommitId,
        (entries, claims, metadata): (&[CommitEntry], &[EffectClaim], &str),
        group: Option<GroupMetadata>,
        now: Duration,
    ) {
        let (Some(producer), Some(group)) = (&self.producer, group) else {
            self.inputs.push_back(Input::TransactionAborted { id, why: AbortCause::Stale });
            return;
        };
        let offset = |entry: &CommitEntry| TransactionOffset {
            topic: self.topics.get(usize::from(entry.partition.topic)).cloned().unwrap_or_default(),
            partition: entry.partition.number,
            offset: entry.offset,
            metadata: entry.metadata_in(metadata).to_owned(),
        };
        let offsets: Vec<TransactionOffset> = entries.iter().map(offset).collect();
        let partitions: Vec<Partition> = entries.iter().map(|entry| entry.partition).collect();
        let before = partitions.iter().map(|id| self.stored.get(id).cloned().flatten()).collect();
        let records = self.kept.claimed(claims);
        if self.blocked.contains_any(&records) {
            // Effects for such a topic were kept after its partitions were determined.
            self.inputs.extend(self.blocked.exclude(&self.kept));
            self.inputs.push_back(Input::TransactionAborted { id, why: AbortCause::Excluded });
            return;
        }
        self.blocked.attempt(&records);
        producer.run(Transaction { id, records, offsets: offsets.clone(), group: Arc::new(group) });
        let claims = claims.to_vec();
        self.undecided = Some(Undecided { id, began: now, partitions, claims, offsets, before });
    }

    /// Handles the end of a transaction. Returns the reason if it was not committed.
    pub(super) fn ended(&mut self, event: &TransactionEvent, now: Duration) -> Option<String> {
        match event {
            TransactionEvent::Committed { id, records } => {
                self.totals.records += *records as u64;
                self.committed(*id, now);
                None
            }
            TransactionEvent::Aborted { id, why, reason } => {
                self.aborted(*id, *why);
                Some(reason.clone())
            }
            TransactionEvent::ReadBack { id, stored } => self.read_back(*id, stored, now),
            TransactionEvent::TopicBlocked { topic, .. } => {
                self.blocked.block(*topic, now);
                self.inputs.extend(self.blocked.exclude(&self.kept));
                None
            }
            TransactionEvent::Unavailable(_) | TransactionEvent::Available | TransactionEvent::Refused(_) => {
                None
            }
        }
    }

    /// Returns the next answer for the core.
    pub(super) fn next_input(&mut self, now: Duration) -> Option<Input<'static>> {
        self.inputs.extend(self.blocked.try_again(&self.kept, now));
        self.inputs.pop_front()
    }

    /// Returns the time at which a blocked topic is tried again.
    pub(super) fn next_timeout(&self) -> Option<Duration> {
        self.blocked.next_try()
    }

    fn committed(&mut self, id: CommitId, now: Duration) {
        let Some(undecided) = self.undecided.take_if(|undecided| undecided.id == id) else { return };
        self.totals.committed += 1;
        self.blocked.attempt_committed();
        let took = now.saturating_sub(undecided.began).as_micros();
        self.times.record(u64::try_from(took).unwrap_or(u64::MAX));
        self.totals.outputs += self.kept.drop_claimed(&undecided.claims);
        for (&partition, offset) in undecided.partitions.iter().zip(&undecided.offsets) {
            let stored = (offset.offset, offset.metadata.clone().into_bytes());
            self.stored.insert(partition, Some(stored));
            self.inputs.push_back(Input::Committed { id, partition });
        }
    }

    fn aborted(&mut self, id: CommitId, why: AbortCause) {
        if self.undecided.take_if(|undecided| undecided.id == id).is_some() {
            self.totals.aborted += 1;
            self.inputs.push_back(Input::TransactionAborted { id, why });
        }
    }

    fn read_back(&mut self, id: CommitId, stored: &[StoredOffset], now: Duration) -> Option<String> {
        let undecided = self.undecided.as_ref().filter(|undecided| undecided.id == id)?;
        let Undecided { claims, offsets, before, .. } = undecided;
        let witnesses = claims.iter().zip(offsets).zip(before.iter().zip(stored));
        let decided = decide(witnesses.map(|((claim, sent), (before, stored))| Witness {
            is_open: self.open.contains(&claim.ownership),
            before,
            sent,
            stored,
        }));
        match decided {
            ReadBack::Committed => {
                self.committed(id, now);
                None
            }
            ReadBack::Aborted => {
                self.aborted(id, AbortCause::Other);
                Some(
                    "the answer to its commit was lost; the stored offsets show that it was aborted"
                        .to_owned(),
                )
            }
            ReadBack::Overwritten => {
                self.aborted(id, AbortCause::OverwrittenOffsets);
                Some(
                    "the answer to its commit was lost, and somebody else has committed offsets of the group: its \
                     partitions start again at the stored offsets"
                        .to_owned(),
                )
            }
        }
    }
}
