//! Transactional delivery: keeps the effects of settled events, and publishes them together with the offsets.

mod blocked;
mod kept;
mod observed;
mod read_back;
mod refused;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::CString;
use std::sync::Arc;
use std::time::Duration;

use keylane_core::{
    AbortCause, CommitEntry, CommitId, EffectClaim, Histogram, Input, KeptEffects, Notice, Now, OwnershipId,
    Partition,
};

use crate::config::OnRefusedOutput;
use crate::guest::Call;
use crate::librdkafka::GroupMetadata;
use crate::sink::{
    SinkTopic, StoredOffset, Transaction, TransactionEvent, TransactionOffset, TransactionalProducer, Written,
};

use super::keyed::KeyRecords;
use super::publishing::{CopiedEffects, Publishing};
use super::{EventLoop, Keyed};
use blocked::BlockedTopics;
use kept::KeptRecords;
use observed::Observed;
pub(in crate::app) use observed::{LeftOut, TransactionTotals, TransactionView};
use read_back::{ReadBack, Witness, decide};

/// The transactions of one handler.
pub(in crate::app) struct Transacting {
    /// `None`: at-least-once delivery.
    producer: Option<TransactionalProducer>,
    /// Whether the broker is the embedded one: its transactions store no offsets, so they are committed afterwards.
    is_embedded: bool,
    /// The handler's topics.
    topics: Vec<CString>,
    kept: KeptRecords,
    /// The offsets that the coordinator has stored, as far as known, of the owned partitions.
    stored: BTreeMap<Partition, StoredOffset>,
    open: BTreeSet<OwnershipId>,
    undecided: Option<Undecided>,
    blocked: BlockedTopics,
    on_refused_output: OnRefusedOutput,
    /// Answers for the core.
    inputs: VecDeque<Input<'static>>,
    totals: TransactionTotals,
    times: Histogram,
    /// The transaction that was just committed.
    last_committed: Option<CommittedClaims>,
    /// The commit that has to follow it.
    commit: Option<PlainCommit>,
    observed: Observed,
    /// Reused: the bytes of the outputs of a call.
    output_bytes: Vec<u32>,
}

/// What a transaction contains, at the moment when the core begins it.
pub(super) struct Snapshot<'a> {
    pub(super) entries: &'a [CommitEntry],
    pub(super) claims: &'a [EffectClaim],
    pub(super) metadata: &'a str,
    /// The records of keyed state.
    pub(super) records: KeyRecords,
}

impl<'a> Snapshot<'a> {
    pub(super) fn new(
        entries: &'a [CommitEntry],
        claims: &'a [EffectClaim],
        metadata: &'a str,
        keyed: Option<&mut Keyed>,
    ) -> Self {
        let records = keyed.and_then(|keyed| keyed.records(entries, claims, metadata));
        Snapshot { entries, claims, metadata, records }
    }
}

/// A transaction that has neither been committed nor aborted.
struct Undecided {
    id: CommitId,
    began: Now,
    partitions: Vec<Partition>,
    claims: Vec<EffectClaim>,
    offsets: Vec<TransactionOffset>,
    before: Vec<StoredOffset>,
    /// With the embedded broker: the commit that follows.
    commit: Option<PlainCommit>,
}

/// A transaction that was committed.
pub(super) struct CommittedClaims {
    pub(super) claims: Vec<EffectClaim>,
    /// Its last record in each partition of a changelog, if it is known.
    pub(super) written: Vec<Written>,
    /// When it began, in milliseconds since 1970.
    pub(super) began_ms: i64,
}

/// A commit without a transaction.
#[derive(Debug)]
pub(super) struct PlainCommit {
    pub(super) id: CommitId,
    pub(super) entries: Vec<CommitEntry>,
    pub(super) metadata: String,
}

