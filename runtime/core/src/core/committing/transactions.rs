//! Transactional delivery: the next transaction, from one snapshot of the partitions.
//!
//! Per partition, a transaction claims the events that settled up to a number. Claims only grow: the number is never below
//! that of the last committed transaction, and no event up to it is left out. If not everything fits, later events are
//! *withheld*: their effects stay kept, and their offsets are not part of the set.

use std::time::Duration;

use super::super::Core;
use super::in_flight::CommitInFlight;
use super::too_long::{is_still_too_long, too_long};
use crate::outbox::Pending;
use crate::partitions::{PartitionState, Partitions, Phase};
use crate::unclaimed::{Claims, UnclaimedEvents};
use crate::{AbortCause, CallId, CommitId, EffectClaim, Partition, SettleNumber, TransactionLimits};

/// Pauses after aborted transactions: doubled each time.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// The state of transactional delivery.
#[derive(Debug)]
pub(in crate::core) struct Transactions {
    pub(in crate::core) limits: TransactionLimits,
    /// The number of the last event that settled.
    pub(in crate::core) last_number: SettleNumber,
    /// Bytes of the effects that no committed transaction claims.
    pub(in crate::core) kept_bytes: u64,
    /// Number of settled events that no committed transaction claims, without those of excluded partitions.
    pub(in crate::core) unclaimed: u64,
    /// Since when there are such events: from the first of them, or from the last committed transaction.
    unclaimed_since: Duration,
    /// The current maximum bytes of a transaction: halved when one takes too long, doubled when one is committed.
    bytes_max: u64,
    /// The current maximum of metadata in one transaction.
    metadata_max: usize,
    /// The pause after the next aborted transaction.
    pause: Duration,
    /// Index of the partition that the next snapshot begins with: metadata of many partitions may not fit in one.
    first_partition: u32,
    /// Whether some partition withholds events.
    pub(in crate::core) any_withheld: bool,
    /// Whether some partition is held.
    pub(in crate::core) any_held: bool,
    /// The last call that began while no more effects could be kept.
    pub(in crate::core) call_while_full: Option<CallId>,
}

/// A partition's part of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claimed {
    pub(super) claim: EffectClaim,
    /// Whether every event that has settled is claimed.
    pub(super) whole: bool,
}

/// How much of a partition fits in a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fit {
    /// Every event that has settled.
    Whole,
    /// Every event up to the last number of the snapshot.
    UpToNumber,
    /// None: the effects of other partitions come first.
    Later,
    /// Fewer: the set of all of them is too long.
    PartOfSet,
    /// No event that is not claimed yet: every set is too long.
    Nothing,
}

impl Transactions {
    pub(in crate::core) fn new(limits: TransactionLimits) -> Self {
        Transactions {
            limits,
            last_number: SettleNumber(0),
            kept_bytes: 0,
            unclaimed: 0,
            unclaimed_since: Duration::ZERO,
            bytes_max: limits.transaction_bytes,
            metadata_max: limits.metadata_total,
            pause: PAUSE_MIN,
            first_partition: 0,
            any_withheld: false,
            any_held: false,
            call_while_full: None,
        }
    }

    /// Numbers an event of this partition that has settled. `shares`: it shares a state with the event before it, and so
    /// its number.
    pub(in crate::core) fn number(
        &mut self,
        now: Duration,
        state: &mut PartitionState,
        (offset, effect_bytes): (i64, u64),
        shares: bool,
    ) -> SettleNumber {
        self.last_number.0 += u64::from(!shares);
        let bytes = effect_bytes + self.limits.event_bytes;
        self.kept_bytes += state.unclaimed.push(self.last_number, Some(offset), bytes);
        self.count(now, state, 1);
        self.last_number
    }

    /// Numbers the deletion of states of this partition. It counts as one event.
    pub(in crate::core) fn number_deletion(
        &mut self,
        now: Duration,
        state: &mut PartitionState,
        bytes: u64,
    ) -> SettleNumber {
        self.last_number.0 += 1;
        self.kept_bytes += state.unclaimed.push(self.last_number, None, bytes);
        self.count(now, state, 1);
        self.last_number
    }

    /// Counts events of a partition that no committed transaction claims.
    fn count(&mut self, now: Duration, state: &PartitionState, events: u64) {
        if state.commit.excluded || events == 0 {
            return;
        }
        if self.unclaimed == 0 {
            self.unclaimed_since = now;
        }
        self.unclaimed += events;
    }

    fn uncount(&mut self, state: &PartitionState, events: u64) {
        if !state.commit.excluded {
            self.unclaimed -= events;
        }
    }

