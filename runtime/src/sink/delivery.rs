//! The delivery report of a record.
use super::errors::DeliveryError;
use super::{RecordId, SinkTopic};

/// The final report of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The id of the record.
    pub id: RecordId,
    /// Whether the record failed and was sent again. It may be stored after later records.
    pub resent: bool,
    /// Whether the topic rejected the record's own timestamp. The record has the time of its resend instead.
    pub restamped: bool,
    /// The position of the stored record, or the error.
    pub result: Result<RecordMetadata, DeliveryError>,
}

/// The position of a stored record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordMetadata {
    /// The topic.
    pub topic: SinkTopic,
    /// The partition.
    pub partition: i32,
    /// Its offset in the partition.
    pub offset: i64,
}
