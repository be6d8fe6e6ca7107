//! What is observed of transactions, for the status and the metrics only.

use std::collections::VecDeque;
use std::time::Duration;

use keylane_core::{Histogram, Now, Partition};

/// The interval of the samples.
const INTERVAL: Duration = Duration::from_secs(1);
/// Number of samples: ten seconds, and the one before.
const SAMPLES: usize = 11;

/// Counters of transactions.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::app) struct TransactionTotals {
    pub(in crate::app) committed: u64,
    pub(in crate::app) aborted: u64,
    /// Records of committed transactions.
    pub(in crate::app) records: u64,
    /// The outputs among them.
    pub(in crate::app) outputs: u64,
}

/// A snapshot of the transactions of one handler.
#[derive(Clone, Debug, Default)]
pub(in crate::app) struct TransactionView {
    pub(in crate::app) totals: TransactionTotals,
    /// Bytes of effects that no committed transaction contains, as the core counts them.
    pub(in crate::app) kept_bytes: u64,
    /// How long committed transactions took, in microseconds.
    pub(in crate::app) times: Histogram,
    /// Those of about the last ten seconds.
    pub(in crate::app) recent: Option<RecentTransactions>,
    pub(in crate::app) last_abort: Option<LastAbort>,
    /// Why the brokers do not accept the producer at the moment.
    pub(in crate::app) unavailable: Option<String>,
    /// The partitions that transactions leave out, in ascending order, and why.
    pub(in crate::app) left_out: Vec<LeftOut>,
}

/// The committed transactions of about the last ten seconds.
#[derive(Clone, Copy, Debug)]
pub(in crate::app) struct RecentTransactions {
    /// Transactions per second.
    pub(in crate::app) rate: f64,
    /// Records per transaction; `None`: there was none.
    pub(in crate::app) records: Option<f64>,
    /// How long they took, in microseconds.
    pub(in crate::app) times: Histogram,
}

/// The last transaction that was aborted.
#[derive(Clone, Debug)]
pub(in crate::app) struct LastAbort {
    /// Milliseconds since 1970.
    pub(in crate::app) time_ms: i64,
    pub(in crate::app) reason: String,
}

/// A partition that transactions leave out.
#[derive(Clone, Debug)]
pub(in crate::app) struct LeftOut {
    pub(in crate::app) partition: Partition,
    pub(in crate::app) topic: String,
    pub(in crate::app) error: String,
}

/// What is remembered for snapshots.
#[derive(Debug, Default)]
pub(super) struct Observed {
    samples: VecDeque<Sample>,
    last_abort: Option<LastAbort>,
    pub(super) unavailable: Option<String>,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Duration,
    records: u64,
    times: Histogram,
}

impl Observed {
    /// Takes a sample, once a second. `times`: how long all committed transactions took.
    pub(super) fn sample(&mut self, now: Duration, totals: TransactionTotals, times: &Histogram) {
        if self.samples.back().is_some_and(|last| now < last.at + INTERVAL) {
            return;
        }
        if self.samples.len() == SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(Sample { at: now, records: totals.records, times: *times });
    }

    pub(super) fn aborted(&mut self, now: Now, reason: String) {
        self.last_abort = Some(LastAbort { time_ms: now.wall_ms, reason });
    }

    /// Adds what is remembered to a snapshot.
    pub(super) fn add_to(&self, view: &mut TransactionView) {
        view.recent = self.recent();
        view.last_abort.clone_from(&self.last_abort);
        view.unavailable.clone_from(&self.unavailable);
    }

    fn recent(&self) -> Option<RecentTransactions> {
        let (first, last) = (self.samples.front()?, self.samples.back()?);
        let seconds = (last.at - first.at).as_secs_f64();
        let times = last.times.since(&first.times);
        #[expect(clippy::cast_precision_loss, reason = "a rate is an approximation")]
        let (count, records) = (times.count() as f64, (last.records - first.records) as f64);
        (seconds > 0.0).then(|| RecentTransactions {
            rate: count / seconds,
            records: (count > 0.0).then(|| records / count),
            times,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recent_transactions_are_those_of_ten_seconds() {
        let (mut observed, mut totals, mut times) =
            (Observed::default(), TransactionTotals::default(), Histogram::default());
        let recent = |observed: &Observed| {
            let mut view = TransactionView::default();
            observed.add_to(&mut view);
            view.recent
        };
        for second in 0..30 {
            observed.sample(Duration::from_secs(second), totals, &times);
            observed.sample(Duration::from_millis(1_000 * second + 999), totals, &times);
            // Four transactions a second with 50 records each; later ones are slower.
            (0..4).for_each(|_| times.record(if second < 15 { 10 } else { 1_000 }));
            totals.records += 200;
        }
        let seen = recent(&observed).expect("there are samples");
        assert_eq!((seen.times.count(), seen.records), (40, Some(50.0)));
        assert!((seen.rate - 4.0).abs() < 1e-9, "{seen:?}");
        assert!(seen.times.quantile(0.01).is_some_and(|fastest| fastest >= 1_000), "{seen:?}");
        (30..50).for_each(|second| observed.sample(Duration::from_secs(second), totals, &times));
        let seen = recent(&observed).expect("there are samples");
        assert_eq!((seen.times.count(), seen.records), (0, None));
    }
}
