//! Error codes of the library and the brokers.
use std::ffi::CStr;
use std::fmt;

use rdkafka_sys::rd_kafka_resp_err_t as E;

use super::sys;

/// A code of librdkafka (negative) or of Kafka's protocol (positive); 0 is success. Any value is possible.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ErrorCode(pub i32);

/// Names for the codes that are distinguished. Converting a variant to its number is always sound; the opposite
/// conversion must never happen.
macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $variant:ident;)*) => {
        impl ErrorCode { $( $(#[$doc])* pub const $name: ErrorCode = ErrorCode(E::$variant as i32); )* }
    };
}

codes! {
    /// No error.
    NONE = RD_KAFKA_RESP_ERR_NO_ERROR;
    /// The reader has reached the end of the partition.
    PARTITION_EOF = RD_KAFKA_RESP_ERR__PARTITION_EOF;
    /// Rebalance: partitions are assigned.
    ASSIGN_PARTITIONS = RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
    /// Rebalance: partitions are revoked.
    REVOKE_PARTITIONS = RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS;
    /// The position is outside the log and no reset policy is set.
    AUTO_OFFSET_RESET = RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET;
    /// The log was truncated below the position.
    LOG_TRUNCATION = RD_KAFKA_RESP_ERR__LOG_TRUNCATION;
    /// The position is outside the log (reported by the broker).
    OFFSET_OUT_OF_RANGE = RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE;
    /// Invalid checksum or length, detected by the client.
    BAD_MSG = RD_KAFKA_RESP_ERR__BAD_MSG;
    /// Compressed data can't be decompressed.
    BAD_COMPRESSION = RD_KAFKA_RESP_ERR__BAD_COMPRESSION;
    /// Invalid checksum, detected by the broker.
    INVALID_MSG = RD_KAFKA_RESP_ERR_INVALID_MSG;
    /// A record larger than allowed.
    MSG_SIZE_TOO_LARGE = RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE;
    /// A batch larger than the broker's limit.
    RECORD_LIST_TOO_LARGE = RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE;
    /// A record format or codec that this client does not support.
    NOT_IMPLEMENTED = RD_KAFKA_RESP_ERR__NOT_IMPLEMENTED;
    /// The client does not support the broker's data.
    UNSUPPORTED_FEATURE = RD_KAFKA_RESP_ERR__UNSUPPORTED_FEATURE;
    /// The disk of the broker failed.
    KAFKA_STORAGE_ERROR = RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR;
    /// The topic or partition does not exist.
    UNKNOWN_TOPIC_OR_PART = RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
    /// The topic does not exist (reported by the client).
    UNKNOWN_TOPIC = RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC;
    /// The partition does not exist (reported by the client).
    UNKNOWN_PARTITION = RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION;
    /// No topic has this id.
    UNKNOWN_TOPIC_ID = RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_ID;
    /// The topic name is invalid.
    TOPIC_EXCEPTION = RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION;
    /// The topic already exists.
    TOPIC_ALREADY_EXISTS = RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS;
    /// Access to the topic is denied.
    TOPIC_AUTHORIZATION_FAILED = RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    /// Access to the group is denied.
    GROUP_AUTHORIZATION_FAILED = RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED;
    /// The operation is denied on the cluster.
    CLUSTER_AUTHORIZATION_FAILED = RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED;
    /// The broker rejected our credentials (reported by the client).
    AUTHENTICATION = RD_KAFKA_RESP_ERR__AUTHENTICATION;
    /// The broker rejected our credentials.
    SASL_AUTHENTICATION_FAILED = RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED;
    /// The TLS connection failed.
    SSL = RD_KAFKA_RESP_ERR__SSL;
    /// No broker can be reached.
    ALL_BROKERS_DOWN = RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN;
    /// A connection failed.
    TRANSPORT = RD_KAFKA_RESP_ERR__TRANSPORT;
    /// The broker lost its connection to another one.
    NETWORK_EXCEPTION = RD_KAFKA_RESP_ERR_NETWORK_EXCEPTION;
    /// The client found nothing: none of the requested partitions has a leader, or a record has no headers.
    NOENT = RD_KAFKA_RESP_ERR__NOENT;
    /// The partition has no leader at the moment.
    LEADER_NOT_AVAILABLE = RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE;
    /// Another broker leads the partition.
    NOT_LEADER_OR_FOLLOWER = RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION;
    /// The broker is not available.
    BROKER_NOT_AVAILABLE = RD_KAFKA_RESP_ERR_BROKER_NOT_AVAILABLE;
    /// The replica is not available.
    REPLICA_NOT_AVAILABLE = RD_KAFKA_RESP_ERR_REPLICA_NOT_AVAILABLE;
    /// The new leader does not know the high watermark yet.
    OFFSET_NOT_AVAILABLE = RD_KAFKA_RESP_ERR_OFFSET_NOT_AVAILABLE;
    /// Our leader epoch is older than the broker's.
    FENCED_LEADER_EPOCH = RD_KAFKA_RESP_ERR_FENCED_LEADER_EPOCH;
    /// Our leader epoch is newer than the broker's.
    UNKNOWN_LEADER_EPOCH = RD_KAFKA_RESP_ERR_UNKNOWN_LEADER_EPOCH;
    /// A name can't be resolved.
    RESOLVE = RD_KAFKA_RESP_ERR__RESOLVE;
    /// No response in time (reported by the client).
    TIMED_OUT = RD_KAFKA_RESP_ERR__TIMED_OUT;
    /// No response in time (reported by the broker).
    REQUEST_TIMED_OUT = RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT;
    /// The coordinator of the group is not known yet.
    WAIT_COORD = RD_KAFKA_RESP_ERR__WAIT_COORD;
    /// The client can't continue: see [`Client::fatal_error`](super::Client::fatal_error).
    FATAL = RD_KAFKA_RESP_ERR__FATAL;
    /// The consumer was not polled for too long and left its group.
    MAX_POLL_EXCEEDED = RD_KAFKA_RESP_ERR__MAX_POLL_EXCEEDED;
    /// The producer's queue is full.
    QUEUE_FULL = RD_KAFKA_RESP_ERR__QUEUE_FULL;
    /// Another record of the batch is invalid.
    INVALID_DIFFERENT_RECORD = RD_KAFKA_RESP_ERR__INVALID_DIFFERENT_RECORD;
    /// This record is invalid.
    INVALID_RECORD = RD_KAFKA_RESP_ERR_INVALID_RECORD;
    /// The metadata of a commit is longer than the broker's limit.
    OFFSET_METADATA_TOO_LARGE = RD_KAFKA_RESP_ERR_OFFSET_METADATA_TOO_LARGE;
    /// The coordinator is loading its log.
    COORDINATOR_LOAD_IN_PROGRESS = RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS;
    /// The coordinator can't be reached.
    COORDINATOR_NOT_AVAILABLE = RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE;
    /// Another broker is the coordinator.
    NOT_COORDINATOR = RD_KAFKA_RESP_ERR_NOT_COORDINATOR;
    /// A transaction with offsets of the group is not completed.
    UNSTABLE_OFFSET_COMMIT = RD_KAFKA_RESP_ERR_UNSTABLE_OFFSET_COMMIT;
    /// The client rejects an argument or a response, for example a group that is not a consumer group.
    INVALID_ARG = RD_KAFKA_RESP_ERR__INVALID_ARG;
    /// The operation is in progress.
    IN_PROGRESS = RD_KAFKA_RESP_ERR__IN_PROGRESS;
    /// A rebalance is in progress.
    REBALANCE_IN_PROGRESS = RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS;
    /// Our generation of the group is outdated.
    ILLEGAL_GENERATION = RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION;
    /// The group has no such member.
    UNKNOWN_MEMBER_ID = RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID;
    /// Another process uses our `group.instance.id`.
    FENCED_INSTANCE_ID = RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID;
    /// Our member epoch is outdated.
    STALE_MEMBER_EPOCH = RD_KAFKA_RESP_ERR_STALE_MEMBER_EPOCH;
    /// The group's other members use another assignor.
    INCONSISTENT_GROUP_PROTOCOL = RD_KAFKA_RESP_ERR_INCONSISTENT_GROUP_PROTOCOL;
    /// A record has a timestamp that its topic does not accept.
    INVALID_TIMESTAMP = RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP;
    /// A policy of the broker rejects the request.
    POLICY_VIOLATION = RD_KAFKA_RESP_ERR_POLICY_VIOLATION;
    /// A sequence number that the broker did not expect.
    OUT_OF_ORDER_SEQUENCE_NUMBER = RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
    /// The record was purged before it was sent.
    PURGE_QUEUE = RD_KAFKA_RESP_ERR__PURGE_QUEUE;
    /// The record was purged after it was sent.
    PURGE_INFLIGHT = RD_KAFKA_RESP_ERR__PURGE_INFLIGHT;
    /// Another producer with the same `transactional.id` has replaced this one.
    FENCED = RD_KAFKA_RESP_ERR__FENCED;
    /// The transaction does not contain everything that the client was asked to send.
    INCONSISTENT = RD_KAFKA_RESP_ERR__INCONSISTENT;
    /// Another call of the client has to end first.
    CONFLICT = RD_KAFKA_RESP_ERR__CONFLICT;
    /// The offsets of a transaction are more than the broker accepts.
    INVALID_COMMIT_OFFSET_SIZE = RD_KAFKA_RESP_ERR_INVALID_COMMIT_OFFSET_SIZE;
    /// The brokers accept no transactions of this user.
    TRANSACTIONAL_ID_AUTHORIZATION_FAILED = RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED;
    /// The timeout of transactions is above the brokers' maximum.
    INVALID_TRANSACTION_TIMEOUT = RD_KAFKA_RESP_ERR_INVALID_TRANSACTION_TIMEOUT;
    /// An unexpected error of the broker, such as a request that is too large for it.
    UNKNOWN_SERVER_ERROR = RD_KAFKA_RESP_ERR_UNKNOWN;
    /// The record was not acknowledged before its transaction's timeout.
    MSG_TIMED_OUT = RD_KAFKA_RESP_ERR__MSG_TIMED_OUT;
    /// The system lacks a thread, a socket or memory.
    CRIT_SYS_RESOURCE = RD_KAFKA_RESP_ERR__CRIT_SYS_RESOURCE;
}

impl ErrorCode {
    /// Returns whether the code is success.
    pub fn is_none(self) -> bool {
        self == ErrorCode::NONE
    }

    /// Returns `Ok` if the code is success.
    pub fn into_result(self) -> Result<(), ErrorCode> {
        if self.is_none() { Ok(()) } else { Err(self) }
    }

    /// Returns whether a connection failed because one side rejects the identity of the other. [`ErrorCode::SSL`] may
    /// also have other causes.
    pub fn is_authentication_failure(self) -> bool {
        matches!(self, ErrorCode::AUTHENTICATION | ErrorCode::SASL_AUTHENTICATION_FAILED | ErrorCode::SSL)
    }

    /// Returns the name that the documentation of Kafka and librdkafka uses, such as `REBALANCE_IN_PROGRESS`.
    pub fn name(self) -> String {
        // SAFETY: the function accepts any integer and returns a NUL-terminated string that stays valid until the
        // thread's next few calls of it; it is copied before that.
        unsafe { text(sys::rd_kafka_err2name(self.0)) }
    }

    /// Returns a short description.
    pub fn text(self) -> String {
        // SAFETY: as in `name`.
        unsafe { text(sys::rd_kafka_err2str(self.0)) }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.text(), self.name())
    }
}

impl fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ErrorCode({} {})", self.0, self.name())
    }
}

