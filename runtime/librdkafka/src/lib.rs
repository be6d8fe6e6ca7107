//! Safe types over the C library: every pointer of librdkafka is in this crate.
//!
//! Two choices differ from the usual Rust client (`rdkafka`), on purpose. Error codes stay plain integers: the enum of
//! that client does not contain all codes that a broker may send, and an unknown value in it is undefined behaviour.
//! Names, metadata and header names stay bytes, because they may come from any client.
//!
//! Guarantees on which the other crates rely:
//! - a rebalance is an event that is stored and answered later, never a callback that blocks;
//! - queues keep the client alive, and the client is destroyed on a separate thread with a time limit.
//!
//! A rule for callers: open a partition's queue *before* assigning the partition, so that no record reaches the
//! consumer's main queue.
#![allow(unsafe_code, reason = "this crate calls C; each block has its safety argument")]

mod admin;
mod client;
mod code;
mod consumer;
mod credentials;
mod deadline;
mod event;
mod group_description;
mod group_reader;
mod layouts;
mod list;
mod metadata;
mod mock;
mod partition_queue;
mod partitioner;
mod probe;
mod producer;
mod properties;
mod queue;
mod record;
mod requests;
mod startup_requests;
mod statistics;
mod sys;
mod token;
mod topic_configs;
mod transactions;
mod version;
mod wake;

pub use admin::{AdminBroker, NewTopic, TopicDescription, admin_broker, create_topics, describe_topics};
pub use client::Client;
pub use code::ErrorCode;
pub use consumer::{BEGINNING, Consumer, END};
pub use credentials::{Credentials, CredentialsError, SecretKind};
pub use deadline::Deadline;
pub use event::{ClientEvent, EventKind};
pub use group_description::{GroupDescription, GroupMember};
pub use group_reader::GroupReader;
pub use list::{ListEntry, PartitionList};
pub use mock::MockCluster;
pub use partition_queue::{PartitionQueue, QueueEntry, ReadEnd};
pub use partitioner::partition_for_key;
pub use probe::{Probed, probe};
pub use producer::{DeliveryReport, Producer, ProducerRecord, ProducerTopic};
pub use properties::{ClientError, Properties};
pub use queue::Queue;
pub use record::{Header, Headers, Record};
pub use requests::{Isolation, Requests};
pub use startup_requests::{KeepWaiting, NewPartitions, StartupError, StartupRequests, TopicRole, Waiting};
pub use statistics::{LatestStatistics, STATISTICS_INTERVAL, Statistics};
pub use topic_configs::{TopicConfigs, describe_topic_configs};
pub use transactions::{GroupMetadata, TransactionError};
pub use version::version;
pub use wake::{Wake, WakeHandle};
