//! The effects of settled events, until a committed transaction claims them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use keylane_core::{EffectClaim, KeptEffect, KeptEffects, OwnershipId, Partition, SettleNumber};

use crate::sink::{RecordBatch, SinkRecord, SinkTopic};

/// The kept effects, in the order of their numbers.
#[derive(Debug, Default)]
pub(super) struct KeptRecords {
    batches: VecDeque<KeptBatch>,
}

/// The effects of events that settled in one step.
#[derive(Debug)]
struct KeptBatch {
    records: Arc<RecordBatch>,
    events: Vec<KeptEvent>,
    /// The records that were outputs, and have become dead letters.
    replaced: BTreeSet<usize>,
    /// Whether effects were dropped since the batch was shrunk.
    lost_any: bool,
}

/// The effects of one event.
#[derive(Debug)]
struct KeptEvent {
    number: SettleNumber,
    partition: Partition,
    ownership: OwnershipId,
    offset: i64,
    records: Range<usize>,
    /// Number of outputs among the records: all, or none if they are a dead letter.
    outputs: u64,
}

/// The event of a kept record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeptRecord {
    pub(super) partition: Partition,
    pub(super) ownership: OwnershipId,
    pub(super) offset: i64,
    /// Whether the record is an output, and not a dead letter.
    pub(super) is_output: bool,
}

impl KeptRecords {
    /// Adds effects; `ranges` are the records of each event.
    pub(super) fn add(&mut self, effects: &[KeptEffects], records: RecordBatch, ranges: Vec<Range<usize>>) {
        let events = effects.iter().zip(ranges).map(|(kept, records)| KeptEvent {
            number: kept.number,
            partition: kept.event.partition,
            ownership: kept.event.ownership,
            offset: kept.event.offset,
            outputs: if kept.effect == KeptEffect::Outputs { records.len() as u64 } else { 0 },
            records,
        });
        let events: Vec<KeptEvent> = events.collect();
        let (records, replaced) = (Arc::new(records), BTreeSet::new());
        self.batches.push_back(KeptBatch { records, events, replaced, lost_any: false });
    }

    /// Returns the event of a record; `None`: its effects are not kept any more.
    pub(super) fn find(&self, batch: &Arc<RecordBatch>, at: usize) -> Option<KeptRecord> {
        let found = self.batches.iter().find(|kept| Arc::ptr_eq(&kept.records, batch))?;
        let event = found.events.iter().find(|event| event.records.contains(&at))?;
        let &KeptEvent { partition, ownership, offset, .. } = event;
        let is_output = event.outputs > 0 && !found.replaced.contains(&at);
        Some(KeptRecord { partition, ownership, offset, is_output })
    }

    /// Replaces an output by its dead letter.
    pub(super) fn replace(&mut self, batch: &Arc<RecordBatch>, at: usize, dead_letter: &SinkRecord<'_>) {
        let mut batches = self.batches.iter_mut();
        if let Some(kept) = batches.find(|kept| Arc::ptr_eq(&kept.records, batch)) {
            kept.records = Arc::new(kept.records.with_replaced(at, dead_letter));
            kept.replaced.insert(at);
        }
    }

    /// Returns the records that these claims contain, in the order of their events.
    pub(super) fn claimed(&self, claims: &[EffectClaim]) -> Vec<(Arc<RecordBatch>, Range<usize>)> {
        let claims = by_ownership(claims);
        let mut claimed: Vec<(Arc<RecordBatch>, Range<usize>)> = Vec::new();
        for batch in &self.batches {
            let mut range: Option<Range<usize>> = None;
            for event in batch.events.iter().filter(|event| event.is_claimed(&claims)) {
                match &mut range {
                    Some(range) if range.end == event.records.start => range.end = event.records.end,
                    _ => {
                        let done = range.replace(event.records.clone());
                        claimed.extend(done.map(|range| (Arc::clone(&batch.records), range)));
                    }
                }
            }
            claimed.extend(range.map(|range| (Arc::clone(&batch.records), range)));
        }
        claimed
    }

    /// Returns the partitions with records for any of these topics, each with the topic of its first one.
    pub(super) fn partitions_with(
        &self,
        is_topic: impl Fn(SinkTopic) -> bool,
    ) -> BTreeMap<Partition, SinkTopic> {
        let mut found = BTreeMap::new();
        for KeptBatch { records, events, .. } in &self.batches {
            for event in events {
                if let Some(topic) = records.topics(event.records.clone()).find(|topic| is_topic(*topic)) {
                    found.entry(event.partition).or_insert(topic);
                }
            }
        }
        found
    }

