//! The filter of a handler, as written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::scalar::optional_scalar;

/// One rule of a filter. An event matches it if all its tests hold; the first matching rule decides. Events that match
/// no rule are dropped if any rule has `keep = true`, and kept otherwise.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Rule {
    /// The name of the rule in counters. By default its number, counted from 1.
    pub(super) name: Option<String>,
    /// `true` (the default): matching events are kept. `false`: they are dropped.
    #[serde(deserialize_with = "optional_scalar")]
    pub(super) keep: Option<bool>,
    /// The header that `equals`, `any_of`, `prefix` and `present` test. Of several headers with this name the last one is
    /// used.
    pub(super) header: Option<String>,
    /// The header has this value.
    pub(super) equals: Option<String>,
    /// The header has one of these values.
    pub(super) any_of: Option<Vec<String>>,
    /// The header's value starts with this.
    pub(super) prefix: Option<String>,
    /// `true`: the header is present. `false`: it is absent.
    #[serde(deserialize_with = "optional_scalar")]
    pub(super) present: Option<bool>,
    /// The record's key starts with this.
    pub(super) key_prefix: Option<String>,
    /// `true`: the record has no value. `false`: it has one.
    #[serde(deserialize_with = "optional_scalar")]
    pub(super) tombstone: Option<bool>,
}
