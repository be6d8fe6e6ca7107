//! Gates: a rule that decides from the order value of an event whether the event may run, or waits for others, or is passed
//! over without a call.
//!
//! [`rules`] decides about one event of a free lane; [`keys`] has what is remembered of the keys with events, and the order
//! of these events; [`parked`] has the events that wait; [`stream_time`] is the clock of their waits. The lanes ask
//! (`lanes/gated.rs`), and the core settles, closes gaps and releases (`core/gating.rs`).

mod changes;
mod config;
mod event_order;
mod keys;
mod memory;
mod parked;
mod partition;
mod rules;
mod stream_time;

pub use config::{
    Consecutive, Duplicates, First, GateConfig, GateRule, Late, MaxAhead, Newest, NoValue, OnGap, Window,
};
pub use event_order::{EventId, EventOrder, GateKey, Known};
pub use memory::{Change, DELIVERED_MAX, HOLES_MAX, KeyMemory, MemoryChange, RememberedId};

pub(crate) use changes::{OrderSettled, SettledAs};
pub(crate) use keys::{Order, Role};
pub(crate) use parked::Node;
pub(crate) use partition::PartitionGate;
pub(crate) use rules::{GateOutcome, Verdict, WithoutCall};

use std::collections::BTreeSet;
use std::time::Duration;

use crate::event::Event;
use crate::{LookUpId, Reason};
use keys::Keys;
use parked::Parked;
use rules::{Context, next_value};

/// The gate of a handler, or its detection of duplicates.
#[derive(Debug)]
pub(crate) struct Gates {
    pub(crate) config: Option<GateConfig>,
    pub(crate) duplicates: Option<Duplicates>,
    pub(crate) keys: Keys,
    pub(crate) parked: Parked,
    /// By index.
    partitions: Vec<PartitionGate>,
    pub(crate) decided: Decided,
    /// The memory of what was carried out last, for what is decided next.
    spare: Decided,
    /// Keys that have waited long enough, but whose lane is not free: partition and key.
    wait_for_lane: BTreeSet<(u32, u32)>,
    /// Keys whose expected memory differs, while a call is being formed.
    taken: Vec<u32>,
    last_request: LookUpId,
}

/// What was decided about events, for the core to carry out.
#[derive(Debug, Default)]
pub(crate) struct Decided {
    pub(crate) settled: Vec<Settled>,
    /// The changes of all of them, in order.
    pub(crate) changes: Vec<(GateKey, Change)>,
    pub(crate) rejected: Vec<(u32, Event, Reason)>,
    /// Keys whose memory is needed: the key, the request, and an event of the key.
    pub(crate) look_ups: Vec<(u32, LookUpId, Event)>,
    /// Keys whose gap is to be closed, because its lane is free now.
    pub(crate) gaps: Vec<u32>,
    /// Lanes that were not asked to the end, because too much was decided at once.
    pub(crate) unfinished: Vec<u32>,
}

/// An event that settles without a call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settled {
    pub(crate) partition: u32,
    pub(crate) event: Event,
    pub(crate) outcome: GateOutcome,
    /// Number of its changes.
    pub(crate) changes: usize,
    /// If it was redriven and is stale: its value, and the mark.
    pub(crate) stale_redrive: Option<(i64, i64)>,
}

/// Maximum number of outcomes without a call per step.
const OUTCOMES_MAX: usize = 1024;

impl Gates {
    /// Returns the gates of a handler; `None`: it has neither a gate nor a detection of duplicates.
    pub(crate) fn new(config: Option<GateConfig>, duplicates: Option<Duplicates>) -> Option<Box<Gates>> {
        (config.is_some() || duplicates.is_some()).then(|| {
            Box::new(Gates {
                config,
                duplicates,
                keys: Keys::default(),
                parked: Parked::default(),
                partitions: Vec::new(),
                decided: Decided::default(),
                spare: Decided::default(),
                wait_for_lane: BTreeSet::new(),
                taken: Vec::new(),
                last_request: LookUpId(0),
            })
        })
    }

    pub(crate) fn partition(&mut self, index: u32) -> &mut PartitionGate {
        let at = index as usize;
        if self.partitions.len() <= at {
            self.partitions.resize_with(at + 1, PartitionGate::default);
        }
        self.partitions.get_mut(at).expect("it was just added")
    }

    pub(crate) fn partition_now(&self, index: u32) -> Option<&PartitionGate> {
        self.partitions.get(index as usize)
    }

    pub(crate) fn partitions(&self) -> impl Iterator<Item = (u32, &PartitionGate)> {
        (0..).zip(&self.partitions)
    }

