//! The topics whose acknowledgements a blocked event waits for.

use keylane_core::{Blockage, BlockedOn};

use crate::sink::SinkTopic;

use super::Publishing;

impl Publishing {
    /// Returns the topics of the event's records that are not all acknowledged; empty if it waits for something else.
    /// Of several topics, some may have acknowledged their records.
    pub(in crate::app::event_loop) fn awaited_topics(&self, blockage: &Blockage) -> Vec<String> {
        let waits = matches!(blockage.blocked_on, BlockedOn::OutputsUnacked | BlockedOn::DeadLetterUnacked);
        let Some((call, row)) = blockage.call_row.filter(|_| waits) else { return Vec::new() };
        let Some(pending_call) = self.calls.get(call) else { return Vec::new() };
        let topics = (0..).map(SinkTopic).zip(&self.topics);
        topics.filter(|(topic, _)| pending_call.awaits(row, *topic)).map(|(_, name)| name.clone()).collect()
    }
}
