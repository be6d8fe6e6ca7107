//! Transactional delivery: the events of an ownership that have settled, but that no committed transaction claims. With
//! keyed state, the deletion of old states counts as an event without an offset.

use std::collections::VecDeque;

use crate::SettleNumber;
use crate::ledger::Ledger;

/// Memory of one event here, which counts towards the limit of kept effects.
const EVENT_BYTES: u64 = 32;

/// The settled events of one ownership that are not claimed yet, in the order of their numbers. Empty under
/// at-least-once delivery.
#[derive(Debug, Default)]
pub(crate) struct UnclaimedEvents {
    events: VecDeque<UnclaimedEvent>,
    /// Bytes of all events that were claimed before.
    claimed_bytes: u64,
}

#[derive(Clone, Copy, Debug)]
struct UnclaimedEvent {
    number: SettleNumber,
    /// `None`: not an event, but the deletion of states.
    offset: Option<i64>,
    /// Bytes of the effects of this event and of all events of the ownership before it.
    bytes_to: u64,
}

impl UnclaimedEvents {
    pub(crate) fn clear(&mut self) {
        self.events.clear();
        self.claimed_bytes = 0;
    }

    /// Adds an event that has settled, or without an offset the deletion of states. Returns the bytes that it counts as.
    pub(crate) fn push(&mut self, number: SettleNumber, offset: Option<i64>, effect_bytes: u64) -> u64 {
        let bytes = effect_bytes + EVENT_BYTES;
        let bytes_to = self.bytes_to() + bytes;
        self.events.push_back(UnclaimedEvent { number, offset, bytes_to });
        bytes
    }

    /// Removes the events that a committed transaction claims: those up to this number. Returns their bytes.
    pub(crate) fn claim(&mut self, through: SettleNumber) -> u64 {
        let before = self.claimed_bytes;
        while let Some(event) = self.events.pop_front_if(|event| event.number <= through) {
            self.claimed_bytes = event.bytes_to;
        }
        self.claimed_bytes - before
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.events.len()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes_to() - self.claimed_bytes
    }

    /// Returns the bytes of the events up to this number.
    pub(crate) fn bytes_through(&self, through: SettleNumber) -> u64 {
        let count = self.count_through(through);
        let last = count.checked_sub(1).and_then(|last| self.events.get(last));
        last.map_or(0, |event| event.bytes_to - self.claimed_bytes)
    }

    /// Returns the number of the `at`th event; `None`: there are fewer.
    pub(crate) fn number(&self, at: usize) -> Option<SettleNumber> {
        self.events.get(at).map(|event| event.number)
    }

    /// Returns how many of the events have at most this number.
    pub(crate) fn count_through(&self, through: SettleNumber) -> usize {
        self.events.partition_point(|event| event.number <= through)
    }

    /// Returns the number of events after which no number is cut: the first `count` (at least one), and those after them
    /// with the same number as the last.
    pub(crate) fn whole_steps(&self, count: usize) -> usize {
        let last = count.checked_sub(1).and_then(|last| self.number(last));
        last.map_or(count, |last| self.count_through(last))
    }

    /// Returns what the ledger claims without its events after the first `count` ones.
    pub(crate) fn claims<'l>(&self, ledger: &'l Ledger, count: usize) -> Claims<'l> {
        let mut withheld: Vec<i64> = self.events.range(count..).filter_map(|event| event.offset).collect();
        withheld.sort_unstable();
        Claims { ledger, withheld }
    }

    fn bytes_to(&self) -> u64 {
        self.events.back().map_or(self.claimed_bytes, |event| event.bytes_to)
    }
}

/// What a transaction claims of a partition: the ledger, as if some settled events were still open.
pub(crate) struct Claims<'l> {
    ledger: &'l Ledger,
    /// The offsets of those events, ascending.
    withheld: Vec<i64>,
}