impl std::error::Error for ErrorCode {}

/// Copies a C string; a null pointer becomes the empty string.
///
/// # Safety
/// The pointer is null or points to a NUL-terminated string that lives during the call.
pub(super) unsafe fn text(pointer: *const std::ffi::c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: not null, so the caller's guarantee holds.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}

/// Takes the code out of an error object and destroys it; null is success.
///
/// # Safety
/// The pointer is null or an error object that has no other user.
pub(super) unsafe fn take(error: *mut sys::KafkaError) -> Result<(), ErrorCode> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: the caller guarantees that it is not null and owned by us; it is not used after the second call.
    let code = ErrorCode(unsafe { sys::rd_kafka_error_code(error) });
    // SAFETY: as above.
    unsafe { sys::rd_kafka_error_destroy(error) };
    Err(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_codes_are_accepted() {
        for number in [-9_999, 101, 114, 120, 128, 9_999, i32::MAX, i32::MIN] {
            let code = ErrorCode(number);
            assert!(!code.text().is_empty(), "{number}");
            assert!(!code.is_none());
        }
        assert_eq!(ErrorCode::REBALANCE_IN_PROGRESS.name(), "REBALANCE_IN_PROGRESS");
        assert_eq!(ErrorCode(0).into_result(), Ok(()));
    }
}
