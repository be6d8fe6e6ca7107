//! Gates and the detection of duplicates, as written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration::HumanDuration;
use super::gate_values::{FirstValue, GapTimeout, MaxAhead};
use super::rules::ranges;
use super::scalar::{optional_scalar, scalar};
use super::size::HumanSize;

/// A gate: decides from the order value of an event, such as a version or a time, whether the event runs, waits for lower
/// values, or settles without a call.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Gate {
    /// The rule.
    pub(super) rule: GateRule,
    /// The order value: `header:NAME` (the last header of that name), `json:/pointer` (the number or string at this JSON
    /// pointer in the value), or `timestamp` (of the record).
    #[schemars(regex(pattern = r"^(header:.+|json:(/.*)?|timestamp)$"))]
    pub(super) by: String,
    /// The format of the order value. By default `integer`. With `by = "timestamp"` it can't be set.
    pub(super) format: Option<OrderFormat>,
    /// Whose values are compared with each other: `lane` (events of a lane), `header:NAME` or `json:/pointer` (those events of
    /// a lane that have the same value there).
    #[schemars(regex(pattern = r"^(lane|header:.+|json:(/.*)?)$"))]
    #[serde(default = "default_key")]
    pub(super) key: String,
    /// Where marks are kept. By default `durable`, and `session` with `rule = "window"`.
    pub(super) memory: Option<GateMemory>,
    /// What happens to an event without a readable order value.
    #[serde(default)]
    pub(super) no_value: NoOrderValue,
    /// How far ahead a value may be. A value further ahead is rejected: one absurd value would end its key. For times, a
    /// duration above the clock of the process, by default `"1h"`. For other values, a number above the highest value that
    /// has passed, by default `"off"`; required with `rule = "window"` and with `on_gap = "pass"`.
    pub(super) max_ahead: Option<MaxAhead>,
    /// Whether a record without a value ends the key.
    #[serde(default)]
    pub(super) ends: GateEnds,
    /// What happens to an event that comes too late for its place in the order. By default `deliver`. Not with
    /// `rule = "newest"`, which settles such events without a call.
    pub(super) late: Option<OnLate>,
    /// Confirms that the producer partitions the topic by the lane key. Needed by `rule = "consecutive"` with another
    /// `lane_key` than `key`: otherwise the versions of a key are in several partitions.
    #[serde(default, deserialize_with = "scalar")]
    pub(super) partitioned_by_lane_key: bool,
    /// Confirms that a newer event of one topic supersedes an older one of another topic. Needed by `rule = "newest"` with
    /// several topics.
    #[serde(default, deserialize_with = "scalar")]
    pub(super) supersedes_across_topics: bool,
    /// Memory for what is remembered of keys with `memory = "session"`, in addition to `runtime.memory_budget`. The keys
    /// that were used least recently are forgotten first.
    #[serde(default = "default_marks_memory")]
    pub(super) marks_memory: HumanSize,

    /// `consecutive`: the value with which a key begins, or `"any"`. Required. A number needs `start = "earliest"` and
    /// `out_of_range = "fail"`.
    pub(super) first: Option<FirstValue>,
    /// `consecutive` with `first = "any"`: how long the first event of a key waits for lower values. By default `"10s"`.
    pub(super) first_wait: Option<HumanDuration>,
    /// `consecutive`: how long an event waits for missing values, or `"never"`: without limit. Measured by the timestamps of
    /// the partition's records, and at its end by the clock. By default `"5m"`.
    pub(super) gap_timeout: Option<GapTimeout>,
    /// `consecutive`: maximum number of events of a key that wait for a missing value. By default 10000.
    #[schemars(range(min = *ranges::MAX_EARLY.start(), max = *ranges::MAX_EARLY.end()))]
    #[serde(default, deserialize_with = "optional_scalar")]
    pub(super) max_early: Option<i64>,
    /// `consecutive`: what happens when a value does not come. By default `dlq`.
    pub(super) on_gap: Option<OnGap>,

    /// `newest`: what happens to an event with the same value as the newest one. By default `stale`.
    pub(super) equal: Option<EqualValues>,
    /// `newest` with times: an event that is at most this much older than the newest one is delivered. By default `"0s"`.
    pub(super) skew_tolerance: Option<HumanDuration>,
    /// `newest`: of the queued events of a key, the newest one runs first, and the others settle without a call. By default
    /// false.
    #[serde(default, deserialize_with = "optional_scalar")]
    pub(super) latest_first: Option<bool>,

    /// `window`: how long an event waits for lower values. Required. Measured by the timestamps of the partition's records,
    /// and at its end by the clock.
    pub(super) window: Option<HumanDuration>,
    /// `window`: whether the values have no holes, so that the value after the last one need not wait. By default false.
    #[serde(default, deserialize_with = "optional_scalar")]
    pub(super) consecutive: Option<bool>,
    /// `window`: maximum number of events of a partition that wait. By default 10000.
    #[schemars(range(min = *ranges::MAX_WAITING.start(), max = *ranges::MAX_WAITING.end()))]
    #[serde(default, deserialize_with = "optional_scalar")]
    pub(super) max_waiting: Option<i64>,
    /// `window`: maximum size of these events. By default `"16MiB"`.
    pub(super) max_waiting_bytes: Option<HumanSize>,
    /// `window`: what happens when one of these limits is reached. By default `release`.
    pub(super) on_overflow: Option<OnOverflow>,
}

