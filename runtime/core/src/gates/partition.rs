//! What a gate keeps for each partition.

use std::time::Duration;

use super::stream_time::StreamTime;

/// The gate of one ownership.
#[derive(Debug)]
pub(crate) struct PartitionGate {
    pub(crate) stream: StreamTime,
    /// Events that are parked.
    pub(crate) parked: u64,
    /// Those of them that wait for stream time or for others, and are not released.
    pub(crate) waiting: u64,
    /// The bytes of the waiting ones.
    pub(crate) waiting_bytes: u64,
    /// When the end of the log is requested next.
    pub(crate) request_at: Duration,
    /// Since when the partition is full and nothing of it can run.
    pub(crate) stuck_since: Option<Duration>,
    /// With `first = "any"`: the stream time of the last check of all keys.
    pub(crate) scanned_ms: i64,
}

impl Default for PartitionGate {
    fn default() -> Self {
        PartitionGate::new(Duration::ZERO)
    }
}

impl PartitionGate {
    pub(crate) fn new(uptime: Duration) -> Self {
        PartitionGate {
            stream: StreamTime::new(uptime),
            parked: 0,
            waiting: 0,
            waiting_bytes: 0,
            request_at: Duration::ZERO,
            stuck_since: None,
            scanned_ms: 0,
        }
    }

    pub(super) fn parked(&mut self, bytes: u32, waits: bool) {
        self.parked += 1;
        if waits {
            self.waiting += 1;
            self.waiting_bytes += u64::from(bytes);
        }
    }

    pub(super) fn unparked(&mut self, bytes: u32, waited: bool) {
        self.parked -= 1;
        if waited {
            self.released(bytes);
        }
    }

    pub(crate) fn released(&mut self, bytes: u32) {
        self.waiting -= 1;
        self.waiting_bytes -= u64::from(bytes);
    }
}
