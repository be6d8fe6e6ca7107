//! The look-up of one partition: the responses that it waits for, and their combined result.
use super::{Bounds, LookUpId, NotFound, TopicFacts};
use crate::config::Start;
use crate::librdkafka::{END, ErrorCode};
use crate::source::event::StartFound;

/// The kind of a look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LookUpKind {
    Start,
    Bounds,
}

/// An offset of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LogOffset {
    LogStart,
    /// One past the last offset, open transactions included.
    LogEnd,
    /// One past the last offset that the consumer may read: under `read_committed`, the last stable offset.
    StableEnd,
    /// The offset of the first record that is not older than the configured time.
    AtTime,
}

type Found<T> = Result<T, ErrorCode>;

/// A look-up in progress.
#[derive(Debug)]
pub(super) struct LookUp {
    pub(super) id: LookUpId,
    /// The number that distinguishes this look-up from others of the same partition.
    pub(super) serial: u64,
    pub(super) kind: LookUpKind,
    /// The number of outstanding responses.
    missing: usize,
    /// Whether a response without which the look-up fails is an error.
    failed: bool,
    committed: Found<Option<(i64, Vec<u8>)>>,
    log_start: Found<i64>,
    log_end: Found<i64>,
    stable_end: Found<i64>,
    at_time: Found<i64>,
}

impl LookUp {
    /// Creates a look-up that waits for `missing` responses.
    pub(super) fn new(id: LookUpId, serial: u64, kind: LookUpKind, missing: usize) -> LookUp {
        let unknown = || Err(ErrorCode::IN_PROGRESS);
        LookUp {
            id,
            serial,
            kind,
            missing,
            failed: false,
            committed: Err(ErrorCode::IN_PROGRESS),
            log_start: unknown(),
            log_end: unknown(),
            stable_end: unknown(),
            at_time: unknown(),
        }
    }

    pub(super) fn is_finished(&self) -> bool {
        self.missing == 0 || self.failed
    }

    /// Returns whether one of the look-up's requests timed out.
    pub(super) fn ran_out_of_time(&self) -> bool {
        let committed = self.committed.as_ref().err().copied();
        let offsets = [self.log_start, self.log_end, self.stable_end, self.at_time];
        let mut codes = committed.into_iter().chain(offsets.into_iter().filter_map(Result::err));
        codes.any(|code| code == ErrorCode::TIMED_OUT)
    }

    pub(super) fn committed_found(&mut self, found: Found<Option<(i64, Vec<u8>)>>) {
        self.missing -= 1;
        self.failed |= found.is_err();
        self.committed = found;
    }

    pub(super) fn offset_found(&mut self, piece: LogOffset, found: Found<i64>) {
        self.missing -= 1;
        self.failed |= found.is_err() && piece == LogOffset::LogStart;
        match piece {
            LogOffset::LogStart => self.log_start = found,
            LogOffset::LogEnd => self.log_end = found,
            LogOffset::StableEnd => self.stable_end = found,
            LogOffset::AtTime => self.at_time = found,
        }
    }

    pub(super) fn topic_described(&mut self) {
        self.missing -= 1;
    }

    pub(super) fn bounds(&self, topic_id: [u8; 16]) -> Found<Bounds> {
        Ok(Bounds { start: self.log_start?, end: self.log_end?, topic_id })
    }

    pub(super) fn start(&self, facts: &TopicFacts, policy: Start) -> Result<StartFound, NotFound> {
        let partition = self.id.partition;
        let committed = self.committed.clone().map_err(|code| NotFound {
            reason: match code {
                ErrorCode::UNSTABLE_OFFSET_COMMIT => {
                    "a transaction that commits its offset is still open".into()
                }
                _ => format!("committed offset: {code}"),
            },
            undecided: code == ErrorCode::UNSTABLE_OFFSET_COMMIT,
        })?;
        let log_start = self.log_start.map_err(|code| not_found("start of the log", code))?;
        let policy_applies = committed.is_none() && facts.is_first_time(partition);
        let fallback = if policy_applies { self.first_start(log_start, policy)? } else { log_start };
        Ok(StartFound {
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
    fn first_start(&self, log_start: i64, policy: Start) -> Result<i64, NotFound> {
        let end = || self.stable_end.map_err(|code| not_found("end of the log", code));
        match policy {
            Start::Earliest => Ok(log_start),
            Start::Latest => end(),
            Start::Time(_) => match self.at_time {
                Ok(END) => end(),
                Ok(offset) => Ok(offset),
                Err(code) => Err(not_found("offset of the start timestamp", code)),
            },
        }
    }
}

fn not_found(what: &str, code: ErrorCode) -> NotFound {
    NotFound { reason: format!("{what}: {code}"), undecided: false }
}
