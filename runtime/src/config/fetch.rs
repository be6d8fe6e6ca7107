//! Limits of prefetching: half of the memory budget, divided over all consumers and their partitions.

use super::checked::RuntimeConfig;

/// Minimum per partition: half in its queue, half in flight. A larger batch is still fetched, alone.
pub const FETCH_MIN: u64 = 64 << 10;
/// Maximum per partition. At a million events per second this many bytes outlast the client's pause between two
/// fetches. A larger value gains nothing. The maximum limits the excess memory if a topic gets more partitions while it
/// is read.
const FETCH_MAX: u64 = 4 << 20;
/// Maximum of one partition in one fetch response: 8 MiB was 2.2 times slower, because it exceeds the CPU caches.
const PARTITION_MAX: u64 = 1 << 20;
/// Range of one fetch response with all its partitions; the client requires at least the size of the largest record.
const RESPONSE: std::ops::RangeInclusive<u64> = (1 << 20)..=(16 << 20);

/// The fetch limits of one consumer, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchLimits {
    /// Size beyond which a partition's queue is not filled.
    pub queue_bytes: u64,
    /// Maximum of one partition in one fetch response. A response may be in flight when the queue is nearly full.
    pub partition_response_bytes: u64,
    /// Maximum of one fetch response.
    pub response_bytes: u64,
    /// Number of partitions for which the limits were calculated.
    pub partitions: u64,
}

impl FetchLimits {
    /// Returns the maximum number of prefetched bytes per partition; a single larger batch may exceed it.
    #[must_use]
    pub fn per_partition(&self) -> u64 {
        self.queue_bytes + self.partition_response_bytes
    }

    /// Returns the maximum number of prefetched bytes of all partitions.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.per_partition().saturating_mul(self.partitions)
    }
}

impl RuntimeConfig {
    /// Returns the fetch limits of one consumer that may own up to `partitions` partitions. `consumers`: the number of
    /// consumers that share the memory budget.
    #[must_use]
    pub fn fetch_limits(&self, consumers: u64, partitions: u64) -> FetchLimits {
        let (consumers, partitions) = (consumers.max(1), partitions.max(1));
        let share = self.memory_budget / 2 / consumers;
        let per_partition = (share / partitions).clamp(FETCH_MIN, FETCH_MAX);
        let partition_response_bytes = (per_partition / 2).min(PARTITION_MAX);
        FetchLimits {
            queue_bytes: per_partition - partition_response_bytes,
            partition_response_bytes,
            response_bytes: (share / 4).clamp(*RESPONSE.start(), *RESPONSE.end()),
            partitions,
        }
    }
}
