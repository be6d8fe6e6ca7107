//! How far consumers may fetch ahead: half of the memory budget, over all consumers and their partitions.

use super::checked::RuntimeConfig;

/// The least that a partition may take: half in its queue, half on its way. A larger batch is fetched all the same, alone.
pub const FETCH_MIN: u64 = 64 << 10;
/// The most: at a million events a second it lasts longer than the client pauses between two fetches. More gains nothing,
/// and a topic that gets more partitions while it is read does not take many times the budget.
const FETCH_MAX: u64 = 4 << 20;
/// The most of one partition in one answer of a broker: 8 MiB was 2.2 times slower, it falls out of the caches.
const PARTITION_MAX: u64 = 1 << 20;
/// One answer with all its partitions; the client wants at least what the largest record may take.
const RESPONSE: std::ops::RangeInclusive<u64> = (1 << 20)..=(16 << 20);

/// What one consumer is told. All in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchLimits {
    /// A partition's queue with so much in it is not filled further.
    pub queue: u64,
    /// Of one partition in one answer; what is on its way when the queue is nearly full.
    pub of_partition: u64,
    /// One answer.
    pub response: u64,
    /// Partitions that it was made for.
    pub partitions: u64,
}

impl FetchLimits {
    /// What a partition takes at the most, unless one batch alone is larger.
    #[must_use]
    pub fn each(&self) -> u64 {
        self.queue + self.of_partition
    }

    /// What all of its partitions take at the most.
    #[must_use]
    pub fn all(&self) -> u64 {
        self.each().saturating_mul(self.partitions)
    }
}

impl RuntimeConfig {
    /// For each of so many consumers, if this one may own so many partitions.
    #[must_use]
    pub fn fetch_limits(&self, consumers: u64, partitions: u64) -> FetchLimits {
        let (consumers, partitions) = (consumers.max(1), partitions.max(1));
        let share = self.memory_budget / 2 / consumers;
        let each = (share / partitions).clamp(FETCH_MIN, FETCH_MAX);
        let of_partition = (each / 2).min(PARTITION_MAX);
        FetchLimits {
            queue: each - of_partition,
            of_partition,
            response: (share / 4).clamp(*RESPONSE.start(), *RESPONSE.end()),
            partitions,
        }
    }
}
