//! One handler as written.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration::HumanDuration;
use super::lane_key::LaneKey;
use super::scalar::{maybe, scalar};
use super::size::HumanSize;
use super::start::Start;
use super::written_filter::Rule;
use super::written_retry::{DeadLetters, Retry};

/// One handler: a component and the events it gets.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Handler {
    /// The WebAssembly component.
    pub(super) component: PathBuf,
    /// The topics to read.
    #[schemars(length(min = 1))]
    pub(super) topics: Vec<String>,
    /// The consumer group. All processes that share the work use the same; no two handlers of a file do.
    pub(super) group_id: String,
    /// Makes this process a static member of its group: a restart within the session timeout moves nothing,
    /// and a stop leaves its partitions unread that long.
    pub(super) group_instance_id: Option<String>,
    /// How long one guest call may take, whatever it carries.
    #[serde(default = "default_timeout")]
    pub(super) timeout: HumanDuration,
    /// The most memory of one instance of the component.
    #[serde(default = "default_memory")]
    pub(super) memory: HumanSize,
    /// How much processor time one guest call may use, whatever it carries.
    #[serde(default = "default_cpu_budget")]
    pub(super) cpu_budget: HumanDuration,
    /// An instance that served so many calls is replaced. By default none is for that reason.
    #[schemars(range(min = 1, max = 4_294_967_295_u32))]
    #[serde(default, deserialize_with = "maybe")]
    pub(super) max_calls: Option<i64>,
    /// An instance that has more memory than this after a call is replaced: for guests whose memory only grows. By
    /// default three quarters of `memory`.
    pub(super) max_memory: Option<HumanSize>,
    /// The most bytes of one output: key, value and headers. An event with a larger one is not handled: it has the
    /// ending of an event that was rejected. By default what the topics of the outputs take, and 2 MiB at least.
    pub(super) max_output_bytes: Option<HumanSize>,
    /// The most events that one guest call carries. By default chosen by what the component exports.
    #[schemars(range(min = 1, max = 4096))]
    #[serde(default, deserialize_with = "maybe")]
    pub(super) max_batch: Option<i64>,
    /// Where a new group starts. Once it has committed anything of a topic, a partition without a commit begins at its
    /// first record.
    #[serde(default)]
    pub(super) start: Start,
    /// What to do when the committed offset is not in the log any more.
    #[serde(default)]
    pub(super) out_of_range: OutOfRange,
    /// Whether instances are reused from event to event.
    #[serde(default)]
    pub(super) isolation: Isolation,
    /// What runs in order and how much runs at once.
    #[serde(default)]
    pub(super) lanes: Lanes,
    /// When progress is stored.
    #[serde(default)]
    pub(super) commit: Commit,
    /// What happens when partitions are taken away.
    #[serde(default)]
    pub(super) rebalance: Rebalance,
    /// What happens to an event that fails.
    #[serde(default)]
    pub(super) retry: Retry,
    /// Where events go that can't be handled.
    #[serde(default)]
    pub(super) dead_letters: DeadLetters,
    /// Which events the handler gets; the others are settled without a call. By default it gets all.
    #[serde(default)]
    pub(super) filter: Vec<Rule>,
    /// What the handler may reach besides its events and outputs. By default nothing.
    #[serde(default)]
    pub(super) grants: Grants,
    /// Where the handler may publish to, by the name that it uses.
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

/// What to do when an offset is not in the log.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum OutOfRange {
    /// The partition stops and is named; the others go on.
    #[default]
    Fail,
    /// Go on at the first offset of the log; what is passed over is counted.
    Earliest,
    /// Go on at the end of the log; what is passed over is counted.
    Latest,
}

/// Whether instances are reused from event to event.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Isolation {
    /// Yes: a guest's memory survives from event to event. Handlers must not keep state per key in it.
    #[default]
    Shared,
    /// No: every call has a fresh one, and carries one event.
    Event,
}

/// What runs in order and how much runs at once.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Lanes {
    /// What keeps its order.
    pub(super) ordering: Ordering,
    /// What the lane of an event is found by.
    pub(super) lane_key: LaneKey,
    /// What happens to events without a lane key.
    pub(super) no_key: NoKey,
    /// The most guest calls out at once.
    #[schemars(range(min = 1, max = 100_000))]
    #[serde(deserialize_with = "scalar")]
    pub(super) max_concurrency: i64,
    /// The most events of one partition that are read and not settled.
    #[schemars(range(min = 1, max = 10_000_000))]
    #[serde(deserialize_with = "scalar")]
    pub(super) max_queued: i64,
    /// The most offsets of one partition between the first event that is not settled and the last one read.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    #[serde(deserialize_with = "scalar")]
    pub(super) max_window: i64,
}

impl Default for Lanes {
    fn default() -> Lanes {
        Lanes {
            ordering: Ordering::default(),
            lane_key: LaneKey::default(),
            no_key: NoKey::default(),
            max_concurrency: 256,
            max_queued: 100_000,
            max_window: 64_000_000,
        }
    }
}

/// What keeps its order.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Ordering {
    /// Events of a partition with the same key.
    #[default]
    Key,
    /// All events of a partition.
    Partition,
    /// Nothing.
    Unordered,
}

/// What happens to events without a lane key. An empty key is a key.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum NoKey {
    /// Each has a lane of its own: no order is promised.
    #[default]
    Spread,
    /// All of a partition share one lane.
    Partition,
    /// They are not handled: each has the ending of an event that was rejected.
    Reject,
}

/// When progress is stored.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Commit {
    /// How long settled work may stay uncommitted.
    pub(super) interval: HumanDuration,
    /// Settled events after which a commit is due at once.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    #[serde(deserialize_with = "scalar")]
    pub(super) every: i64,
    /// How long a commit may take before it counts as unanswered.
    pub(super) timeout: HumanDuration,
    /// Characters of commit metadata that the brokers take (their `offset.metadata.max.bytes`). 0: the events
    /// done beyond the committed offset are not stored, and repeat after a rebalance or crash. Below 36, a commit does not
    /// say of which topic it is: a topic that is deleted and created again may be taken for the one before.
    #[schemars(range(min = 0, max = 65_536))]
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

/// What happens when partitions are taken away.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Rebalance {
    /// How long to wait for running calls and the acknowledgements of their outputs. All partitions of the
    /// handler stand still meanwhile.
    pub(super) revoke_timeout: HumanDuration,
}

impl Default for Rebalance {
    fn default() -> Rebalance {
        Rebalance { revoke_timeout: HumanDuration::from_millis(1000) }
    }
}

/// What a handler may reach besides its events and outputs.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Grants {
    /// Names of environment variables of this process that the handler sees. They must be set.
    pub(super) env: Vec<String>,
    /// Hosts that the handler may send HTTP requests to: `host` (at the port of the scheme), `host:port`,
    /// `*.domain` (everything below that domain). With any, a call carries one event by default.
    pub(super) http: Vec<String>,
}

/// A topic that the handler may publish to.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Output {
    /// The topic.
    pub(super) topic: String,
    /// Add headers that say which event an output comes from.
    #[serde(default, deserialize_with = "scalar")]
    pub(super) provenance: bool,
    /// The time that outputs carry.
    #[serde(default)]
    pub(super) timestamp: OutputTime,
}

/// The time that outputs carry.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum OutputTime {
    /// That of their event. An event without a time gives the time of sending; so does one whose time the topic refuses.
    #[default]
    Input,
    /// The time of sending.
    Now,
}
