//! Headers that name the source event of an output, for outputs with `provenance`.

use std::hash::{BuildHasher as _, RandomState};

use crate::guest::Call;

use super::calls::PendingCall;

/// Maximum bytes of all these headers. The only long values are the topic's name, at most 249 bytes, and the digest,
/// 64.
pub(super) const BYTES_MAX: usize = 1_024;

/// The common values of the headers of all outputs.
pub(super) struct Provenance {
    /// A random number that identifies this run of the handler: the numbers of ownerships restart in every run.
    run: u64,
    /// Whether any output is configured with these headers.
    pub(super) is_enabled: bool,
}

/// The headers of one output.
pub(super) struct ProvenanceHeaders([(&'static str, String); 7]);

impl Provenance {
    pub(super) fn new(is_enabled: bool) -> Self {
        let run = RandomState::new().hash_one(std::process::id());
        Provenance { run, is_enabled }
    }

    pub(super) fn headers(
        &self,
        call: &Call,
        pending_call: Option<&PendingCall>,
        row: u32,
        index_in_row: u32,
    ) -> ProvenanceHeaders {
        let (partition, offset) = call.batch.position(row as usize).unwrap_or_default();
        let attempt = pending_call.map_or(1, |pending_call| pending_call.attempt);
        let ownership = pending_call.and_then(|pending_call| pending_call.ownerships.get(row as usize));
        let ownership = ownership.map_or(0, |ownership| ownership.0);
        ProvenanceHeaders([
            ("keylane-origin-topic", call.batch.topic().to_owned()),
            ("keylane-origin-partition", partition.to_string()),
            ("keylane-origin-offset", offset.to_string()),
            ("keylane-output-index", index_in_row.to_string()),
            ("keylane-attempt", attempt.to_string()),
            ("keylane-ownership", format!("{:016x}-{ownership}", self.run)),
            ("keylane-handler-digest", call.handler().digest().to_string()),
        ])
    }
}

impl ProvenanceHeaders {
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.0.iter().map(|(name, value)| (name.as_bytes(), Some(value.as_bytes())))
    }
}
