//! The parameters of a sink, and its startup errors.
use std::collections::BTreeMap;
use std::ffi::CString;
use std::sync::Arc;

use crate::librdkafka::{ClientError, Credentials, LatestStatistics, Producer, Properties, StartupError};

/// The parameters of a sink; all of them validated.
#[derive(Clone, Debug)]
pub struct SinkSpec {
    /// The user's properties, with `bootstrap.servers` and without those that Keylane sets.
    pub client_properties: Vec<(String, String)>,
    /// Credentials read from a file, if any.
    pub credentials: Option<Arc<Credentials>>,
    /// The topics of all records; [`SinkRecord::topic`](super::SinkRecord::topic) is an index into this list.
    pub topics: Vec<String>,
    /// Whether to create missing topics, with the brokers' defaults, instead of refusing to start.
    pub create_topics: bool,
    /// For each topic that may be created, the topic whose partition count it copies.
    pub partitions_like: BTreeMap<String, String>,
    /// Limit of in-flight bytes per topic, so that a blocked topic does not use the memory of the others.
    pub max_bytes_per_topic: usize,
    /// The receiver of the producer's statistics; `None`: nobody reads them.
    pub statistics: Option<Arc<LatestStatistics>>,
}

/// Why a sink could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client rejects its properties.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A permanent error, or the caller ended the retries.
    #[error(transparent)]
    Startup(#[from] StartupError),
    /// A thread could not be created.
    #[error("the sink can't start: {0}")]
    System(#[from] std::io::Error),
}

impl SinkSpec {
    /// Checks that a producer can be created with these properties. The producer connects only if the properties name
    /// brokers.
    ///
    /// # Errors
    ///
    /// A property that the client rejects.
    pub fn check(&self) -> Result<(), ClientError> {
        Producer::new(&self.properties()).map(drop)
    }

    /// Combines the user's properties with Keylane's, without those that depend on the topics. Some of Keylane's
    /// override the user's, others are only defaults.
    pub(super) fn properties(&self) -> Properties {
        let mut all =
            Properties::new(self.client_properties.clone()).with_credentials(self.credentials.clone());
        all.set("enable.idempotence", "true");
        all.set("acks", "all");
        // An outage only blocks lanes. A timeout would fail records instead, even some that were stored.
        all.set("message.timeout.ms", 0);
        // Chooses the same partition for a key as Java clients.
        all.set("partitioner", "murmur2_random");
        // A topic without a leader could use up a limit for all topics, so bytes are limited per topic instead.
        all.set("queue.buffering.max.messages", 0);
        all.set("queue.buffering.max.kbytes", i32::MAX);
        all.set_default("linger.ms", 5);
        all.set_default("client.id", "keylane");
        all.set("allow.auto.create.topics", "false");
        all
    }

    pub(super) fn topic_names(&self) -> Result<Vec<CString>, StartupError> {
        let name =
            |topic: &String| CString::new(topic.as_str()).map_err(|_| StartupError::TopicName(topic.clone()));
        self.topics.iter().map(name).collect()
    }
}
