//! One handler as written.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration::HumanDuration;
use super::lane_key::LaneKey;
use super::rules::ranges;
use super::scalar::{optional_scalar, scalar};
use super::size::HumanSize;
use super::start_policy::StartPolicy;
use super::written_filter::Rule;
use super::written_gate::{Duplicates, Gate};
use super::written_retry::{DeadLetters, Retry};
use super::written_state::{Keys, State};
use super::written_transactions::{Delivery, Transactions};

/// One handler: a component and the events that it receives.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Handler {
    /// The WebAssembly component.
    pub(super) component: PathBuf,
    /// The topics to read.
    #[schemars(length(min = 1))]
    pub(super) topics: Vec<String>,
    /// The consumer group. Processes that share the work use the same group. The handlers of one file have different
    /// groups.
    pub(super) group_id: String,
    /// Makes this process a static member of its group: a restart within the session timeout moves no partition, and
    /// after a stop its partitions are not read for that time.
    pub(super) group_instance_id: Option<String>,
    /// Timeout of one guest call, for any number of events.
    #[serde(default = "default_timeout")]
    pub(super) timeout: HumanDuration,
    /// Maximum memory of one instance of the component.
    #[serde(default = "default_memory")]
    pub(super) memory: HumanSize,
    /// Maximum CPU time of one guest call, for any number of events.
    #[serde(default = "default_cpu_budget")]
    pub(super) cpu_budget: HumanDuration,
    /// An instance is replaced after this number of calls. By default the number is unlimited.
    #[schemars(range(min = *ranges::MAX_CALLS.start(), max = *ranges::MAX_CALLS.end()))]
    #[serde(default, deserialize_with = "optional_scalar")]
    pub(super) reuse_max_calls: Option<i64>,
    /// An instance that uses more memory than this after a call is replaced: for guests whose memory only grows. By
    /// default three quarters of `memory`.
    pub(super) reuse_max_memory: Option<HumanSize>,
    /// Maximum size of one output: key, value and headers. An event with a larger output is treated like a rejected
    /// event. By default the limit of the output topics, and at least 2 MiB.
    pub(super) max_output_bytes: Option<HumanSize>,
    /// Maximum number of events in one guest call. By default up to 64, but 1 with `grants.http`, or once any call of
    /// the handler has waited for I/O or a timer. Always 1 with `isolation = "event"`.
    #[schemars(range(min = *ranges::MAX_BATCH.start(), max = *ranges::MAX_BATCH.end()))]
    #[serde(default, deserialize_with = "optional_scalar")]
    pub(super) max_batch: Option<i64>,
    /// How outputs, dead letters and offsets become visible. Change it only while no process of the group runs.
    #[serde(default)]
    pub(super) delivery: Delivery,
    /// Transactions of a handler with `delivery = "transactional"`.
    pub(super) transactions: Option<Transactions>,
    /// The state that the handler keeps for each lane key.
    pub(super) state: Option<State>,
    /// Where keyed state is stored.
    pub(super) keys: Option<Keys>,
    /// Whether events run, wait or are left out by a version, a sequence number or a time. Without a gate they run in the order
    /// of their offsets.
    pub(super) gate: Option<Gate>,
    /// The detection of events that a producer has sent twice.
    pub(super) duplicates: Option<Duplicates>,
    /// No partition of this process is handled further ahead than this, by the timestamps of its records, of the slowest one
    /// that is not at the end of its log: for handlers that bring several topics into one. Processes do not wait for each
    /// other. By default partitions do not wait either.
    pub(super) read_in_step: Option<HumanDuration>,
    /// Start position of a new group. Once the group has a commit for a topic, partitions without a commit start at their
    /// first record.
    #[serde(default)]
    pub(super) start: StartPolicy,
    /// What happens if the committed offset is not in the log, or was committed in another topic of the same name.
    #[serde(default)]
    pub(super) out_of_range: OutOfRange,
    /// Whether instances are reused from event to event.
    #[serde(default)]
    pub(super) isolation: Isolation,
    /// Ordering and concurrency.
    #[serde(default)]
    pub(super) lanes: Lanes,
    /// When offsets are committed.
    #[serde(default)]
    pub(super) commit: Commit,
    /// What happens when partitions are revoked.
    #[serde(default)]
    pub(super) rebalance: Rebalance,
    /// What happens to an event that fails.
    #[serde(default)]
    pub(super) retry: Retry,
    /// Where events that can't be handled are published.
    #[serde(default)]
    pub(super) dead_letters: DeadLetters,
    /// Rules that decide which events the handler receives. Other events are settled without a call. An event matches a
    /// rule if all its tests hold; the first matching rule decides. Events that match no rule are dropped if any rule
    /// has `keep = true`, and kept otherwise. By default the handler receives all events.
    #[serde(default)]
    pub(super) filter: Vec<Rule>,
    /// What the handler may access besides its events and outputs. By default nothing.
    #[serde(default)]
    pub(super) grants: Grants,
    /// The topics to which the handler may publish, by the names that it uses.
    #[serde(default)]
    pub(super) outputs: BTreeMap<String, Output>,
}

fn default_timeout() -> HumanDuration {
    HumanDuration::from_secs(5)
}

pub(super) fn default_cpu_budget() -> HumanDuration {
    HumanDuration::from_secs(1)
}

fn default_memory() -> HumanSize {
    HumanSize::from_mib(64)
}

