//! A commit whose result is unknown: after the producer was replaced, the stored offsets show what became of it.

use keylane_core::AbortCause;

use super::super::planted::Planted;
use super::super::trace::Seen;
use super::super::world::World;
use super::requests::{Entry, StableOffset};

impl World {
    /// Partitions that are still ours, and whose offset or metadata differ in the transaction from those before, are
    /// witnesses: nobody else can have replaced what the transaction stored.
    pub(super) fn offsets_read_back(&mut self, p: usize, found: &[StableOffset]) {
        let Some(attempt) = self.processes[p].shell.producer.attempt.clone() else { return };
        let (mut committed, mut aborted, mut other) = (false, false, false);
        let answers: Vec<(&Entry, &StableOffset)> = attempt.entries.iter().zip(found).collect();
        let foreign = answers.iter().find(|(entry, _)| !self.is_own(p, entry));
        let foreign = foreign.filter(|_| self.planted == Some(Planted::ForeignWitness)).copied();
        for (entry, found) in foreign.map_or(answers, |foreign| vec![foreign]) {
            let sent = Some((entry.offset, entry.metadata.clone()));
            let is_witness = self.is_own(p, entry) && entry.before != sent;
            if !is_witness && foreign.is_none() {
                continue;
            }
            let StableOffset::Stored(stored) = found else { return self.repeat(p) };
            match stored {
                stored if *stored == sent => committed = true,
                stored if *stored == entry.before => aborted = true,
                _ if foreign.is_some() => aborted = true,
                _ => other = true,
            }
        }
        self.processes[p].shell.producer.finish_call();
        if other || (committed && aborted) {
            self.transaction_aborted(p, AbortCause::OverwrittenOffsets);
        } else if committed {
            self.saw(Seen::ReadBackCommitted);
            // Without its delivery reports, its place in the changelogs is not known.
            if let Some(attempt) = &mut self.processes[p].shell.producer.attempt {
                attempt.changelog_ends.clear();
            }
            self.transaction_committed(p);
        } else {
            self.saw(Seen::ReadBackAborted);
            self.transaction_aborted(p, AbortCause::Other);
        }
    }
}
