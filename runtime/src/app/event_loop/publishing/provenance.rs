//! Headers that name the event an output was made from, for outputs that are configured with `provenance`.

use std::hash::{BuildHasher as _, RandomState};

use crate::guest::Call;

use super::calls::CallRecord;

/// More than all these headers take: names, and values of which only the topic's name, at most 249 bytes, and the
/// digest, 64, are long.
pub(super) const BYTES_MAX: usize = 1_024;

/// What the headers of all outputs have in common.
pub(super) struct Provenance {
    /// Tells this process from every other one: ownership numbers begin anew in each.
    instance: u64,
    digest: String,
    /// Some output carries these headers.
    pub(super) is_wanted: bool,
}

/// The headers of one output.
pub(super) struct ProvenanceHeaders([(&'static str, String); 7]);

impl Provenance {
    pub(super) fn new(digest: &str, is_wanted: bool) -> Self {
        let instance = RandomState::new().hash_one(std::process::id());
        Provenance { instance, digest: digest.to_owned(), is_wanted }
    }

    pub(super) fn headers(
        &self,
        call: &Call,
        record: Option<&CallRecord>,
        row: u32,
        index_in_row: u32,
    ) -> ProvenanceHeaders {
        let (partition, offset) = call.batch.place(row as usize).unwrap_or_default();
        let attempt = record.map_or(1, |record| record.attempt);
        let ownership = record.and_then(|record| record.ownerships.get(row as usize));
        let ownership = ownership.map_or(0, |ownership| ownership.0);
        ProvenanceHeaders([
            ("keylane-origin-topic", call.batch.topic().to_owned()),
            ("keylane-origin-partition", partition.to_string()),
            ("keylane-origin-offset", offset.to_string()),
            ("keylane-output-index", index_in_row.to_string()),
            ("keylane-attempt", attempt.to_string()),
            ("keylane-ownership", format!("{:016x}-{ownership}", self.instance)),
            ("keylane-handler-digest", self.digest.clone()),
        ])
    }
}

impl ProvenanceHeaders {
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.0.iter().map(|(name, value)| (name.as_bytes(), Some(value.as_bytes())))
    }
}
