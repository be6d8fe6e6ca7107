//! How long guest calls take, and how they end.

use std::collections::VecDeque;
use std::time::Duration;

use keylane_core::{CallId, Histogram, Verdict};

use crate::guest::{Call, CallStatus};

use super::micros;

/// Number of samples, a second apart, that the recent times are taken from.
const SAMPLES: usize = 10;

/// The results of guest calls for their events, as labels of a metric.
pub(in crate::app) const CALL_RESULTS: [&str; 4] = ["done", "retry", "rejected", "failed"];

/// Number of events of calls by result, in the order of [`CALL_RESULTS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::app) struct CallResults(pub(in crate::app) [u64; CALL_RESULTS.len()]);

/// The durations of calls, in microseconds: from dispatch to the handling of their end.
#[derive(Debug, Default)]
pub(super) struct CallTimes {
    /// When the call of each slot began.
    began: Vec<Duration>,
    all: Histogram,
    /// The durations of the calls that failed as a whole.
    failed: Histogram,
    /// The durations as of the last samples.
    samples: VecDeque<Histogram>,
    results: CallResults,
}

impl CallTimes {
    pub(super) fn began(&mut self, call: CallId, now: Duration) {
        let slot = call.slot as usize;
        if self.began.len() <= slot {
            self.began.resize(slot + 1, now);
        }
        if let Some(began) = self.began.get_mut(slot) {
            *began = now;
        }
    }

    pub(super) fn ended(&mut self, call: &Call, now: Duration) {
        if let Some(began) = self.began.get(call.key.call.slot as usize) {
            let duration = micros(now.saturating_sub(*began));
            self.all.record(duration);
            if matches!(call.status, CallStatus::Failed(_)) {
                self.failed.record(duration);
            }
        }
        let [done, retry, rejected, failed] = &mut self.results.0;
        let done_rows = call.results.lane_ends().iter().map(|end| u64::from(end.done)).sum::<u64>();
        *done += done_rows;
        for (_, stopped) in call.failed_rows() {
            match stopped.verdict {
                Verdict::Retry { .. } => *retry += 1,
                Verdict::Reject | Verdict::Unpublishable => *rejected += 1,
            }
        }
        if matches!(call.status, CallStatus::Failed(_)) {
            *failed += (call.batch.rows() as u64).saturating_sub(done_rows);
        }
    }

    pub(super) fn sample(&mut self) {
        if self.samples.len() == SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(self.all);
    }

    /// Returns the durations of all calls.
    pub(super) fn all(&self) -> Histogram {
        self.all
    }

    /// Returns the durations of the calls that failed as a whole.
    pub(super) fn failed(&self) -> Histogram {
        self.failed
    }

    /// Returns the durations of the calls of about the last ten seconds.
    pub(super) fn recent(&self) -> Histogram {
        self.samples.front().map_or(self.all, |first| self.all.since(first))
    }

    pub(super) fn results(&self) -> CallResults {
        self.results
    }
}
