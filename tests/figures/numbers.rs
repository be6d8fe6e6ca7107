//! Counts and seconds as floating-point numbers, medians, and their formatting.

use std::time::Duration;

/// A count for arithmetic with rates; exact below 2^53.
#[expect(clippy::cast_precision_loss, reason = "counts of a measurement are far below 2^53")]
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}

/// Events per second.
pub(crate) fn rate(events: u64, time: Duration) -> f64 {
    float(events) / time.as_secs_f64()
}

/// Microseconds of `time` for each event.
pub(crate) fn micros_each(events: u64, time: Duration) -> f64 {
    time.as_secs_f64() * 1e6 / float(events)
}

/// Bytes in MiB.
pub(crate) fn mebibytes(bytes: u64) -> f64 {
    float(bytes) / 1_048_576.0
}

/// The median of several measurements, and their range.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Median {
    pub(crate) middle: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Median {
    /// `None`: nothing was measured.
    pub(crate) fn of(measured: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = measured.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let upper = *sorted.get(sorted.len() / 2)?;
        let lower = *sorted.get((sorted.len() - 1) / 2)?;
        Some(Self { middle: f64::midpoint(lower, upper), least: *sorted.first()?, most: *sorted.last()? })
    }

    /// `1.25 (1.20–1.31)`, with this many decimals.
    pub(crate) fn text(self, decimals: usize) -> String {
        let format = |number| format_number(number, decimals);
        format!("{} ({}–{})", format(self.middle), format(self.least), format(self.most))
    }
}

/// A number with this many decimals and commas between thousands.
pub(crate) fn format_number(number: f64, decimals: usize) -> String {
    let plain = format!("{number:.decimals$}");
    let (whole, rest) = plain.split_at(plain.find('.').unwrap_or(plain.len()));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        let following = whole.len() - index;
        if following.is_multiple_of(3) && grouped.ends_with(|last: char| last.is_ascii_digit()) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_several() {
        let median = Median::of([3.0, 1.0, 2.0]).expect("three numbers");
        assert_eq!(median, Median { middle: 2.0, least: 1.0, most: 3.0 });
        assert_eq!(Median::of([4.0, 1.0, 2.0, 3.0]).map(|median| median.middle), Some(2.5));
        assert_eq!(Median::of([]), None);
    }

    #[test]
    fn thousands_have_commas() {
        assert_eq!(format_number(1_234_567.0, 0), "1,234,567");
        assert_eq!(format_number(-123.456, 1), "-123.5");
        assert_eq!(format_number(999.0, 2), "999.00");
        assert_eq!(format_number(123_456.7, 1), "123,456.7");
    }
}
