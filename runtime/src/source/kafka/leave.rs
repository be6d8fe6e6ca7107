//! Leaving the group.
use std::time::Duration;

use keylane_core::Partition;

use super::Source;
use super::rebalance::RebalanceKind;
use crate::librdkafka::{Deadline, EventKind, Queue};

/// Timeout of one wait for an event while leaving the group.
const LEAVE_POLL_INTERVAL: Duration = Duration::from_millis(50);
/// Timeout of the first response to a join, which does not depend on other members.
const FIRST_RESPONSE_MAX: Duration = Duration::from_secs(1);

impl Source {
    /// Leaves the group and releases all owned partitions. Waits for the coordinator, with time-outs. Returns whether the
    /// consumer was closed in time; if not, the coordinator removes the member after the session timeout.
    ///
    /// `join_timeout`: how long to wait for a pending join. A client that is closed during a join sends no leave request,
    /// and its member stays in the group until the session timeout.
    pub fn leave(mut self, join_timeout: Duration, timeout: Duration) -> bool {
        self.answer_pending();
        if !self.is_static {
            self.withdraw(Deadline::after(join_timeout));
        }
        self.close_consumer(Deadline::after(timeout))
    }

    /// Requests to leave the group, and waits until the client has sent the request.
    fn withdraw(&mut self, deadline: Deadline) {
        // Before the first response to its join the client is already a member, but lacks the member id that a leave
        // request needs.
        let first_response = Deadline::after(FIRST_RESPONSE_MAX.min(deadline.remaining()));
        while self.rebalances.count == 0 && !self.context.consumer.is_member() && !first_response.is_over() {
            if let Some(event) = self.main_queue.poll(LEAVE_POLL_INTERVAL.min(first_response.remaining())) {
                self.on_main_event(event);
            }
        }
        if let Err(code) = self.context.consumer.unsubscribe() {
            return self.log.unsubscribe_failed(code);
        }
        while self.context.consumer.is_member() && !deadline.is_over() {
            if let Some(event) = self.main_queue.poll(LEAVE_POLL_INTERVAL.min(deadline.remaining())) {
                self.on_main_event(event);
            }
            self.answer_pending();
        }
    }

    /// Answers a pending rebalance after reading has ended.
    fn answer_pending(&mut self) {
        match self.rebalances.unanswered.take().map(|rebalance| rebalance.kind) {
            Some(RebalanceKind::Assign) => self.assign(&[], true),
            Some(RebalanceKind::Revoke(partitions)) => self.release(&partitions),
            None => {}
        }
    }

    fn close_consumer(&mut self, deadline: Deadline) -> bool {
        let events = Queue::new(self.context.consumer.client());
        if let Err(code) = self.context.consumer.close(&events) {
            self.log.close_failed(code);
            return false;
        }
        while !self.context.consumer.is_closed() && !deadline.is_over() {
            if let Some(event) = events.poll(LEAVE_POLL_INTERVAL.min(deadline.remaining()))
                && event.kind() == EventKind::Rebalance
            {
                let owned: Vec<Partition> = self.partitions.all().collect();
                self.release(&owned);
            }
        }
        self.context.consumer.is_closed()
    }
}