impl EventLoop {
    /// Handles an event of the transactional producer.
    pub(super) fn transaction_ended(&mut self, event: TransactionEvent) {
        let EventLoop { log, source, transacting, keyed, closing, publishing, now, .. } = self;
        if let Some(reason) = transacting.ended(&event, keyed.as_ref(), now.uptime) {
            log.transaction_aborted(*now, &reason);
            transacting.observed.aborted(*now, reason);
        }
        let committed = transacting.take_committed();
        if let Some(keyed) = keyed {
            committed.iter().for_each(|committed| keyed.committed(committed));
            if transacting.undecided.is_none() {
                keyed.decided();
            }
        }
        if let Some(PlainCommit { id, entries, metadata }) = transacting.take_commit() {
            source.commit(now.uptime, id, &entries, &metadata);
        }
        match event {
            TransactionEvent::TopicBlocked { topic, code } => {
                log.topic_blocked(*now, publishing.topic_name(topic), code);
            }
            TransactionEvent::Unavailable(reason) => {
                log.transactions_unavailable(&reason);
                transacting.observed.unavailable = Some(reason);
            }
            TransactionEvent::Available => {
                log.transactions_available();
                transacting.observed.unavailable = None;
            }
            TransactionEvent::Refused(reason) => closing.stop(log, reason),
            TransactionEvent::RecordRefused(refused) => self.record_refused(&refused),
            TransactionEvent::Committed { .. }
            | TransactionEvent::Aborted { .. }
            | TransactionEvent::ReadBack { .. } => {}
        }
    }
}

impl Transacting {
    pub(in crate::app) fn new(
        producer: Option<TransactionalProducer>,
        topics: Vec<CString>,
        is_embedded: bool,
        on_refused_output: OnRefusedOutput,
    ) -> Self {
        Transacting {
            producer,
            is_embedded,
            topics,
            kept: KeptRecords::default(),
            stored: BTreeMap::new(),
            open: BTreeSet::new(),
            undecided: None,
            blocked: BlockedTopics::default(),
            on_refused_output,
            inputs: VecDeque::new(),
            totals: TransactionTotals::default(),
            times: Histogram::default(),
            last_committed: None,
            commit: None,
            observed: Observed::default(),
            output_bytes: Vec::new(),
        }
    }

    pub(super) fn is_enabled(&self) -> bool {
        self.producer.is_some()
    }

    /// Takes a sample for the snapshots, once a second.
    pub(super) fn sample(&mut self, now: Duration) {
        if self.is_enabled() {
            self.observed.sample(now, self.totals, &self.times);
        }
    }

    /// Returns a snapshot; `None`: at-least-once delivery. `topic_name`: returns the name of a topic.
    pub(super) fn view(
        &self,
        kept_bytes: u64,
        keyed: Option<&Keyed>,
        topic_name: impl Fn(SinkTopic) -> String,
    ) -> Option<TransactionView> {
        let (totals, times) = (self.totals, self.times);
        let mut view = TransactionView { totals, kept_bytes, times, ..TransactionView::default() };
        view.left_out = self.blocked.left_out((&self.kept, keyed), topic_name);
        self.observed.add_to(&mut view);
        self.is_enabled().then_some(view)
    }

    /// Returns the number of outputs of committed transactions.
    pub(super) fn outputs(&self) -> u64 {
        self.totals.outputs
    }

    /// Returns the memory that the effects of each row with effects will take; nothing under at-least-once delivery.
    pub(super) fn output_bytes(
        &mut self,
        publishing: &Publishing,
        keyed: Option<&Keyed>,
        ended: &Call,
    ) -> &[u32] {
        if self.is_enabled() {
            publishing.output_bytes(ended, &mut self.output_bytes);
        }
        if let Some(keyed) = keyed {
            keyed.add_bytes(ended, &mut self.output_bytes);
        }
        &self.output_bytes
    }

    /// Keeps the effects of settled events.
    pub(super) fn keep(&mut self, effects: &[KeptEffects], (records, ranges): CopiedEffects) {
        self.kept.add(effects, records, ranges);
    }

