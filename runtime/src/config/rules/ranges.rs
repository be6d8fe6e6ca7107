//! The ranges of settings that are numbers, sizes or durations. The schema and the reference show those of numbers.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::super::duration::HumanDuration;
use super::super::problem::Problems;
use super::super::size::HumanSize;

/// Bounds of a duration, in milliseconds.
type Millis = RangeInclusive<u64>;

/// The minimum is enough for one partition's fetch queue and one large event.
pub(in crate::config) const MEMORY_BUDGET: RangeInclusive<u64> = 8 << 20..=1 << 40;
/// Up to the address space of 32-bit WebAssembly; a component needs at least a few pages to start.
pub(in crate::config) const GUEST_MEMORY: RangeInclusive<u64> = 1 << 20..=4 << 30;
/// From the smallest limit that brokers use to the client's maximum.
pub(in crate::config) const OUTPUT_BYTES: RangeInclusive<u64> = 1 << 10..=1_000_000_000;
/// Deadlines of waiting calls are checked every 10 ms.
pub(in crate::config) const CALL_TIMEOUT: Millis = 10..=3_600_000;
/// A longer timeout would delay the restart in which a supervisor supplies valid credentials.
pub(in crate::config) const AUTH_TIMEOUT: Millis = 0..=3_600_000;
pub(in crate::config) const DRAIN_TIMEOUT: Millis = 0..=3_600_000;
/// With a shorter interval commits would dominate the coordinator's load.
pub(in crate::config) const COMMIT_INTERVAL: Millis = 10..=3_600_000;
/// A rebalance waits for commits. Its timeout is five minutes by default.
pub(in crate::config) const COMMIT_TIMEOUT: Millis = 100..=60_000;
/// With a shorter interval transactions would dominate the brokers' load.
pub(in crate::config) const TRANSACTION_INTERVAL: Millis = 10..=60_000;
/// From the time that a slow broker needs to the brokers' default of `transaction.max.timeout.ms`.
pub(in crate::config) const TRANSACTION_TIMEOUT: Millis = 5_000..=900_000;
pub(in crate::config) const UNCOMMITTED: RangeInclusive<u64> = 1..=1_000_000_000;
pub(in crate::config) const UNCOMMITTED_AGE: Millis = 20..=3_600_000;
pub(in crate::config) const TRANSACTION_BYTES: RangeInclusive<u64> = 1 << 16..=1 << 30;
/// From the smallest useful state to the largest record that brokers usually accept.
pub(in crate::config) const STATE_BYTES: RangeInclusive<u64> = 1 << 6..=1 << 28;
pub(in crate::config) const STATE_VERSION: RangeInclusive<u32> = 1..=u32::MAX;
pub(in crate::config) const STATE_CACHE: RangeInclusive<u64> = 1 << 20..=1 << 40;
pub(in crate::config) const STATE_KEEP: Millis = 0..=30 * 86_400_000;
/// From the shortest interval between two searches for old states.
pub(in crate::config) const STATE_FORGET: Millis = 1_000..=3650 * 86_400_000;

/// The first value of a key, far from the ends of the type: values are compared by their distance, too.
pub(in crate::config) const FIRST: RangeInclusive<i64> = i64::MIN / 2..=i64::MAX / 2;
pub(in crate::config) const FIRST_WAIT: Millis = 0..=86_400_000;
pub(in crate::config) const GAP_TIMEOUT: Millis = 10..=86_400_000;
pub(in crate::config) const MAX_EARLY: RangeInclusive<u32> = 1..=1_000_000;
pub(in crate::config) const AHEAD_OF_MARK: RangeInclusive<u64> = 1..=i64::MAX as u64;
pub(in crate::config) const AHEAD_OF_CLOCK: Millis = 0..=3650 * 86_400_000;
pub(in crate::config) const SKEW_TOLERANCE: Millis = 0..=86_400_000;
/// Every event waits that long.
pub(in crate::config) const WINDOW: Millis = 1..=3_600_000;
pub(in crate::config) const MAX_WAITING: RangeInclusive<u32> = 1..=1_000_000;
pub(in crate::config) const MAX_WAITING_BYTES: RangeInclusive<u64> = 1 << 16..=1 << 40;
/// From a time within which clocks agree. Topics that may be a day apart need not be read in step.
pub(in crate::config) const READ_IN_STEP: Millis = 10..=86_400_000;
/// From a few hundred keys.
pub(in crate::config) const MARKS_MEMORY: RangeInclusive<u64> = 1 << 16..=1 << 40;
pub(in crate::config) const DUPLICATES_KEEP: RangeInclusive<u32> = 1..=1_000;
pub(in crate::config) const DUPLICATES_WINDOW: Millis = 1_000..=30 * 86_400_000;

