//! What happens to events that fail, as written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::attempts::Attempts;
use super::duration::HumanDuration;
use super::scalar::scalar;

/// What happens to an event that fails.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Retry {
    /// Attempts in all, the first one included. `"unlimited"` is for services that may be down for longer than anybody
    /// knows: see docs/outages.md.
    pub(super) max_attempts: Attempts,
    /// The wait between the first attempt and the second.
    pub(super) initial_interval: HumanDuration,
    /// No wait is longer, whatever the guest asks for; `jitter` comes on top.
    pub(super) max_interval: HumanDuration,
    /// Each wait is so many times the one before.
    #[schemars(range(min = 1.0, max = 100.0))]
    #[serde(deserialize_with = "scalar")]
    pub(super) multiplier: f64,
    /// The share by which a wait is longer or shorter, so that events that failed together do not come back together.
    #[schemars(range(min = 0.0, max = 1.0))]
    #[serde(deserialize_with = "scalar")]
    pub(super) jitter: f64,
    /// Events whose records are older than this when they fail are not tried again. By default age does not matter.
    pub(super) max_record_age: Option<HumanDuration>,
    /// What becomes of an event that is rejected, or has no attempt left.
    pub(super) on_exhausted: OnExhausted,
    /// What waits while an event is between two attempts.
    pub(super) scope: Scope,
}

impl Default for Retry {
    fn default() -> Retry {
        Retry {
            max_attempts: Attempts::Limited(10),
            initial_interval: HumanDuration::from_millis(500),
            max_interval: HumanDuration::from_secs(30),
            multiplier: 2.0,
            jitter: 0.2,
            max_record_age: None,
            on_exhausted: OnExhausted::default(),
            scope: Scope::default(),
        }
    }
}

/// What becomes of an event that can't be handled.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum OnExhausted {
    /// It goes to the dead-letter topic, with the reason; its lane goes on when the brokers have it.
    #[default]
    Dlq,
    /// It is passed over, and counted.
    Skip,
    /// The handler finishes what runs, commits and leaves its group; nothing is passed over.
    Stop,
}

/// What waits while an event is between two attempts.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Scope {
    /// The events of its lane.
    #[default]
    Key,
    /// Its partition: nothing new of it is handled until everything that was under way is settled and committed.
    Partition,
}

/// Where events go that can't be handled.
#[derive(Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct DeadLetters {
    /// The topic; `{topic}` stands for the name of the event's own.
    pub(super) topic: String,
    /// Whose names the headers have that say where an event comes from and why it is there.
    pub(super) headers: DeadLetterHeaders,
    /// An event that comes back from the dead letters so many times raises an alarm when it is set aside again.
    #[schemars(range(min = 0, max = 1000))]
    #[serde(deserialize_with = "scalar")]
    pub(super) max_redrives: i64,
}

impl Default for DeadLetters {
    fn default() -> DeadLetters {
        DeadLetters {
            topic: "{topic}.dlq".to_owned(),
            headers: DeadLetterHeaders::default(),
            max_redrives: 3,
        }
    }
}

/// Whose names the headers of dead letters have.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum DeadLetterHeaders {
    /// `keylane-…`, all of them text.
    #[default]
    Keylane,
    /// Those too, and `kafka_dlt-…` as Spring for Apache Kafka writes and reads them.
    Spring,
}
