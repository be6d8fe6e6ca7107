//! Dead letters that the brokers rejected for a reason other than their size, or in their smallest form. No event may
//! be settled without its dead letter, so they are retried: one of them as a probe after each pause, and all others
//! when the probe is stored.

use std::collections::VecDeque;
use std::time::Duration;

use crate::librdkafka::Deadline;
use crate::sink::RecordId;

/// The pause between two probes.
const PROBE_PAUSE: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(super) struct RejectedDeadLetters {
    waiting: VecDeque<RecordId>,
    /// The dead letter in flight that probes whether the topic accepts it now.
    probe: Option<RecordId>,
    /// The pause before the next probe.
    pause: Option<Deadline>,
}

impl RejectedDeadLetters {
    /// Adds a rejected dead letter. Returns true if the rejection should be logged: for the first rejected dead letter,
    /// and for a probe.
    pub(super) fn add(&mut self, id: RecordId) -> bool {
        let was_probe = self.probe.take_if(|probe| *probe == id).is_some();
        let first = self.waiting.is_empty() && self.probe.is_none();
        self.waiting.push_back(id);
        if was_probe || first {
            self.pause = Some(Deadline::after(PROBE_PAUSE));
        }
        was_probe || first
    }

    /// Returns the dead letter that is sent as the next probe, if the pause is over.
    pub(super) fn probe(&mut self) -> Option<RecordId> {
        if self.probe.is_some() || self.pause.is_some_and(|pause| !pause.is_over()) {
            return None;
        }
        self.probe = self.waiting.pop_front();
        self.probe
    }

    /// Notes that a dead letter was stored. If it was the probe, returns all others, which may be sent now.
    pub(super) fn acknowledged(&mut self, id: RecordId) -> VecDeque<RecordId> {
        match self.probe.take_if(|probe| *probe == id) {
            Some(_) => std::mem::take(&mut self.waiting),
            None => VecDeque::new(),
        }
    }

    /// Drops the dead letters of disowned rows.
    pub(super) fn discard(&mut self, is_disowned: impl Fn(&RecordId) -> bool) {
        self.waiting.retain(|id| !is_disowned(id));
        self.probe.take_if(|probe| is_disowned(probe));
    }
}

#[cfg(test)]
mod tests {
    use keylane_core::CallId;

    use super::*;

    fn id(row: u32) -> RecordId {
        let call = CallId { slot: 0, reuse_count: 1 };
        RecordId { handler: 0, call, row, lane: 0, output: 0, dead_letter: true }
    }

    #[test]
    fn one_probes_and_the_others_follow_when_it_is_stored() {
        let mut rejected = RejectedDeadLetters::default();
        assert_eq!([0, 1, 2].map(|row| rejected.add(id(row))), [true, false, false]);
        assert_eq!(rejected.probe(), None, "there is a pause");
        rejected.pause = None;
        assert_eq!((rejected.probe(), rejected.probe()), (Some(id(0)), None), "one at a time");
        assert!(rejected.add(id(0)), "still rejected");
        rejected.pause = None;
        assert_eq!(rejected.probe(), Some(id(1)));
        assert_eq!(rejected.acknowledged(id(9)), [], "another one");
        assert_eq!(rejected.acknowledged(id(1)), [id(2), id(0)]);
        assert_eq!(rejected.probe(), None);
    }

    #[test]
    fn disowned_ones_are_not_sent() {
        let mut rejected = RejectedDeadLetters::default();
        assert_eq!([0, 1, 2].map(|row| rejected.add(id(row))), [true, false, false]);
        rejected.pause = None;
        assert_eq!(rejected.probe(), Some(id(0)));
        rejected.discard(|id| id.row < 2);
        assert_eq!(rejected.probe(), Some(id(2)));
    }
}
