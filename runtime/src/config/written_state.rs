//! Keyed state, as written.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration::HumanDuration;
use super::forget_after::ForgetAfter;
use super::rules::ranges;
use super::scalar::scalar;
use super::size::HumanSize;

/// The state that the handler keeps for each lane key. Needs `delivery = "transactional"`, and a component that exports
/// `keyed-handler` or `batch-handler`.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct State {
    /// Maximum size of the state of one key. A call that returns a larger one fails.
    pub(super) max_value: HumanSize,
    /// The version of the state's format, which is stored with each state. Raise it when older versions of the component
    /// can't read what this one writes: a process with a lower version then stops the partition instead of reading it.
    #[schemars(range(min = *ranges::STATE_VERSION.start(), max = *ranges::STATE_VERSION.end()))]
    #[serde(deserialize_with = "scalar")]
    pub(super) version: i64,
}

impl Default for State {
    fn default() -> State {
        State { max_value: HumanSize::from_kib(512), version: 1 }
    }
}

/// Where keyed state is stored: in a compacted topic, the changelog, and in files, which are a cache of it.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Keys {
    /// The changelog. `{group_id}` and `{topic}` are replaced by the group and by the input topic. It is created if it does
    /// not exist, with `cleanup.policy=compact` and the partitions of the input topic.
    pub(super) topic: String,
    /// Directory of the files. By default `keylane/state` in the user's directory for state: `$XDG_STATE_HOME`, or
    /// `~/.local/state`.
    pub(super) dir: Option<PathBuf>,
    /// Memory for states that were used recently.
    pub(super) cache: HumanSize,
    /// A file that was not up to date for longer than this is deleted, and the state is read from the changelog. At most
    /// half of the changelog's `delete.retention.ms`, after which deletions are removed from it.
    pub(super) keep_for: HumanDuration,
    /// A state that was not changed for longer than this is deleted. An event that only reads a state does not change it. By
    /// the clock of the process, with the time at which a state was committed.
    pub(super) forget_after: ForgetAfter,
}

impl Default for Keys {
    fn default() -> Keys {
        Keys {
            topic: "{group_id}.{topic}.keys".to_owned(),
            dir: None,
            cache: HumanSize::from_mib(64),
            keep_for: HumanDuration::from_secs(24 * 3600),
            forget_after: ForgetAfter::Never,
        }
    }
}
