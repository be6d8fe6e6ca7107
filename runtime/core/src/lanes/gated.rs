//! Lanes with a gate. When a lane is free, its gate is asked about its queued events in their order, until one may run: that
//! one is brought to the front of the queue. Events that wait are parked outside of the queue.

#![expect(clippy::indexing_slicing, reason = "every index comes from the same `Slab`")]

use std::time::Duration;

use super::{Lane, LaneState, Lanes};
use crate::event::Event;
use crate::gates::{GateOutcome, Gates, Order, OrderSettled, Role, Settled, SettledAs, Verdict, WithoutCall};
use crate::slab::NONE;
use crate::{Change, EventOrder, GateKey, Reason};

/// What asking a lane has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// The first event of the queue may run.
    Due,
    /// The memory of a key is needed first.
    Loading,
    /// No event may run now.
    Nothing,
}

impl Lanes {
    /// Adds the order of an event that is appended to this lane. Returns its index.
    pub(super) fn enter_order(&mut self, partition: u32, lane: u32, order: &EventOrder) -> u32 {
        self.gates().enter((partition, lane), order)
    }

    fn verdict(&self, event: &Event) -> Verdict {
        self.gates.as_ref().expect("only called with a gate").ask(event, self.wall_ms)
    }

    fn gates(&mut self) -> &mut Gates {
        self.gates.as_mut().expect("only called with a gate")
    }

    /// Handles an event that was appended to a lane which is neither new nor busy.
    pub(super) fn appended(&mut self, lane: u32) {
        let Some(gates) = &self.gates else { return };
        let reorders = gates.reorders();
        match self.lanes[lane].state {
            LaneState::Waiting => self.make_ready(lane),
            LaneState::Ready | LaneState::Barred | LaneState::Delayed if reorders => self.reconsider(lane),
            LaneState::Ready
            | LaneState::Barred
            | LaneState::Delayed
            | LaneState::Busy
            | LaneState::Loading
            | LaneState::Detached => {}
        }
    }

    /// Chooses the event at the front again: an event that was appended since may come before it.
    fn reconsider(&mut self, lane: u32) {
        let Some(front) = self.first(lane).copied() else { return };
        if front.is_in_progress() {
            self.preempt(lane);
            return;
        }
        self.keep_released(lane);
        let asked = self.ask(lane);
        if asked != Asked::Due {
            // Its limit depends on the lowest value, and its id on the time.
            self.schedule.retain(|other| other != lane);
            self.barriers.held.retain(|&other| other != lane);
            self.lanes[lane].state = LaneState::Detached;
            self.set_not_due(lane, asked);
        }
    }

    /// With a window: the front, which was chosen, need not wait again when its lane is asked again.
    pub(super) fn keep_released(&mut self, lane: u32) {
        let reorders = self.gates.as_ref().is_some_and(|gates| gates.reorders());
        let front = self.first(lane).copied().filter(|front| reorders && !front.is_in_progress());
        if let Some(front) = front.filter(|front| self.verdict(front) == Verdict::Park) {
            self.gates().keep_released(front.order);
        }
    }

    /// Brings the next event of a free lane that may run to the front of its queue.
    pub(super) fn ask(&mut self, lane: u32) -> Asked {
        self.preempt(lane);
        loop {
            if self.gates().is_at_limit() {
                self.gates().decided.unfinished.push(lane);
                return Asked::Nothing;
            }
            let front = self.first(lane).copied();
            if front.is_some_and(|front| front.is_in_progress()) {
                return Asked::Due;
            }
            let verdict = front.map(|front| self.verdict(&front));
            // An early event is parked before another one takes its place at the front. Where the order of values counts, the
            // events behind this one are asked before a parked one is chosen.
            let passes = verdict == Some(Verdict::Park) || self.gates().reorders();
            if passes && self.pass_front(lane, verdict) {
                continue;
            }
            match self.next_parked(lane, front) {
                Parked::Attached => return Asked::Due,
                Parked::Loading => return Asked::Loading,
                Parked::Decided => continue,
                Parked::None => {}
            }
            match verdict {
                None => return Asked::Nothing,
                Some(Verdict::Run(role)) => {
                    if let Some(front) = front {
                        self.gates().keys.set_role(front.order, role);
                    }
                    return Asked::Due;
                }
                Some(Verdict::LookUp(key)) => {
                    if let Some(front) = front {
                        self.gates().look_up(key, front);
                    }
                    return Asked::Loading;
                }
                Some(Verdict::Park | Verdict::Settle(_) | Verdict::Reject(_)) => {
                    self.pass_front(lane, verdict);
                }
            }
        }
    }

