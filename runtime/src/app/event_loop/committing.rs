//! Turns the coordinator's commit responses into inputs of the core.

use std::fmt::Display;

use keylane_core::{CommitError, CommitId, Input, Now, Partition};

use super::log::HandlerLog;

/// Converts commit responses, and counts failed commits.
#[derive(Debug, Default)]
pub(in crate::app) struct Committing {
    /// Number of stored commits, counted per partition.
    stored: u64,
    /// Number of rejected commits, counted per partition, and of commits without an answer.
    failed: u64,
}

impl Committing {
    /// Converts the response for one partition of a commit.
    pub(super) fn answered(
        &mut self,
        log: &mut HandlerLog,
        now: Now,
        (id, partition): (CommitId, Partition),
        result: Result<(), CommitError>,
        code: &dyn Display,
    ) -> Input<'static> {
        match result {
            Ok(()) => {
                self.stored += 1;
                Input::Committed { id, partition }
            }
            Err(why) => {
                self.failed += 1;
                log.commit_rejected(now, partition, code, why);
                Input::CommitFailed { id, partition, why }
            }
        }
    }

    /// Records and logs that a commit was not answered in time.
    pub(super) fn timed_out(&mut self, log: &HandlerLog, id: CommitId) -> Input<'static> {
        self.failed += 1;
        log.commit_timed_out();
        Input::CommitTimedOut { id }
    }

    /// Returns the number of stored commits so far.
    pub(super) fn stored(&self) -> u64 {
        self.stored
    }

    /// Returns the number of rejected and unanswered commits so far.
    pub(super) fn failed(&self) -> u64 {
        self.failed
    }
}
