//! Log lines of the core's notices and stalls, and the failure texts of stopped handlers and partitions.

use keylane_core::{
    Blockage, BlockedOn, ClosedGap, EarlyEvents, Fault, GapCause, Notice, OnGap, OwnershipEnd, Partition,
    PartitionStop, ReadError, ReadLimit, Reason,
};

use crate::app::stall_reasons::reason_of;
use crate::status::StallReason;

use super::HandlerLog;

/// What is logged of a stall beside its [`Blockage`].
pub(in crate::app::event_loop) struct StallDetails<'a> {
    /// The name of the lane that blocks the partition.
    pub(in crate::app::event_loop) lane: Option<&'a str>,
    /// The last error of its event.
    pub(in crate::app::event_loop) error: Option<&'a str>,
    /// The topic with the most queued outputs, while they block new calls.
    pub(in crate::app::event_loop) blocking_topic: Option<&'a str>,
    /// The topics whose acknowledgements its event waits for.
    pub(in crate::app::event_loop) awaited_topics: Option<&'a str>,
}

impl HandlerLog {
    pub(in crate::app::event_loop) fn notice(&self, notice: Notice) {
        let handler = self.handler();
        match notice {
            Notice::OwnershipStarted { partition, ownership, offset, claimed } => {
                let (topic, partition, ownership) = (self.topic(partition), partition.number, ownership.0);
                tracing::info!(handler, topic, partition, ownership, offset, claimed, "ownership started");
            }
            Notice::OwnershipEnded { partition, ownership, end } => {
                let end = name_of(end);
                let (topic, partition, ownership) = (self.topic(partition), partition.number, ownership.0);
                tracing::info!(handler, topic, partition, ownership, end, "ownership ended");
            }
            Notice::MetadataIgnored { partition } => {
                let (topic, partition) = (self.topic(partition), partition.number);
                tracing::warn!(
                    handler,
                    topic,
                    partition,
                    "commit metadata ignored: it could not be verified; events beyond the offset are processed again"
                );
            }
            Notice::OffsetsSkipped { partition, count } => {
                let (topic, partition) = (self.topic(partition), partition.number);
                tracing::warn!(
                    handler,
                    topic,
                    partition,
                    count,
                    "offsets skipped as configured by `out_of_range`"
                );
            }
            Notice::TopicRecreated { partition, offset } => {
                let (topic, partition) = (self.topic(partition), partition.number);
                tracing::warn!(
                    handler,
                    topic,
                    partition,
                    offset,
                    "topic recreated; reading restarts at its first record"
                );
            }
            Notice::Skipped { .. } => {} // logged with the guest's reason: see `HandlerLog::skipped`
            Notice::Repositioned { partition, offset } => {
                let (topic, partition) = (self.topic(partition), partition.number);
                tracing::debug!(handler, topic, partition, offset, "reader repositioned");
            }
            Notice::ReadingPaused { partition, limit } => self.reading_paused(partition, limit),
            Notice::ReadingResumed { partition } => {
                let (topic, partition) = (self.topic(partition), partition.number);
                tracing::info!(handler, topic, partition, "reading resumed");
            }
            Notice::GapClosed(gap) => self.gap_closed(&gap),
            Notice::PassedOver { partition, offset } => self.passed_over(partition, offset),
            Notice::StaleRedrive { partition, offset, value, mark } => {
                self.stale_redrive(partition, offset, (value, mark));
            }
            Notice::EarlyAtEnd(_) => {} // a failure: see `HandlerLog::early_failure`
            Notice::MetadataLimitLowered { limit } => {
                tracing::warn!(
                    handler,
                    limit,
                    "commit metadata is too large for this broker: see its `offset.metadata.max.bytes`"
                );
            }
        }
    }

    fn reading_paused(&self, partition: Partition, limit: ReadLimit) {
        let (handler, topic, partition) = (self.handler(), self.topic(partition), partition.number);
        let (limit, remedy) = (limit.setting(), "see `blocked` in the status for the cause");
        tracing::warn!(handler, topic, partition, limit, remedy, "reading paused: a limit is reached");
    }

    fn passed_over(&self, partition: Partition, offset: i64) {
        let (handler, topic, partition) = (self.handler(), self.topic(partition), partition.number);
        tracing::warn!(
            handler,
            topic,
            partition,
            offset,
            remedy = "see `blocked` in the status for the cause",
            "partition passed over: others no longer wait for it, because nothing of it was handled for 10 minutes"
        );
    }

