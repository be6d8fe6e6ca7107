//! The logs of the partitions, and the outcomes of each record.

use keylane_core::{Admission, Partition};

use super::gates::RecordOrder;
use super::plan::{Class, Plan};
use super::rng::Rng;

#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) partition: Partition,
    pub(crate) topic_id: [u8; 16],
    /// Counts the topics of this name.
    pub(crate) incarnation: u32,
    /// Ascending by offset, with gaps.
    pub(crate) records: Vec<Record>,
    pub(crate) start: i64,
    /// One past the last offset, which may not exist.
    pub(crate) end: i64,
    /// Transactional delivery: somebody has reset the offset of the group.
    pub(crate) offsets_reset: bool,
    /// The offset at which reads fail, and how many more times.
    pub(crate) damage: Option<(i64, u32)>,
    /// Per key: the number of records with outputs, and the highest stored output.
    keys: Vec<(u32, i64)>,
}

#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) offset: i64,
    pub(crate) key: Option<u64>,
    pub(crate) lane: Lane,
    pub(crate) bytes: u32,
    pub(crate) has_outputs: bool,
    /// Its number among the records with outputs of its key.
    pub(crate) seq: u32,
    /// The handler's filter excludes it.
    pub(crate) filtered: bool,
    /// How the guest fails on the record in every attempt.
    pub(crate) failure: Option<Failure>,
    /// The number of outcomes of the record, as seen by the simulator.
    pub(crate) outcomes: u32,
    /// Retention or `out_of_range` removed it: it needs no outcome.
    pub(crate) outcome_not_required: bool,
    /// Transactional delivery: how often a read_committed reader has seen its effects.
    pub(crate) effects: u32,
    /// Transactional delivery: the transaction that claims it contains effects of it.
    pub(crate) claimed_with_effects: bool,
    /// Transactional delivery: offsets were reset, so it may be repeated or lost.
    pub(crate) waived: bool,
    /// Milliseconds since the simulation began; −1: none.
    pub(crate) timestamp: i64,
    /// With gates: its order.
    pub(crate) order: RecordOrder,
}

/// Why an event fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The guest fails as a whole.
    CallFails,
    /// The guest rejects it.
    Rejected,
    /// The guest always requests a retry.
    NeverDone,
}

/// A lane within a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    Key(u64),
    Unkeyed(i64),
}

impl Lane {
    pub(crate) fn admission(self, plan: &Plan) -> Admission {
        match self {
            Lane::Key(hash) => Admission::Lane(hash),
            Lane::Unkeyed(_) if plan.rejects_unkeyed => Admission::NoLaneKey,
            Lane::Unkeyed(_) => Admission::Unkeyed,
        }
    }
}

impl Log {
    pub(crate) fn new(index: usize, plan: &Plan, rng: &mut Rng) -> Log {
        let per_topic = usize::from(plan.partitions_per_topic);
        let topic = (index / per_topic) as u16;
        let start = rng.pick(&[0, 0, 1_000, 32_760]);
        Log {
            partition: Partition { topic, number: (index % per_topic) as i32 },
            topic_id: if plan.topic_ids { [topic as u8 + 1; 16] } else { [0; 16] },
            incarnation: 0,
            records: Vec::new(),
            start,
            end: start,
            offsets_reset: false,
            damage: None,
            keys: vec![(0, -1); plan.keys as usize],
        }
    }

    /// The topic is recreated, empty.
    pub(crate) fn replace(&mut self, rng: &mut Rng) {
        self.incarnation += 1;
        self.topic_id = [rng.below(256) as u8; 16];
        self.topic_id[..4].copy_from_slice(&self.incarnation.to_be_bytes());
        self.records.clear();
        (self.start, self.end, self.damage) = (0, 0, None);
        self.keys.fill((0, -1));
    }

    /// Appends a record, perhaps with a gap before or after it.
    pub(crate) fn grow(&mut self, plan: &Plan, rng: &mut Rng) {
        if rng.percent(plan.gaps) {
            self.end += rng.range(1, 4) as i64;
        }
        let key = (!rng.percent(plan.keyless)).then(|| rng.below(plan.keys));
        self.append(plan, rng, key);
        if rng.percent(plan.gaps / 4) {
            self.end += 1;
        }
    }

    /// Appends a record with this key.
    pub(crate) fn append(&mut self, plan: &Plan, rng: &mut Rng, key: Option<u64>) {
        let offset = self.end;
        let filtered = rng.percent(plan.filtered);
        let has_outputs = rng.percent(plan.outputs) && !filtered;
        let fails = plan.has(Class::Poison) && rng.percent(4) && !filtered;
        let failure = fails.then(|| rng.pick(&[Failure::CallFails, Failure::Rejected, Failure::NeverDone]));
        let seq = match key {
            Some(key) if has_outputs => {
                self.keys[key as usize].0 += 1;
                self.keys[key as usize].0 - 1
            }
            Some(_) | None => 0,
        };
        self.records.push(Record {
            offset,
            key,
            lane: key.map_or(Lane::Unkeyed(offset), |key| Lane::Key(key / plan.keys_per_hash)),
            bytes: rng.range(50, 900) as u32,
            has_outputs,
            seq,
            filtered,
            failure,
            outcomes: 0,
            // A filtered event needs no outcome.
            outcome_not_required: filtered,
            effects: 0,
            claimed_with_effects: false,
            waived: false,
            timestamp: offset * 7 - 1,
            order: RecordOrder::default(),
        });
        self.end = offset + 1;
    }

    pub(crate) fn position(&self, offset: i64) -> usize {
        self.records.partition_point(|record| record.offset < offset)
    }

    pub(crate) fn record(&self, offset: i64) -> Option<&Record> {
        self.records.get(self.position(offset)).filter(|record| record.offset == offset)
    }

    pub(crate) fn record_mut(&mut self, offset: i64) -> Option<&mut Record> {
        let position = self.position(offset);
        self.records.get_mut(position).filter(|record| record.offset == offset)
    }

    /// The records in `[from, to)` no longer need an outcome.
    pub(crate) fn waive_outcomes(&mut self, from: i64, to: i64) {
        for record in &mut self.records {
            if record.offset >= from && record.offset < to && record.outcomes == 0 {
                record.outcome_not_required = true;
            }
        }
    }

    /// Output `seq` of a key is stored. Returns false if an earlier one is missing.
    pub(crate) fn store_output(&mut self, key: u64, seq: u32) -> bool {
        let mut next = self.keys[key as usize].1 + 1;
        for record in &self.records {
            let same = record.key == Some(key) && record.has_outputs;
            if same && i64::from(record.seq) == next && i64::from(seq) > next && record.outcome_not_required {
                next += 1;
            }
        }
        let highest = &mut self.keys[key as usize].1;
        *highest = (*highest).max(i64::from(seq));
        i64::from(seq) <= next
    }
}
