//! The parameters of a source, and the client properties that Keylane sets.
use std::ffi::CString;
use std::sync::Arc;
use std::time::Duration;

use super::delivery_suffix::with_suffix;
use super::embedded::FeedProgress;
use super::topic_settings::TopicNeeds;
use crate::config::{Assignor, FetchLimits, StartPolicy};
use crate::librdkafka::{ClientError, Consumer, Credentials, Isolation, LatestStatistics, Properties};
use crate::status::DeliveryMode;

/// The parameters of a source; all of them validated.
#[derive(Clone, Debug)]
pub struct SourceSpec {
    /// The handler's name, for log lines.
    pub handler: String,
    /// The user's properties, with `bootstrap.servers` and without those that Keylane sets.
    pub client_properties: Vec<(String, String)>,
    /// Credentials read from a file, if any.
    pub credentials: Option<Arc<Credentials>>,
    /// The topics in the order of the configuration; `Partition::topic` is an index into this list.
    pub topics: Vec<String>,
    /// The consumer group.
    pub group_id: String,
    /// The `group.instance.id` of a static member.
    pub group_instance_id: Option<String>,
    /// The delivery, which other members of the group must have, too.
    pub delivery: DeliveryMode,
    /// Partition assignment strategy. It also decides whether a rebalance revokes all partitions.
    pub assignor: Assignor,
    /// Start position of partitions without a commit.
    pub start: StartPolicy,
    /// Whether processing ends, and at which offset.
    pub ends: Ends,
    /// Whether to create missing topics, with the brokers' defaults, instead of refusing to start.
    pub create_topics: bool,
    /// Limits of prefetching.
    pub fetch: FetchLimits,
    /// Timeout of a commit.
    pub commit_timeout: Duration,
    /// What the gate of the handler needs of the topics.
    pub needs: TopicNeeds,
    /// The progress of the embedded broker's feed, to which read positions are reported.
    pub feed: Option<Arc<FeedProgress>>,
    /// The receiver of the consumer's statistics; `None`: nobody reads them.
    pub statistics: Option<Arc<LatestStatistics>>,
}

/// Where processing of a partition ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// Processing does not end.
    Never,
    /// At the end of the log, as found by the first lookup.
    LogEnd,
    /// At the end of the embedded broker's feed, once that is known.
    Feed,
}

impl SourceSpec {
    /// Checks that a consumer can be created with these properties. The consumer connects only if the properties name
    /// brokers.
    ///
    /// # Errors
    ///
    /// A property that the client rejects.
    pub fn check(&self) -> Result<(), ClientError> {
        Consumer::new(&self.properties()).map(drop)
    }

    /// Returns the properties of the consumer that joins the group: other clients have no statistics, and no suffix that
    /// names the delivery.
    pub(super) fn consumer_properties(&self) -> Properties {
        let mut all = self.properties();
        let client_id = with_suffix(all.get("client.id").unwrap_or_default(), self.delivery);
        all.set("client.id", client_id);
        if self.statistics.is_some() {
            all.enable_statistics();
        }
        all
    }

    /// Returns the properties of a client that only reads committed offsets.
    pub fn reader_properties(&self) -> Properties {
        self.properties()
    }

    /// Combines the user's properties with Keylane's. Some of Keylane's override the user's, others are only defaults.
    pub(super) fn properties(&self) -> Properties {
        let mut all =
            Properties::new(self.client_properties.clone()).with_credentials(self.credentials.clone());
        // The core decides every commit; the source sets every start position.
        all.set("group.id", &self.group_id);
        all.set("enable.auto.commit", "false");
        all.set("enable.auto.offset.store", "false");
        all.set("auto.offset.reset", "error");
        // The offset of an end of partition accounts for control records after the last event.
        all.set("enable.partition.eof", "true");
        all.set("group.protocol", "classic");
        let assignor = match self.assignor {
            Assignor::CooperativeSticky => "cooperative-sticky",
            Assignor::Range => "range",
        };
        all.set("partition.assignment.strategy", assignor);
        if let Some(id) = &self.group_instance_id {
            all.set("group.instance.id", id);
        }
        // The check has no measurable cost and is the only way to detect a damaged record.
        all.set("check.crcs", "true");
        // The limit applies to each partition, because every partition has its own queue.
        all.set("queued.max.messages.kbytes", (self.fetch.queue_bytes >> 10).max(1));
        all.set("queued.min.messages", 10_000);
        // By default the next fetch of a partition with a full queue is postponed by a second, even if the queue is
        // drained before.
        all.set_default("fetch.queue.backoff.ms", 20);
        all.set_default("fetch.message.max.bytes", self.fetch.partition_response_bytes);
        // The client rejects a value below `message.max.bytes`.
        let largest = all.get("message.max.bytes").and_then(|bytes| bytes.trim().parse().ok()).unwrap_or(0);
        all.set_default("fetch.max.bytes", self.fetch.response_bytes.max(largest));
        all.set_default("fetch.wait.max.ms", 100);
        all.set_default("client.id", "keylane");
        // Requests for a topic must not create it.
        all.set("allow.auto.create.topics", "false");
        all
    }

    /// Returns the group id as a C string; `None` if it contains a NUL byte.
    pub(super) fn group_name(&self) -> Option<CString> {
        CString::new(self.group_id.as_str()).ok()
    }

    /// Returns the consumer's isolation level.
    pub(super) fn isolation(&self) -> Isolation {
        match self.properties().get("isolation.level") {
            Some("read_uncommitted") => Isolation::Uncommitted,
            Some(_) | None => Isolation::Committed,
        }
    }

    /// Returns the timeout of a broker's response: `socket.timeout.ms`, by default a minute.
    pub(super) fn response_timeout(&self) -> Duration {
        self.properties().response_timeout()
    }

    /// Returns the topics as C strings; `None` if a name contains a NUL byte.
    pub(super) fn topic_names(&self) -> Option<Vec<CString>> {
        self.topics.iter().map(|topic| CString::new(topic.as_str()).ok()).collect()
    }
}
