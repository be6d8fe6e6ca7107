//! Which events a handler wants, as written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::scalar::maybe;

/// One rule of a filter: everything that it names must hold. The first rule that an event matches decides. Events
/// that match none are dropped if some rule keeps, and kept otherwise.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Rule {
    /// Its name in counters; by default its number, from 1 on.
    pub(super) name: Option<String>,
    /// Keep what matches (the default), or drop it.
    #[serde(deserialize_with = "maybe")]
    pub(super) keep: Option<bool>,
    /// The header that `equals`, `any_of`, `prefix` and `present` are about. Of several with this name the last one
    /// counts.
    pub(super) header: Option<String>,
    /// The header has this value.
    pub(super) equals: Option<String>,
    /// The header has one of these values.
    pub(super) any_of: Option<Vec<String>>,
    /// The header's value begins with this.
    pub(super) prefix: Option<String>,
    /// The header is there, or is not.
    #[serde(deserialize_with = "maybe")]
    pub(super) present: Option<bool>,
    /// The record's key begins with this.
    pub(super) key_prefix: Option<String>,
    /// The record has no value, or has one.
    #[serde(deserialize_with = "maybe")]
    pub(super) tombstone: Option<bool>,
}
