//! Commits settled events through the consumer group.

use std::fmt::Display;
use std::time::Duration;

use keylane_core::{CommitEntry, CommitError, CommitId, Input, Now, Partition};

use crate::source::Source;

use super::log::HandlerLog;

/// Sends the core's commits and translates the answers.
#[derive(Debug, Default)]
pub(in crate::app) struct Committing {
    /// Number of rejected commits, counted per partition, and of commits without an answer.
    failed: u64,
}

impl Committing {
    pub(super) fn send(
        &self,
        source: &mut Source,
        now: Duration,
        id: CommitId,
        entries: &[CommitEntry],
        metadata: &str,
    ) {
        source.commit(now, id, entries, metadata);
    }

    /// Converts the coordinator's answer for one partition of a commit to an input of the core.
    pub(super) fn answered(
        &mut self,
        log: &mut HandlerLog,
        now: Now,
        (id, partition): (CommitId, Partition),
        result: Result<(), CommitError>,
        code: &dyn Display,
    ) -> Input<'static> {
        match result {
            Ok(()) => Input::Committed { id, partition },
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
        tracing::warn!(handler = log.handler(), "commit not answered in time");
        Input::CommitTimedOut { id }
    }

    /// Returns the number of rejected and unanswered commits so far.
    pub(super) fn failed(&self) -> u64 {
        self.failed
    }
}