    /// Parks the first event of the queue, or settles or rejects it. Returns false if its verdict is another one.
    fn pass_front(&mut self, lane: u32, verdict: Option<Verdict>) -> bool {
        match verdict {
            Some(Verdict::Park) => self.park_front(lane),
            Some(Verdict::Settle(without_call)) => {
                let event = self.events.pop_front(&mut self.lanes[lane].queue);
                event.into_iter().for_each(|event| self.decide(lane, event, without_call));
            }
            Some(Verdict::Reject(reason)) => {
                let event = self.events.pop_front(&mut self.lanes[lane].queue);
                event.into_iter().for_each(|event| self.reject(lane, event, reason));
            }
            Some(Verdict::Run(_) | Verdict::LookUp(_)) | None => return false,
        }
        true
    }

    /// After an event of a call that is being formed: brings the next event of its lane to the front that may be in the same
    /// call. Returns false if there is none.
    pub(crate) fn bring_next(&mut self, lane: u32, taken: &Event) -> bool {
        let Some(gates) = &mut self.gates else { return true };
        if !gates.take(taken.order) {
            return false;
        }
        loop {
            let Some(front) = self.first(lane).copied() else {
                return self.attach_expected(lane, None);
            };
            if front.is_in_progress() {
                return true;
            }
            match self.verdict(&front) {
                Verdict::Run(role) => {
                    if !self.attach_expected(lane, Some(front)) {
                        self.gates().keys.set_role(front.order, role);
                    }
                    return true;
                }
                Verdict::Park => self.park_front(lane),
                Verdict::Settle(_) | Verdict::Reject(_) | Verdict::LookUp(_) => {
                    return self.attach_expected(lane, Some(front));
                }
            }
        }
    }

    /// The call has all events of the lane that it may have.
    pub(crate) fn end_taking(&mut self) {
        if let Some(gates) = &mut self.gates {
            gates.end_taking();
        }
    }

    /// Brings a parked event to the front that may run after the events of the call that is being formed, unless `front` was
    /// admitted before it.
    fn attach_expected(&mut self, lane: u32, front: Option<Event>) -> bool {
        let mut next = self.gates().parked.first_maybe_due(lane);
        while let Some(key) = next {
            next = self.gates().parked.maybe_due_after(key);
            let events = &self.events;
            let due =
                self.gates.as_ref().and_then(|gates| gates.due(key, self.wall_ms, |node| events.get(node)));
            if let Some((node, Verdict::Run(role))) = due
                && front.is_none_or(|front| self.events.get(node).offset < front.offset)
            {
                self.attach(lane, node, role);
                return true;
            }
        }
        false
    }

    /// Finds the parked event of a lane with the lowest offset that does not wait any more, and brings it to the front, unless
    /// the first queued event, `front`, came before it.
    fn next_parked(&mut self, lane: u32, front: Option<Event>) -> Parked {
        let (mut best, mut next) = (None::<(i64, u32, _)>, self.gates().parked.first_maybe_due(lane));
        while let Some(key) = next {
            next = self.gates().parked.maybe_due_after(key);
            let events = &self.events;
            let due =
                self.gates.as_ref().and_then(|gates| gates.due(key, self.wall_ms, |node| events.get(node)));
            match due {
                None => self.not_due(lane, key),
                Some((node, Verdict::LookUp(key))) => {
                    let event = self.events.get(node);
                    self.gates().look_up(key, event);
                    return Parked::Loading;
                }
                Some((node, Verdict::Settle(without_call))) => {
                    let event = self.take_parked(node);
                    self.decide(lane, event, without_call);
                    return Parked::Decided;
                }
                Some((node, Verdict::Run(role))) => {
                    let offset = self.events.get(node).offset;
                    if best.is_none_or(|(before, ..)| offset < before) {
                        best = Some((offset, node, role));
                    }
                }
                Some((node, Verdict::Reject(reason))) => {
                    let event = self.take_parked(node);
                    self.reject(lane, event, reason);
                    return Parked::Decided;
                }
                Some((_, Verdict::Park)) => unreachable!("a parked event was asked before"),
            }
        }
        match best {
            Some((offset, node, role)) if front.is_none_or(|front| offset < front.offset) => {
                self.attach(lane, node, role);
                Parked::Attached
            }
            Some(_) | None => Parked::None,
        }
    }

    /// No event of a key may run. If it has waited too long while the lane was busy, its gap is closed now.
    fn not_due(&mut self, lane: u32, key: u32) {
        let gates = self.gates();
        gates.parked.not_due(lane, key);
        let known = gates.keys.key(key);
        if known.parked.len > 0 && known.waits_as.is_none() && known.released_to.is_none() {
            gates.decided.gaps.push(key);
        }
    }

