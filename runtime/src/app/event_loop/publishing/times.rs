//! Which time an output carries: that of its event, or that of sending.

use crate::config::OutputTime;
use crate::sink::{Sink, TimeFit};

/// Counts the outputs that could not have the time that they should.
#[derive(Debug, Default)]
pub(super) struct Times {
    restamped: u64,
    /// Topics of the sink of which it was said that an output was older than what they keep.
    warned: Vec<u16>,
}

impl Times {
    /// In milliseconds since 1970; `None`: the time of sending. `event`: the time of the event, negative if it has none.
    pub(super) fn of(
        &mut self,
        wanted: OutputTime,
        (sink, topic): (&Sink, u16),
        event: i64,
        now: i64,
    ) -> Option<i64> {
        if wanted == OutputTime::Now || event < 0 {
            return None;
        }
        if event == 0 {
            self.restamped(); // the client takes it for no time
            return None;
        }
        match sink.time(topic, event, now) {
            TimeFit::Kept => {}
            TimeFit::Expired => self.warn_once(sink, topic, event),
            TimeFit::Refused => {
                self.restamped();
                return None;
            }
        }
        Some(event)
    }

    /// An output was sent again without its own time.
    pub(super) fn restamped(&mut self) {
        self.restamped += 1;
    }

    /// Outputs that carry the time of sending because their topics refuse that of their events.
    pub(super) fn count_restamped(&self) -> u64 {
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
            "an output carries the time of its event and is older than its topic keeps records: brokers may delete it \
             at once"
        );
    }
}
