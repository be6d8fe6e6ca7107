//! Tests of gates: events with order values.

use std::time::Duration;

use keylane_core::{
    Admission, Config, EventId, EventOrder, GateConfig, GateKey, GateRule, Input, Known, LaneEnd,
    MemoryChange, NoValue, Partition,
};

use super::Shell;

/// An event of a gate test: offset, lane, and order value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gated {
    pub(crate) offset: i64,
    pub(crate) lane: u64,
    pub(crate) value: Option<i64>,
    pub(crate) id: u128,
    pub(crate) tombstone: bool,
    pub(crate) filtered: bool,
    pub(crate) timestamp: i64,
    pub(crate) bytes: u32,
    /// Whether its key is looked up, instead of being given with the event.
    pub(crate) unknown: bool,
}

/// An event of a key that is known.
pub(crate) fn event(offset: i64, lane: u64, value: i64) -> Gated {
    Gated {
        offset,
        lane,
        value: Some(value),
        id: 0,
        tombstone: false,
        filtered: false,
        timestamp: -1,
        bytes: 100,
        unknown: false,
    }
}

pub(crate) fn gated(rule: GateRule) -> Config {
    let gate = GateConfig { rule, no_value: NoValue::Reject, max_ahead: None, ends_at_tombstone: false };
    Config { gate: Some(gate), max_batch: 8, ..Config::default() }
}

impl Shell {
    fn known(&self, key: u64) -> Known {
        match self.memories.get(&key) {
            None => Known::Mark(None),
            Some(memory) if memory.is_only_mark() => Known::Mark(memory.mark),
            Some(_) => Known::No,
        }
    }

    pub(super) fn remember(&mut self, changes: &[MemoryChange]) {
        for change in changes {
            self.memories.entry(change.key.0).or_default().apply(change.change, self.keep_ids);
        }
        self.remembered.extend(changes);
    }

    /// Answers the requests for what is remembered.
    pub(crate) fn answer_look_ups(&mut self) {
        for (request, key) in std::mem::take(&mut self.key_lookups) {
            let memory = self.memories.get(&key).cloned().unwrap_or_default();
            self.give(Input::KeyKnown { request, memory: &memory });
        }
    }

    /// A read of these events.
    pub(crate) fn fetch_gated(&mut self, partition: Partition, events: &[Gated]) {
        let rows: Vec<_> = events
            .iter()
            .map(|event| {
                let mut row = self.row(event.offset, Admission::Lane(event.lane));
                (row.timestamp, row.bytes) = (event.timestamp, event.bytes);
                row
            })
            .collect();
        let orders: Vec<_> = events
            .iter()
            .map(|&Gated { lane, value, id, tombstone, filtered, unknown, .. }| EventOrder {
                key: GateKey(lane),
                value,
                id: EventId(id),
                id_key: GateKey(lane),
                tombstone,
                filtered,
                redriven: false,
                known: if unknown { Known::No } else { self.known(lane) },
            })
            .collect();
        self.give(Input::Fetched { partition, rows: &rows, orders: &orders, end: None, error: None });
    }

    /// The offsets that are running, call by call.
    pub(crate) fn running_offsets(&self) -> Vec<i64> {
        self.calls.iter().flat_map(|call| call.rows.iter().map(|&(_, offset)| offset)).collect()
    }

    /// Ends all calls, and those that begin then, without outputs. Returns the offsets in the order of their dispatch.
    pub(crate) fn run_all(&mut self) -> Vec<i64> {
        let mut order = Vec::new();
        while !self.calls.is_empty() {
            let call = self.calls.remove(0);
            order.extend(call.rows.iter().map(|&(_, offset)| offset));
            let lanes: Vec<_> = call.lanes.iter().map(|&done| LaneEnd { done, verdict: None }).collect();
            self.give(Input::CallEnded {
                call: call.id,
                lanes: &lanes,
                with_outputs: &[],
                output_bytes: &[],
                took: Duration::from_micros(1),
            });
        }
        order
    }
}