    /// Returns whether no more effects may be kept.
    pub(in crate::core) fn is_full(&self, now: Duration) -> bool {
        let too_old = |age| self.unclaimed > 0 && now >= self.unclaimed_since + age;
        self.kept_bytes >= self.limits.kept_bytes
            || self.limits.max_uncommitted.is_some_and(|max| self.unclaimed >= max)
            || self.limits.max_uncommitted_age.is_some_and(too_old)
    }

    /// Returns whether a transaction should not wait for its interval.
    pub(super) fn is_due(&self) -> bool {
        self.kept_bytes >= (self.limits.kept_bytes / 2).min(self.bytes_max)
            || self.limits.max_uncommitted.is_some_and(|max| self.unclaimed >= max / 2)
    }

    fn record_commit(&mut self) {
        self.pause = PAUSE_MIN;
        self.bytes_max = self.bytes_max.saturating_mul(2).min(self.limits.transaction_bytes);
        self.metadata_max = self.metadata_max.saturating_mul(2).min(self.limits.metadata_total);
    }

    /// `sent`: the bytes of effects, and the characters of metadata.
    fn record_abort(&mut self, why: AbortCause, sent: (u64, usize)) -> Duration {
        match why {
            AbortCause::TooSlow => self.bytes_max = (self.bytes_max.min(sent.0) / 2).max(1),
            AbortCause::RequestTooLarge => {
                self.metadata_max = (self.metadata_max.min(sent.1) / 2).max(1);
            }
            AbortCause::Stale
            | AbortCause::MetadataTooLarge
            | AbortCause::Excluded
            | AbortCause::Other
            | AbortCause::OverwrittenOffsets => {}
        }
        if why == AbortCause::Excluded {
            return PAUSE_MIN; // the next one does not contain the cause
        }
        let pause = self.pause;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        pause
    }
}

impl Core {
    /// Begins a transaction with everything that fits.
    pub(super) fn begin_transaction(&mut self) {
        let Core { committer, partitions, transactions, config, outbox, .. } = self;
        let transactions = transactions.as_mut().expect("transactional delivery is configured");
        committer.commit.begin();
        let now = self.now.uptime;
        let may_claim = |state: &PartitionState| {
            state.may_be_committed() && state.is_dirty() && !is_still_too_long(state, now)
        };
        // A partition of which nothing fits must not use up the bytes of the others.
        let counts = |state: &&PartitionState| may_claim(state) && !state.commit.fits_nothing;
        let up_to = last_that_fits(&partitions.iter().filter(counts), transactions);
        let count = u32::try_from(partitions.iter().count()).expect("far fewer than 2^32 partitions");
        let first = transactions.first_partition.min(count);
        let mut added = 0;
        for index in (first..count).chain(0..first) {
            let state = partitions.get(index);
            if !may_claim(state) {
                continue;
            }
            if committer.commit.metadata_length() + config.metadata_limit > transactions.metadata_max
                && added > 0
            {
                transactions.first_partition = index;
                committer.urgent = true; // the other partitions follow in the next transaction
                break;
            }
            let fit = committer.commit.add_claims(index, state, up_to);
            committer.urgent |= matches!(fit, Fit::UpToNumber | Fit::Later);
            if fit == Fit::Later {
                continue;
            }
            added += u32::from(fit != Fit::Nothing);
            let state = partitions.get_mut(index);
            state.commit.withholds = matches!(fit, Fit::PartOfSet | Fit::Nothing);
            state.commit.fits_nothing = fit == Fit::Nothing;
            state.commit.too_long =
                state.commit.withholds.then(|| too_long(state, now, transactions.limits.interval));
            if fit == Fit::Nothing && matches!(state.phase, Phase::Committing { .. }) {
                state.commit.commits_ended = true; // nothing can settle any more: no later set is shorter
            }
        }
        committer.commit.sort_entries();
        transactions.any_withheld = partitions.iter().any(is_withheld);
        if committer.commit.send() {
            outbox.push(Pending::BeginTransaction);
        } else {
            // Nothing that changed can be claimed yet.
            committer.urgent = false;
            committer.not_before = self.now.uptime + transactions.limits.interval;
        }
        self.end_rounds_without_commit();
    }

    /// Ends the rounds of partitions whose sets do not fit: a round waits for its commit, which may wait for events beyond
    /// the round to settle.
    fn end_rounds_without_commit(&mut self) {
        for index in self.partitions.indexes() {
            let state = self.partitions.get(index);
            if state.commit.withholds && state.ends_round() {
                self.end_round(index);
            }
        }
    }

