//! How the effects of events are published, as written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration::HumanDuration;
use super::size::HumanSize;

/// How outputs, dead letters and offsets become visible.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Delivery {
    /// Outputs are published at once, and the offset is committed when they are acknowledged. After a crash, some events
    /// are processed again, and their outputs are published again.
    #[default]
    AtLeastOnce,
    /// Outputs, dead letters and offsets are published together, in transactions. Readers with
    /// `isolation.level=read_committed` see each effect once.
    Transactional,
}

/// What happens if a topic refuses an output of an event that is done.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum OnRefusedOutput {
    /// The partition of the event stops. Nothing of it is committed or published until it is assigned again.
    #[default]
    Stop,
    /// The output, and only it, is published to the dead-letter topic, with its target in the header `keylane-output-target`.
    /// The event counts as done.
    DeadLetter,
}

/// Transactions of a handler with `delivery = "transactional"`.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Transactions {
    /// Longest time that settled events wait for the next transaction.
    pub(super) interval: HumanDuration,
    /// The brokers abort a transaction after this time. Without a name of this process (`runtime.instance` or
    /// `group_instance_id`), the partitions of a crashed process wait for it, up to 10 s longer.
    pub(super) timeout: HumanDuration,
    /// Maximum size of the outputs and dead letters of one transaction.
    pub(super) max_bytes: HumanSize,
    /// Number of settled events that wait for their transaction at which no call begins. After a crash they are processed again.
    /// Unlimited by default, and 1,000 with `grants.http`, because their HTTP requests are then repeated.
    pub(super) max_uncommitted: Option<i64>,
    /// How long settled events may wait for their transaction until no call begins, for example while the brokers are down.
    /// Unlimited by default, and `"1s"` with `grants.http`.
    pub(super) max_uncommitted_age: Option<HumanDuration>,
    /// What happens if a topic refuses an output although Keylane has checked it: its limits have changed since the start,
    /// or are not visible.
    pub(super) on_refused_output: OnRefusedOutput,
}

impl Default for Transactions {
    fn default() -> Transactions {
        Transactions {
            interval: HumanDuration::from_millis(100),
            timeout: HumanDuration::from_secs(10),
            max_bytes: HumanSize::from_mib(8),
            max_uncommitted: None,
            max_uncommitted_age: None,
            on_refused_output: OnRefusedOutput::default(),
        }
    }
}