    fn stale_redrive(&self, partition: Partition, offset: i64, (order_value, mark): (i64, i64)) {
        let (handler, topic, partition) = (self.handler(), self.topic(partition), partition.number);
        tracing::warn!(
            handler,
            topic,
            partition,
            offset,
            order_value,
            mark,
            remedy = "redrive it before events with higher order values are handled, or apply it by hand",
            "redriven event is stale: a higher order value was handled"
        );
    }

    fn gap_closed(&self, gap: &ClosedGap) {
        let &ClosedGap { partition, early: (order_value, offset), expected, waiting, on_gap, cause } = gap;
        let (handler, topic, partition) = (self.handler(), self.topic(partition), partition.number);
        let cause = match cause {
            GapCause::Timeout => "gap_timeout",
            GapCause::TooManyEarly => "max_early",
            GapCause::PartitionFull => "partition full",
        };
        let (remedy, message) = match on_gap {
            OnGap::Pass => (None, "gap closed: missing order values are passed over"),
            OnGap::DeadLetter => (
                Some("publish the missing event; redrive dead letters in the order of `keylane-order-value`"),
                "gap closed: order values are missing",
            ),
            OnGap::Stop => (
                Some("publish the missing event, or continue after it with `keylane state set-mark`"),
                "gap: order values are missing, and the partition stops",
            ),
        };
        tracing::warn!(
            handler,
            topic,
            partition,
            offset,
            order_value,
            expected,
            waiting,
            cause,
            remedy,
            "{message}"
        );
    }

    /// Returns the failure text of a run with `--until-end` that ends with events which wait for others.
    pub(in crate::app::event_loop) fn early_failure(&self, early: &EarlyEvents) -> String {
        let &EarlyEvents { partition, events, keys, early: (value, offset), expected } = early;
        let topic = self.topic(partition);
        let expected = expected.map_or(String::new(), |expected| format!(", and {expected} is missing"));
        format!(
            "topic {topic} partition {}: {events} events of {keys} keys wait for order values that are not in the log; the first is \
             offset {offset}: its value is {value}{expected}",
            partition.number
        )
    }

    /// Logs a stall.
    pub(in crate::app::event_loop) fn stall(&self, stall: &Blockage, details: &StallDetails<'_>) {
        let (handler, topic, partition) =
            (self.handler(), self.topic(stall.partition), stall.partition.number);
        let (offset, attempt, blocked_on) = (stall.offset, stall.attempt, stall.blocked_on);
        if let BlockedOn::ReadFailed(why) = blocked_on {
            let (reason, remedy) = read_error(why);
            let see = reason_of(blocked_on).see();
            tracing::error!(
                handler,
                topic,
                partition,
                offset,
                reason,
                remedy,
                see,
                "partition can't be read; retrying"
            );
            return;
        }
        let StallDetails { lane, error, blocking_topic, awaited_topics } = *details;
        let stall_reason = reason_of(blocked_on);
        let (StallReason { code: blocked_on, remedy, .. }, see) = (stall_reason, stall_reason.see());
        tracing::warn!(
            handler,
            topic,
            partition,
            offset,
            attempt,
            blocked_on,
            lane,
            error,
            blocking_topic,
            awaited_topics,
            remedy,
            see,
            "partition stalled"
        );
    }

    /// Logs that a stalled partition has resumed. Otherwise its ownership ended, or another cause replaced
    /// the stall, which is logged elsewhere.
    pub(in crate::app::event_loop) fn stall_ended(&self, partition: Partition, resumed: bool) {
        if !resumed {
            return;
        }
        let (handler, topic, partition) = (self.handler(), self.topic(partition), partition.number);
        tracing::info!(handler, topic, partition, "partition resumed");
    }