    pub(super) fn drop_effects(&mut self, ownership: OwnershipId) {
        self.kept.drop_ownership(ownership);
        if self.undecided.is_none() {
            self.kept.shrink();
        }
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
            | Notice::GapClosed(_)
            | Notice::PassedOver { .. }
            | Notice::StaleRedrive { .. }
            | Notice::EarlyAtEnd(_)
            | Notice::MetadataLimitLowered { .. } => {}
        }
    }

    /// Begins a transaction. `group`: the membership now; `None`: the client is not a member.
    pub(super) fn begin(
        &mut self,
        id: CommitId,
        snapshot: &Snapshot<'_>,
        keyed: Option<&Keyed>,
        group: Option<GroupMetadata>,
        now: Now,
    ) {
        let Snapshot { entries, claims, metadata, records: key_records } = snapshot;
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
        let mut records = self.kept.claimed(claims);
        records.extend(key_records.clone());
        if self.blocked.contains_any(&records) {
            // Effects for such a topic were kept, or an ownership has begun, after its partitions were determined.
            self.inputs.extend(self.blocked.exclude((&self.kept, keyed)));
            self.inputs.push_back(Input::TransactionAborted { id, why: AbortCause::Excluded });
            return;
        }
        self.blocked.attempt(&records);
        producer.run(Transaction { id, records, offsets: offsets.clone(), group: Arc::new(group) });
        let claims = claims.to_vec();
        let commit = || PlainCommit { id, entries: entries.to_vec(), metadata: (*metadata).to_owned() };
        let commit = self.is_embedded.then(commit);
        self.undecided = Some(Undecided { id, began: now, partitions, claims, offsets, before, commit });
    }

    /// Handles the end of a transaction. Returns the reason if it was not committed.
    pub(super) fn ended(
        &mut self,
        event: &TransactionEvent,
        keyed: Option<&Keyed>,
        now: Duration,
    ) -> Option<String> {
        match event {
            TransactionEvent::Committed { id, records, written } => {
                self.totals.records += *records as u64;
                self.committed(*id, written, now);
                None
            }
            TransactionEvent::Aborted { id, why, reason } => {
                self.aborted(*id, *why);
                Some(reason.clone())
            }
            TransactionEvent::ReadBack { id, stored } => self.read_back(*id, stored, now),
            TransactionEvent::TopicBlocked { topic, code } => {
                self.blocked.block(*topic, *code, now);
                self.inputs.extend(self.blocked.exclude((&self.kept, keyed)));
                None
            }
            TransactionEvent::Unavailable(_)
            | TransactionEvent::Available
            | TransactionEvent::RecordRefused(_)
            | TransactionEvent::Refused(_) => None,
        }
    }

    /// Returns the next answer for the core.
    pub(super) fn next_input(&mut self, keyed: Option<&Keyed>, now: Duration) -> Option<Input<'static>> {
        self.inputs.extend(self.blocked.try_again((&self.kept, keyed), now));
        self.inputs.pop_front()
    }

    /// Returns the time at which a blocked topic is tried again.
    pub(super) fn next_timeout(&self) -> Option<Duration> {
        self.blocked.next_try()
    }

    fn committed(&mut self, id: CommitId, written: &[Written], now: Duration) {
        let Some(undecided) = self.undecided.take_if(|undecided| undecided.id == id) else { return };
        self.totals.committed += 1;
        self.blocked.attempt_committed();
        let took = now.saturating_sub(undecided.began.uptime).as_micros();
        self.times.record(u64::try_from(took).unwrap_or(u64::MAX));
        self.totals.outputs += self.kept.drop_claimed(&undecided.claims);
        self.kept.shrink();
        for (&partition, offset) in undecided.partitions.iter().zip(&undecided.offsets) {
            let stored = (offset.offset, offset.metadata.clone().into_bytes());
            self.stored.insert(partition, Some(stored));
            if !self.is_embedded {
                self.inputs.push_back(Input::Committed { id, partition });
            }
        }
        self.commit = undecided.commit;
        let (claims, began_ms) = (undecided.claims, undecided.began.wall_ms);
        self.last_committed = Some(CommittedClaims { claims, written: written.to_vec(), began_ms });
    }

    /// Returns whether a transaction with this partition is undecided.
    pub(super) fn is_undecided(&self, partition: Partition) -> bool {
        self.undecided.as_ref().is_some_and(|undecided| undecided.partitions.contains(&partition))
    }

    /// Returns the commit that has to follow the transaction that was just committed.
    pub(super) fn take_commit(&mut self) -> Option<PlainCommit> {
        self.commit.take()
    }

    /// Returns the claims of the transaction that was just committed.
    pub(super) fn take_committed(&mut self) -> Option<CommittedClaims> {
        self.last_committed.take()
    }

    fn aborted(&mut self, id: CommitId, why: AbortCause) {
        if self.undecided.take_if(|undecided| undecided.id == id).is_some() {
            self.totals.aborted += 1;
            self.kept.shrink();
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
                self.committed(id, &[], now);
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
