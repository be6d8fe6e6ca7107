//! What a sink is made of, and why it could not start.
use std::collections::BTreeMap;
use std::ffi::CString;
use std::sync::Arc;

use crate::librdkafka::{ConfigError, Credentials, PermanentStartupError, Producer, Properties};

/// Everything that a sink needs to know; all of it checked before.
#[derive(Clone, Debug)]
pub struct SinkSpec {
    /// Properties of the user, with `bootstrap.servers`; those that Keylane owns were refused before.
    pub client_properties: Vec<(String, String)>,
    /// The secret of a file, if there is one.
    pub credentials: Option<Arc<Credentials>>,
    /// The topics of all outputs: [`OutputRecord::topic`](super::OutputRecord::topic) is an index into it.
    pub topics: Vec<String>,
    /// Create missing topics with the brokers' defaults instead of refusing to start.
    pub create_topics: bool,
    /// Topics that, if they are created, get as many partitions as another one has.
    pub as_many_as: BTreeMap<String, String>,
    /// Bytes on their way per topic, so that a topic that does not move does not take the others' memory.
    pub max_bytes_per_topic: usize,
}

/// Why a sink could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client refuses its properties.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The brokers, or the caller, end the waiting.
    #[error(transparent)]
    PermanentStartupError(#[from] PermanentStartupError),
    /// No thread could be had.
    #[error("the sink can't start: {0}")]
    System(#[from] std::io::Error),
}

impl SinkSpec {
    /// Whether there can be a producer with these properties. It connects only if they name brokers.
    ///
    /// # Errors
    ///
    /// What the client refuses.
    pub fn check(&self) -> Result<(), ConfigError> {
        Producer::new(&self.properties()).map(drop)
    }

    /// The user's properties, then ours, which win. What follows from the topics is not among them.
    pub(super) fn properties(&self) -> Properties {
        let mut all =
            Properties::new(self.client_properties.clone()).with_credentials(self.credentials.clone());
        all.set("enable.idempotence", "true");
        all.set("acks", "all");
        // An outage holds lanes up; with a timeout it would become a loss that may not even be one.
        all.set("message.timeout.ms", 0);
        // The same partition for a key as Java clients choose.
        all.set("partitioner", "murmur2_random");
        // One limit for all topics would let a dead leader take everything: bytes per topic are counted here.
        all.set("queue.buffering.max.messages", 0);
        all.set("queue.buffering.max.kbytes", i32::MAX);
        all.default_value("linger.ms", 5);
        all.default_value("client.id", "keylane");
        all.set("allow.auto.create.topics", "false");
        all
    }

    pub(super) fn topic_names(&self) -> Result<Vec<CString>, PermanentStartupError> {
        let name = |topic: &String| {
            CString::new(topic.as_str()).map_err(|_| PermanentStartupError::TopicName(topic.clone()))
        };
        self.topics.iter().map(name).collect()
    }
}
