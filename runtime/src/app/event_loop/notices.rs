//! The core's notices and stalls as log lines, and the sentences with which a handler or a partition stops.

use keylane_core::{BlockedOn, Fault, Notice, Partition, PartitionStop, ReadError, Reason, Stall};

use super::handler_log::HandlerLog;

impl HandlerLog {
    pub(super) fn notice(&self, notice: Notice) {
        let handler = self.handler();
        match notice {
            Notice::OwnershipStarted { partition, ownership, offset, claimed } => {
                let (topic, partition, ownership) = (self.topic(partition), partition.number, ownership.0);
                tracing::info!(handler, topic, partition, ownership, offset, claimed, "partition assigned");
            }
            Notice::OwnershipEnded { partition, ownership, lost } => {
                let (topic, partition, ownership) = (self.topic(partition), partition.number, ownership.0);
                tracing::info!(handler, topic, partition, ownership, lost, "partition released");
            }
            Notice::MetadataIgnored { partition } => {
                let (topic, partition) = (self.topic(partition), partition.number);
                tracing::warn!(
                    handler,
                    topic,
                    partition,
                    "commit metadata ignored: it is not Keylane's, or not for this offset; no event beyond the offset counts as \
                     done"
                );
            }
            Notice::OffsetsSkipped { partition, count } => {
                let (topic, partition) = (self.topic(partition), partition.number);
                tracing::warn!(handler, topic, partition, count, "offsets skipped as `out_of_range` demands");
            }
            Notice::TopicReplaced { partition, offset } => {
                let (topic, partition) = (self.topic(partition), partition.number);
                tracing::warn!(
                    handler,
                    topic,
                    partition,
                    offset,
                    "topic was deleted and created again: it is read from its first record"
                );
            }
            Notice::Skipped { .. } => {} // logged with the guest's reason: see `HandlerLog::skipped`
            Notice::Repositioned { partition, offset } => {
                let (topic, partition) = (self.topic(partition), partition.number);
                tracing::debug!(handler, topic, partition, offset, "reader repositioned");
            }
            Notice::MetadataLimitLowered { limit } => {
                tracing::warn!(
                    handler,
                    limit,
                    "commit metadata is too large for this broker: see its `offset.metadata.max.bytes`"
                );
            }
        }
    }

    /// `backlog`: the topic whose queued outputs keep calls from beginning.
    pub(super) fn stall(&self, stall: &Stall, backlog: Option<&str>) {
        let (handler, topic, partition) =
            (self.handler(), self.topic(stall.partition), stall.partition.number);
        let (offset, attempt, blocked_on) = (stall.offset, stall.attempt, stall.blocked_on);
        if let BlockedOn::ReadFailed(why) = blocked_on {
            let (reason, remedy) = read_error(why);
            tracing::error!(
                handler,
                topic,
                partition,
                offset,
                reason,
                remedy,
                "partition can't be read; reading is tried again"
            );
            return;
        }
        tracing::warn!(handler, topic, partition, offset, attempt, ?blocked_on, backlog, "partition stalled");
    }

    pub(super) fn stall_ended(&self, partition: Partition) {
        let (handler, topic, partition) = (self.handler(), self.topic(partition), partition.number);
        tracing::info!(handler, topic, partition, "partition resumed");
    }

    /// Why a partition stopped, with the remedy.
    pub(super) fn partition_stop(&self, partition: Partition, offset: i64, why: PartitionStop) -> String {
        let topic = self.topic(partition);
        let number = partition.number;
        let reason = match why {
            PartitionStop::OutOfRange => {
                "is outside the log; reset the group's offset, or set `out_of_range` to \"earliest\" or \"latest\""
            }
            PartitionStop::OtherTopic => {
                "was committed in another topic of this name, which was deleted since, or on another cluster; reset the \
                 group's offset, or set `out_of_range` to \"earliest\" or \"latest\""
            }
        };
        format!("topic {topic} partition {number} stopped: offset {offset} {reason}")
    }

    /// Why a run to the end can't reach it.
    pub(super) fn unreadable(&self, partition: Partition, offset: i64, why: ReadError) -> String {
        let (topic, number, (reason, remedy)) = (self.topic(partition), partition.number, read_error(why));
        format!("topic {topic} partition {number} offset {offset} can't be read: {reason}; {remedy}")
    }

    /// The same for a topic that was replaced.
    pub(super) fn replaced(&self, partition: Partition) -> String {
        let topic = self.topic(partition);
        format!("topic {topic} was deleted and created again while it was read to its end: run it again")
    }

    /// Why the handler stopped.
    pub(super) fn handler_stop(&self, at: (Partition, i64), why: Reason, detail: &str) -> String {
        let topic = self.topic(at.0);
        let what = match why {
            Reason::RetriesExhausted => "the handler asks for one more retry than there are attempts",
            Reason::Rejected => "the handler rejects the event",
            Reason::TooOld => "the handler fails, and the event is too old to be tried again,",
            Reason::OutputRefused => "the handler is done, but an output was rejected",
            Reason::NoKey => "an event without a lane key",
            Reason::Fault(Fault::Trap) => "the handler trapped",
            Reason::Fault(Fault::Timeout) => "the handler ran past its deadline",
            Reason::Fault(Fault::Cpu) => "the handler used too much processor time",
            Reason::Fault(Fault::Memory) => "the handler wanted too much memory",
            Reason::Fault(Fault::Stack) => "the stack of the handler overflowed",
            Reason::Fault(Fault::Limit) => "the handler hit a limit",
            Reason::Fault(Fault::Contract) => "the handler broke the contract",
        };
        format!("{what} at topic {topic} partition {} offset {}: {detail}", at.0.number, at.1)
    }
}

/// The cause of a read error, and its remedy.
fn read_error(why: ReadError) -> (&'static str, &'static str) {
    match why {
        ReadError::Denied => ("this user may not read the topic", "grant it READ on the topic"),
        ReadError::Missing => {
            ("the topic or partition does not exist", "create the topic, or remove it from `topics`")
        }
        ReadError::Damaged => {
            ("the log is damaged there", "repair it, or set the group's offset past the damage")
        }
        ReadError::Unknown => {
            ("the broker reports an error that this version does not know", "see the lines above")
        }
        ReadError::SeekFailed => ("the Kafka client does not take the position", "see the lines above"),
        ReadError::Interrupted => ("the connection to the broker failed", "check that the broker runs"),
        ReadError::TopicReplaced { .. } => {
            ("the topic was deleted and created again", "nothing has to be done")
        }
        ReadError::OutOfRange { .. } => {
            ("the offset is outside the log", "reset the group's offset, or set `out_of_range`")
        }
    }
}
