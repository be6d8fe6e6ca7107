//! The input topics of all handlers, looked up before any handler is started.

use crate::config::{Checked, Cluster};
use crate::librdkafka::{ErrorCode, StartupError};
use crate::sink;
use crate::source::{self, partition_counts};

use super::assemble::KeepWaiting;
use super::options::{self, Access};

/// All topics that handlers read.
pub(in crate::app) struct InputTopics {
    names: Vec<String>,
    /// The number of partitions of each, or its error.
    partitions: Vec<Result<u64, ErrorCode>>,
    /// Whether missing topics are created.
    are_created: bool,
}

impl InputTopics {
    /// Looks up the topics. Waits for unavailable brokers.
    pub(in crate::app) fn query(
        config: &Checked,
        access: Access,
        keep_waiting: KeepWaiting<'_>,
    ) -> Result<InputTopics, source::Error> {
        let topics = config.input_topics();
        let partitions = match &config.kafka.cluster {
            Cluster::Embedded(embedded) => {
                topics.iter().map(|_| Ok(u64::from(embedded.partitions))).collect()
            }
            Cluster::Brokers(_) => {
                let properties = options::metadata_client_properties(&config.kafka, access);
                partition_counts(&properties, &topics, &mut |waiting| {
                    keep_waiting(waiting.reason.as_deref())
                })?
            }
        };
        let names = topics.into_iter().map(str::to_owned).collect();
        Ok(InputTopics { names, partitions, are_created: config.kafka.create_topics })
    }

    /// Returns the number of partitions of a topic, if it is known.
    pub(in crate::app) fn partitions(&self, topic: &str) -> Option<u64> {
        let at = self.names.iter().position(|known| known == topic)?;
        self.partitions.get(at).copied()?.ok().filter(|partitions| *partitions > 0)
    }

    /// Adds the missing input topics to an error about missing output topics, so that one start reports all of them.
    /// Other errors are returned unchanged.
    pub(in crate::app) fn with_missing(&self, error: sink::Error) -> sink::Error {
        let sink::Error::Startup(StartupError::TopicsMissing { mut topics, role }) = error else {
            return error;
        };
        topics.extend(self.missing());
        topics.sort();
        topics.dedup();
        StartupError::TopicsMissing { topics, role }.into()
    }

    /// Returns an error if a topic is missing and will not be created.
    pub(in crate::app) fn require_existing(&self) -> Result<(), StartupError> {
        let topics = self.missing();
        if topics.is_empty() {
            return Ok(());
        }
        Err(StartupError::TopicsMissing { topics, role: "the topic" })
    }

    fn missing(&self) -> Vec<String> {
        if self.are_created {
            return Vec::new();
        }
        let all = self.names.iter().zip(&self.partitions);
        let is_missing = |partitions: &Result<u64, ErrorCode>| {
            matches!(partitions, Err(ErrorCode::UNKNOWN_TOPIC_OR_PART | ErrorCode::UNKNOWN_TOPIC))
        };
        all.filter(|(_, partitions)| is_missing(partitions)).map(|(name, _)| name.clone()).collect()
    }
}
