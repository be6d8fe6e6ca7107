//! The parameters of a source, and the client properties that Keylane sets.
use std::ffi::CString;
use std::sync::Arc;
use std::time::Duration;

use super::embedded::FeedProgress;
use crate::config::FetchLimits;
use crate::librdkafka::{ConfigError, Consumer, Credentials, Isolation, Properties};

/// The parameters of a source; all of them validated.
#[derive(Clone, Debug)]
pub struct SourceSpec {
    /// Names the handler in log lines.
    pub handler: String,
    /// The user's properties, with `bootstrap.servers` and without those that Keylane sets.
    pub client_properties: Vec<(String, String)>,
    /// Credentials read from a file, if any.
    pub credentials: Option<Arc<Credentials>>,
    /// The topics in the order of the configuration; `Partition::topic` is an index into this list.
    pub topics: Vec<String>,
    /// The consumer group.
    pub group_id: String,
    /// For static membership.
    pub group_instance_id: Option<String>,
    /// Partition assignment strategy.
    pub assignor: Assignor,
    /// Start position of partitions without a commit.
    pub start: StartPolicy,
    /// Whether processing ends, and at which offset.
    pub ends: Ends,
    /// Create missing topics with the brokers' defaults instead of refusing to start.
    pub create_topics: bool,
    /// Limits of prefetching.
    pub fetch: FetchLimits,
    /// Timeout of a commit.
    pub commit_timeout: Duration,
    /// The feed of the embedded broker, to which read positions are reported.
    pub feed: Option<Arc<FeedProgress>>,
}

/// Partition assignment strategy. It also decides whether all partitions stop during a rebalance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assignor {
    /// The default: members keep their partitions where possible.
    CooperativeSticky,
    /// For groups whose other members use it.
    Range,
}

/// Start position of a partition without a commit, in a group that has no commit for the topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartPolicy {
    /// The first offset of the log.
    Earliest,
    /// One past the last offset of the log.
    Latest,
    /// The first record that is not older than this time, in milliseconds since the Unix epoch.
    Timestamp(i64),
}

/// Where processing of a partition ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// It does not end.
    Never,
    /// At the end of the log, as found by the first look-up.
    LogEnd,
    /// At the end of the embedded broker's feed, once that is known.
    Feed,
}

impl Assignor {
    pub(super) fn property(self) -> &'static str {
        match self {
            Assignor::CooperativeSticky => "cooperative-sticky",
            Assignor::Range => "range",
        }
    }
}

impl SourceSpec {
    /// Checks that a consumer can be created with these properties. It connects only if they name brokers.
    ///
    /// # Errors
    ///
    /// A property that the client rejects.
    pub fn check(&self) -> Result<(), ConfigError> {
        Consumer::new(&self.properties()).map(drop)
    }

    /// The user's properties, overridden by Keylane's.
    pub(super) fn properties(&self) -> Properties {
        let mut all =
            Properties::new(self.client_properties.clone()).with_credentials(self.credentials.clone());
        // The core decides every commit; the source sets every start position.
        all.set("group.id", &self.group_id);
        all.set("enable.auto.commit", "false");
        all.set("enable.auto.offset.store", "false");
        all.set("auto.offset.reset", "error");
        // The EOF offset accounts for control records behind the last event.
        all.set("enable.partition.eof", "true");
        all.set("group.protocol", "classic");
        all.set("partition.assignment.strategy", self.assignor.property());
        if let Some(id) = &self.group_instance_id {
            all.set("group.instance.id", id);
        }
        // No measurable cost, and the only way to detect a damaged record.
        all.set("check.crcs", "true");
        // Per partition, because every partition has its own queue.
        all.set("queued.max.messages.kbytes", (self.fetch.queue >> 10).max(1));
        all.set("queued.min.messages", 10_000);
        // The default leaves a drained partition idle for a second.
        all.default_value("fetch.queue.backoff.ms", 20);
        all.default_value("fetch.message.max.bytes", self.fetch.of_partition);
        // The client rejects a value below `message.max.bytes`.
        let largest = all.get("message.max.bytes").and_then(|bytes| bytes.trim().parse().ok()).unwrap_or(0);
        all.default_value("fetch.max.bytes", self.fetch.response.max(largest));
        all.default_value("fetch.wait.max.ms", 100);
        all.default_value("client.id", "keylane");
        // A source must not create the topics it is asked to read.
        all.set("allow.auto.create.topics", "false");
        all
    }

    /// The group as the C library takes it; a name with a NUL byte gives `None`.
    pub(super) fn group_name(&self) -> Option<CString> {
        CString::new(self.group_id.as_str()).ok()
    }

    /// The consumer's isolation level.
    pub(super) fn isolation(&self) -> Isolation {
        match self.properties().get("isolation.level") {
            Some("read_uncommitted") => Isolation::Uncommitted,
            Some(_) | None => Isolation::Committed,
        }
    }

    /// Timeout of a broker's answer: the client's own limit, by default a minute.
    pub(super) fn answer_limit(&self) -> Duration {
        self.properties().answer_limit()
    }

    /// The topics as the C library takes them; a name with a NUL byte gives `None`.
    pub(super) fn topic_names(&self) -> Option<Vec<CString>> {
        self.topics.iter().map(|topic| CString::new(topic.as_str()).ok()).collect()
    }
}
