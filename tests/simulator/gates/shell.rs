//! The shell of a gate: it numbers the keys, passes what it knows of them to the core, and answers its requests.

use std::collections::BTreeMap;
use std::time::Duration;

use keylane_core::{
    Admission, ArenaSlot, EventId, EventOrder, FetchedRow, GateKey, Input, KeyMemory, Known, LookUpId,
    OwnershipId, Partition,
};

use super::super::log::Record;
use super::super::plan::{MS, SECOND};
use super::super::planted::Planted;
use super::super::trace::Seen;
use super::super::world::{Event, World};
use super::KeyName;

/// The numbers of the keys that have events.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    /// The number of each key, and its events.
    by_key: BTreeMap<KeyName, (u64, u32)>,
    by_number: BTreeMap<u64, KeyName>,
    /// The numbers that other keys have had.
    used: BTreeMap<u64, KeyName>,
    /// The key that had a number before the one that has it.
    before: BTreeMap<u64, KeyName>,
}

/// The keys of the event in a slot.
#[derive(Clone, Copy, Debug)]
pub(super) struct SlotKeys {
    pub(super) index: usize,
    pub(super) offset: i64,
    pub(super) key: KeyName,
    pub(super) id_key: KeyName,
}

/// What the shell answers to a request of the core.
#[derive(Debug)]
pub(crate) enum Answer {
    /// What is remembered of a key: either as it was at the request, or as it is when the answer is given.
    Key { partition: usize, epoch: u32, request: LookUpId, key: KeyName, memory: Option<KeyMemory> },
    /// The end of a log; `None`: as it is when the answer is given.
    LogEnd { partition: usize, sent_at: Duration, end: Option<i64> },
}

/// What a number has if another key has its hash.
const COLLIDES: u64 = 1 << 63;

impl Numbers {
    pub(super) fn key_of(&self, number: GateKey) -> Option<KeyName> {
        self.by_number.get(&number.0).copied()
    }

    /// Another event of a key. Returns the number of the key, and whether another key has had it.
    fn reference(&mut self, key: KeyName, hashed: bool, collides: bool) -> (GateKey, bool) {
        if let Some((number, events)) = self.by_key.get_mut(&key) {
            *events += 1;
            return (GateKey(*number), false);
        }
        let is_free = |number: &u64| !self.by_number.contains_key(number);
        let first = if hashed { key % 4 } else { 0 };
        let number = if hashed && collides {
            Some(first)
        } else if hashed && !is_free(&first) {
            (COLLIDES..).find(is_free)
        } else {
            (first..).find(is_free)
        };
        let number = number.unwrap_or(u64::MAX);
        self.by_key.insert(key, (number, 1));
        self.by_number.insert(number, key);
        let last = self.used.insert(number, key);
        let before = last.filter(|last| *last != key);
        if let Some(before) = before {
            self.before.insert(number, before);
        }
        (GateKey(number), before.is_some())
    }

    /// Returns whether this was the last event of the key.
    fn dereference(&mut self, key: KeyName) -> bool {
        let Some((number, events)) = self.by_key.get_mut(&key) else { return false };
        *events -= 1;
        let is_last = *events == 0;
        if is_last {
            self.by_number.remove(number);
            self.by_key.remove(&key);
        }
        is_last
    }
}

impl World {
    /// The admission of a filtered event: with a consecutive gate, it takes its place in its lane.
    pub(crate) fn filtered_admission(&self, record: &Record) -> Admission {
        if self.plan.gates.is_some_and(|plan| plan.is_consecutive()) && record.key.is_some() {
            record.lane.admission(&self.plan)
        } else {
            Admission::Filtered
        }
    }

    /// The orders of the rows of a read, if there is a gate.
    pub(crate) fn orders(&mut self, p: usize, index: usize, rows: &[FetchedRow]) -> Vec<EventOrder> {
        if !self.is_gated() {
            return Vec::new();
        }
        rows.iter().map(|row| self.order_of(p, index, row)).collect()
    }

    fn order_of(&mut self, p: usize, index: usize, row: &FetchedRow) -> EventOrder {
        let plan = self.plan.gates;
        let record = self.logs[index].record(row.offset).cloned();
        let in_lane = matches!(row.admission, Admission::Lane(_));
        let (Some(record), Some(plan), true) = (record, plan, in_lane) else {
            return EventOrder::without_value(GateKey(u64::MAX));
        };
        let order = record.order;
        let ArenaSlot(slot) = row.arena_slot;
        let keys = SlotKeys { index, offset: row.offset, key: order.key, id_key: order.id_key };
        self.processes[p].gates.slots.insert(slot, keys);
        let collides = self.planted == Some(Planted::NumbersCollide);
        let knows = self.rng.percent(plan.known_at_once);
        let part = self.gate_part(p, index);
        let (key, is_reused) = part.numbers.reference(order.key, plan.hashed_numbers, collides);
        let (id_key, _) = match order.id_key {
            same if same == order.key => (key, false),
            other => part.numbers.reference(other, plan.hashed_numbers, collides),
        };
        let memory = part.memory.key(order.key);
        let value = self.planted_value(p, index, &order, memory.mark).filter(|_| plan.gate.is_some());
        let known = match memory.is_only_mark() && knows {
            true => Known::Mark(memory.mark),
            false => Known::No,
        };
        self.note(p, "order value", Some(index), row.offset, order.value.unwrap_or(i64::MIN));
        if is_reused {
            self.saw(Seen::GateNumbersReused);
        }
        let id = if plan.duplicates.is_some() { EventId(order.id) } else { EventId::NONE };
        EventOrder {
            key,
            value,
            id,
            id_key,
            tombstone: order.tombstone,
            filtered: record.filtered,
            redriven: false,
            known,
        }
    }