    fn attach(&mut self, lane: u32, node: u32, role: Role) {
        let event = self.events.get(node);
        self.gates().unpark(&event, node);
        self.gates().keys.set_role(event.order, role);
        let Lane { queue, parked, .. } = &mut self.lanes[lane];
        *parked -= 1;
        self.events.attach_front(queue, node);
    }

    fn park_front(&mut self, lane: u32) {
        let Lane { queue, parked, .. } = &mut self.lanes[lane];
        let Some(node) = self.events.detach_front(queue) else { return };
        *parked += 1;
        let event = self.events.get(node);
        self.gates().park(&event, node);
    }

    /// Takes a parked event out of its lane and of the store.
    pub(crate) fn take_parked(&mut self, node: u32) -> Event {
        let event = self.events.take(node);
        let gates = self.gates.as_mut().expect("only called with a gate");
        gates.unpark(&event, node);
        let lane = gates.keys.key(gates.keys.order(event.order).key).lane;
        self.lanes[lane].parked -= 1;
        event
    }

    /// Has the core settle an event without a call.
    pub(crate) fn decide(&mut self, lane: u32, event: Event, without_call: WithoutCall) {
        if without_call.ends_key {
            self.end_key(lane, &event);
        }
        let (partition, wall_ms) = (self.lanes[lane].partition, self.wall_ms);
        let gates = self.gates.as_mut().expect("only called with a gate");
        let order = gates.keys.order(event.order);
        let is_stale_redrive = order.redriven && without_call.outcome == GateOutcome::Stale;
        let mark = gates.keys.key(order.key).memory.mark;
        let stale_redrive = order.value.zip(mark).filter(|_| is_stale_redrive);
        let mut changes = std::mem::take(&mut gates.decided.changes);
        let before = changes.len();
        let how = SettledAs::WithoutCall(without_call);
        gates.settle(event.order, how, wall_ms, |key, change| changes.push((key, change)));
        let outcome = without_call.outcome;
        let settled = Settled { partition, event, outcome, changes: changes.len() - before, stale_redrive };
        gates.decided.changes = changes;
        gates.decided.settled.push(settled);
    }

    /// A key ends with this event: those that were admitted before it and wait are stale.
    fn end_key(&mut self, lane: u32, event: &Event) {
        let key = self.gates().keys.order(event.order).key;
        let of_key: Vec<u32> = self.gates().of_key(key).map(|(_, node)| node).collect();
        for node in of_key {
            let parked = self.events.get(node);
            if parked.offset < event.offset {
                self.take_parked(node);
                let outcome = GateOutcome::Stale;
                self.decide(lane, parked, WithoutCall { outcome, moves_mark: false, ends_key: false });
            }
        }
    }

    /// Has the core reject an event.
    pub(crate) fn reject(&mut self, lane: u32, event: Event, reason: Reason) {
        if self.gates().keys.order(event.order).filtered {
            // It has no bytes that could be dead-lettered.
            let outcome = GateOutcome::Filtered;
            return self.decide(lane, event, WithoutCall { outcome, moves_mark: false, ends_key: false });
        }
        let partition = self.lanes[lane].partition;
        let gates = self.gates();
        gates.keys.set_role(event.order, Role::Beside);
        gates.decided.rejected.push((partition, event, reason));
    }

    /// Handles the settling of an event that had a call, or was rejected.
    pub(crate) fn order_settled(
        &mut self,
        event: (i64, u32),
        how: SettledAs,
        emit: impl FnMut(GateKey, Change),
    ) -> OrderSettled {
        let wall_ms = self.wall_ms;
        let Some(gates) = &mut self.gates else { return OrderSettled::default() };
        let (offset, order) = event;
        let known = gates.keys.order(order);
        let ends = known.role == Role::EndsKey;
        let passes_lower =
            gates.runs_latest_first() && how == SettledAs::Failed && known.role == Role::InOrder;
        let nodes: Vec<u32> = match known.value {
            _ if ends => {
                let of_key = gates.of_key(known.key).map(|(_, node)| node);
                of_key.filter(|&node| self.events.get(node).offset < offset).collect()
            }
            Some(value) if passes_lower => {
                let of_key = gates.of_key(known.key);
                of_key.take_while(|&(other, _)| other < value).map(|(_, node)| node).collect()
            }
            Some(_) | None => Vec::new(),
        };
        for node in nodes {
            let event = self.take_parked(node);
            let outcome = if ends || event.dispatched { GateOutcome::Stale } else { GateOutcome::Superseded };
            let lane = self.gates().keys.key(known.key).lane;
            self.decide(lane, event, WithoutCall { outcome, moves_mark: false, ends_key: false });
        }
        self.gates().settle(order, how, wall_ms, emit)
    }

