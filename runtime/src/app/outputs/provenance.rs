//! Headers that say which event an output comes from, for targets that want them.

use std::hash::{BuildHasher as _, RandomState};

use keylane_core::{Dispatch, OwnershipId};

use crate::guest::Call;

/// More than all these headers take: names, and values of which only the topic's name, at most 249 bytes, and the
/// digest, 64, are long.
pub(super) const BYTES_MAX: usize = 1_024;

/// What the headers say.
pub(super) struct Provenance {
    /// Tells this process from every other one: ownership numbers begin anew in each.
    instance: u64,
    digest: String,
    /// Per call slot: the attempt, and the ownership of each row. Empty if no target wants provenance.
    calls: Vec<(u32, Vec<OwnershipId>)>,
    wanted: bool,
}

impl Provenance {
    pub(super) fn new(digest: &str, wanted: bool) -> Self {
        let instance = RandomState::new().hash_one(std::process::id());
        Provenance { instance, digest: digest.to_owned(), calls: Vec::new(), wanted }
    }

    /// Outputs say which ownership they come from: the core knows it only until the call has ended.
    pub(super) fn remember(&mut self, dispatch: &Dispatch<'_>) {
        if !self.wanted {
            return;
        }
        let slot = dispatch.call.slot as usize;
        if self.calls.len() <= slot {
            self.calls.resize_with(slot + 1, Default::default);
        }
        if let Some((attempt, ownerships)) = self.calls.get_mut(slot) {
            *attempt = dispatch.attempt;
            ownerships.clear();
            ownerships.extend(dispatch.rows.iter().map(|row| row.ownership));
        }
    }

    pub(super) fn add_to(
        &self,
        headers: &mut Vec<(Vec<u8>, Option<Vec<u8>>)>,
        call: &Call,
        row: u32,
        index_in_row: u32,
    ) {
        let (partition, offset) = call.batch.place(row as usize).unwrap_or_default();
        let known = self.calls.get(call.key.call.slot as usize);
        let attempt = known.map_or(1, |(attempt, _)| *attempt);
        let ownership =
            known.and_then(|(_, ownerships)| ownerships.get(row as usize)).map_or(0, |ownership| ownership.0);
        let mut add = |name: &str, value: String| headers.push((name.into(), Some(value.into_bytes())));
        add("keylane-origin-topic", call.batch.topic().to_owned());
        add("keylane-origin-partition", partition.to_string());
        add("keylane-origin-offset", offset.to_string());
        add("keylane-output-index", index_in_row.to_string());
        add("keylane-attempt", attempt.to_string());
        add("keylane-ownership", format!("{:016x}-{ownership}", self.instance));
        add("keylane-handler-digest", self.digest.clone());
    }
}
