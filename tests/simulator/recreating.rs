//! Topics that are recreated while they are read.

use keylane_core::codec;
use keylane_core::{Input, ReadError};

use super::commits::Stored;
use super::log::Record;
use super::plan::{Class, MS, SECOND};
use super::planted::Planted;
use super::trace::Seen;
use super::transactions::Coverage;
use super::world::{Event, World};

impl World {
    /// The group's commits are deleted with the topic. Its readers keep their positions and detect
    /// the replacement later.
    pub(crate) fn replace_topic(&mut self) {
        let index = self.rng.index(self.logs.len());
        // If commits can't contain the topic id, or other programs change them, a late commit can't
        // be detected.
        let unnamed = [Class::TinyMetadata, Class::TooLarge, Class::ForeignMetadata];
        let named = self.plan.topic_ids && !unnamed.into_iter().any(|class| self.has(class));
        if !named || self.plan.until_end {
            return;
        }
        self.logs[index].replace(&mut self.rng);
        self.stored[index] = None;
        self.forget_claims(index);
        self.forget_gate_keys(index);
        let incarnation = self.logs[index].incarnation;
        self.note(0, "topic recreated", Some(index), 0, i64::from(incarnation));
        for _ in 0..self.rng.range(0, 40) {
            self.logs[index].grow(&self.plan, &mut self.rng);
            self.order_last_record(index);
        }
        for p in 0..self.processes.len() {
            let delay = self.rng.range(MS, 5 * SECOND);
            self.after(delay, Event::CheckTopic(p, index));
            self.wake_reader(p, index);
        }
    }

    /// The shell compares the topic's id with the id of the topic that it reads.
    pub(crate) fn check_topic(&mut self, p: usize, index: usize) {
        let part = &self.processes[p].parts[index];
        if !part.owned
            || self.reads_current_topic(p, index)
            || self.planted == Some(Planted::HideRecreatedTopic)
        {
            return;
        }
        if part.ownership.is_none() && !part.stopped {
            self.after(SECOND, Event::CheckTopic(p, index)); // its start is not resolved yet
            return;
        }
        self.saw(Seen::TopicsFoundReplaced);
        let log = &self.logs[index];
        let (partition, topic_id, log_start) = (log.partition, log.topic_id, log.start);
        let part = &mut self.processes[p].parts[index];
        part.incarnation = log.incarnation;
        part.claimed = Coverage::default();
        part.floor = None;
        part.stopped = false;
        self.processes[p].parts[index].reader.iter_mut().for_each(|reader| reader.permission = None);
        let error = Some(ReadError::TopicRecreated { topic_id, log_start });
        self.feed(p, Input::Fetched { partition, rows: &[], orders: &[], end: None, error });
    }

    /// Whether the process reads the current topic of this name.
    pub(crate) fn reads_current_topic(&self, p: usize, index: usize) -> bool {
        self.processes[p].parts[index].incarnation == self.logs[index].incarnation
    }

    /// A record of a log that still exists.
    pub(crate) fn record_of(&self, index: usize, incarnation: u32, offset: i64) -> Option<&Record> {
        let log = &self.logs[index];
        log.record(offset).filter(|_| log.incarnation == incarnation)
    }

    pub(crate) fn is_of_another_topic(&self, index: usize, stored: &Stored) -> bool {
        codec::is_of_another_topic(&stored.metadata, &self.identity(index, stored.offset))
    }
}
