//! The timestamp of an output: the time of its event, or the time of sending.

use crate::config::OutputTime;
use crate::sink::{Sink, SinkTopic, TimeFit};

/// Chooses timestamps, and counts the outputs that could not keep the time of their event.
#[derive(Debug)]
pub(super) struct OutputTimestamps {
    handler: String,
    restamped: u64,
    /// Topics of the sink for which the retention warning was logged.
    warned: Vec<SinkTopic>,
}

impl OutputTimestamps {
    pub(super) fn new(handler: String) -> Self {
        OutputTimestamps { handler, restamped: 0, warned: Vec::new() }
    }

    /// Returns the timestamp of an output in milliseconds since 1970; `None`: the time of sending. `event`: the time of
    /// the event, negative if it has none.
    pub(super) fn of(
        &mut self,
        configured: OutputTime,
        (sink, topic): (&Sink, SinkTopic),
        event: i64,
        now: i64,
    ) -> Option<i64> {
        let event = event_time(configured, event)?;
        if event == 0 {
            self.count_restamped(); // the client treats 0 as no timestamp
            return None;
        }
        match sink.timestamp_fit(topic, event, now) {
            TimeFit::Kept => {}
            TimeFit::Expired => self.warn_once(sink, topic, event),
            TimeFit::Rejected => {
                self.count_restamped();
                return None;
            }
        }
        Some(event)
    }

    /// Counts an output with the time of sending instead of the time of its event.
    pub(super) fn count_restamped(&mut self) {
        self.restamped += 1;
    }

    /// Returns the number of outputs with the time of sending because they could not keep the time of their event.
    pub(super) fn restamped(&self) -> u64 {
        self.restamped
    }

    fn warn_once(&mut self, sink: &Sink, topic: SinkTopic, event_time: i64) {
        if self.warned.contains(&topic) {
            return;
        }
        self.warned.push(topic);
        tracing::warn!(
            handler = self.handler,
            topic = sink.topic_name(topic),
            event_time,
            remedy = "set `timestamp = \"now\"` for this output, or raise the topic's `retention.ms`",
            "output timestamp is older than the topic's retention; brokers may delete the record at once"
        );
    }
}

/// Returns the timestamp that is configured for the output; `None`: the time of sending.
fn event_time(configured: OutputTime, event: i64) -> Option<i64> {
    match configured {
        OutputTime::Input => (event >= 0).then_some(event),
        OutputTime::Now => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Today's producers always write a timestamp, but logs of old brokers contain records without one.
    #[test]
    fn an_output_of_an_event_without_a_time_has_the_time_of_sending() {
        assert_eq!(event_time(OutputTime::Input, 1_700_000_000_000), Some(1_700_000_000_000));
        assert_eq!(event_time(OutputTime::Input, -1), None);
        assert_eq!(event_time(OutputTime::Now, 1_700_000_000_000), None);
    }
}
