//! The delivery report of a record.
use super::Token;
use super::errors::DeliveryError;

/// The final report of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Identifies the record.
    pub token: Token,
    /// The record failed and was sent again: it may be stored behind later records.
    pub again: bool,
    /// The topic rejected the own timestamp of the record, which carries the time of its resend instead.
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
