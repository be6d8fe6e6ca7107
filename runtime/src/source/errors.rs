//! Error codes, classified for a source.
use keylane_core::{CommitError, ReadError};

use super::event::SourceError;
use crate::librdkafka::ErrorCode;

/// The class of a fetch error: an error on a partition's queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FetchErrorClass {
    /// The position is outside the log, whose bounds must be requested.
    OutOfRange,
    /// Any other error.
    Failed(ReadError),
}

pub(super) fn fetch_error_class(code: ErrorCode) -> FetchErrorClass {
    match code {
        ErrorCode::AUTO_OFFSET_RESET | ErrorCode::OFFSET_OUT_OF_RANGE | ErrorCode::LOG_TRUNCATION => {
            FetchErrorClass::OutOfRange
        }
        ErrorCode::TOPIC_AUTHORIZATION_FAILED => FetchErrorClass::Failed(ReadError::Denied),
        ErrorCode::UNKNOWN_TOPIC_OR_PART
        | ErrorCode::UNKNOWN_TOPIC
        | ErrorCode::UNKNOWN_PARTITION
        | ErrorCode::UNKNOWN_TOPIC_ID => FetchErrorClass::Failed(ReadError::Missing),
        // After each of these errors the client would continue after the unreadable data, which must not become a gap.
        ErrorCode::BAD_MSG
        | ErrorCode::BAD_COMPRESSION
        | ErrorCode::INVALID_MSG
        | ErrorCode::MSG_SIZE_TOO_LARGE
        | ErrorCode::NOT_IMPLEMENTED
        | ErrorCode::UNSUPPORTED_FEATURE => FetchErrorClass::Failed(ReadError::Corrupt),
        ErrorCode::TRANSPORT
        | ErrorCode::RESOLVE
        | ErrorCode::TIMED_OUT
        | ErrorCode::REQUEST_TIMED_OUT
        | ErrorCode::ALL_BROKERS_DOWN
        | ErrorCode::NETWORK_EXCEPTION
        | ErrorCode::LEADER_NOT_AVAILABLE
        | ErrorCode::NOT_LEADER_OR_FOLLOWER
        | ErrorCode::BROKER_NOT_AVAILABLE
        | ErrorCode::REPLICA_NOT_AVAILABLE
        | ErrorCode::OFFSET_NOT_AVAILABLE
        | ErrorCode::FENCED_LEADER_EPOCH
        | ErrorCode::UNKNOWN_LEADER_EPOCH
        | ErrorCode::KAFKA_STORAGE_ERROR => FetchErrorClass::Failed(ReadError::Interrupted),
        _ => FetchErrorClass::Failed(ReadError::Unknown),
    }
}

pub(super) fn commit_error(code: ErrorCode) -> CommitError {
    match code {
        ErrorCode::OFFSET_METADATA_TOO_LARGE => CommitError::MetadataTooLarge,
        // All of these are temporary. If the coordinator stored the commit before the error, storing it twice is
        // harmless.
        ErrorCode::REBALANCE_IN_PROGRESS
        | ErrorCode::COORDINATOR_LOAD_IN_PROGRESS
        | ErrorCode::COORDINATOR_NOT_AVAILABLE
        | ErrorCode::NOT_COORDINATOR
        | ErrorCode::WAIT_COORD
        | ErrorCode::TRANSPORT
        | ErrorCode::TIMED_OUT
        | ErrorCode::REQUEST_TIMED_OUT => CommitError::TryAgain,
        ErrorCode::ILLEGAL_GENERATION
        | ErrorCode::UNKNOWN_MEMBER_ID
        | ErrorCode::FENCED_INSTANCE_ID
        | ErrorCode::STALE_MEMBER_EPOCH => CommitError::Stale,
        _ => CommitError::Other,
    }
}

/// Describes an error of the client, with its remedy if one exists.
pub(super) fn source_error(code: ErrorCode, text: &str, fatal: bool) -> SourceError {
    let remedy = match code {
        ErrorCode::INCONSISTENT_GROUP_PROTOCOL => {
            "other members of the group use another `assignor`: set `kafka.assignor` to theirs (most clients: \
             \"range\"), or use another `group_id`"
        }
        ErrorCode::FENCED_INSTANCE_ID => {
            "another process uses the same `group_instance_id`: give every process its own"
        }
        ErrorCode::MAX_POLL_EXCEEDED => {
            "this process did not poll for `max.poll.interval.ms` and left its group; it rejoins automatically"
        }
        ErrorCode::GROUP_AUTHORIZATION_FAILED => "grant this user READ on the consumer group",
        ErrorCode::TOPIC_AUTHORIZATION_FAILED => "grant this user READ and DESCRIBE on the topic",
        ErrorCode::AUTHENTICATION | ErrorCode::SASL_AUTHENTICATION_FAILED => {
            "the brokers reject these credentials: check `sasl.*` and `security.protocol` under [kafka.client]"
        }
        ErrorCode::SSL => "check `ssl.*` and `security.protocol` under [kafka.client]",
        ErrorCode::ALL_BROKERS_DOWN => "no broker can be reached; the client keeps trying",
        _ => "",
    };
    let separator = if remedy.is_empty() { "" } else { "; " };
    let text = format!("{text} ({}){separator}{remedy}", code.name());
    SourceError { fatal: fatal || code == ErrorCode::FENCED_INSTANCE_ID, code, text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fetch_error_codes_are_classified() {
        for (code, class) in [
            (ErrorCode::AUTO_OFFSET_RESET, FetchErrorClass::OutOfRange),
            (ErrorCode::LOG_TRUNCATION, FetchErrorClass::OutOfRange),
            (ErrorCode::TOPIC_AUTHORIZATION_FAILED, FetchErrorClass::Failed(ReadError::Denied)),
            (ErrorCode::UNKNOWN_PARTITION, FetchErrorClass::Failed(ReadError::Missing)),
            (ErrorCode::BAD_MSG, FetchErrorClass::Failed(ReadError::Corrupt)),
            (ErrorCode::BAD_COMPRESSION, FetchErrorClass::Failed(ReadError::Corrupt)),
            (ErrorCode::TRANSPORT, FetchErrorClass::Failed(ReadError::Interrupted)),
            (ErrorCode(9_999), FetchErrorClass::Failed(ReadError::Unknown)),
        ] {
            assert_eq!(fetch_error_class(code), class, "{code:?}");
        }
    }

    #[test]
    fn commit_error_codes_are_classified() {
        for (code, error) in [
            (ErrorCode::OFFSET_METADATA_TOO_LARGE, CommitError::MetadataTooLarge),
            (ErrorCode::REBALANCE_IN_PROGRESS, CommitError::TryAgain),
            (ErrorCode::NOT_COORDINATOR, CommitError::TryAgain),
            (ErrorCode::ILLEGAL_GENERATION, CommitError::Stale),
            (ErrorCode::UNKNOWN_MEMBER_ID, CommitError::Stale),
            (ErrorCode::GROUP_AUTHORIZATION_FAILED, CommitError::Other),
            (ErrorCode(120), CommitError::Other),
        ] {
            assert_eq!(commit_error(code), error, "{code:?}");
        }
    }

    #[test]
    fn an_inconsistent_assignor_is_not_fatal() {
        let error = source_error(ErrorCode::INCONSISTENT_GROUP_PROTOCOL, "JoinGroup failed", false);
        assert!(!error.fatal, "the client retries the join");
        assert!(source_error(ErrorCode::FENCED_INSTANCE_ID, "JoinGroup failed", false).fatal);
        assert!(!source_error(ErrorCode::TRANSPORT, "broken pipe", false).fatal);
    }
}
