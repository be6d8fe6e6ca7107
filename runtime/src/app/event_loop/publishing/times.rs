//! The timestamp of an output: the time of its event, or the time of sending.

use crate::config::OutputTime;
use crate::sink::{Sink, TimeFit};

/// Chooses timestamps, and counts the outputs that could not have the configured one.
#[derive(Debug, Default)]
pub(super) struct Times {
    restamped: u64,
    /// Topics of the sink for which the retention warning was logged.
    warned: Vec<u16>,
}

impl Times {
    /// The timestamp in milliseconds since 1970; `None`: the time of sending. `event`: the time of the event, negative if
    /// it has none.
    pub(super) fn of(
        &mut self,
        configured: OutputTime,
        (sink, topic): (&Sink, u16),
        event: i64,
        now: i64,
    ) -> Option<i64> {
        if configured == OutputTime::Now || event < 0 {
            return None;
        }
        if event == 0 {
            self.count_restamped(); // the client treats 0 as no timestamp
            return None;
        }
        match sink.time(topic, event, now) {
            TimeFit::Kept => {}
            TimeFit::Expired => self.warn_once(sink, topic, event),
            TimeFit::Rejected => {
                self.count_restamped();
                return None;
            }
        }
        Some(event)
    }

    /// Counts an output that carries the time of sending instead of its own.
    pub(super) fn count_restamped(&mut self) {
        self.restamped += 1;
    }

    /// Number of outputs with the time of sending, because they could not keep the time of their event.
    pub(super) fn restamped(&self) -> u64 {
        self.restamped
    }

    fn warn_once(&mut self, sink: &Sink, topic: u16, event_time: i64) {
        if self.warned.contains(&topic) {
            return;
        }
        self.warned.push(topic);
        tracing::warn!(
            topic = sink.topic_name(topic),
            event_time,
            remedy = "set `timestamp = \"now\"` for this output, or raise the topic's `retention.ms`",
            "output with the time of its event is older than its topic keeps records: brokers may delete it at once"
        );
    }
}
