//! How long events took, as histograms.

use crate::{Histogram, Now};

/// How long events took so far, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventTimes {
    /// From the read of an event to its first dispatch.
    pub lane_wait: Histogram,
    /// From the time of a record to the settling of its event. Events that a filter dropped, and records without a
    /// time, are not counted.
    pub event_age: Histogram,
    /// The stream time for which a window has held an event back.
    pub gate_wait: Histogram,
}

impl EventTimes {
    pub(crate) fn record_dispatched(&mut self, admitted_ms: u32, now: Now) {
        self.lane_wait.record(now.uptime_ms().wrapping_sub(admitted_ms).into());
    }

    pub(crate) fn record_gate_wait(&mut self, milliseconds: u64) {
        self.gate_wait.record(milliseconds);
    }

    pub(crate) fn record_settled(&mut self, timestamp: i64, now: Now) {
        if timestamp >= 0 {
            // The clock of the producer may be ahead.
            self.event_age.record(u64::try_from(now.wall_ms - timestamp).unwrap_or(0));
        }
    }
}
