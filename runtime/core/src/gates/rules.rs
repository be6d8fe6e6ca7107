//! The rules: whether an event of a free lane may run.

use crate::gates::keys::{Key, KeyLookup, Order, Role};
use crate::gates::parked::Parked;
use crate::{
    Consecutive, Duplicates, EventId, First, GateConfig, GateRule, Late, MaxAhead, Newest, NoValue, Reason,
    RememberedId, Window,
};

/// What becomes of an event of a free lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It may run now.
    Run(Role),
    /// It waits for others of its key, or for stream time.
    Park,
    /// It settles without a call.
    Settle(WithoutCall),
    /// It is rejected.
    Reject(Reason),
    /// What is remembered of this key must be known first.
    LookUp(u32),
}

/// The outcome of an event that a gate settles without a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WithoutCall {
    pub(crate) outcome: GateOutcome,
    /// Whether its value is the next one of its key: the mark moves.
    pub(crate) moves_mark: bool,
    /// Whether its key ends with it.
    pub(crate) ends_key: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GateOutcome {
    /// A greater value has run, or the key has ended.
    Stale,
    /// A greater value has run first, although this one was queued before.
    Superseded,
    /// It is too late for its place.
    Late,
    /// An event with its id was done.
    Duplicate,
    /// The filter drops it.
    Filtered,
}