    /// Drops the effects that a committed transaction has published. Returns the number of outputs among them.
    pub(super) fn drop_claimed(&mut self, claims: &[EffectClaim]) -> u64 {
        let claims = by_ownership(claims);
        let mut outputs = 0;
        self.retain(|event| {
            let is_claimed = event.is_claimed(&claims);
            outputs += if is_claimed { event.outputs } else { 0 };
            !is_claimed
        });
        outputs
    }

    /// Drops the effects of an ownership that has ended.
    pub(super) fn drop_ownership(&mut self, ownership: OwnershipId) {
        self.retain(|event| event.ownership != ownership);
    }

    fn retain(&mut self, mut is_kept: impl FnMut(&KeptEvent) -> bool) {
        self.batches.retain_mut(|batch| {
            let before = batch.events.len();
            batch.events.retain(&mut is_kept);
            batch.lost_any |= batch.events.len() < before;
            !batch.events.is_empty()
        });
    }

    /// Frees the memory of dropped effects in the batches of others: a partition that is left out for long keeps little
    /// more than its own effects. Only while no transaction is undecided, because it refers to the records of its batches.
    pub(super) fn shrink(&mut self) {
        self.batches.iter_mut().for_each(KeptBatch::shrink);
    }
}

impl KeptBatch {
    /// Copies the remaining records if they are less than half of the batch, so that no record is copied often.
    fn shrink(&mut self) {
        if !std::mem::take(&mut self.lost_any) {
            return;
        }
        let bytes = |records: &Range<usize>| self.records.bytes_of(records.clone());
        let left: usize = self.events.iter().map(|event| bytes(&event.records)).sum();
        if left >= bytes(&(0..self.records.len())) / 2 {
            return;
        }
        let all = self.events.iter().flat_map(|event| event.records.clone());
        let copy = self.records.copy_of(all.clone());
        self.replaced =
            (0..).zip(all).filter(|(_, at)| self.replaced.contains(at)).map(|(to, _)| to).collect();
        self.records = Arc::new(copy);
        let mut next = 0;
        for event in &mut self.events {
            let first = next;
            next += event.records.len();
            event.records = first..next;
        }
    }
}

impl KeptEvent {
    fn is_claimed(&self, claims: &BTreeMap<OwnershipId, SettleNumber>) -> bool {
        claims.get(&self.ownership).is_some_and(|through| self.number <= *through)
    }
}

fn by_ownership(claims: &[EffectClaim]) -> BTreeMap<OwnershipId, SettleNumber> {
    claims.iter().map(|claim| (claim.ownership, claim.through)).collect()
}

#[cfg(test)]
mod tests {
    use keylane_core::{ArenaSlot, CallId, Row};

    use super::*;

    const ONE: OwnershipId = OwnershipId(1);
    const TWO: OwnershipId = OwnershipId(2);

    fn effects(number: u64, ownership: OwnershipId) -> KeptEffects {
        let partition = Partition { topic: 0, number: 0 };
        KeptEffects {
            number: SettleNumber(number),
            effect: KeptEffect::Outputs,
            call: CallId { slot: 0, reuse_count: 0 },
            row: 0,
            event: Row {
                partition,
                ownership,
                offset: number.cast_signed(),
                timestamp: 0,
                arena_slot: ArenaSlot(0),
            },
            attempt: 1,
        }
    }

    /// Numbers 1 to 4 in one batch with two records each, 5 and 6 in another.
    fn kept() -> KeptRecords {
        let mut kept = KeptRecords::default();
        for numbers in [1..5, 5..7] {
            let owner = |number| if number == 3 { TWO } else { ONE };
            let effects: Vec<KeptEffects> = numbers.map(|number| effects(number, owner(number))).collect();
            let mut batch = RecordBatch::default();
            let record =
                SinkRecord { topic: SinkTopic(0), timestamp: None, key: None, value: None, headers: &[] };
            (0..2 * effects.len()).for_each(|_| batch.push(&record));
            let ranges = (0..effects.len()).map(|at| 2 * at..2 * at + 2).collect();
            kept.add(&effects, batch, ranges);
        }
        kept
    }

    fn ranges(kept: &KeptRecords, claims: &[EffectClaim]) -> Vec<Range<usize>> {
        kept.claimed(claims).into_iter().map(|(_, range)| range).collect()
    }