    /// Returns the failure text of a stopped partition, with the remedy.
    pub(in crate::app::event_loop) fn partition_stop_failure(
        &self,
        partition: Partition,
        offset: i64,
        why: PartitionStop,
    ) -> String {
        let topic = self.topic(partition);
        let number = partition.number;
        let reason = match why {
            PartitionStop::OutOfRange => {
                "is outside the log; reset the group's offset, or set `out_of_range` to \"earliest\" or \"latest\""
            }
            PartitionStop::OtherTopic => {
                "was committed in a deleted topic of the same name, or on another cluster; reset the group's offset, or set \
                 `out_of_range` to \"earliest\" or \"latest\""
            }
            PartitionStop::OutputRefused => {
                "has an output that its topic rejects; the line `output rejected` names the topic and the error: correct the \
                 topic or the handler and restart, or set `transactions.on_refused_output` to \"dead-letter\""
            }
            PartitionStop::UnreadableSet => {
                "was committed with metadata that is not of Keylane, or is damaged: events beyond it may already have taken \
                 effect; stop all members and run `keylane offsets accept`, which repeats them"
            }
            PartitionStop::Gap => {
                "has waited too long for the order values before it (`gap_timeout`); publish them, or set `on_gap` to \
                 \"pass\" or \"dlq\""
            }
            PartitionStop::UnusableState => "is not that of its keyed state, or the state is damaged",
        };
        format!("topic {topic} partition {number} stopped: offset {offset} {reason}")
    }

    /// Returns the failure text of a run with `--until-end` that can't read a partition.
    pub(in crate::app::event_loop) fn unreadable_failure(
        &self,
        partition: Partition,
        offset: i64,
        why: ReadError,
    ) -> String {
        let (topic, number, (reason, remedy)) = (self.topic(partition), partition.number, read_error(why));
        format!("topic {topic} partition {number} offset {offset} can't be read: {reason}; {remedy}")
    }

    /// Returns the failure text of a run with `--until-end` whose topic was recreated.
    pub(in crate::app::event_loop) fn replaced_failure(&self, partition: Partition) -> String {
        let topic = self.topic(partition);
        format!("topic {topic} was recreated during a run with `--until-end`: repeat the run")
    }

    /// Returns the failure text of a stopped handler.
    pub(in crate::app::event_loop) fn handler_stop_failure(
        &self,
        at: (Partition, i64),
        why: Reason,
        detail: &str,
    ) -> String {
        let topic = self.topic(at.0);
        let what = match why {
            Reason::RetriesExhausted => "the handler requested a retry in the last attempt",
            Reason::Rejected => "the handler rejected the event",
            Reason::TooOld => "the handler failed, and the event is too old for a retry",
            Reason::OutputRejected => "the handler is done, but an output was rejected",
            Reason::NoLaneKey => "the event has no lane key",
            Reason::NoOrderValue => "the event has no order value that can be read",
            Reason::OrderValueAhead => "the order value of the event is too far ahead",
            Reason::BelowFirst => "the order value of the event is below the first one",
            Reason::Gap => "the event has waited too long for the order values before it",
            Reason::Late => "the event has come too late for its place in the order",
            Reason::Fault(Fault::Trap) => "the handler trapped",
            Reason::Fault(Fault::Timeout) => "the handler exceeded its deadline",
            Reason::Fault(Fault::Cpu) => "the handler exceeded its CPU budget",
            Reason::Fault(Fault::Memory) => "the handler exceeded its memory limit",
            Reason::Fault(Fault::Stack) => "the stack of the handler overflowed",
            Reason::Fault(Fault::Limit) => "the handler exceeded a limit",
            Reason::Fault(Fault::Contract) => "the handler violated the contract",
        };
        format!("topic {topic} partition {} offset {}: {what}: {detail}", at.0.number, at.1)
    }
}

/// Returns the name of an end in log lines.
fn name_of(end: OwnershipEnd) -> &'static str {
    match end {
        OwnershipEnd::Closed => "closed",
        OwnershipEnd::Lost => "lost",
        OwnershipEnd::TopicRecreated => "topic recreated",
    }
}

/// Returns the cause of a read error, and its remedy.
fn read_error(why: ReadError) -> (&'static str, &'static str) {
    match why {
        ReadError::Denied => ("this user is not authorized to read the topic", "grant it READ on the topic"),
        ReadError::Missing => {
            ("the topic or partition does not exist", "create the topic, or remove it from `topics`")
        }
        ReadError::Corrupt => (
            "the log is corrupt at this offset",
            "repair it, or set the group's offset past the corrupt records",
        ),
        ReadError::Unknown => {
            ("the broker returned an unknown error code", "see the log lines before this one")
        }
        ReadError::SeekFailed => {
            ("the Kafka client rejected the position", "see the log lines before this one")
        }
        ReadError::Interrupted => ("the connection to the broker failed", "check that the broker runs"),
        ReadError::TopicRecreated { .. } => ("the topic was recreated", "no action is needed"),
        ReadError::OutOfRange { .. } => {
            ("the offset is outside the log", "reset the group's offset, or set `out_of_range`")
        }
    }
}
