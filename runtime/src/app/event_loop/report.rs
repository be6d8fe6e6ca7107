//! What a handler has done: a line once a minute, and one at its end.

use std::time::Duration;

use keylane_core::Failures;

/// Between two lines.
const INTERVAL: Duration = Duration::from_mins(1);

/// When the last line was written, and what it said.
#[derive(Debug)]
pub(super) struct Report {
    at: Duration,
    settled: u64,
}

/// What a line says.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    /// Outputs that the brokers have.
    pub(super) outputs: u64,
    /// What became of events.
    pub(super) events: Failures,
}

impl Report {
    pub(super) fn new(now: Duration) -> Report {
        Report { at: now, settled: 0 }
    }

    pub(super) fn is_due(&self, now: Duration) -> bool {
        now >= self.at + INTERVAL
    }

    /// `lag`: offsets between the first event that is not settled and the end of the log, over all partitions.
    pub(super) fn log(&mut self, handler: &str, now: Duration, counts: &Counts, lag: i64) {
        let settled = counts.events.settled;
        let rate = per_second(settled - self.settled, now.saturating_sub(self.at));
        write(handler, counts, rate, Some(lag), "so far");
        *self = Report { at: now, settled };
    }
}

/// The last line. `active`: from the first read to the end.
pub(super) fn log_totals(handler: &str, counts: &Counts, active: Duration) {
    write(handler, counts, per_second(counts.events.settled, active), None, "in all");
}

fn write(handler: &str, counts: &Counts, rate: u64, lag: Option<i64>, what: &str) {
    let Counts { outputs, events } = *counts;
    let Failures { settled, filtered, dead_letters, skipped, retries, reruns } = events;
    tracing::info!(
        handler,
        settled,
        filtered,
        dead_letters,
        skipped,
        retries,
        reruns,
        outputs,
        rate,
        lag,
        "{what}"
    );
}

/// Rounded to what people read.
fn per_second(events: u64, time: Duration) -> u64 {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
    events.saturating_mul(1_000) / millis
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_due_once_a_minute() {
        let at = Duration::from_secs;
        let mut report = Report::new(at(10));
        assert!(!report.is_due(at(69)) && report.is_due(at(70)));
        let counts =
            Counts { outputs: 0, events: Failures { settled: 660, filtered: 60, ..Failures::default() } };
        report.log("t", at(71), &counts, 0);
        assert_eq!((report.is_due(at(130)), report.is_due(at(131)), report.settled), (false, true, 660));
        assert_eq!((per_second(600, at(60)), per_second(1, Duration::ZERO)), (10, 1_000));
    }
}
