//! The validated configuration of gates and of the detection of duplicates.

use keylane_core::{Consecutive, First, GateRule};

use super::event_field::EventField;
use super::written_gate::OrderFormat;

/// The gate of a handler.
#[derive(Clone, Debug)]
pub struct GateConfig {
    /// The rule and its settings.
    pub rule: keylane_core::GateConfig,
    /// The order value of an event.
    pub by: OrderBy,
    /// Whose values are compared with each other: the events of a lane with the same value here; `None`: those of a lane.
    pub key: Option<EventField>,
    /// Whether marks are kept in the changelog of the handler.
    pub durable: bool,
}

/// The order value of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OrderBy {
    /// The timestamp of the record, in nanoseconds since 1970.
    Timestamp,
    /// A field in a format. Times are nanoseconds since 1970.
    Field(EventField, OrderFormat),
}

impl GateConfig {
    /// Returns a text that determines what is remembered of keys: the rule, the order value and the gate key.
    #[must_use]
    pub fn description(&self) -> String {
        let rule = match self.rule.rule {
            GateRule::Consecutive(_) => "consecutive",
            GateRule::Newest(_) => "newest",
            GateRule::Window(_) => "window",
        };
        let by = match &self.by {
            OrderBy::Timestamp => "timestamp".to_owned(),
            OrderBy::Field(field, format) => format!("{field} as {format:?}"),
        };
        let key = self.key.as_ref().map_or(String::new(), |key| format!(", key {key}"));
        format!("gate {rule} by {by}{key}")
    }
}

/// The detection of duplicates.
#[derive(Clone, Debug)]
pub struct DuplicatesConfig {
    /// The id of an event.
    pub id: EventField,
    /// Which ids are remembered.
    pub limits: keylane_core::Duplicates,
}

/// What a handler remembers of keys.
#[derive(Clone, Debug)]
pub struct OrderConfig {
    /// The gate; `None`: events run in the order of their offsets.
    pub gate: Option<GateConfig>,
    /// The detection of duplicates; `None`: they are not detected.
    pub duplicates: Option<DuplicatesConfig>,
    /// Maximum bytes of what is remembered in memory.
    pub marks_memory: u64,
}

impl OrderConfig {
    /// Returns whether what a gate remembers is kept in the changelog of the handler.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.gate.as_ref().is_some_and(|gate| gate.durable)
    }

    /// Returns whether events have an order value or an id.
    #[must_use]
    pub fn is_used(&self) -> bool {
        self.gate.is_some() || self.duplicates.is_some()
    }
}

impl GateConfig {
    /// Returns the value with which a key begins, if it is configured: then the log must have all events of the key.
    #[must_use]
    pub fn first(&self) -> Option<i64> {
        let GateRule::Consecutive(Consecutive { first: First::At(first), .. }) = self.rule.rule else {
            return None;
        };
        Some(first)
    }
}
