//! The log of effects, and what a read_committed reader sees of it: everything up to the last stable offset, without the
//! records of aborted transactions.

use std::collections::BTreeMap;

use super::super::log::Lane;
use super::super::trace::Seen;
use super::super::world::World;
use super::kept::Effect;
use super::requests::{Produced, Reply, Sender};

/// The effects of the events of one partition, as produced.
#[derive(Debug, Default)]
pub(super) struct OutputLog {
    pub(super) records: Vec<OutputRecord>,
    /// Every record before this position belongs to a decided transaction.
    last_stable: usize,
    /// Per process, ownership and lane: the number and offset of the last effect that was read.
    last_numbers: BTreeMap<(usize, u64, Lane), (u64, i64)>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct OutputRecord {
    pub(super) effect: Effect,
    /// The transactional id, and the number of its transaction.
    pub(super) transaction: (usize, u64),
    pub(super) state: TransactionState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TransactionState {
    Open,
    Committed,
    Aborted,
}

impl World {
    /// Appends one batch. Records with a sequence number that was stored before are taken for duplicates.
    pub(super) fn append(&mut self, from: Sender, first: u64, records: Vec<Produced>) -> Reply {
        let next = self.brokers.ids.get(&from.name).map_or(0, |id| id.next_sequence);
        if first > next {
            return Reply::Again; // out of order: an earlier batch is missing
        }
        let serial = self.open_transaction(from).serial;
        let (transaction, mut ends) = ((from.name, serial), Vec::new());
        let new = records.into_iter().zip(first..).filter(|(_, sequence)| *sequence >= next);
        for (record, sequence) in new {
            match record {
                Produced::Effect(effect) => {
                    let Effect { process, partition, offset, number, .. } = effect;
                    self.note(process, "appended", Some(partition), offset, number as i64);
                    let record = OutputRecord { effect, transaction, state: TransactionState::Open };
                    self.brokers.outputs[partition].records.push(record);
                }
                Produced::Key(record) => {
                    let offset = self.append_key_record(transaction, &record);
                    self.note(from.process, "key record", Some(record.partition), -1, offset);
                    ends.push((record.partition, offset + 1));
                }
            }
            if let Some(id) = self.brokers.ids.get_mut(&from.name) {
                id.next_sequence = sequence + 1;
            }
        }
        Reply::Stored(ends)
    }

    /// The effects of a transaction, per partition.
    pub(super) fn effects_of(&self, name: usize, serial: u64) -> Vec<Effect> {
        let records = self.brokers.outputs.iter().flat_map(|log| &log.records);
        records
            .filter(|record| record.transaction == (name, serial) && record.state == TransactionState::Open)
            .map(|record| record.effect)
            .collect()
    }

    /// Writes the markers of a transaction. Readers continue behind it.
    pub(super) fn end_transaction_in_logs(&mut self, name: usize, serial: u64, committed: bool) {
        for index in 0..self.brokers.outputs.len() {
            let log = &mut self.brokers.outputs[index];
            let from = log.last_stable;
            let records = log.records.iter_mut().skip(from);
            for record in records.filter(|record| record.transaction == (name, serial)) {
                record.state =
                    if committed { TransactionState::Committed } else { TransactionState::Aborted };
            }
            self.read_committed(index);
        }
    }

    fn read_committed(&mut self, index: usize) {
        loop {
            let log = &mut self.brokers.outputs[index];
            let Some(&OutputRecord { effect, state, .. }) = log.records.get(log.last_stable) else { return };
            match state {
                TransactionState::Open => return,
                TransactionState::Aborted => self.saw(Seen::EffectsAborted),
                TransactionState::Committed => self.read_effect(index, effect),
            }
            self.brokers.outputs[index].last_stable += 1;
        }
    }

    fn read_effect(&mut self, index: usize, effect: Effect) {
        let Effect { process, ownership, lane, number, offset, .. } = effect;
        self.saw(Seen::EffectsCommitted);
        self.note(process, "visible", Some(index), offset, number as i64);
        let last =
            self.brokers.outputs[index].last_numbers.insert((process, ownership, lane), (number, offset));
        self.require(last < Some((number, offset)), "T6 settle order", index, offset, || {
            format!("process {process}: effects with number {number} are visible after {last:?}")
        });
        let log = &mut self.logs[index];
        if log.incarnation != effect.incarnation || log.incarnation > 0 {
            return; // a reader that had not noticed the new topic began in the middle of its log
        }
        let Some(record) = log.record_mut(offset) else { return };
        record.effects += 1;
        let (effects, waived) = (record.effects, record.waived);
        let (key, has_outputs, seq) = (record.key, record.has_outputs, record.seq);
        self.require(effects == 1 || waived, "T1 once", index, offset, || {
            format!("process {process}: the effects of an event are visible {effects} times")
        });
        if let Some(key) = key.filter(|_| has_outputs) {
            let follows = self.logs[index].store_output(key, seq);
            self.require(follows || waived || self.is_gated(), "I2 no gap", index, offset, || {
                format!("output {seq} of key {key} is visible before the previous one")
            });
        }
    }

    /// At the end, every transaction is decided.
    pub(super) fn check_stable(&mut self) {
        for index in 0..self.brokers.outputs.len() {
            let log = &self.brokers.outputs[index];
            if let Some(record) = log.records.get(log.last_stable) {
                let text = format!("a transaction is still open: {record:?}");
                self.report_violation("T9 progress", text, Some(index), record.effect.offset);
            }
        }
    }
}
