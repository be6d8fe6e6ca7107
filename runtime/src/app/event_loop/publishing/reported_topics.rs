//! The topics that reports name as the cause: of the unacknowledged records of a blocked event, and of queued outputs that
//! block new calls.

use keylane_core::{Blockage, BlockedOn};

use crate::sink::SinkTopic;

use super::Publishing;

impl Publishing {
    /// Returns the topics to which the event's outputs, or its dead letter, were sent, while any of these records is
    /// unacknowledged; empty if the event waits for something else. If there are several topics, the records of some
    /// may all be acknowledged already.
    pub(in crate::app::event_loop) fn awaited_topics(&self, blockage: &Blockage) -> Vec<String> {
        let waits = matches!(blockage.blocked_on, BlockedOn::OutputsUnacked | BlockedOn::DeadLetterUnacked);
        let Some((call, row)) = blockage.call_row.filter(|_| waits) else { return Vec::new() };
        let Some(pending_call) = self.calls.get(call) else { return Vec::new() };
        let topics = (0..).map(SinkTopic).zip(&self.topics);
        topics.filter(|(topic, _)| pending_call.awaits(row, *topic)).map(|(_, name)| name.clone()).collect()
    }

    /// Returns the topic with the most queued outputs, while they block new calls.
    pub(in crate::app::event_loop) fn blocking_topic(&self) -> Option<&str> {
        self.backlog.fullest().and_then(|topic| self.topics.get(topic)).map(String::as_str)
    }
}