fn default_key() -> String {
    "lane".to_owned()
}

fn default_marks_memory() -> HumanSize {
    HumanSize::from_mib(8)
}

/// The rule of a gate.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum GateRule {
    /// Each value runs after the value before it: for versions of which none may be left out.
    Consecutive,
    /// A value runs only if no higher one ran before it: for states of which only the newest counts.
    Newest,
    /// An event waits for a limited time, and then runs after all lower values that came meanwhile.
    Window,
}

/// The format of the order value.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum OrderFormat {
    /// A decimal number of 64 bits.
    #[default]
    Integer,
    /// Eight bytes, big endian. Only in headers.
    Int64,
    /// Seconds since 1970, as a whole number.
    UnixS,
    /// Milliseconds since 1970.
    UnixMs,
    /// Microseconds since 1970.
    UnixUs,
    /// Nanoseconds since 1970.
    UnixNs,
    /// A time such as `2026-01-31T12:00:00.5+01:00`. A space may replace the `T`. A time without an offset is UTC.
    Rfc3339,
}

/// Where the memory of gates and of the detection of duplicates is kept.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum GateMemory {
    /// In the changelog of the handler, a compacted topic, committed together with the effects of events: see `keys`. Needs
    /// `delivery = "transactional"`. Not available for ids in this version.
    Durable,
    /// In the memory of the process, while it owns the partition.
    Session,
}

/// What happens to an event without a readable order value.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum NoOrderValue {
    /// It is treated like a rejected event.
    #[default]
    Reject,
    /// It runs in its place by arrival.
    Pass,
}

/// Whether a record without a value ends its key.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum GateEnds {
    /// It does not.
    #[default]
    Never,
    /// It runs in its place by arrival, and what is remembered of the key ends: for rows that are deleted and inserted again.
    Tombstone,
}

/// What happens to an event that comes too late for its place in the order.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum OnLate {
    /// It runs out of order, and is counted.
    #[default]
    Deliver,
    /// It is published to the dead-letter topic.
    Dlq,
    /// It settles without a call, and is counted.
    Drop,
}

/// What happens when a value does not come.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum OnGap {
    /// The events of the key that wait, and those that follow, are published to the dead-letter topic until it comes.
    #[default]
    Dlq,
    /// The missing values are passed over.
    Pass,
    /// The partition stops.
    Stop,
}

/// What happens to an event with the same order value as the newest one.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum EqualValues {
    /// It settles without a call.
    #[default]
    Stale,
    /// It runs.
    Deliver,
}

/// What happens when too many events wait.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum OnOverflow {
    /// Some are released before their time, and counted.
    #[default]
    Release,
    /// The partition is not read until others have been released.
    Block,
}

/// The detection of events that a producer has sent twice: the second one settles without a call.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Duplicates {
    /// The id of an event: `header:NAME` (the last header of that name), or `json:/pointer` (the scalar at this JSON pointer in
    /// the value). An event without an id is never a duplicate.
    #[schemars(regex(pattern = r"^(header:.+|json:(/.*)?)$"))]
    pub(super) id: String,
    /// Number of ids that are remembered for each lane key.
    #[schemars(range(min = *ranges::DUPLICATES_KEEP.start(), max = *ranges::DUPLICATES_KEEP.end()))]
    #[serde(default = "default_keep", deserialize_with = "scalar")]
    pub(super) keep: i64,
    /// How long an id is remembered.
    #[serde(default = "default_duplicates_window")]
    pub(super) window: HumanDuration,
    /// Where ids are kept.
    #[serde(default = "default_memory")]
    pub(super) memory: GateMemory,
    /// Memory for ids with `memory = "session"`, by default `"8MiB"`. With a gate, `gate.marks_memory` is for both.
    pub(super) marks_memory: Option<HumanSize>,
}

fn default_keep() -> i64 {
    16
}

fn default_duplicates_window() -> HumanDuration {
    HumanDuration::from_secs(24 * 3600)
}

fn default_memory() -> GateMemory {
    GateMemory::Durable
}
