//! Known bugs of transactional shells, planted between the core and the simulated brokers.

use keylane_core::AbortCause;
use keylane_core::codec::Encoder;

use super::super::planted::Planted;
use super::super::world::World;
use super::requests::Entry;

impl World {
    /// The offset and metadata that claim these events of a partition.
    pub(super) fn encode_claims(&self, index: usize, is_claimed: impl Fn(i64) -> bool) -> (i64, Vec<u8>) {
        let log = &self.logs[index];
        let offset = (log.start..log.end).find(|&at| !is_claimed(at)).unwrap_or(log.end);
        let mut runs: Vec<(u64, u64)> = Vec::new();
        let mut open = 0;
        for at in offset..log.end {
            match runs.last_mut() {
                _ if !is_claimed(at) => open += 1,
                Some((_, settled)) if open == 0 => *settled += 1,
                _ => {
                    runs.push((open, 1));
                    open = 0;
                }
            }
        }
        let mut text = String::new();
        let identity = self.identity(index, offset);
        Encoder::default().encode(&identity, runs.into_iter(), 100_000, &mut text);
        (offset, text.into_bytes())
    }

    /// Replaces the claims of an entry, if the broker accepts them.
    fn replace_claims(&self, entry: &mut Entry, (offset, metadata): (i64, Vec<u8>)) {
        if metadata.len() <= self.plan.broker_metadata_limit {
            (entry.offset, entry.metadata) = (offset, metadata);
        }
    }

    pub(super) fn planted_entry(&self, p: usize, mut entry: Entry) -> Entry {
        let index = entry.partition;
        if self.logs[index].incarnation > 0 {
            return entry;
        }
        match self.planted {
            Some(Planted::ClaimShrinks) => {
                if let Some((offset, _)) = entry.before.clone().filter(|(offset, _)| *offset == entry.offset)
                {
                    let claims = self.encode_claims(index, |at| at < offset);
                    self.replace_claims(&mut entry, claims);
                }
            }
            Some(Planted::EffectlessLeftOut) => {
                let covered = self.coverage(index, entry.offset, &entry.metadata);
                let claimed = &self.brokers.claimed[index];
                let shell = &self.processes[p].shell;
                let of_entry =
                    shell.settled.iter().filter(|((ownership, _), _)| *ownership == entry.ownership);
                let open = of_entry
                    .filter(|(_, settled)| {
                        !settled.has_effects && shell.settled_before(settled, entry.through)
                    })
                    .map(|((_, offset), _)| *offset)
                    .rfind(|&offset| !claimed.covers(offset));
                if let (Some(covered), Some(open)) = (covered, open) {
                    let claims = self.encode_claims(index, |at| at != open && covered.covers(at));
                    self.replace_claims(&mut entry, claims);
                }
            }
            Some(_) | None => {}
        }
        entry
    }

    /// A planted bug: the offset of the ledger is sent, although events are withheld.
    pub(super) fn planted_prefix(&mut self, p: usize) {
        if self.planted != Some(Planted::LedgerPrefix) {
            return;
        }
        let process = &self.processes[p];
        let Some(mut attempt) = process.shell.producer.attempt.clone() else { return };
        for entry in &mut attempt.entries {
            let partition = self.logs[entry.partition].partition;
            let committable = process.core.as_ref().and_then(|core| core.committable_offset(partition));
            let covered = self.coverage(entry.partition, entry.offset, &entry.metadata);
            if let (Some(committable), Some(covered)) = (committable, covered)
                && committable > entry.offset
                && self.is_own(p, entry)
            {
                let claims = self.encode_claims(entry.partition, |at| at < committable || covered.covers(at));
                self.replace_claims(entry, claims);
            }
        }
        self.processes[p].shell.producer.attempt = Some(attempt);
    }

    /// A planted bug: a commit without a certain answer is taken for committed or aborted.
    pub(super) fn planted_decision(&mut self, p: usize) -> bool {
        let commit_called = self.processes[p].shell.producer.is_commit_called();
        match self.planted {
            Some(Planted::AmbiguousIsAbort) if commit_called => {
                self.transaction_aborted(p, AbortCause::Other);
            }
            Some(Planted::AmbiguousIsCommit) if commit_called => self.transaction_committed(p),
            _ => return false,
        }
        if self.processes[p].alive {
            self.replace_producer(p);
        }
        true
    }

    /// A planted bug: what the ledger had settled counts as committed after a restart in place.
    pub(super) fn settled_in(&self, p: usize, index: usize, ownership: u64) -> (i64, Vec<u8>) {
        let (claimed, shell) = (&self.brokers.claimed[index], &self.processes[p].shell);
        self.encode_claims(index, |at| claimed.covers(at) || shell.settled.contains_key(&(ownership, at)))
    }
}
