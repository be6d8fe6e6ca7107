//! The errors of brokers and client, classified.
use super::SinkTopic;
use crate::librdkafka::ErrorCode;

/// Why a record will never be stored: the brokers, or the client, reject the record itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveryError {
    /// The topic.
    pub topic: SinkTopic,
    /// The code that the broker or the client reports.
    pub code: ErrorCode,
}

/// Class of an error. Brokers reject *batches*: an error certainly applies to a record only if the record was alone in
/// its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BatchError {
    /// The topic is unknown or not writable. It stays blocked until this is corrected.
    Topic,
    /// Another record of the batch may be the cause: send the record again, alone.
    ResendAlone,
    /// The producer failed: its replacement sends the record again.
    Producer,
}

/// Classifies the error code of a batch.
pub(super) fn classify(code: ErrorCode) -> BatchError {
    match code {
        ErrorCode::UNKNOWN_TOPIC_OR_PART
        | ErrorCode::UNKNOWN_TOPIC
        | ErrorCode::UNKNOWN_PARTITION
        | ErrorCode::UNKNOWN_TOPIC_ID
        | ErrorCode::TOPIC_AUTHORIZATION_FAILED
        | ErrorCode::CLUSTER_AUTHORIZATION_FAILED => BatchError::Topic,
        ErrorCode::FATAL | ErrorCode::PURGE_QUEUE | ErrorCode::PURGE_INFLIGHT => BatchError::Producer,
        _ => BatchError::ResendAlone,
    }
}

/// Returns whether the error of a batch with one record means that the record can't be stored. Any other code may be
/// transient.
pub(super) fn is_about_the_record(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::MSG_SIZE_TOO_LARGE
            | ErrorCode::INVALID_RECORD
            | ErrorCode::INVALID_DIFFERENT_RECORD
            | ErrorCode::INVALID_MSG
            | ErrorCode::RECORD_LIST_TOO_LARGE
            | ErrorCode::POLICY_VIOLATION
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delivery_error_codes_are_classified() {
        for (code, meaning) in [
            // Brokers that do not identify the record return this code for the whole batch.
            (ErrorCode::INVALID_RECORD, BatchError::ResendAlone),
            (ErrorCode::INVALID_DIFFERENT_RECORD, BatchError::ResendAlone),
            (ErrorCode::MSG_SIZE_TOO_LARGE, BatchError::ResendAlone),
            (ErrorCode(9_999), BatchError::ResendAlone),
            (ErrorCode::TOPIC_AUTHORIZATION_FAILED, BatchError::Topic),
            (ErrorCode::FATAL, BatchError::Producer),
        ] {
            assert_eq!(classify(code), meaning, "{code:?}");
        }
    }
}