    /// Returns whether parked events are chosen by their values among all queued ones, so that queued events are parked
    /// before one is chosen.
    pub(crate) fn reorders(&self) -> bool {
        match self.config.as_ref().map(|gate| &gate.rule) {
            Some(GateRule::Window(_)) => true,
            Some(GateRule::Newest(rule)) => rule.latest_first,
            Some(GateRule::Consecutive(_)) | None => false,
        }
    }

    pub(crate) fn runs_latest_first(&self) -> bool {
        matches!(&self.config, Some(GateConfig { rule: GateRule::Newest(rule), .. }) if rule.latest_first)
    }

    pub(crate) fn is_at_limit(&self) -> bool {
        self.decided.settled.len() + self.decided.rejected.len() >= OUTCOMES_MAX
    }

    /// Takes what was decided, without unfinished lanes; `None`: nothing.
    pub(crate) fn take_decided(&mut self) -> Option<Decided> {
        let Decided { settled, rejected, look_ups, gaps, .. } = &self.decided;
        let is_empty = settled.is_empty() && rejected.is_empty() && look_ups.is_empty() && gaps.is_empty();
        (!is_empty).then(|| {
            let mut decided = std::mem::replace(&mut self.decided, std::mem::take(&mut self.spare));
            std::mem::swap(&mut decided.unfinished, &mut self.decided.unfinished);
            decided
        })
    }

    /// Reuses the memory of what was carried out.
    pub(crate) fn reuse(&mut self, carried_out: &mut Decided) {
        self.spare = std::mem::take(carried_out);
    }

    /// Adds the order of an event that is admitted to a lane.
    pub(crate) fn enter(&mut self, at: (u32, u32), order: &EventOrder) -> u32 {
        let waits_since = self.partition(at.0).stream.now_ms();
        self.keys.enter(at, order, waits_since, self.duplicates.is_some())
    }

    // -- asking -------------------------------------------------------------------------------------

    /// Decides about the first event of a free lane.
    pub(crate) fn ask(&self, event: &Event, wall_ms: i64) -> Verdict {
        let order = self.keys.order(event.order);
        self.context(&order, wall_ms).ask(&order, self.keys.event_id(event.order), event.dispatched)
    }