impl Claims<'_> {
    /// Returns the offset to commit: everything below it is claimed.
    pub(crate) fn offset(&self) -> i64 {
        let committable = self.ledger.committable();
        self.withheld.first().map_or(committable, |&first| first.min(committable))
    }

    /// Returns the ledger, if nothing is withheld: its runs are those of the claims, and need not be collected.
    pub(crate) fn whole_ledger(&self) -> Option<&Ledger> {
        self.withheld.is_empty().then_some(self.ledger)
    }

    /// Returns the runs beyond [`Claims::offset`], as [`Ledger::runs`] does.
    pub(crate) fn runs(&self) -> Vec<(u64, u64)> {
        let mut runs = Vec::new();
        let mut withheld = self.withheld.iter().copied().peekable();
        let mut claimed_to = self.offset();
        for (from, to) in self.settled() {
            let mut at = from;
            while let Some(open) = withheld.next_if(|&offset| offset < to) {
                push_run(&mut runs, &mut claimed_to, at, open);
                at = open + 1;
            }
            push_run(&mut runs, &mut claimed_to, at, to);
        }
        runs
    }

    /// Returns the ranges that the ledger has settled from [`Claims::offset`] on.
    fn settled(&self) -> impl Iterator<Item = (i64, i64)> {
        let committable = self.ledger.committable();
        let mut at = committable;
        let beyond = self.ledger.runs().map(move |(open, settled)| {
            let from = at + signed(open);
            at = from + signed(settled);
            (from, at)
        });
        std::iter::once((self.offset(), committable)).chain(beyond)
    }
}

/// Adds the claimed range `from..to`, if it is not empty. `claimed_to`: the end of the range before it.
fn push_run(runs: &mut Vec<(u64, u64)>, claimed_to: &mut i64, from: i64, to: i64) {
    if from >= to {
        return;
    }
    let (open, settled) = ((from - *claimed_to).unsigned_abs(), (to - from).unsigned_abs());
    match runs.last_mut() {
        Some((_, last)) if open == 0 => *last += settled,
        Some(_) | None => runs.push((open, settled)),
    }
    *claimed_to = to;
}

fn signed(length: u64) -> i64 {
    i64::try_from(length).expect("a run is shorter than the log")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(number: u64) -> SettleNumber {
        SettleNumber(number)
    }

    /// A ledger with offsets 0 to 9, of which these have settled, in this order.
    fn settled(offsets: &[i64]) -> (Ledger, UnclaimedEvents) {
        let (mut ledger, mut unclaimed) = (Ledger::default(), UnclaimedEvents::default());
        ledger.begin(0, &[]);
        for offset in 0..10 {
            ledger.enter(offset);
        }
        for (at, &offset) in (1..).zip(offsets) {
            ledger.settle(offset);
            unclaimed.push(number(at), Some(offset), 100);
        }
        (ledger, unclaimed)
    }

    #[test]
    fn without_withheld_events_the_claims_are_those_of_the_ledger() {
        let (ledger, unclaimed) = settled(&[0, 1, 3, 4, 7]);
        let claims = unclaimed.claims(&ledger, 5);
        assert_eq!((claims.offset(), claims.runs()), (2, ledger.runs().collect()));
    }

    #[test]
    fn withheld_events_are_open_in_the_claims() {
        let (ledger, unclaimed) = settled(&[3, 0, 4, 7, 1, 2]);
        assert_eq!(ledger.committable(), 5);
        let claims = |count| unclaimed.claims(&ledger, count);
        assert_eq!((claims(6).offset(), claims(6).runs()), (5, vec![(2, 1)]));
        assert_eq!((claims(5).offset(), claims(5).runs()), (2, vec![(1, 2), (2, 1)]), "2 is withheld");
        assert_eq!((claims(4).offset(), claims(4).runs()), (1, vec![(2, 2), (2, 1)]), "1 and 2");
        assert_eq!((claims(3).offset(), claims(3).runs()), (1, vec![(2, 2)]), "7, too");
        assert_eq!((claims(1).offset(), claims(1).runs()), (0, vec![(3, 1)]), "only 3 is claimed");
        assert_eq!((claims(0).offset(), claims(0).runs()), (0, vec![]));
    }

    #[test]
    fn the_bytes_of_claimed_events_no_longer_count() {
        let (_, mut unclaimed) = settled(&[3, 0, 4]);
        let all = unclaimed.bytes();
        assert_eq!(
            (unclaimed.bytes_through(number(2)), unclaimed.count_through(number(2))),
            (all / 3 * 2, 2)
        );
        assert_eq!(unclaimed.claim(number(2)), all / 3 * 2);
        assert_eq!((unclaimed.bytes(), unclaimed.bytes_through(number(2))), (all / 3, 0));
        assert_eq!(unclaimed.claim(number(2)), 0);
        assert_eq!((unclaimed.claim(number(9)), unclaimed.is_empty(), unclaimed.bytes()), (all / 3, true, 0));
    }
}