/// What happens if an offset is not in the log.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum OutOfRange {
    /// Processing of the partition stops and an error is logged; other partitions continue.
    #[default]
    Fail,
    /// Continue at the first offset of the log; skipped offsets are counted.
    Earliest,
    /// Continue at the end of the log; skipped offsets are counted.
    Latest,
}

/// Whether instances are reused from event to event.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Isolation {
    /// Instances are reused: a guest's memory persists between events. Handlers must not keep state per key in it.
    #[default]
    Shared,
    /// Every call has a fresh instance and only one event.
    Event,
}

/// Ordering and concurrency.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Lanes {
    /// Which events are processed in order.
    pub(super) ordering: Ordering,
    /// What decides the lane of an event.
    pub(super) lane_key: LaneKey,
    /// What happens to events without a lane key. By default `spread`, and `reject` with `gate` or `duplicates`.
    pub(super) no_key: Option<NoKey>,
    /// Maximum number of concurrent guest calls.
    #[schemars(range(min = *ranges::MAX_CONCURRENCY.start(), max = *ranges::MAX_CONCURRENCY.end()))]
    #[serde(deserialize_with = "scalar")]
    pub(super) max_concurrency: i64,
    /// Maximum number of events of one partition that are read and not settled.
    #[schemars(range(min = *ranges::MAX_QUEUED.start(), max = *ranges::MAX_QUEUED.end()))]
    #[serde(deserialize_with = "scalar")]
    pub(super) max_queued: i64,
    /// Maximum number of offsets of one partition between the first unsettled event and the last one read.
    #[schemars(range(min = *ranges::MAX_WINDOW.start(), max = *ranges::MAX_WINDOW.end()))]
    #[serde(deserialize_with = "scalar")]
    pub(super) max_window: i64,
}

impl Default for Lanes {
    fn default() -> Lanes {
        Lanes {
            ordering: Ordering::default(),
            lane_key: LaneKey::default(),
            no_key: None,
            max_concurrency: 256,
            max_queued: keylane_core::Config::default().max_queued.into(),
            max_window: 64_000_000,
        }
    }
}

/// Which events are processed in order.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Ordering {
    /// Events of a partition with the same key.
    #[default]
    Key,
    /// All events of a partition.
    Partition,
    /// No order: even events with the same key may run at the same time.
    Unordered,
}

/// What happens to events without a lane key. An empty key is a key.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum NoKey {
    /// Each has its own lane, without a guaranteed order.
    #[default]
    Spread,
    /// All such events of a partition share one lane.
    Partition,
    /// They are not processed, but treated like rejected events.
    Reject,
}

/// When offsets are committed.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Commit {
    /// Longest time that settled events stay uncommitted.
    pub(super) interval: HumanDuration,
    /// Number of settled events after which a commit is due at once.
    #[schemars(range(min = *ranges::COMMIT_EVERY.start(), max = *ranges::COMMIT_EVERY.end()))]
    #[serde(deserialize_with = "scalar")]
    pub(super) every: i64,
    /// Timeout of a commit.
    pub(super) timeout: HumanDuration,
    /// Maximum characters of commit metadata (the brokers' `offset.metadata.max.bytes`). 0: events settled beyond the
    /// committed offset are not recorded, and are processed again after a rebalance or crash. Below 36, commits do not
    /// identify their topic: a topic that is deleted and created again may be mistaken for the previous one.
    #[schemars(range(min = *ranges::METADATA_LIMIT.start(), max = *ranges::METADATA_LIMIT.end()))]
    #[serde(deserialize_with = "scalar")]
    pub(super) metadata_limit: i64,
}

impl Default for Commit {
    fn default() -> Commit {
        Commit {
            interval: HumanDuration::from_secs(1),
            every: 10_000,
            timeout: HumanDuration::from_secs(2),
            metadata_limit: 4096,
        }
    }
}

/// What happens when partitions are revoked.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Rebalance {
    /// How long Keylane waits for running calls and the acknowledgements of their outputs before it releases revoked
    /// partitions. Meanwhile, nothing is fetched for the handler.
    pub(super) revoke_timeout: HumanDuration,
}

impl Default for Rebalance {
    fn default() -> Rebalance {
        Rebalance { revoke_timeout: HumanDuration::from_millis(1000) }
    }
}

/// What a handler may access besides its events and outputs.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Grants {
    /// Names of environment variables of this process that are passed to the handler. They must be set.
    pub(super) env: Vec<String>,
    /// Hosts to which the handler may send HTTP requests: `host` (on the port of the scheme), `host:port`, `*.domain` (all
    /// subdomains of that domain). If any are set, `max_batch` is 1 by default.
    pub(super) http: Vec<String>,
}

/// A topic to which the handler may publish.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Output {
    /// The topic.
    pub(super) topic: String,
    /// Add headers that identify the event of an output.
    #[serde(default, deserialize_with = "scalar")]
    pub(super) provenance: bool,
    /// The timestamp of outputs.
    #[serde(default)]
    pub(super) timestamp: OutputTime,
    /// `header:NAME`: add this header with the order value of the event, as a decimal integer: the value that the gate
    /// reads, and without a gate the record's timestamp. Times are nanoseconds since 1970, which `format = "unix_ns"` of a
    /// gate reads. It comes after the handler's own headers. An event without an order value adds no header.
    #[schemars(regex(pattern = r"^header:.+$"))]
    pub(super) order_value: Option<String>,
}

/// The timestamp of outputs.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum OutputTime {
    /// The timestamp of the event. The time of sending if the event has none, or if the topic rejects it.
    #[default]
    Input,
    /// The time of sending.
    Now,
}
