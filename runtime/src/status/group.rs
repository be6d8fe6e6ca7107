//! A consumer group as its brokers describe it: the JSON of `keylane status --group`.

use serde::Serialize;

use super::DeliveryMode;

/// The group of one handler.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GroupStatus {
    /// The handler.
    pub handler: String,
    /// The group id.
    pub group: String,
    /// The state by Kafka's name, such as `Stable`, `PreparingRebalance` or `Empty`.
    pub state: String,
    /// The protocol by Kafka's name: `Classic` or `Consumer`.
    pub protocol: String,
    /// The assignor that the members agreed on; `None`: there are none.
    pub assignor: Option<String>,
    /// The address of the coordinator, `host:port`.
    pub coordinator: Option<String>,
    /// The members, by client id and member id.
    pub members: Vec<GroupMemberStatus>,
    /// All partitions of the handler's topics, and other partitions that its members own or that have commits, by topic
    /// and number.
    pub partitions: Vec<GroupPartitionStatus>,
    /// What is wrong, with the remedy; empty: nothing.
    pub problems: Vec<String>,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GroupMemberStatus {
    /// Its `client.id`, without the suffix that names its delivery.
    pub client_id: String,
    /// Its delivery; `None`: it is another program, or an older version of Keylane.
    pub delivery: Option<DeliveryMode>,
    /// The address from which it is connected.
    pub host: String,
    /// The id that the coordinator uses for it.
    pub member_id: String,
    /// Its `group_instance_id`, if it is a static member.
    pub instance_id: Option<String>,
    /// Its partitions, by topic and number.
    pub partitions: Vec<TopicPartition>,
}

/// A partition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct TopicPartition {
    /// The topic.
    pub topic: String,
    /// The number of the partition.
    pub partition: i32,
}

/// The position of a group in one partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GroupPartitionStatus {
    /// The topic.
    pub topic: String,
    /// The number of the partition.
    pub partition: i32,
    /// The committed offset; `None`: none is committed.
    pub committed: Option<i64>,
    /// One past the last offset of the log; `None`: it can't be read.
    pub log_end: Option<i64>,
    /// Offsets from the committed one to the end of the log.
    pub lag: Option<u64>,
    /// The member that owns it; `None`: none does.
    pub owner: Option<GroupOwner>,
    /// Why the committed offset or the end of the log can't be read.
    pub error: Option<String>,
}

/// The owner of a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GroupOwner {
    /// Its `client.id`, without the suffix that names its delivery.
    pub client_id: String,
    /// The address from which it is connected.
    pub host: String,
    /// The id that the coordinator uses for it.
    pub member_id: String,
}
