//! The delay before another attempt.

use std::time::Duration;

use crate::{RetryPolicy, Row};

/// Returns the delay before the next attempt. Its jitter is a hash of seed, partition, offset and attempt.
pub(super) fn retry_delay(retry: &RetryPolicy, row: &Row, attempt: u32) -> Duration {
    let longest = retry.max_interval.as_secs_f64();
    let exponent = i32::try_from(attempt - 1).unwrap_or(i32::MAX);
    // Stay finite: zero times infinity is not a number.
    let growth = retry.multiplier.powi(exponent).min(f64::MAX);
    let plain = (retry.initial_interval.as_secs_f64() * growth).min(longest);
    let partition = u64::from(row.partition.topic) << 32 | u64::from(row.partition.number.unsigned_abs());
    let mixed = [partition, row.offset.unsigned_abs(), attempt.into()].into_iter().fold(retry.seed, mix);
    // A number from -1 to 1, made from 53 bits, which an f64 represents exactly.
    let spread = (mixed >> 11) as f64 / (1_u64 << 52) as f64 - 1.0;
    Duration::try_from_secs_f64(plain * (1.0 + retry.jitter * spread)).unwrap_or(retry.max_interval)
}

/// Mixes a value into the state, with one round of splitmix64.
fn mix(state: u64, value: u64) -> u64 {
    let mut mixed = (state ^ value).wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ArenaSlot, OwnershipId, Partition};

    fn row(offset: i64) -> Row {
        let partition = Partition { topic: 0, number: 3 };
        Row { partition, ownership: OwnershipId(1), offset, timestamp: -1, arena_slot: ArenaSlot(0) }
    }

    #[test]
    fn intervals_grow_to_their_limit() {
        let retry = RetryPolicy { jitter: 0.0, ..RetryPolicy::default() };
        let seconds: Vec<f64> =
            (1..10).map(|attempt| retry_delay(&retry, &row(7), attempt).as_secs_f64()).collect();
        assert_eq!(seconds, [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]);
        assert_eq!(retry_delay(&retry, &row(7), u32::MAX), retry.max_interval);
    }

    #[test]
    fn a_zero_interval_stays_zero() {
        let retry =
            RetryPolicy { initial_interval: Duration::ZERO, multiplier: 100.0, ..RetryPolicy::default() };
        assert_eq!(retry_delay(&retry, &row(7), u32::MAX), Duration::ZERO);
    }

    #[test]
    fn jitter_spreads_within_its_share_and_can_be_repeated() {
        let retry = RetryPolicy::default();
        let drawn: Vec<f64> =
            (0..1_000).map(|offset| retry_delay(&retry, &row(offset), 1).as_secs_f64()).collect();
        assert!(drawn.iter().all(|seconds| (0.4..=0.6).contains(seconds)), "{drawn:?}");
        let (low, high) =
            (drawn.iter().filter(|&&s| s < 0.45).count(), drawn.iter().filter(|&&s| s > 0.55).count());
        assert!(low > 150 && high > 150, "{low} low, {high} high of 1,000");
        assert_eq!(retry_delay(&retry, &row(5), 2), retry_delay(&retry, &row(5), 2));
        assert_ne!(
            retry_delay(&retry, &row(5), 2),
            retry_delay(&RetryPolicy { seed: 1, ..retry.clone() }, &row(5), 2)
        );
    }
}
