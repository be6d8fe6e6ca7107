//! Log lines of one handler: about its [`events`] and their calls, its [`group`] and commits, its [`transactions`], and
//! the core's [`notices`]. Lines that every event or every turn may cause are limited ([`limits`]).

mod events;
mod group;
mod keyed;
mod limits;
mod notices;
mod transactions;

use keylane_core::Partition;

use limits::LogLimits;
pub(super) use notices::StallDetails;

/// The log of one handler.
pub(in crate::app) struct HandlerLog {
    handler: String,
    topics: Vec<String>,
    limits: LogLimits,
}

impl HandlerLog {
    pub(in crate::app) fn new(handler: String, topics: Vec<String>) -> Self {
        HandlerLog { handler, topics, limits: LogLimits::new() }
    }

    pub(super) fn handler(&self) -> &str {
        &self.handler
    }

    pub(super) fn into_handler(self) -> String {
        self.handler
    }

    pub(super) fn topic(&self, partition: Partition) -> &str {
        self.topic_at(partition.topic)
    }

    pub(super) fn topic_at(&self, topic: u16) -> &str {
        self.topics.get(usize::from(topic)).map_or("?", String::as_str)
    }

    /// Returns the number of a topic.
    pub(super) fn topic_number(&self, topic: &str) -> u16 {
        let number = self.topics.iter().position(|known| known == topic);
        number.and_then(|number| u16::try_from(number).ok()).unwrap_or(u16::MAX)
    }

    /// Logs a failure, which prevents exit code 0. `message`: the condition, in constant words.
    pub(super) fn failure(&self, message: &'static str, failure: &str) {
        tracing::error!(handler = self.handler, failure, "{message}");
    }

    /// Logs the number of lines dropped after the last one of each cause. Called at the end of the loop.
    pub(super) fn log_dropped_lines(&mut self) {
        for (cause, dropped) in self.limits.take_dropped() {
            tracing::warn!(handler = self.handler, ?cause, dropped, "log lines dropped");
        }
    }
}
