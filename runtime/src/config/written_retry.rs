//! Retries and dead letters, as written.

use keylane_core::RetryPolicy;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::attempts::Attempts;
use super::duration::HumanDuration;
use super::rules::ranges;
use super::scalar::scalar;

/// What happens to an event that fails.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Retry {
    /// Number of attempts, including the first. `"unlimited"` is for services that may be down for an unknown time: see
    /// docs/outages.md.
    pub(super) max_attempts: Attempts,
    /// The delay between the first attempt and the second.
    pub(super) initial_interval: HumanDuration,
    /// Maximum delay before jitter. A delay that the guest requests is limited to it, and has no jitter.
    pub(super) max_interval: HumanDuration,
    /// Factor between one delay and the next.
    #[schemars(range(min = *ranges::RETRY_MULTIPLIER.start(), max = *ranges::RETRY_MULTIPLIER.end()))]
    #[serde(deserialize_with = "scalar")]
    pub(super) multiplier: f64,
    /// Maximum fraction by which a delay is randomly lengthened or shortened, so that events that failed together are
    /// not retried together.
    #[schemars(range(min = *ranges::RETRY_JITTER.start(), max = *ranges::RETRY_JITTER.end()))]
    #[serde(deserialize_with = "scalar")]
    pub(super) jitter: f64,
    /// Events whose records are older than this when they fail are not retried. By default the age is not limited.
    pub(super) max_record_age: Option<HumanDuration>,
    /// What happens to an event that is rejected or has no attempt left.
    pub(super) on_exhausted: OnExhausted,
    /// Which events wait while an event is between two attempts.
    pub(super) scope: Scope,
}

impl Default for Retry {
    fn default() -> Retry {
        let RetryPolicy { max_attempts, initial_interval, max_interval, multiplier, jitter, .. } =
            RetryPolicy::default();
        Retry {
            max_attempts: Attempts::Limited(max_attempts.into()),
            initial_interval: HumanDuration(initial_interval),
            max_interval: HumanDuration(max_interval),
            multiplier,
            jitter,
            max_record_age: None,
            on_exhausted: OnExhausted::default(),
            scope: Scope::default(),
        }
    }
}

/// What happens to an event that can't be handled.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum OnExhausted {
    /// It is published to the dead-letter topic, with the reason; its lane continues when the brokers acknowledge it.
    #[default]
    Dlq,
    /// It is skipped, and counted.
    Skip,
    /// The handler finishes its running calls, commits and leaves its group; no event is skipped.
    Stop,
}

/// Which events wait while an event is between two attempts.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Scope {
    /// The events of its lane.
    #[default]
    Key,
    /// The events of its partition: no new ones are processed until all events in progress are settled and committed.
    Partition,
}

/// Where events that can't be handled are published.
#[derive(Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct DeadLetters {
    /// The topic; `{topic}` is replaced by the name of the event's own topic.
    pub(super) topic: String,
    /// Format of the headers with the origin of the event and the reason.
    pub(super) headers: DeadLetterHeaders,
    /// If an event that was redriven this many times is dead-lettered again, an error is logged.
    #[schemars(range(min = *ranges::ALERT_AFTER_REDRIVES.start(), max = *ranges::ALERT_AFTER_REDRIVES.end()))]
    #[serde(deserialize_with = "scalar")]
    pub(super) alert_after_redrives: i64,
}

impl Default for DeadLetters {
    fn default() -> DeadLetters {
        DeadLetters {
            topic: "{topic}.dlq".to_owned(),
            headers: DeadLetterHeaders::default(),
            alert_after_redrives: 3,
        }
    }
}

/// Format of the headers of dead letters.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum DeadLetterHeaders {
    /// `keylane-…`, all of them text.
    #[default]
    Keylane,
    /// These, and `kafka_dlt-…` as Spring for Apache Kafka writes and reads them.
    Spring,
}
