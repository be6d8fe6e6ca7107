//! The delivery result of a record.
use super::Token;
use crate::librdkafka::ErrorCode;

/// The final report of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Identifies the record.
    pub token: Token,
    /// It failed and was sent again: it may be stored behind later records.
    pub again: bool,
    /// The topic rejected its own timestamp: it carries the time of its resend.
    pub restamped: bool,
    /// Its position in the topic, or the error.
    pub result: Result<RecordMetadata, DeliveryError>,
}

/// The position of a stored record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordMetadata {
    /// Index of the topic.
    pub topic: u16,
    /// The partition.
    pub partition: i32,
    /// Its offset in the partition.
    pub offset: i64,
}

/// A record will never be stored: the brokers, or the client, reject this very record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveryError {
    /// Index of the topic.
    pub topic: u16,
    /// The code that the broker or the client reports.
    pub code: ErrorCode,
}

/// Class of an error. Brokers reject *batches*: an error applies to a record for certain only if it was alone in its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The topic is unknown or not writable: blocked until that is corrected.
    Topic,
    /// Another record of the batch may be the cause: send the record again, alone.
    Again,
    /// The producer failed: its replacement sends the record again.
    Producer,
}

/// Classifies the error code of a batch.
pub(super) fn refusal(code: ErrorCode) -> Refusal {
    match code {
        ErrorCode::UNKNOWN_TOPIC_OR_PART
        | ErrorCode::UNKNOWN_TOPIC
        | ErrorCode::UNKNOWN_PARTITION
        | ErrorCode::UNKNOWN_TOPIC_ID
        | ErrorCode::TOPIC_AUTHORIZATION_FAILED
        | ErrorCode::CLUSTER_AUTHORIZATION_FAILED => Refusal::Topic,
        ErrorCode::FATAL | ErrorCode::PURGE_QUEUE | ErrorCode::PURGE_INFLIGHT => Refusal::Producer,
        _ => Refusal::Again,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delivery_error_codes_are_classified() {
        for (code, meaning) in [
            // Brokers that do not identify the record return this code for the whole batch.
            (ErrorCode::INVALID_RECORD, Refusal::Again),
            (ErrorCode::INVALID_DIFFERENT_RECORD, Refusal::Again),
            (ErrorCode::MSG_SIZE_TOO_LARGE, Refusal::Again),
            (ErrorCode(9_999), Refusal::Again),
            (ErrorCode::TOPIC_AUTHORIZATION_FAILED, Refusal::Topic),
            (ErrorCode::FATAL, Refusal::Producer),
        ] {
            assert_eq!(refusal(code), meaning, "{code:?}");
        }
    }
}
