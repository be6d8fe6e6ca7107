//! The lookup of one partition: the responses that it waits for, and their combined result.
use super::committed_offsets::NoOffsets;
use super::{Bounds, LookupId, LookupKey, NotFound, TopicFacts};
use crate::config::StartPolicy;
use crate::librdkafka::{END, ErrorCode};
use crate::source::event::StartPosition;

/// The kind of a lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LookupKind {
    Start,
    Bounds,
}

/// The kind of an offset of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OffsetKind {
    LogStart,
    /// One past the last offset, open transactions included.
    LogEnd,
    /// One past the last offset that the consumer may read: under `read_committed`, the last stable offset.
    StableEnd,
    /// The offset of the first record that is not older than the configured time.
    AtTime,
}

/// The result of a request, as far as the lookup needs it.
type Response<T> = Result<T, ErrorCode>;

/// A lookup in progress.
#[derive(Debug)]
pub(super) struct Lookup {
    pub(super) id: LookupId,
    pub(super) key: LookupKey,
    pub(super) kind: LookupKind,
    /// The number of outstanding responses.
    outstanding: usize,
    /// Whether a required response was an error.
    failed: bool,
    committed: Result<Option<(i64, Vec<u8>)>, NoOffsets>,
    log_start: Response<i64>,
    log_end: Response<i64>,
    stable_end: Response<i64>,
    at_time: Response<i64>,
}

impl Lookup {
    /// Creates a lookup that waits for `outstanding` responses.
    pub(super) fn new(id: LookupId, key: LookupKey, kind: LookupKind, outstanding: usize) -> Lookup {
        let unknown = || Err(ErrorCode::IN_PROGRESS);
        Lookup {
            id,
            key,
            kind,
            outstanding,
            failed: false,
            committed: Err(NoOffsets::Failed(ErrorCode::IN_PROGRESS)),
            log_start: unknown(),
            log_end: unknown(),
            stable_end: unknown(),
            at_time: unknown(),
        }
    }

    pub(super) fn is_finished(&self) -> bool {
        self.outstanding == 0 || self.failed
    }

    /// Returns whether one of the lookup's requests timed out.
    pub(super) fn timed_out(&self) -> bool {
        let committed = match &self.committed {
            Err(NoOffsets::Failed(code)) => Some(*code),
            Ok(_) | Err(NoOffsets::OtherDelivery(_)) => None,
        };
        let offsets = [self.log_start, self.log_end, self.stable_end, self.at_time];
        let mut codes = committed.into_iter().chain(offsets.into_iter().filter_map(Result::err));
        codes.any(|code| code == ErrorCode::TIMED_OUT)
    }

    pub(super) fn committed_found(&mut self, found: Result<Option<(i64, Vec<u8>)>, NoOffsets>) {
        self.outstanding -= 1;
        self.failed |= found.is_err();
        self.committed = found;
    }

    pub(super) fn offset_found(&mut self, kind: OffsetKind, found: Response<i64>) {
        self.outstanding -= 1;
        self.failed |= found.is_err() && kind == OffsetKind::LogStart;
        match kind {
            OffsetKind::LogStart => self.log_start = found,
            OffsetKind::LogEnd => self.log_end = found,
            OffsetKind::StableEnd => self.stable_end = found,
            OffsetKind::AtTime => self.at_time = found,
        }
    }

    pub(super) fn topic_described(&mut self) {
        self.outstanding -= 1;
    }

    pub(super) fn bounds(&self, topic_id: [u8; 16]) -> Response<Bounds> {
        Ok(Bounds { start: self.log_start?, end: self.log_end?, topic_id })
    }

    pub(super) fn start(&self, facts: &TopicFacts, policy: StartPolicy) -> Result<StartPosition, NotFound> {
        let partition = self.id.partition;
        let committed = self.committed.clone().map_err(|why| NotFound {
            transaction_open: why == NoOffsets::Failed(ErrorCode::UNSTABLE_OFFSET_COMMIT),
            reason: match why {
                NoOffsets::Failed(ErrorCode::UNSTABLE_OFFSET_COMMIT) => {
                    "a transaction that commits its offset is still open".into()
                }
                NoOffsets::Failed(code) => format!("committed offset: {code}"),
                NoOffsets::OtherDelivery(member) => format!(
                    "the group has a member without transactional delivery ({member}); stop all processes of the group \
                     before `delivery` is changed"
                ),
            },
        })?;
        let log_start = self.log_start.map_err(|code| not_found("start of the log", code))?;
        let policy_applies = committed.is_none() && facts.start_policy_applies_to(partition);
        let fallback = if policy_applies { self.first_start(log_start, policy)? } else { log_start };
        Ok(StartPosition {
            partition,
            committed,
            fallback,
            log_start,
            log_end: self.log_end.ok(),
            stable_end: self.stable_end.ok(),
            topic_id: facts.id,
        })
    }

    /// Returns the start position that the policy determines.
    fn first_start(&self, log_start: i64, policy: StartPolicy) -> Result<i64, NotFound> {
        let end = || self.stable_end.map_err(|code| not_found("end of the log", code));
        match policy {
            StartPolicy::Earliest => Ok(log_start),
            StartPolicy::Latest => end(),
            StartPolicy::Time(_) => match self.at_time {
                Ok(END) => end(),
                Ok(offset) => Ok(offset),
                Err(code) => Err(not_found("offset of the start timestamp", code)),
            },
        }
    }
}

fn not_found(what: &str, code: ErrorCode) -> NotFound {
    NotFound { reason: format!("{what}: {code}"), transaction_open: false }
}
