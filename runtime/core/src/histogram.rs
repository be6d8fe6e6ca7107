//! Histograms: counts of values by size, with one writer.

/// The number of buckets with a bound. Bucket `n` counts values up to 2.5ⁿ, rounded down.
pub const BUCKETS: usize = 21;

/// The bounds of the buckets. The unit is that of the histogram.
pub const BOUNDS: [u64; BUCKETS] = [
    1, 2, 6, 15, 39, 97, 244, 610, 1_525, 3_814, 9_536, 23_841, 59_604, 149_011, 372_529, 931_322, 2_328_306,
    5_820_766, 14_551_915, 36_379_788, 90_949_470,
];

/// The first bucket whose bound has at least this many bits: values of one bit length are in it, or in the next one.
const FIRST: [u8; 65] = first_buckets();

/// Counts of values by size. Values above all bounds are counted in a last bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; BUCKETS + 1],
    sum: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { counts: [0; BUCKETS + 1], sum: 0 }
    }
}

impl Histogram {
    /// Counts a value.
    #[inline]
    pub fn record(&mut self, value: u64) {
        let bits = (u64::BITS - value.leading_zeros()) as usize;
        let mut bucket = usize::from(FIRST.get(bits).copied().unwrap_or(0));
        while BOUNDS.get(bucket).is_some_and(|&bound| bound < value) {
            bucket += 1;
        }
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.sum = self.sum.saturating_add(value);
    }

    /// Returns the counts by bucket; the last one is that of the values above all bounds.
    pub fn counts(&self) -> &[u64; BUCKETS + 1] {
        &self.counts
    }

    /// Returns the sum of the values.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// Returns the number of values.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Returns the values that were counted after `before`, an earlier state of this histogram.
    #[must_use]
    pub fn since(&self, before: &Histogram) -> Histogram {
        let mut counts = self.counts;
        for (count, before) in counts.iter_mut().zip(&before.counts) {
            *count -= before;
        }
        Histogram { counts, sum: self.sum.saturating_sub(before.sum) }
    }

    /// Returns an upper bound of this share of the values, 0 to 1: the bound of their bucket. `None`: there are no
    /// values, or the bucket has no bound.
    pub fn quantile(&self, share: f64) -> Option<u64> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rank may be off by one in 2^52"
        )]
        let rank = ((count as f64 * share).ceil() as u64).max(1);
        let mut below = 0;
        let bucket = self.counts.iter().position(|count| {
            below += count;
            below >= rank
        })?;
        BOUNDS.get(bucket).copied()
    }
}

#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const fn first_buckets() -> [u8; 65] {
    let mut first = [0; 65];
    let mut bits = 0;
    let mut bucket: u8 = 0;
    while bits < 65 {
        while (bucket as usize) < BUCKETS && (u64::BITS - BOUNDS[bucket as usize].leading_zeros()) < bits {
            bucket += 1;
        }
        first[bits as usize] = bucket;
        bits += 1;
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[u64]) -> Histogram {
        let mut histogram = Histogram::default();
        values.iter().for_each(|&value| histogram.record(value));
        histogram
    }

    #[test]
    fn a_value_is_counted_in_the_first_bucket_whose_bound_is_not_below_it() {
        let bounds = BOUNDS.iter().flat_map(|&bound| [bound - 1, bound, bound + 1]);
        for value in bounds.chain([0, 1 << 40, u64::MAX]) {
            let expected = BOUNDS.partition_point(|&bound| bound < value);
            let counted = of(&[value]).counts.iter().position(|&count| count == 1);
            assert_eq!(counted, Some(expected), "{value}");
        }
    }

    #[test]
    fn a_quantile_is_the_bound_of_its_bucket() {
        assert_eq!(of(&[]).quantile(0.5), None);
        let values = of(&[1, 1, 10, 10, 10, 10, 10, 10, 10, 700]);
        assert_eq!(
            [0.0, 0.2, 0.5, 0.9, 1.0].map(|share| values.quantile(share)),
            [1, 1, 15, 15, 1_525].map(Some)
        );
        assert_eq!(of(&[u64::MAX]).quantile(0.5), None);
        let later = of(&[1, 1, 10, 10, 10, 10, 10, 10, 10, 700, 20, 20]);
        assert_eq!(later.since(&values), of(&[20, 20]));
    }
}
