//! What became of a record.
use super::Token;
use crate::librdkafka::ErrorCode;

/// The end of one record's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Whose it is.
    pub token: Token,
    /// It had come back, and was sent again: it may have landed behind later ones.
    pub again: bool,
    /// The topic refused its own time: it carries the time at which it was sent again.
    pub restamped: bool,
    /// Whether the brokers have it.
    pub result: Result<RecordMetadata, DeliveryError>,
}

/// Where a record landed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordMetadata {
    /// Index of the topic.
    pub topic: u16,
    /// The partition that the key was given.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
}

/// A record will never land: the brokers, or the client, refuse this very one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveryError {
    /// Index of the topic.
    pub topic: u16,
    /// What the broker or the client says.
    pub code: ErrorCode,
}

/// What an error means. Brokers refuse *batches*: only of a record that was alone in its batch it is known that it is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The topic is unknown or may not be written: blocked until somebody mends it.
    Topic,
    /// It may have been another record of the batch: hand it over again, alone.
    Again,
    /// The producer has ended: another one sends it again.
    Producer,
}

/// What a code means that a batch came back with.
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
    fn a_code_says_what_is_to_be_done() {
        for (code, meaning) in [
            // Brokers that name no record give the whole batch this code.
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