/// What the rules need beside the event.
pub(crate) struct Context<'k> {
    pub(crate) gate: Option<&'k GateConfig>,
    pub(crate) duplicates: Option<Duplicates>,
    pub(crate) wall_ms: i64,
    pub(crate) key: (u32, &'k Key),
    pub(crate) id_key: (u32, &'k Key),
    pub(crate) parked: &'k Parked,
}

impl WithoutCall {
    fn moving(outcome: GateOutcome) -> Verdict {
        Verdict::Settle(WithoutCall { outcome, moves_mark: true, ends_key: false })
    }

    fn resting(outcome: GateOutcome) -> Verdict {
        Verdict::Settle(WithoutCall { outcome, moves_mark: false, ends_key: false })
    }
}

impl Context<'_> {
    /// Decides about the first event of a lane. `was_dispatched`: it had a call before.
    pub(crate) fn ask(&self, order: &Order, id: EventId, was_dispatched: bool) -> Verdict {
        for (index, key) in [self.key, self.id_key] {
            if key.lookup != KeyLookup::Known {
                return Verdict::LookUp(index);
            }
        }
        let is_duplicate = self.is_duplicate(id);
        let Some(gate) = self.gate else {
            return if is_duplicate {
                WithoutCall::resting(GateOutcome::Duplicate)
            } else {
                Verdict::Run(Role::Beside)
            };
        };
        let is_consecutive = matches!(gate.rule, GateRule::Consecutive(_));
        if is_duplicate && !is_consecutive {
            return WithoutCall::resting(GateOutcome::Duplicate);
        }
        if order.tombstone && gate.ends_at_tombstone {
            let outcome = GateOutcome::Filtered;
            return match () {
                () if is_duplicate => WithoutCall::resting(GateOutcome::Duplicate),
                () if order.filtered => {
                    Verdict::Settle(WithoutCall { outcome, moves_mark: false, ends_key: true })
                }
                () => Verdict::Run(Role::EndsKey),
            };
        }
        let Some(value) = order.value else {
            return match gate.no_value {
                _ if order.filtered => WithoutCall::resting(GateOutcome::Filtered),
                _ if is_duplicate => WithoutCall::resting(GateOutcome::Duplicate),
                NoValue::Reject => Verdict::Reject(Reason::NoOrderValue),
                NoValue::Pass => Verdict::Run(Role::Beside),
            };
        };
        if self.is_too_far_ahead(gate, value) {
            return reject(order, Reason::OrderValueAhead);
        }
        match &gate.rule {
            GateRule::Consecutive(rule) => self.consecutive(rule, order, value, is_duplicate),
            GateRule::Newest(rule) => self.newest(rule, value, was_dispatched),
            GateRule::Window(rule) => self.window(rule, value),
        }
    }

    pub(crate) fn consecutive(
        &self,
        rule: &Consecutive,
        order: &Order,
        value: i64,
        is_duplicate: bool,
    ) -> Verdict {
        let (_, key) = self.key;
        let Some(next) = next_value(rule, key.expected_mark()) else { return Verdict::Park };
        if value == next {
            return match () {
                () if order.filtered => WithoutCall::moving(GateOutcome::Filtered),
                () if is_duplicate => WithoutCall::moving(GateOutcome::Duplicate),
                () => Verdict::Run(Role::InOrder),
            };
        }
        if value > next {
            return if key.memory.broken { reject(order, Reason::Gap) } else { Verdict::Park };
        }
        if key.expected_mark().is_none() {
            return reject(order, Reason::BelowFirst);
        }
        match rule.late {
            _ if order.filtered => WithoutCall::resting(GateOutcome::Filtered),
            _ if !key.memory.is_hole(value) => WithoutCall::resting(GateOutcome::Stale),
            _ if is_duplicate => WithoutCall::resting(GateOutcome::Duplicate),
            Late::Deliver => Verdict::Run(Role::FillsHole),
            Late::DeadLetter => Verdict::Reject(Reason::Late),
            Late::Drop => WithoutCall::resting(GateOutcome::Late),
        }
    }

    fn newest(&self, rule: &Newest, value: i64, was_dispatched: bool) -> Verdict {
        let (_, key) = self.key;
        let is_newer = key.expected_mark().is_none_or(|mark| value > mark);
        if is_newer {
            return if rule.latest_first { Verdict::Park } else { Verdict::Run(Role::InOrder) };
        }
        let mark = key.expected_mark().unwrap_or(value);
        let is_equal = value == mark && rule.equal_runs;
        let is_tolerated = rule.tolerance > 0
            && mark.abs_diff(value) <= rule.tolerance
            && (value != mark || rule.equal_runs);
        // Values of the call that is being formed are not among the delivered ones yet: the lane is cut here.
        let may_run = if rule.tolerance > 0 {
            is_tolerated && key.taken.is_none() && !key.memory.delivered.contains(&value)
        } else {
            is_equal
        };
        if may_run {
            return Verdict::Run(Role::InOrder);
        }
        let superseded = rule.latest_first && !was_dispatched;
        WithoutCall::resting(if superseded { GateOutcome::Superseded } else { GateOutcome::Stale })
    }

    fn window(&self, rule: &Window, value: i64) -> Verdict {
        let (_, key) = self.key;
        if key.expected_mark().is_none_or(|mark| value > mark) {
            return Verdict::Park;
        }
        match rule.late {
            Late::Deliver => Verdict::Run(Role::Late),
            Late::DeadLetter => Verdict::Reject(Reason::Late),
            Late::Drop => WithoutCall::resting(GateOutcome::Late),
        }
    }

    /// Returns whether an order value is above the limit.
    pub(crate) fn is_too_far_ahead(&self, gate: &GateConfig, value: i64) -> bool {
        let limit = match gate.max_ahead {
            None => return false,
            Some(MaxAhead::OfClock(ahead)) => {
                let now = i128::from(self.wall_ms) * 1_000_000;
                now + i128::try_from(ahead.as_nanos()).unwrap_or(i128::MAX / 2)
            }
            Some(MaxAhead::OfMark(ahead)) => {
                let (_, key) = self.key;
                let first = match gate.rule {
                    GateRule::Consecutive(Consecutive { first: First::At(first), .. }) => Some(first - 1),
                    GateRule::Consecutive(_) | GateRule::Newest(_) | GateRule::Window(_) => None,
                };
                let lowest_parked = || self.parked.lowest(&key.parked).map(|(value, _)| value);
                let Some(base) = key.expected_mark().or(first).or_else(lowest_parked) else { return false };
                i128::from(base) + i128::from(ahead)
            }
        };
        i128::from(value) > limit
    }

    /// Returns whether an event with this id was done, or is done before this one in the call that is being formed.
    pub(crate) fn is_duplicate(&self, id: EventId) -> bool {
        let Some(duplicates) = self.duplicates.filter(|_| id != EventId::NONE) else { return false };
        let window_ms = i64::try_from(duplicates.window.as_millis()).unwrap_or(i64::MAX);
        let (_, key) = self.id_key;
        let is_it = |known: &RememberedId| {
            known.id == id && self.wall_ms.saturating_sub(known.settled_ms) <= window_ms
        };
        let is_taken = key.taken.as_ref().is_some_and(|taken| taken.ids.contains(&id));
        is_taken || key.memory.ids.iter().any(is_it)
    }
}

/// Filtered events have no bytes that could be dead-lettered.
fn reject(order: &Order, reason: Reason) -> Verdict {
    if order.filtered { WithoutCall::resting(GateOutcome::Filtered) } else { Verdict::Reject(reason) }
}

/// Returns the value that may run next; `None`: without a mark, any value may turn out to be the first.
pub(crate) fn next_value(rule: &Consecutive, mark: Option<i64>) -> Option<i64> {
    match (mark, rule.first) {
        (Some(mark), _) => Some(mark.saturating_add(1)),
        (None, First::At(first)) => Some(first),
        (None, First::Any { .. }) => None,
    }
}
