//! The keyed state of a handler.

use serde::{Deserialize, Serialize};

/// The keyed state of a handler.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyedStateStatus {
    /// Changed states that no committed transaction contains yet.
    pub uncommitted: u64,
    /// Calls that wait for a state to be read from a file.
    pub loading_calls: u64,
    /// Partitions whose states were restored from their changelogs.
    pub restores: u64,
    /// Records that were read for them. What a file contains is not read again.
    pub restored_records: u64,
    /// States that were not changed for `forget_after` and were deleted.
    pub forgotten: u64,
    /// The partitions that are being restored.
    pub restoring: Vec<RestoringStatus>,
    /// The partitions whose file can't be read or written at the moment.
    pub failed: Vec<FailedFileStatus>,
}

/// A partition that is being restored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoringStatus {
    /// The input topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The next offset of the changelog to read; 0: not known yet.
    pub next: i64,
    /// The end of the changelog; 0: not known yet.
    pub end: i64,
}

/// A file that can't be read or written. It is tried again every 5 s, and calls that need it wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedFileStatus {
    /// The input topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The error.
    pub error: String,
}