    fn context(&self, order: &Order, wall_ms: i64) -> Context<'_> {
        let key = self.keys.key(order.key);
        Context {
            gate: self.config.as_ref(),
            duplicates: self.duplicates,
            wall_ms,
            key: (order.key, key),
            id_key: (order.id_key, self.keys.key(order.id_key)),
            parked: &self.parked,
        }
    }

    /// Returns the parked event of a key with the lowest value, and that value.
    pub(crate) fn lowest(&self, key: u32) -> Option<(i64, Node)> {
        self.parked.lowest(&self.keys.key(key).parked)
    }

    /// Returns the parked event of a key with the greatest value, the first of them by arrival, and that value.
    pub(crate) fn greatest(&self, key: u32) -> Option<(i64, Node)> {
        self.parked.greatest(&self.keys.key(key).parked)
    }

    /// Returns the parked event of a key that has waited longest, and its offset, without released ones.
    pub(crate) fn oldest(&self, key: u32) -> Option<(i64, Node)> {
        self.parked.oldest(&self.keys.key(key).parked)
    }

    /// Returns the parked events of a key by value.
    pub(crate) fn of_key(&self, key: u32) -> impl Iterator<Item = (i64, Node)> + use<'_> {
        self.parked.at_or_above(&self.keys.key(key).parked, i64::MIN)
    }

    /// Decides about the parked events of a key: returns the next of them that does not wait any more.
    pub(crate) fn due(
        &self,
        key: u32,
        wall_ms: i64,
        event_at: impl Fn(Node) -> Event,
    ) -> Option<(Node, Verdict)> {
        let known = self.keys.key(key);
        let mark = known.expected_mark();
        let stale = |outcome| Verdict::Settle(WithoutCall { outcome, moves_mark: false, ends_key: false });
        let (node, verdict) = match &self.config.as_ref()?.rule {
            GateRule::Consecutive(rule) => {
                let (value, node) = self.parked.lowest(&known.parked)?;
                if value > next_value(rule, mark)? {
                    return None;
                }
                let order = event_at(node).order;
                let context = self.context(&self.keys.order(order), wall_ms);
                if context.id_key.1.lookup != keys::KeyLookup::Known {
                    return Some((node, Verdict::LookUp(context.id_key.0)));
                }
                let is_duplicate = context.is_duplicate(self.keys.event_id(order));
                let verdict = context.consecutive(rule, &self.keys.order(order), value, is_duplicate);
                return Some((node, verdict));
            }
            GateRule::Newest(_) => {
                let (value, node) = self.parked.greatest(&known.parked)?;
                let is_newer = mark.is_none_or(|mark| value > mark);
                let was_dispatched = event_at(node).dispatched;
                let passed = if was_dispatched { GateOutcome::Stale } else { GateOutcome::Superseded };
                (node, if is_newer { Verdict::Run(Role::InOrder) } else { stale(passed) })
            }
            GateRule::Window(rule) => {
                let (value, node) = self.parked.lowest(&known.parked)?;
                let is_released = known.released_to.is_some_and(|to| value <= to);
                let is_next = rule.consecutive && mark.and_then(|mark| mark.checked_add(1)) == Some(value);
                // Another event with its value has run: there is nothing to wait for.
                let is_passed = mark.is_some_and(|mark| value <= mark);
                if !is_released && !is_next && !is_passed {
                    return None;
                }
                (node, Verdict::Run(Role::InOrder))
            }
        };
        if !matches!(verdict, Verdict::Run(_)) {
            return Some((node, verdict));
        }
        let order = event_at(node).order;
        let Order { value, .. } = self.keys.order(order);
        let context = self.context(&self.keys.order(order), wall_ms);
        let gate = self.config.as_ref()?;
        if value.is_some_and(|value| context.is_too_far_ahead(gate, value)) {
            return Some((node, Verdict::Reject(Reason::OrderValueAhead))); // the key had no mark when it was parked
        }
        if context.id_key.1.lookup != keys::KeyLookup::Known {
            return Some((node, Verdict::LookUp(context.id_key.0)));
        }
        if !context.is_duplicate(self.keys.event_id(order)) {
            return Some((node, verdict));
        }
        let moves_mark = matches!(self.config.as_ref()?.rule, GateRule::Consecutive(_));
        Some((
            node,
            Verdict::Settle(WithoutCall { outcome: GateOutcome::Duplicate, moves_mark, ends_key: false }),
        ))
    }

    /// Requests the memory of a key, unless it was requested.
    pub(crate) fn look_up(&mut self, key: u32, event: Event) {
        if self.keys.key(key).lookup == keys::KeyLookup::Unknown {
            self.last_request.0 += 1;
            self.keys.requested(key, self.last_request);
            self.decided.look_ups.push((key, self.last_request, event));
        }
    }

    // -- forming a call -----------------------------------------------------------------------------

    /// Expects that an event of the call that is being formed is done. Returns false if no other event of its lane may be in
    /// the same call.
    pub(crate) fn take(&mut self, order: u32) -> bool {
        let Order { key, id_key, value, role, .. } = self.keys.order(order);
        let id = self.keys.event_id(order);
        let mark = self.keys.key(key).expected_mark();
        let moved = value.filter(|_| role == Role::InOrder && self.config.is_some());
        let mark = mark.max(moved);
        for key in [key, id_key] {
            let known = self.keys.key_mut(key);
            if known.taken.is_none() {
                known.taken = Some(keys::Taken { mark: known.memory.mark, ids: Vec::new() });
                self.taken.push(key);
            }
        }
        if let Some(taken) = &mut self.keys.key_mut(key).taken {
            taken.mark = mark;
        }
        if id != EventId::NONE
            && let Some(taken) = &mut self.keys.key_mut(id_key).taken
        {
            taken.ids.push(id);
        }
        if self.keys.key(key).parked.len > 0 {
            let lane = self.keys.key(key).lane;
            self.parked.may_be_due(lane, key);
        }
        // After it, a value in the same hole is stale.
        let is_alone = matches!(role, Role::EndsKey | Role::FillsHole);
        !is_alone && !self.runs_latest_first()
    }

    /// The call is formed.
    pub(crate) fn end_taking(&mut self) {
        for key in self.taken.drain(..) {
            self.keys.key_mut(key).taken = None;
        }
    }

    // -- parking ------------------------------------------------------------------------------------

    /// Parks an event, whose node stays in the event store.
    pub(crate) fn park(&mut self, event: &Event, node: Node) {
        let Order { key, value, .. } = self.keys.order(event.order);
        let value = value.expect("an event without an order value is not parked");
        let known = self.keys.key_mut(key);
        let (partition, lane) = (known.partition, known.lane);
        let waits = known.released_to.is_none_or(|to| value > to);
        self.parked.insert((key, &mut known.parked), (value, event.offset), node, waits);
        self.partition(partition).parked(event.bytes, waits);
        self.parked.may_be_due(lane, key);
        self.update_wait(key);
    }

    /// With a window: an event that may run, and is parked again, need not wait again.
    pub(crate) fn keep_released(&mut self, order: u32) {
        let Order { key, value, .. } = self.keys.order(order);
        if self.runs_latest_first() {
            return;
        }
        let known = self.keys.key_mut(key);
        known.released_to = known.released_to.max(value);
    }

    /// Removes an event from the parked ones.
    pub(crate) fn unpark(&mut self, event: &Event, node: Node) {
        let Order { key, .. } = self.keys.order(event.order);
        let known = self.keys.key_mut(key);
        let waited = self.parked.remove(&mut known.parked, node);
        if known.parked.len == 0 {
            known.released_to = None;
            self.parked.not_due(known.lane, key);
        }
        let partition = known.partition;
        self.partition(partition).unparked(event.bytes, waited);
        self.update_wait(key);
    }

    /// Returns the parked events of some partitions.
    pub(crate) fn parked_of(&self, is_one: impl Fn(u32) -> bool) -> impl Iterator<Item = Node> {
        self.parked
            .all()
            .filter(move |&(key, ..)| is_one(self.keys.key(key).partition))
            .map(|(.., node)| node)
    }

    /// Returns the lane of the event at this offset, if it is parked.
    pub(crate) fn lane_of_parked(&self, partition: u32, offset: i64) -> Option<u32> {
        let first =
            self.parked.first_waiting(partition).filter(|&key| self.keys.key(key).waits_as == Some(offset));
        let is_it =
            |&(key, at, _): &(u32, i64, Node)| at == offset && self.keys.key(key).partition == partition;
        // A released event does not wait any more, and is searched for: that is rare, and few are parked then.
        let has_others = || self.partition_now(partition).is_some_and(|gate| gate.parked > gate.waiting);
        let of_partition =
            self.wait_for_lane.range((partition, 0)..=(partition, u32::MAX)).map(|&(_, key)| key);
        let oldest = |key: &u32| self.oldest(*key).is_some_and(|(oldest, _)| oldest == offset);
        let first = first.or_else(|| of_partition.into_iter().find(oldest));
        let key = first.or_else(|| has_others().then(|| self.parked.all().find(is_it))?.map(|(key, ..)| key));
        key.map(|key| self.keys.key(key).lane)
    }

    /// Notes under which offset a key waits for stream time.
    pub(crate) fn update_wait(&mut self, key: u32) {
        let known = self.keys.key_mut(key);
        let oldest = self.parked.oldest(&known.parked).map(|(offset, _)| offset);
        let before = std::mem::replace(&mut known.waits_as, oldest);
        let partition = known.partition;
        self.parked.wait(partition, key, before, oldest);
        self.wait_for_lane.remove(&(partition, key));
    }

    /// Stops waiting for stream time, until the lane of the key is free.
    pub(crate) fn wait_for_lane(&mut self, key: u32) {
        let known = self.keys.key_mut(key);
        let before = known.waits_as.take();
        let (partition, lane) = (known.partition, known.lane);
        self.parked.wait(partition, key, before, None);
        self.wait_for_lane.insert((partition, key));
        self.parked.may_be_due(lane, key);
    }

    /// Returns how long the events of a key wait, in stream time; `None`: for ever.
    pub(crate) fn wait_of(&self, key: u32) -> Option<Duration> {
        match &self.config.as_ref()?.rule {
            GateRule::Consecutive(rule) => match (self.keys.key(key).memory.mark, rule.first) {
                (None, First::Any { wait }) => Some(wait),
                (Some(_) | None, _) => rule.gap_timeout,
            },
            GateRule::Newest(_) => None,
            GateRule::Window(rule) => Some(rule.window),
        }
    }

    /// Returns whether the oldest event of a key has waited long enough.
    pub(crate) fn is_expired(&self, key: u32, event_at: impl Fn(Node) -> Event) -> bool {
        let is_expired = || {
            let wait_ms = i64::try_from(self.wait_of(key)?.as_millis()).unwrap_or(i64::MAX);
            let (_, node) = self.oldest(key)?;
            let Event { order, timestamp, .. } = event_at(node);
            let stream = &self.partition_now(self.keys.key(key).partition)?.stream;
            let waited_ms = stream.now_ms().saturating_sub(self.keys.order(order).waits_since);
            Some(waited_ms >= wait_ms && !stream.is_recent(timestamp, wait_ms))
        };
        is_expired().unwrap_or(false)
    }

    /// Forgets the keys and orders of an ownership that accepts no more results. Its events were dropped before.
    pub(crate) fn clear(&mut self, partition: u32, uptime: Duration) {
        self.keys.clear(partition);
        self.wait_for_lane.retain(|&(of, _)| of != partition);
        *self.partition(partition) = PartitionGate::new(uptime);
    }
}
