//! How settled events become committed: through the consumer group.

use std::fmt::Display;
use std::time::Duration;

use keylane_core::{CommitEntry, CommitError, CommitId, Input, Now, Partition};

use crate::source::Source;

use super::handler_log::HandlerLog;

/// Sends the core's commits and passes their answers on.
#[derive(Debug, Default)]
pub(super) struct Committing;

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

    /// The coordinator answered for one partition of a commit.
    pub(super) fn answered(
        &self,
        log: &mut HandlerLog,
        now: Now,
        (id, partition): (CommitId, Partition),
        result: Result<(), CommitError>,
        code: &dyn Display,
    ) -> Input<'static> {
        match result {
            Ok(()) => Input::Committed { id, partition },
            Err(why) => {
                log.commit_rejected(now, partition, code, why);
                Input::CommitFailed { id, partition, why }
            }
        }
    }

    /// No answer came in time.
    pub(super) fn timed_out(&self, log: &HandlerLog, id: CommitId) -> Input<'static> {
        tracing::warn!(handler = log.handler(), "commit not answered in time");
        Input::CommitTimedOut { id }
    }
}
