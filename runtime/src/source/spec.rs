//! What a source is made of, and the client properties that Keylane owns.
use std::ffi::CString;
use std::sync::Arc;
use std::time::Duration;

use super::embedded::FeedProgress;
use crate::config::FetchLimits;
use crate::librdkafka::{ConfigError, Consumer, Credentials, Isolation, Properties};

/// Everything that a source needs to know; all of it checked before.
#[derive(Clone, Debug)]
pub struct SourceSpec {
    /// Names the handler in log lines.
    pub handler: String,
    /// Properties of the user, with `bootstrap.servers`; those that Keylane owns were refused before.
    pub client_properties: Vec<(String, String)>,
    /// The secret of a file, if there is one.
    pub credentials: Option<Arc<Credentials>>,
    /// The topics in the order of the configuration: `Partition::topic` is an index into it.
    pub topics: Vec<String>,
    /// The consumer group.
    pub group_id: String,
    /// For static members.
    pub group_instance_id: Option<String>,
    /// How the group divides partitions.
    pub assignor: Assignor,
    /// Where partitions without a commit start.
    pub start: StartPolicy,
    /// Whether, and how, the ends of the partitions are found.
    pub ends: Ends,
    /// Create missing topics with the brokers' defaults instead of refusing to start.
    pub create_topics: bool,
    /// How far it may fetch ahead.
    pub fetch: FetchLimits,
    /// How long a commit may take before it counts as unanswered.
    pub commit_timeout: Duration,
    /// The feed of the embedded broker, to be told what was read.
    pub feed: Option<Arc<FeedProgress>>,
}

/// The group's way to divide partitions; it also decides whether the others stand still in a rebalance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assignor {
    /// The default: members keep what they can.
    CooperativeSticky,
    /// For groups that have members with this one.
    Range,
}

/// Where a partition starts that has no commit, in a group that has none for the topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartPolicy {
    /// The first offset of the log.
    Earliest,
    /// One past the last offset of the log.
    Latest,
    /// The first record that is not older, in milliseconds since 1970.
    Timestamp(i64),
}

/// Where the work of a partition ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// Nowhere.
    Never,
    /// At the log end that its first look-up found.
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
    /// Whether there can be a consumer with these properties. It connects only if they name brokers.
    ///
    /// # Errors
    ///
    /// What the client refuses.
    pub fn check(&self) -> Result<(), ConfigError> {
        Consumer::new(&self.properties()).map(drop)
    }

    /// The user's properties, then ours, which win.
    pub(super) fn properties(&self) -> Properties {
        let mut all =
            Properties::new(self.client_properties.clone()).with_credentials(self.credentials.clone());
        // Every commit is decided by the core, every start is placed by us.
        all.set("group.id", &self.group_id);
        all.set("enable.auto.commit", "false");
        all.set("enable.auto.offset.store", "false");
        all.set("auto.offset.reset", "error");
        // Its offset bridges control records behind the last event.
        all.set("enable.partition.eof", "true");
        all.set("group.protocol", "classic");
        all.set("partition.assignment.strategy", self.assignor.property());
        if let Some(id) = &self.group_instance_id {
            all.set("group.instance.id", id);
        }
        // No measurable cost, and the only thing that tells a damaged record from a sound one.
        all.set("check.crcs", "true");
        // Per partition, because every partition has a queue of its own.
        all.set("queued.max.messages.kbytes", (self.fetch.queue >> 10).max(1));
        all.set("queued.min.messages", 10_000);
        // The default of a second leaves a drained partition idle for so long.
        all.default_value("fetch.queue.backoff.ms", 20);
        all.default_value("fetch.message.max.bytes", self.fetch.of_partition);
        // The client refuses less than what it is told of the largest record.
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

    /// Up to where the consumer reads.
    pub(super) fn isolation(&self) -> Isolation {
        match self.properties().get("isolation.level") {
            Some("read_uncommitted") => Isolation::Uncommitted,
            Some(_) | None => Isolation::Committed,
        }
    }

    /// How long an answer of a broker may take: the client's own limit, whose default is a minute.
    pub(super) fn answer_limit(&self) -> Duration {
        self.properties().answer_limit()
    }

    /// The topics as the C library takes them; a name with a NUL byte gives `None`.
    pub(super) fn topic_names(&self) -> Option<Vec<CString>> {
        self.topics.iter().map(|topic| CString::new(topic.as_str()).ok()).collect()
    }
}
