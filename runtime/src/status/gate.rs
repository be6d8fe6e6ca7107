//! The gate of a handler, and its detection of duplicates.

use serde::{Deserialize, Serialize};

/// The gate of a handler, and its detection of duplicates. The counters begin with the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateStatus {
    /// Events that settled without a call, because a higher order value had been handled, or their key had ended.
    pub stale: u64,
    /// Events that settled without a call, because a higher order value was handled first (`latest_first`).
    pub superseded: u64,
    /// Events that were dropped, because they came too late for their place in the order (`late = "drop"`).
    pub late_dropped: u64,
    /// Events that were handled although they came too late for their place in the order (`late = "deliver"`).
    pub late_delivered: u64,
    /// Events that settled without a call, because an event with their id had been handled.
    pub duplicates: u64,
    /// Events without an id, which are never duplicates.
    pub without_id: u64,
    /// Gaps whose missing values were passed over.
    pub gaps_passed: u64,
    /// Gaps whose waiting events were dead-lettered.
    pub gaps_dead_lettered: u64,
    /// Ranges of missing values that were forgotten, because a key had too many: their events are stale.
    pub holes_forgotten: u64,
    /// How often waiting events were released before their time, because too many waited.
    pub windows_released_early: u64,
    /// Keys that are remembered in memory.
    pub remembered_keys: u64,
    /// The memory that they use, in bytes.
    pub remembered_bytes: u64,
    /// Keys that were forgotten, because `marks_memory` was full.
    pub forgotten_keys: u64,
    /// Ids that were forgotten before the end of `duplicates.window`, because their key had more than `keep`.
    pub forgotten_ids: u64,
}
