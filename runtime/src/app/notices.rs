//! What the core wants people to know, as log lines.

use keylane_core::{
    BlockedOn, CommitError, Fault, Notice, Partition, PartitionStop, ReadError, Reason, Stall,
};

/// Says where something happened.
#[derive(Clone, Copy)]
pub(super) struct NoticeLog<'a> {
    pub(super) handler: &'a str,
    pub(super) topics: &'a [String],
}

impl<'a> NoticeLog<'a> {
    pub(super) fn topic(&self, partition: Partition) -> &'a str {
        self.topics.get(usize::from(partition.topic)).map_or("?", String::as_str)
    }

    pub(super) fn notice(&self, notice: Notice) {
        let handler = self.handler;
        match notice {
            Notice::OwnershipStarted { partition, ownership, offset, claimed } => {
                let topic = self.topic(partition);
                let (partition, ownership) = (partition.number, ownership.0);
                tracing::info!(handler, topic, partition, ownership, offset, claimed, "partition assigned");
            }
            Notice::OwnershipEnded { partition, ownership, lost } => {
                let topic = self.topic(partition);
                let (partition, ownership) = (partition.number, ownership.0);
                tracing::info!(handler, topic, partition, ownership, lost, "partition given up");
            }
            Notice::MetadataIgnored { partition } => {
                let (topic, partition) = (self.topic(partition), partition.number);
                tracing::warn!(
                    handler,
                    topic,
                    partition,
                    "commit metadata ignored: it is not ours, or not for this offset; nothing beyond it is taken as done"
                );
            }
            Notice::OffsetsSkipped { partition, count } => {
                let (topic, partition) = (self.topic(partition), partition.number);
                tracing::warn!(
                    handler,
                    topic,
                    partition,
                    count,
                    "offsets passed over, as `out_of_range` says"
                );
            }
            Notice::TopicReplaced { partition, offset } => {
                let (topic, partition) = (self.topic(partition), partition.number);
                tracing::warn!(
                    handler,
                    topic,
                    partition,
                    offset,
                    "the topic was deleted and created again: it is read from its first record"
                );
            }
            Notice::Skipped { .. } => {} // told by the shell, which knows what the guest said
            Notice::Repositioned { partition, offset } => {
                let (topic, partition) = (self.topic(partition), partition.number);
                tracing::debug!(handler, topic, partition, offset, "reader positioned once more");
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

    /// `backlog`: the topic that holds all calls up, because so much waits for it.
    pub(super) fn stall(&self, stall: &Stall, backlog: Option<&str>) {
        let (handler, topic, partition) = (self.handler, self.topic(stall.partition), stall.partition.number);
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
                "partition can't be read; it is tried again"
            );
            return;
        }
        tracing::warn!(
            handler,
            topic,
            partition,
            offset,
            attempt,
            ?blocked_on,
            backlog,
            "partition does not move"
        );
    }

    pub(super) fn stall_ended(&self, partition: Partition) {
        let (handler, topic, partition) = (self.handler, self.topic(partition), partition.number);
        tracing::info!(handler, topic, partition, "partition moves again");
    }

    /// Why a partition stopped, in one sentence with the remedy.
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

    /// Why a run that is to come to an end can't.
    pub(super) fn unreadable(&self, partition: Partition, offset: i64, why: ReadError) -> String {
        let (topic, number, (reason, remedy)) = (self.topic(partition), partition.number, read_error(why));
        format!("topic {topic} partition {number} offset {offset} can't be read: {reason}; {remedy}")
    }

    /// The same, where the topic is another one now.
    pub(super) fn replaced(&self, partition: Partition) -> String {
        let topic = self.topic(partition);
        format!("topic {topic} was deleted and created again while it was read to its end: run it again")
    }

    /// Why the handler stopped, in one sentence.
    pub(super) fn handler_stop(&self, at: (Partition, i64), why: Reason, detail: &str) -> String {
        let topic = self.topic(at.0);
        let what = match why {
            Reason::RetriesExhausted => "the handler asks for one more retry than there are attempts",
            Reason::Rejected => "the handler rejects the event",
            Reason::TooOld => "the handler fails, and the event is too old to be tried again,",
            Reason::OutputRefused => "the handler is done, but an output was refused",
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

/// What becomes of a commit that was refused.
pub(super) fn commit_remedy(why: CommitError) -> &'static str {
    match why {
        CommitError::MetadataTooLarge => {
            "a shorter one is sent; see the broker's `offset.metadata.max.bytes` and `commit.metadata_limit`"
        }
        CommitError::TryAgain => "it is sent again",
        CommitError::Stale => {
            "the group has moved on: whoever owns the partition now runs again what it does not know"
        }
        CommitError::Other => {
            "grant this user READ on the group, or see what the code means; it is sent again"
        }
    }
}

/// What is wrong, and what mends it.
fn read_error(why: ReadError) -> (&'static str, &'static str) {
    match why {
        ReadError::Denied => ("this user may not read the topic", "grant it READ on the topic"),
        ReadError::Missing => {
            ("the topic or partition does not exist", "create the topic, or take it out of `topics`")
        }
        ReadError::Damaged => {
            ("the log is damaged there", "repair it, or set the group's offset past the damage")
        }
        ReadError::Unknown => {
            ("the broker gives an error that this version does not know", "see the lines above")
        }
        ReadError::SeekFailed => ("the Kafka client does not take the position", "see the lines above"),
        ReadError::Interrupted => ("the connection to the broker failed", "see whether the broker runs"),
        ReadError::TopicReplaced { .. } => {
            ("the topic was deleted and created again", "nothing has to be done")
        }
        ReadError::OutOfRange { .. } => {
            ("the offset is outside the log", "reset the group's offset, or set `out_of_range`")
        }
    }
}