    #[test]
    fn a_claim_contains_the_effects_of_its_ownership_up_to_its_number() {
        let kept = kept();
        let claim = |ownership, through| EffectClaim { ownership, through: SettleNumber(through) };
        assert_eq!(ranges(&kept, &[claim(ONE, 2)]), vec![0..4; 1]);
        assert_eq!(ranges(&kept, &[claim(ONE, 5)]), [0..4, 6..8, 0..2]);
        assert_eq!(ranges(&kept, &[claim(ONE, 9), claim(TWO, 3)]), [0..8, 0..4]);
        assert!(ranges(&kept, &[claim(TWO, 2)]).is_empty());
    }

    /// Three events of one call, with a large, a small and a replaced record.
    #[test]
    fn the_memory_of_dropped_effects_is_freed_although_others_of_their_call_stay() {
        const LARGE: usize = 100_000;
        let mut batch = RecordBatch::default();
        let record =
            |value| SinkRecord { topic: SinkTopic(0), timestamp: None, key: None, value, headers: &[] };
        for value in [&[0; LARGE][..], b"small", b"output"] {
            batch.push(&record(Some(value)));
        }
        let mut kept = KeptRecords::default();
        let all = [effects(1, ONE), effects(2, TWO), effects(3, TWO)];
        kept.add(&all, batch, (0..3).map(|at| at..at + 1).collect());
        let first = Arc::clone(&kept.batches[0].records);
        kept.replace(&first, 2, &record(Some(b"letter")));
        let through = |ownership, number| EffectClaim { ownership, through: SettleNumber(number) };
        let value = |kept: &KeptRecords| {
            let claimed = kept.claimed(&[through(TWO, 9)]);
            let records = claimed.iter().flat_map(|(batch, range)| range.clone().map(move |at| (batch, at)));
            let value = |(batch, at): (&Arc<RecordBatch>, usize)| {
                batch.lend(at, |record, _| record.value.map(<[u8]>::to_vec)).flatten()
            };
            records.filter_map(value).collect::<Vec<_>>()
        };

        kept.shrink();
        assert_eq!(kept.batches[0].records.len(), 3, "nothing was dropped");
        kept.drop_claimed(&[through(ONE, 1)]);
        kept.shrink();
        let records = Arc::clone(&kept.batches[0].records);
        assert!(records.bytes_of(0..records.len()) < LARGE / 100);
        assert_eq!(value(&kept), [b"small".to_vec(), b"letter".to_vec()]);
        assert!(kept.find(&records, 0).is_some_and(|found| found.offset == 2 && found.is_output));
        assert!(kept.find(&records, 1).is_some_and(|found| found.offset == 3 && !found.is_output));
        assert_eq!(ranges(&kept, &[through(TWO, 2)]), vec![0..1; 1]);
        assert_eq!(kept.drop_claimed(&[through(TWO, 2)]), 1);
        kept.shrink();
        assert_eq!(kept.batches[0].records.len(), 2, "half of it is left: it is not copied");
        assert_eq!(value(&kept), [b"letter".to_vec()]);
    }

    #[test]
    fn an_output_is_replaced_by_its_dead_letter_and_found_again() {
        let mut kept = kept();
        let first = Arc::clone(&kept.batches.front().expect("there are two").records);
        let partition = Partition { topic: 0, number: 0 };
        let found = KeptRecord { partition, ownership: TWO, offset: 3, is_output: true };
        assert_eq!(kept.find(&first, 5), Some(found), "the second record of number 3");
        let letter =
            SinkRecord { topic: SinkTopic(7), timestamp: None, key: None, value: Some(b"x"), headers: &[] };
        kept.replace(&first, 5, &letter);
        assert_eq!(kept.find(&first, 5), None, "the batch is another one");
        let replaced = Arc::clone(&kept.batches.front().expect("there are two").records);
        assert_eq!(kept.find(&replaced, 5), Some(KeptRecord { is_output: false, ..found }));
        assert_eq!(kept.find(&replaced, 4), Some(found));
        assert_eq!(replaced.topics(4..7).collect::<Vec<_>>(), [0, 7, 0].map(SinkTopic));
        kept.drop_ownership(TWO);
        assert_eq!(kept.find(&replaced, 5), None);
    }

    #[test]
    fn what_was_published_or_belongs_to_an_ended_ownership_is_dropped() {
        let mut kept = kept();
        let all = [ONE, TWO].map(|ownership| EffectClaim { ownership, through: SettleNumber(9) });
        let outputs = kept.drop_claimed(&[EffectClaim { ownership: ONE, through: SettleNumber(5) }]);
        assert_eq!(outputs, 8);
        assert_eq!(ranges(&kept, &all), [4..6, 2..4]);
        kept.drop_ownership(TWO);
        assert_eq!(ranges(&kept, &all), vec![2..4; 1]);
        kept.drop_claimed(&all);
        assert!(kept.batches.is_empty());
    }
}