    /// Handles the commit of a transaction, for one of its partitions.
    pub(super) fn transaction_committed(&mut self, index: u32, claimed: Claimed) {
        let Some(transactions) = &mut self.transactions else { return };
        let now = self.now.uptime;
        let was_full = transactions.is_full(now);
        let state = self.partitions.get_mut(index);
        let before = state.unclaimed.len() as u64;
        transactions.kept_bytes -= state.unclaimed.claim(claimed.claim.through);
        transactions.uncount(state, before - state.unclaimed.len() as u64);
        state.commit.claimed_through = state.commit.claimed_through.max(claimed.claim.through);
        if !self.committer.commit.is_in_flight() {
            transactions.record_commit(); // once, with the last of its partitions
            transactions.unclaimed_since = self.committer.sent_at;
        }
        if was_full && !transactions.is_full(now) {
            self.reads.to_decide.extend(self.partitions.indexes());
        }
    }

    /// Handles the abort of a transaction. Everything in it stays kept: the next transaction contains it again.
    pub(in crate::core) fn transaction_aborted(&mut self, id: CommitId, why: AbortCause) {
        let Some(transactions) = &mut self.transactions else { return };
        for index in self.partitions.indexes() {
            self.partitions.get_mut(index).commit.too_long = None; // what did fit is sent again
        }
        let longest = self.committer.commit.longest_set();
        let sent = self.committer.commit.sent_ownerships();
        let sizes = self.committer.commit.sizes(&self.partitions);
        if !self.committer.commit.time_out(id) {
            return;
        }
        self.committer.not_before = self.now.uptime + transactions.record_abort(why, sizes);
        self.committer.urgent = true;
        match why {
            AbortCause::MetadataTooLarge if longest > 0 => self.lower_metadata_limit(id, longest),
            AbortCause::OverwrittenOffsets => {
                for (index, ownership) in sent {
                    let state = self.partitions.get(index);
                    if state.ownership == ownership && state.may_commit() {
                        self.look_up_again(index);
                    }
                }
            }
            AbortCause::MetadataTooLarge
            | AbortCause::Stale
            | AbortCause::RequestTooLarge
            | AbortCause::TooSlow
            | AbortCause::Excluded
            | AbortCause::Other => {}
        }
        self.send_delayed_lookups();
    }

    /// Excludes a partition from transactions, or includes it again.
    pub(in crate::core) fn exclude(&mut self, id: Partition, excluded: bool) {
        let (Some(index), Some(transactions)) = (self.partitions.find(id), &mut self.transactions) else {
            return;
        };
        let state = self.partitions.get_mut(index);
        let (now, events) = (self.now.uptime, state.unclaimed.len() as u64);
        let was_full = transactions.is_full(now);
        transactions.uncount(state, events);
        state.commit.excluded = excluded;
        transactions.count(now, state, events);
        if was_full && !transactions.is_full(now) {
            self.reads.to_decide.extend(self.partitions.indexes());
        }
        let state = self.partitions.get_mut(index);
        transactions.any_withheld |= excluded;
        if matches!(state.phase, Phase::Committing { .. }) && excluded {
            state.commit.commits_ended = true; // the next owner processes its events again
        }
        self.committer.urgent |= !excluded;
    }

    /// Drops the effects of an ownership that has ended.
    pub(in crate::core) fn drop_unclaimed(&mut self, index: u32) {
        let Some(transactions) = &mut self.transactions else { return };
        let state = self.partitions.get_mut(index);
        let now = self.now.uptime;
        let was_full = transactions.is_full(now);
        transactions.uncount(state, state.unclaimed.len() as u64);
        (state.commit.withholds, state.commit.excluded) = (false, false);
        if state.unclaimed.is_empty() {
            return;
        }
        transactions.kept_bytes -= state.unclaimed.bytes();
        state.unclaimed.clear();
        self.outbox.push(Pending::DropEffects(state.ownership));
        if was_full && !transactions.is_full(now) {
            self.reads.to_decide.extend(self.partitions.indexes());
        }
    }

    /// Returns the number of settled events of a partition that no transaction can claim now.
    pub(crate) fn withheld(&self, state: &PartitionState) -> u64 {
        if !is_withheld(state) {
            return 0;
        }
        let index = self.partitions.find(state.id);
        let claimed = index.and_then(|index| self.committer.commit.claimed_through(index, state.ownership));
        let claimed = claimed.map_or(0, |through| state.unclaimed.count_through(through));
        (state.unclaimed.len() - claimed) as u64
    }

    /// Returns whether a transaction that contains the partition is undecided.
    pub(in crate::core) fn is_in_transaction(&self, id: Partition) -> bool {
        let index = self.partitions.find(id);
        self.transactions.is_some() && index.is_some_and(|index| self.committer.commit.contains(index))
    }
}

/// Returns whether no transaction can claim all settled events of the partition now.
pub(in crate::core) fn is_withheld(state: &PartitionState) -> bool {
    state.commit.withholds || state.commit.excluded
}