    /// With `latest_first`: a greater value takes the place of the first event, while that waits for its next attempt.
    fn preempt(&mut self, lane: u32) {
        let Some(front) = self.first(lane).copied().filter(Event::is_in_progress) else { return };
        if !self.gates().runs_latest_first() || front.order == NONE {
            return;
        }
        let Order { key, value, role, .. } = self.gates().keys.order(front.order);
        // A tombstone runs in its place by arrival. An event that stops the handler because it was rejected is in a lane of its
        // own.
        if value.is_none() || role == Role::EndsKey || self.gates().keys.key(key).lane != lane {
            return;
        }
        let Some(node) = self.events.detach_front(&mut self.lanes[lane].queue) else { return };
        while let Some(next) = self.first(lane).copied().filter(|next| !next.is_in_progress()) {
            let verdict = self.verdict(&next);
            if self.gates().is_at_limit() || !self.pass_front(lane, Some(verdict)) {
                break;
            }
        }
        self.events.attach_front(&mut self.lanes[lane].queue, node);
        let greatest = self.gates().greatest(key);
        let Some((_, greater)) = greatest.filter(|&(greatest, _)| Some(greatest) > value) else { return };
        // The front gives way: it is asked again later.
        let mut gave_way = front;
        gave_way.attempt = 1;
        gave_way.quarantined = false;
        self.events.set_front(self.lanes[lane].queue, gave_way);
        self.park_front(lane);
        self.attach(lane, greater, Role::InOrder);
        if let Some(first) = self.first(lane).copied() {
            let Event { attempt, quarantined, .. } = front;
            self.events.set_front(self.lanes[lane].queue, Event { attempt, quarantined, ..first });
        }
    }

    /// Drops the parked events of the partitions that `kept` returns false for.
    pub(super) fn drop_parked(&mut self, kept: &impl Fn(u32) -> bool, dropped: &mut impl FnMut(Event)) {
        let Some(gates) = &self.gates else { return };
        let nodes: Vec<u32> = gates.parked_of(|partition| !kept(partition)).collect();
        for node in nodes {
            dropped(self.take_parked(node));
        }
    }

    // -- for the core -------------------------------------------------------------------------------

    /// Returns the barred lane of the event at this offset, if another one is before it in gate order.
    pub(crate) fn barred_lane_of(&self, partition: u32, offset: i64) -> Option<u32> {
        self.barriers.held.iter().copied().find(|&lane| {
            let Lane { partition: of, queue, .. } = &self.lanes[lane];
            let is_behind = self.events.front(*queue).is_some_and(|front| front.offset > offset);
            *of == partition && is_behind && self.events.contains(*queue, offset)
        })
    }

    /// Returns an event of the store that is parked.
    pub(crate) fn parked_event(&self, node: u32) -> Event {
        self.events.get(node)
    }

    /// Asks a lane again that waits, because something has changed for one of its keys.
    pub(crate) fn ask_again(&mut self, lane: u32) {
        if self.lanes[lane].state == LaneState::Waiting {
            self.make_ready(lane);
        }
    }

    /// Asks a lane again whose key is known now.
    pub(crate) fn key_loaded(&mut self, lane: u32) {
        if self.lanes[lane].state == LaneState::Loading {
            self.make_ready(lane);
        }
    }

    /// Returns whether a lane is free and has nothing that may run.
    pub(crate) fn is_waiting(&self, lane: u32) -> bool {
        self.lanes[lane].state == LaneState::Waiting
    }

    /// Returns whether a lane of the partition has an event that may run, or runs, or waits for its key.
    /// `soon`: an event that waits for its next attempt until then counts.
    pub(crate) fn any_active(&self, partition: u32, soon: Duration) -> bool {
        self.lanes.indexes().any(|lane| {
            let Lane { state, partition: of, queue, .. } = &self.lanes[lane];
            let is_active = match state {
                LaneState::Ready | LaneState::Busy | LaneState::Loading => true,
                LaneState::Delayed => {
                    self.retrying_lanes.waits_until(lane).is_some_and(|until| until <= soon)
                }
                // With a gap, a barrier holds a partition until its first unsettled event settles.
                LaneState::Waiting | LaneState::Barred => false,
                LaneState::Detached => !queue.is_empty(),
            };
            *of == partition && is_active
        })
    }
}

/// What became of the parked events of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parked {
    /// One of them is at the front of the queue, and may run.
    Attached,
    /// The memory of a key is needed first.
    Loading,
    /// One of them settles without a call.
    Decided,
    /// None of them may run.
    None,
}
