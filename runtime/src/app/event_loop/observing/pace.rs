//! The pace of the handler: its rates over the last ten seconds, and what limited it. One sample is taken each second.

use std::collections::VecDeque;
use std::time::Duration;

use keylane_core::{Counters, Load};

/// The interval of the samples.
const INTERVAL: Duration = Duration::from_secs(1);
/// Number of samples: ten seconds, and the one before.
const SAMPLES: usize = 11;
/// A handler that is at most this many events behind its logs has caught up.
const CAUGHT_UP_LAG: u64 = 100;
/// With at least this many lanes, a handler whose calls wait is limited by what they wait for, not by its number of
/// lanes.
const MANY_LANES: usize = 16;

/// What limits a handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::app) enum LimitedBy {
    /// Nothing: the handler keeps up with its topics.
    CaughtUp,
    /// The fetching of records.
    Fetch,
    /// The workers: lanes wait for a worker.
    Cpu,
    /// The limit of concurrent calls: lanes wait for a call.
    Concurrency,
    /// The number of lanes with events: each waits for its own call.
    Lanes,
    /// Failed events: lanes wait for their next attempt.
    Retries,
    /// Outputs that are queued, or not acknowledged.
    Outputs,
    /// What the calls wait for.
    Service,
}

/// Number of causes.
const CAUSES: usize = 8;

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Duration,
    cause: LimitedBy,
    load: Load,
    settled: u64,
    retries: u64,
    dead_letters: u64,
    lag: u64,
}

#[derive(Debug, Default)]
pub(super) struct Pace {
    samples: VecDeque<Sample>,
}

/// A snapshot of the pace.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(in crate::app) struct PaceView {
    /// The most frequent cause in the samples, and the load of the last sample with it; `None`: there are none.
    pub(in crate::app) cause: Option<(LimitedBy, Load)>,
    pub(in crate::app) rates: Option<Rates>,
    /// Number of offsets up to the ends of the logs that were not settled at the last sample.
    pub(in crate::app) lag: u64,
}

/// Rates per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(in crate::app) struct Rates {
    pub(in crate::app) settled: f64,
    pub(in crate::app) retries: f64,
    pub(in crate::app) dead_letters: f64,
    /// How fast the lag decreases.
    pub(in crate::app) catching_up: f64,
}

impl Pace {
    pub(super) fn is_due(&self, now: Duration) -> bool {
        self.samples.back().is_none_or(|last| now >= last.at + INTERVAL)
    }

    pub(super) fn sample(&mut self, now: Duration, load: Load, counters: Counters, lag: u64) {
        if self.samples.len() == SAMPLES {
            self.samples.pop_front();
        }
        let Counters { settled, retries, dead_letters, .. } = counters;
        let cause = cause(load, lag, self.settled_since_last(settled));
        self.samples.push_back(Sample { at: now, cause, load, settled, retries, dead_letters, lag });
    }

    /// Forgets the samples: after a rebalance, the lag is that of other partitions.
    pub(super) fn restart(&mut self) {
        self.samples.clear();
    }

    fn settled_since_last(&self, settled: u64) -> u64 {
        self.samples.back().map_or(0, |last| settled - last.settled)
    }

    pub(super) fn view(&self) -> PaceView {
        let mut counts = [0_u32; CAUSES];
        let mut most = None;
        // Of equally frequent causes the latest counts.
        for sample in &self.samples {
            let Some(count) = counts.get_mut(sample.cause as usize) else { continue };
            *count += 1;
            if most.is_none_or(|(_, highest)| *count >= highest) {
                most = Some((sample.cause, *count));
            }
        }
        PaceView {
            cause: most.and_then(|(cause, _)| self.load_with(cause)),
            rates: self.rates(),
            lag: self.samples.back().map_or(0, |last| last.lag),
        }
    }

    fn load_with(&self, cause: LimitedBy) -> Option<(LimitedBy, Load)> {
        let last = self.samples.iter().rev().find(|sample| sample.cause == cause)?;
        Some((cause, last.load))
    }

    fn rates(&self) -> Option<Rates> {
        let (first, last) = (self.samples.front()?, self.samples.back()?);
        let seconds = (last.at - first.at).as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a rate is an approximation")]
        let rate = |before: u64, after: u64| (after as f64 - before as f64) / seconds;
        (seconds > 0.0).then(|| Rates {
            settled: rate(first.settled, last.settled),
            retries: rate(first.retries, last.retries),
            dead_letters: rate(first.dead_letters, last.dead_letters),
            catching_up: -rate(first.lag, last.lag),
        })
    }
}

