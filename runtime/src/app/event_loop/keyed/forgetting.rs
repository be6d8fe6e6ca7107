//! Forgets states that were not changed for long (`forget_after`).
//!
//! The store searches the file of each partition from time to time, in steps. What a step has found is checked here, because
//! it may have changed since; the core numbers the deletion; and the deletion is uncommitted like the change of a state. The
//! next step begins when it is committed, so a transaction has at most one deletion of a partition.

use std::time::Duration;

use keylane_core::{Input, Now, OwnershipId, Partition, SettleNumber};
use keylane_state::{KeyBytes, SessionId};

use crate::sink::{RecordSize, packed_bytes};

use super::super::EventLoop;
use super::Keyed;
use super::partitions::{OwnedStates, Step};
use super::records::CHANGE_BYTES;

/// A search begins when this part of `forget_after` has passed since the one before, within these limits.
const INTERVAL_PART: u32 = 10;
const INTERVAL_MIN: Duration = Duration::from_secs(1);
const INTERVAL_MAX: Duration = Duration::from_hours(1);

/// The pause between two steps of a search, so that the store does little else than what calls wait for.
const STEP_PAUSE: Duration = Duration::from_millis(10);

/// Partitions whose search can't begin yet, or was interrupted, are checked at this interval.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The search for old states in one partition.
#[derive(Debug, Default)]
pub(super) struct Search {
    stage: Stage,
    /// Where the last step has ended; `None`: the next one begins a search.
    after: Option<KeyBytes>,
}

#[derive(Debug, Default)]
enum Stage {
    /// The ownership has just begun.
    #[default]
    New,
    /// The next step is not due before this uptime.
    Waiting(Duration),
    /// The store does a step, in this session.
    Searching(SessionId),
    /// The deletion with this number is not committed. Then the next step is not due before this uptime.
    Deleting { number: u64, states: u64, until: Duration },
}

/// What a step of a search has found.
pub(super) struct Found {
    /// The keys with an old state.
    pub(super) expired: Vec<KeyBytes>,
    /// Where the step has ended; `None`: at the end of the file.
    pub(super) next: Option<KeyBytes>,
}

/// States that are deleted if the core agrees.
pub(super) struct Expired {
    partition: Partition,
    keys: Vec<KeyBytes>,
}

fn interval(forget_after: Duration) -> Duration {
    (forget_after / INTERVAL_PART).clamp(INTERVAL_MIN, INTERVAL_MAX)
}

impl EventLoop {
    /// Handles the end of a step of a search.
    pub(super) fn old_states_found(&mut self, partition: Partition, session: SessionId, found: Found) {
        let EventLoop { keyed, reading, now, .. } = self;
        let Some(keyed) = keyed else { return };
        // The state of a key with events is going to be used.
        let unused = |keys| reading.without_events(partition, keys);
        let Some((ownership, bytes)) = keyed.scanned((partition, session), found, unused, *now) else {
            return;
        };
        self.feed(Input::StatesExpired { partition, ownership, bytes });
        if let Some(keyed) = &mut self.keyed {
            keyed.expired = None; // unless the core has them deleted, they stay
        }
    }
}

impl Keyed {
    /// Returns the uptime at which [`Keyed::search`] has work to do; `None`: states are never forgotten.
    pub(in crate::app::event_loop) fn next_search(&self) -> Option<Duration> {
        self.settings.forget_after.map(|_| self.search_at)
    }

    /// Begins the steps that are due.
    pub(in crate::app::event_loop) fn search(&mut self, now: Now) {
        let Some(forget_after) = self.settings.forget_after.filter(|_| now.uptime >= self.search_at) else {
            return;
        };
        let age_ms = i64::try_from(forget_after.as_millis()).unwrap_or(i64::MAX);
        let changed_before_ms = now.wall_ms.saturating_sub(age_ms);
        let begin_at = now.uptime + interval(forget_after);
        self.search_at = now.uptime + CHECK_INTERVAL;
        for (partition, owned) in &mut self.owned {
            let Some((_, states)) = self.topics.get(usize::from(partition.topic)) else { continue };
            if owned.ownership.is_none() || owned.step != Step::Ready {
                continue;
            }
            let Search { stage, after } = &mut owned.search;
            match stage {
                Stage::Waiting(until) if *until <= now.uptime => {
                    owned.states.begin_scan();
                    states.store.scan(partition.number, owned.session, after.clone(), changed_before_ms);
                    *stage = Stage::Searching(owned.session);
                }
                Stage::Waiting(until) => self.search_at = self.search_at.min(*until),
                // What waits for a partition since it was read last has time to arrive.
                Stage::New => *stage = Stage::Waiting(begin_at),
                // The file was lost meanwhile.
                Stage::Searching(session) if *session != owned.session => {
                    (*stage, *after) = (Stage::Waiting(begin_at), None);
                }
                Stage::Searching(_) | Stage::Deleting { .. } => {}
            }
        }
    }

    /// Takes the result of a step. `unused` returns those of the keys that have no event. Returns the ownership of the
    /// states to be deleted, and the memory that this takes.
    pub(super) fn scanned(
        &mut self,
        (partition, session): (Partition, SessionId),
        Found { expired, next }: Found,
        unused: impl FnOnce(Vec<KeyBytes>) -> Vec<KeyBytes>,
        now: Now,
    ) -> Option<(OwnershipId, u64)> {
        let forget_after = self.settings.forget_after?;
        let owned = self.owned.get_mut(&partition).filter(|owned| owned.session == session)?;
        let ownership = owned.ownership?;
        let keys = owned.states.end_scan(expired);
        if keys.is_some() {
            owned.search.after = next;
        }
        let ends = keys.is_some() && owned.search.after.is_none();
        let until = now.uptime + if ends { interval(forget_after) } else { STEP_PAUSE };
        owned.search.stage = Stage::Waiting(until);
        self.search_at = self.search_at.min(until);
        let keys = unused(keys?);
        let bytes = |key: &[u8]| (packed_bytes(RecordSize::new(Some(key), None)) + CHANGE_BYTES) as u64;
        let bytes: u64 = keys.iter().map(|key| bytes(key)).sum();
        let any = !keys.is_empty();
        self.expired = any.then_some(Expired { partition, keys });
        any.then_some((ownership, bytes))
    }

    /// Deletes the states that were found last, as if an event with this number had deleted them.
    pub(super) fn forget_states(&mut self, partition: Partition, number: SettleNumber) {
        let expired = self.expired.take().filter(|expired| expired.partition == partition);
        let (Some(Expired { keys, .. }), Some(owned)) = (expired, self.owned.get_mut(&partition)) else {
            return;
        };
        let until = if let Stage::Waiting(until) = owned.search.stage { until } else { Duration::ZERO };
        owned.search.stage = Stage::Deleting { number: number.0, states: keys.len() as u64, until };
        owned.states.forgotten(number.0, keys);
    }
}

impl OwnedStates {
    /// Handles the commit of the changes up to a number. Returns the number of states that were forgotten with them.
    pub(super) fn deletion_committed(&mut self, through: u64) -> Option<u64> {
        let Stage::Deleting { number, states, until } = self.search.stage else { return None };
        (number <= through).then(|| {
            self.search.stage = Stage::Waiting(until);
            states
        })
    }
}