/// Returns the highest number such that the effects of these partitions up to it fit in one transaction; at least the
/// number of the first event that is not claimed.
fn last_that_fits<'p>(
    partitions: &(impl Iterator<Item = &'p PartitionState> + Clone),
    transactions: &Transactions,
) -> SettleNumber {
    let last = transactions.last_number;
    let bytes = |through| partitions.clone().map(|state| state.unclaimed.bytes_through(through)).sum::<u64>();
    if bytes(last) <= transactions.bytes_max {
        return last;
    }
    let Some(first) = partitions.clone().filter_map(|state| state.unclaimed.number(0)).min() else {
        return last;
    };
    let (mut fits, mut too_many) = (first.0, last.0);
    while too_many - fits > 1 {
        let middle = fits.midpoint(too_many);
        if bytes(SettleNumber(middle)) <= transactions.bytes_max {
            fits = middle;
        } else {
            too_many = middle;
        }
    }
    SettleNumber(fits)
}

impl CommitInFlight {
    /// Adds the claims of a partition up to a number, or as many of them as their set fits in the metadata.
    fn add_claims(&mut self, index: u32, state: &PartitionState, up_to: SettleNumber) -> Fit {
        let unclaimed = &state.unclaimed;
        let all = unclaimed.count_through(up_to);
        if all == 0 && !unclaimed.is_empty() && !state.commit.fits_nothing {
            return Fit::Later;
        }
        let at = self.metadata_length();
        let add = |commit: &mut CommitInFlight, count: usize| {
            let claims = unclaimed.claims(&state.ledger, count);
            let fits = commit.encode_all(state, &claims);
            if !fits {
                commit.truncate_metadata(at);
            }
            fits.then(|| claims.offset())
        };
        let mut count = all;
        let mut offset = add(self, all);
        let mut set_too_long = offset.is_none();
        if set_too_long {
            (count, offset) = self.bisect(unclaimed, all, at, add);
        }
        while offset.is_none() && count.max(all) < unclaimed.len() {
            // Only later events shorten the set, so the transaction has to be larger than it should be.
            count = unclaimed.whole_steps((2 * count.max(all)).clamp(1, unclaimed.len()));
            offset = add(self, count);
            set_too_long = offset.is_none();
        }
        let number = count.checked_sub(1).and_then(|last| unclaimed.number(last));
        let through = number.unwrap_or(state.commit.claimed_through);
        // Without a new claim, a shorter set would only be sent again.
        let Some(offset) = offset.filter(|_| !set_too_long || number.is_some()) else {
            self.truncate_metadata(at);
            return Fit::Nothing;
        };
        let fit = if set_too_long {
            Fit::PartOfSet
        } else if count < unclaimed.len() {
            Fit::UpToNumber
        } else {
            Fit::Whole
        };
        let claim = EffectClaim { ownership: state.ownership, through };
        self.push_claimed(index, state, (at, offset), Claimed { claim, whole: fit == Fit::Whole });
        fit
    }

    /// Returns the highest count whose set fits, as far as bisection finds it, and its offset.
    fn bisect(
        &mut self,
        unclaimed: &UnclaimedEvents,
        all: usize,
        at: usize,
        add: impl Fn(&mut CommitInFlight, usize) -> Option<i64>,
    ) -> (usize, Option<i64>) {
        let (mut best, mut too_many) = ((0, None), all);
        while unclaimed.whole_steps(best.0 + 1) < too_many {
            let mut middle = unclaimed.whole_steps(best.0.midpoint(too_many).max(best.0 + 1));
            if middle >= too_many {
                middle = unclaimed.whole_steps(best.0 + 1);
            }
            self.truncate_metadata(at);
            match add(self, middle) {
                Some(offset) => best = (middle, Some(offset)),
                None => too_many = middle,
            }
        }
        self.truncate_metadata(at);
        if best.1.is_some() {
            best.1 = add(self, best.0);
        }
        best
    }

    /// Returns the bytes of the effects of the last transaction, without those of ended ownerships, and the characters of
    /// its metadata.
    fn sizes(&self, partitions: &Partitions) -> (u64, usize) {
        let bytes = self.sent.iter().map(|sent| {
            let state = partitions.get(sent.index);
            let claimed = sent.claimed.filter(|_| state.ownership == sent.ownership);
            claimed.map_or(0, |claimed| state.unclaimed.bytes_through(claimed.claim.through))
        });
        (bytes.sum(), self.metadata_length())
    }

    /// Appends the set of these claims to the metadata. Returns whether all of it fits.
    fn encode_all(&mut self, state: &PartitionState, claims: &Claims<'_>) -> bool {
        let identity = state.identity(claims.offset());
        if let Some(ledger) = claims.whole_ledger() {
            return self.encode(&identity, ledger.runs()) == ledger.completed_beyond();
        }
        let runs = claims.runs();
        let total: u64 = runs.iter().map(|(_, settled)| settled).sum();
        self.encode(&identity, runs.into_iter()) == total
    }
}