/// Returns what limits a handler at this moment. `recent`: the number of events that settled in the last second.
fn cause(load: Load, lag: u64, recent: u64) -> LimitedBy {
    let Load {
        lanes,
        ready_lanes,
        delayed_lanes,
        calls,
        suspended_calls,
        at_call_limit,
        output_backlog_full,
    } = load;
    let calls_wait = 2 * suspended_calls > calls;
    if output_backlog_full {
        return LimitedBy::Outputs;
    }
    if ready_lanes > 0 {
        return match (at_call_limit, calls_wait) {
            (true, true) => LimitedBy::Service,
            (true, false) => LimitedBy::Concurrency,
            (false, _) => LimitedBy::Cpu,
        };
    }
    if lanes > 0 && calls == 0 {
        return if delayed_lanes > 0 { LimitedBy::Retries } else { LimitedBy::Outputs };
    }
    if lag <= CAUGHT_UP_LAG.max(recent) {
        let waits_for_service = calls_wait && lag > calls.into() && lanes >= MANY_LANES;
        return if waits_for_service { LimitedBy::Service } else { LimitedBy::CaughtUp };
    }
    match (lanes, calls_wait) {
        (0, _) => LimitedBy::Fetch,
        // With few lanes, more calls would not help: each lane waits for its own.
        (lanes, true) if lanes > calls as usize || lanes >= MANY_LANES => LimitedBy::Service,
        (_, true | false) => LimitedBy::Lanes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Load = Load {
        lanes: 0,
        ready_lanes: 0,
        delayed_lanes: 0,
        calls: 0,
        suspended_calls: 0,
        at_call_limit: false,
        output_backlog_full: false,
    };

    #[test]
    fn the_cause_is_what_the_next_event_waits_for() {
        let busy = Load { lanes: 10, calls: 4, ..IDLE };
        for (expected, load, lag) in [
            (LimitedBy::CaughtUp, IDLE, 0),
            (LimitedBy::CaughtUp, busy, 5),
            (LimitedBy::Fetch, IDLE, 10_000),
            (LimitedBy::Cpu, Load { ready_lanes: 3, ..busy }, 10_000),
            (LimitedBy::Concurrency, Load { ready_lanes: 3, at_call_limit: true, ..busy }, 10_000),
            (
                LimitedBy::Service,
                Load { ready_lanes: 3, at_call_limit: true, suspended_calls: 3, ..busy },
                10_000,
            ),
            (LimitedBy::Service, Load { lanes: 40, calls: 40, suspended_calls: 40, ..busy }, 10_000),
            (LimitedBy::Lanes, Load { lanes: 4, suspended_calls: 4, ..busy }, 10_000),
            (LimitedBy::Lanes, busy, 10_000),
            (LimitedBy::Retries, Load { calls: 0, delayed_lanes: 1, ..busy }, 10),
            (LimitedBy::Outputs, Load { calls: 0, ..busy }, 10),
            (LimitedBy::Outputs, Load { output_backlog_full: true, ready_lanes: 3, ..busy }, 10),
        ] {
            assert_eq!(cause(load, lag, 0), expected, "{load:?}, lag {lag}");
        }
        assert_eq!(cause(IDLE, 10_000, 20_000), LimitedBy::CaughtUp, "the lag is half a second of work");
    }

    #[test]
    fn the_most_frequent_cause_of_ten_seconds_is_shown_with_the_rates() {
        let mut pace = Pace::default();
        assert_eq!(pace.view(), PaceView::default());
        for second in 0..20_u64 {
            let now = Duration::from_secs(second);
            assert!(pace.is_due(now));
            let load = if second == 19 { IDLE } else { Load { ready_lanes: 1, lanes: 1, calls: 1, ..IDLE } };
            let counters = Counters { settled: 100 * second, ..Counters::default() };
            pace.sample(now, load, counters, 5_000 - 50 * second);
            assert!(!pace.is_due(now + Duration::from_millis(999)));
        }
        let view = pace.view();
        let rates = view.rates.expect("there are two samples");
        assert_eq!(
            (view.cause.map(|(cause, load)| (cause, load.ready_lanes)), view.lag),
            (Some((LimitedBy::Cpu, 1)), 4_050)
        );
        assert!((rates.settled - 100.0).abs() < 1e-9 && (rates.catching_up - 50.0).abs() < 1e-9, "{rates:?}");
    }
}
