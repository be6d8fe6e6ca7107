//! The schedule: the ready lanes of each topic, in the order of dispatch.

use std::collections::VecDeque;

/// The ready queues of one topic: lanes with events and no call, in dispatch order.
#[derive(Debug, Default)]
struct ReadyLanes {
    healthy: VecDeque<u32>,
    /// Lanes with a retry state. Their events are dispatched one per call.
    retrying: VecDeque<u32>,
    /// Whether the last lane came from `retrying`: the two queues take turns.
    retrying_was_last: bool,
}

#[derive(Debug)]
pub(super) struct Schedule {
    /// By topic.
    topics: Vec<ReadyLanes>,
    /// The topic whose turn is next.
    turn: usize,
    count: usize,
}

impl Schedule {
    pub(super) fn new(topics: u16) -> Self {
        Schedule { topics: (0..topics).map(|_| ReadyLanes::default()).collect(), turn: 0, count: 0 }
    }

    /// Returns the number of ready lanes.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn push(&mut self, topic: u16, lane: u32, retrying: bool) {
        let ready = self.topics.get_mut(usize::from(topic)).expect("topics are below the configured number");
        if retrying {
            ready.retrying.push_back(lane);
        } else {
            ready.healthy.push_back(lane);
        }
        self.count += 1;
    }

    /// Returns the next topic in turn that has a ready lane.
    pub(super) fn next_topic(&mut self) -> Option<u16> {
        for _ in 0..self.topics.len() {
            let topic = self.turn;
            self.turn = (self.turn + 1) % self.topics.len();
            let ready = self.topics.get(topic)?;
            if !(ready.healthy.is_empty() && ready.retrying.is_empty()) {
                return u16::try_from(topic).ok();
            }
        }
        None
    }

    /// Returns the next lane without a retry state.
    pub(super) fn peek_healthy(&self, topic: u16) -> Option<u32> {
        self.topics.get(usize::from(topic))?.healthy.front().copied()
    }

    pub(super) fn pop_healthy(&mut self, topic: u16) -> Option<u32> {
        let lane = self.topics.get_mut(usize::from(topic))?.healthy.pop_front()?;
        self.count -= 1;
        Some(lane)
    }

    /// Takes the next lane with a retry state, if it is the turn of such lanes.
    pub(super) fn pop_retrying(&mut self, topic: u16) -> Option<u32> {
        let ready = self.topics.get_mut(usize::from(topic))?;
        ready.retrying_was_last =
            !ready.retrying.is_empty() && (!ready.retrying_was_last || ready.healthy.is_empty());
        if !ready.retrying_was_last {
            return None;
        }
        self.count -= 1;
        ready.retrying.pop_front()
    }

    /// Takes a lane with a retry state of any topic, if there is one that `is_taken` returns true for.
    pub(super) fn pop_retrying_if(&mut self, is_taken: impl Fn(u32) -> bool) -> Option<(u16, u32)> {
        for (topic, ready) in (0..).zip(&mut self.topics) {
            if let Some(at) = ready.retrying.iter().position(|&lane| is_taken(lane)) {
                self.count -= 1;
                return Some((topic, ready.retrying.remove(at)?));
            }
        }
        None
    }

    /// Removes the lanes that `is_kept` returns false for.
    pub(super) fn retain(&mut self, mut is_kept: impl FnMut(u32) -> bool) {
        for ready in &mut self.topics {
            ready.healthy.retain(|&lane| is_kept(lane));
            ready.retrying.retain(|&lane| is_kept(lane));
        }
        self.count = self.topics.iter().map(|ready| ready.healthy.len() + ready.retrying.len()).sum();
    }
}