    /// A slot was released: the numbers of keys without events are used again. Returns these keys.
    pub(super) fn release_keys(&mut self, p: usize, slot: ArenaSlot) -> Option<(SlotKeys, Vec<KeyName>)> {
        let keys = self.processes[p].gates.slots.remove(&slot.0)?;
        let numbers = &mut self.gate_part(p, keys.index).numbers;
        let mut quiet = Vec::new();
        quiet.extend(numbers.dereference(keys.key).then_some(keys.key));
        if keys.id_key != keys.key {
            quiet.extend(numbers.dereference(keys.id_key).then_some(keys.id_key));
        }
        Some((keys, quiet))
    }

    pub(crate) fn look_up_key(
        &mut self,
        p: usize,
        (request, key): (LookUpId, GateKey),
        (partition, ownership): (Partition, OwnershipId),
        slot: ArenaSlot,
    ) {
        self.saw(Seen::GateKeysLookedUp);
        let index = self.index(partition);
        let slot = self.processes[p].gates.slots.get(&slot.0).copied();
        let part = self.gate_part(p, index);
        let (name, current) = (part.numbers.key_of(key), part.ownership);
        let of_slot = slot
            .is_some_and(|slot| slot.index == index && (Some(slot.key) == name || Some(slot.id_key) == name));
        let Some(name) = name.filter(|_| of_slot && current == Some(ownership.0)) else {
            let text = format!("process {p} looks up {key:?} of {ownership:?} with an event of {slot:?}");
            return self.report_violation("G9 key identity", text, Some(index), -1);
        };
        self.note(p, "looks up", Some(index), -1, name as i64);
        let lane = slot.and_then(|slot| self.logs[index].record(slot.offset)).map(|record| record.lane);
        let part = self.gate_part(p, index);
        part.model.loading.extend(lane.map(|lane| (request, lane)));
        let before = part.numbers.before.get(&key.0).copied();
        let planted = self.planted == Some(Planted::OldKeyAnswered);
        let name = before.filter(|_| planted).unwrap_or(name);
        let memory = self.rng.percent(50).then(|| self.gate_part(p, index).memory.key(name));
        let epoch = self.processes[p].parts[index].epoch;
        let longest = self.rng.pick(&[MS, 10 * MS, SECOND / 5]);
        let delay = self.rng.range(100, longest);
        let answer = Answer::Key { partition: index, epoch, request, key: name, memory };
        self.after(delay, Event::GateAnswer(p, answer));
    }

    pub(crate) fn request_log_ends(&mut self, p: usize, partitions: &[Partition]) {
        self.saw(Seen::LogEndsRequested);
        for &partition in partitions {
            let index = self.index(partition);
            self.note(p, "requests end", Some(index), -1, 0);
            if self.rng.percent(10) {
                continue; // the request fails
            }
            let end = self.rng.percent(50).then_some(self.logs[index].end);
            let sent_at = self.uptime(p);
            let longest = self.rng.pick(&[5 * MS, 50 * MS, 500 * MS]);
            let delay = self.rng.range(MS, longest);
            self.after(delay, Event::GateAnswer(p, Answer::LogEnd { partition: index, sent_at, end }));
        }
    }

    pub(crate) fn gate_answer(&mut self, p: usize, answer: Answer) {
        match answer {
            Answer::Key { partition: index, epoch, request, key, memory } => {
                // An answer may arrive after the ownership has ended.
                if self.processes[p].parts[index].epoch != epoch && self.rng.percent(50) {
                    return;
                }
                let memory = memory.unwrap_or_else(|| self.gate_part(p, index).memory.key(key));
                self.note(p, "key known", Some(index), -1, key as i64);
                self.gate_part(p, index).model.loading.remove(&request);
                if self.planted == Some(Planted::KeyAnswerLost) && self.rng.percent(3) {
                    return;
                }
                self.feed(p, Input::KeyKnown { request, memory: &memory });
            }
            Answer::LogEnd { partition: index, sent_at, end } => {
                let end = end.unwrap_or(self.logs[index].end);
                let partition = self.logs[index].partition;
                self.note(p, "log end seen", Some(index), end, sent_at.as_millis() as i64);
                self.end_seen(p, index, end, sent_at);
                if self.planted == Some(Planted::PauseCounted) && self.is_paused(p) {
                    return;
                }
                let (end, sent_at) = match self.planted {
                    Some(Planted::EndOfLogAssumed) => (0, sent_at),
                    Some(Planted::EndOfLogLater) => (end, self.uptime(p)),
                    _ => (end, sent_at),
                };
                self.feed(p, Input::LogEndSeen { partition, end, sent_at });
            }
        }
    }
}
