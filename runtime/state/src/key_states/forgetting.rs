//! States that are deleted because they were not changed for long.
//!
//! The store finds old states, but its answer may be outdated when it arrives: a state that was committed since then has
//! left the overlay, so its key is remembered until the answer is there.

use std::collections::HashSet;

use foldhash::fast::RandomState;

use super::KeyStates;
use crate::KeyBytes;

/// The keys that are remembered. With more, the answer is not used.
const KEYS_MAX: usize = 100_000;

/// The keys whose states were committed since the store was asked.
pub(super) type CommittedSince = HashSet<KeyBytes, RandomState>;

impl KeyStates {
    /// Notes that the store begins a step of its search for old states: see [`KeyStates::end_scan`].
    pub fn begin_scan(&mut self) {
        self.committed_since = Some(CommittedSince::default());
    }

    /// Returns the states that are still as the store has found them; `None`: that is not known any more.
    pub fn end_scan(&mut self, mut expired: Vec<KeyBytes>) -> Option<Vec<KeyBytes>> {
        let committed_since = self.committed_since.take()?;
        expired.retain(|key| !committed_since.contains(&**key) && !self.is_uncommitted(key));
        Some(expired)
    }

    /// Deletes states, as if the event with this number had deleted them.
    ///
    /// # Panics
    /// If the number is not above those before it.
    pub fn forgotten(&mut self, number: u64, keys: Vec<KeyBytes>) {
        self.require_above(number);
        for key in keys {
            self.push(number, &key, None);
        }
    }

    pub(super) fn note_committed(&mut self, key: &KeyBytes) {
        let Some(keys) = &mut self.committed_since else { return };
        keys.insert(key.clone());
        if keys.len() > KEYS_MAX {
            self.committed_since = None;
        }
    }
}