/// A rebalance waits for revokes, too.
pub(in crate::config) const REVOKE_TIMEOUT: Millis = 0..=120_000;

/// The wait between two attempts.
pub(in crate::config) const RETRY_INTERVAL: Millis = 0..=86_400_000;
pub(in crate::config) const MAX_ATTEMPTS: RangeInclusive<u32> = 1..=1_000_000;
pub(in crate::config) const RETRY_MULTIPLIER: RangeInclusive<f64> = 1.0..=100.0;
pub(in crate::config) const RETRY_JITTER: RangeInclusive<f64> = 0.0..=1.0;
pub(in crate::config) const ALERT_AFTER_REDRIVES: RangeInclusive<u32> = 0..=1_000;

pub(in crate::config) const MAX_BATCH: RangeInclusive<u32> = 1..=4_096;
pub(in crate::config) const MAX_CALLS: RangeInclusive<u32> = 1..=u32::MAX;
pub(in crate::config) const MAX_CONCURRENCY: RangeInclusive<u32> = 1..=100_000;
pub(in crate::config) const MAX_QUEUED: RangeInclusive<u32> = 1..=10_000_000;
pub(in crate::config) const MAX_WINDOW: RangeInclusive<u64> = 1..=1_000_000_000;
pub(in crate::config) const COMMIT_EVERY: RangeInclusive<u64> = 1..=1_000_000_000;
pub(in crate::config) const METADATA_LIMIT: RangeInclusive<usize> = 0..=65_536;

pub(in crate::config) const WORKERS: RangeInclusive<usize> = 1..=1_024;
pub(in crate::config) const EMBEDDED_PARTITIONS: RangeInclusive<u16> = 1..=64;

/// Checks the range of a number. A value outside is reported.
pub(super) fn number(
    problems: &mut Problems<'_, '_>,
    path: &[&str],
    value: f64,
    range: RangeInclusive<f64>,
) -> f64 {
    if !range.contains(&value) {
        outside(problems, path, range.start(), range.end(), &value);
    }
    value
}

/// Checks the range of a whole number. A value outside is reported and replaced by the minimum.
pub(super) fn whole<T>(
    problems: &mut Problems<'_, '_>,
    path: &[&str],
    value: i64,
    range: RangeInclusive<T>,
) -> T
where
    T: TryFrom<i64> + PartialOrd + Copy + Display,
{
    match T::try_from(value) {
        Ok(number) if range.contains(&number) => number,
        Ok(_) | Err(_) => {
            outside(problems, path, range.start(), range.end(), &value);
            *range.start()
        }
    }
}

/// Checks the range of a size and returns its bytes. A value outside is reported.
pub(super) fn size(
    problems: &mut Problems<'_, '_>,
    path: &[&str],
    value: HumanSize,
    range: RangeInclusive<u64>,
) -> u64 {
    if !range.contains(&value.0) {
        outside(problems, path, &HumanSize(*range.start()), &HumanSize(*range.end()), &value);
    }
    value.0
}

/// Checks the range of a duration. A value outside is reported.
pub(super) fn time(
    problems: &mut Problems<'_, '_>,
    path: &[&str],
    value: HumanDuration,
    range: Millis,
) -> Duration {
    let (low, high) = (HumanDuration::from_millis(*range.start()), HumanDuration::from_millis(*range.end()));
    if !(low..=high).contains(&value) {
        outside(problems, path, &low, &high, &value);
    }
    value.0
}

fn outside(
    problems: &mut Problems<'_, '_>,
    path: &[&str],
    low: &dyn Display,
    high: &dyn Display,
    value: &dyn Display,
) {
    let name = path.join(".");
    problems.add(path, format!("`{name}` must be between {low} and {high}, not {value}"));
}
